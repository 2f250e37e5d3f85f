"""Encode and decode: picture -> latents -> symbols -> stack -> file, and back."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from . import container, engine, modelfile, picture, ratecontrol
from . import steps as rates
from .ans import Stack
from .container import File, Header
from .engine import Engine
from .errors import FormatError, ModelError, UsageError
from .ladder import LAYERS
from .picture import Picture

DEFAULT_QUALITY = 50.0
# Near enough to a target, and growth per unit of quality on photographs.
SIZE_SLACK, SIZE_SLOPE = 0.01, 0.07  # log of bytes
PSNR_SLACK, PSNR_SLOPE = 0.05, 0.3  # dB
SMALLEST_GOAL, LARGEST_GOAL = 1e-6, 1e12  # of any lambda or target that can be meant


def _tiles(header: Header) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each tile."""
    side = header.tile or max(header.width, header.height)
    for top in range(0, header.height, side):
        for left in range(0, header.width, side):
            yield (
                slice(top, min(top + side, header.height)),
                slice(left, min(left + side, header.width)),
            )


class Encoder:
    """A picture to be coded at any steps, tile by tile."""

    def __init__(self, network: Engine, source: Picture) -> None:
        self.network, self.source = network, source
        height, width = source.rgb.shape[:2]
        self.header = Header(
            width,
            height,
            network.id,
            [],
            container.tile_size(width, height),
            colour=source.colour,
            metadata=source.metadata,
        )

    def encode(self, steps: list[int], decoded: np.ndarray | None = None) -> bytes:
        """The file at these steps; the picture it decodes to is left in `decoded`, if given."""
        columns = []
        for tile in _tiles(self.header):
            latents = self.network.analyse(self.source.rgb[tile])
            layers, found = self.network.encode(latents, steps)
            columns.append(_push(layers, self.network))
            if decoded is not None:
                height, width = decoded[tile].shape[:2]
                decoded[tile] = self.network.synthesise(found, steps, height, width)
        self.header.steps = steps
        return container.write(self.header, [s for layer in zip(*columns) for s in layer])

    def psnr(self, steps: list[int]) -> float:
        """PSNR in dB of the picture at these steps; infinite if it is exact."""
        decoded = np.empty_like(self.source.rgb)
        self.encode(steps, decoded)
        mse = np.square(decoded.astype(np.float32) - self.source.rgb).mean()
        return 10 * math.log10(255**2 / mse) if mse else math.inf


def _push(layers: list[list[engine.Pass]], network: Engine) -> list[bytes]:
    """One tile's symbols -> the words of its segments, coarse layer first."""
    stack = Stack()
    bottoms: list[int] = []  # words on the stack before each layer, coarse first
    for passes in reversed(layers):
        bottoms.insert(0, stack.words)
        for coded in reversed(passes):
            stack.push(coded.symbols, coded.index, network.tables)
    content = stack.content()
    total = len(content) // 4
    # The head (what is on top of the counted words) goes with the coarsest layer. A layer without
    # symbols takes no words.
    ends = [total - bottom for bottom in bottoms[:-1]] + [total]
    ends = [min(end, total) for end in ends]
    return [content[4 * a : 4 * b] for a, b in zip([0, *ends], ends)]


def encode(
    image: Image.Image | np.ndarray,
    quality: float | None = None,
    rate_weights: str | Mapping[str, float] | None = None,
    model: str | Path | None = None,
    *,
    lam: float | None = None,
    target_bpp: float | None = None,
    target_size: int | None = None,
    target_psnr: float | None = None,
    strip: bool = False,
) -> bytes:
    """Encode a picture as a `.hvc` file.

    At most one of quality, lam, target_bpp, target_size and target_psnr may be given.

    Args:
        image: PIL image, or uint8 array H x W x 3 (RGB) or H x W (grey).
        quality: 0..100, default 50; any float.
        rate_weights: a preset's name, or a mapping from layer name to beta (0.125..8, or inf to
            leave a layer out); the price of a bit in that layer, 1 by default.
        model: a shipped model's name or a model file; default: the shipped photo model.
        lam: lambda of the objective, in place of a quality: bits per pixel that one unit of squared
            error (8-bit units) is worth.
        target_bpp: bits per pixel of the whole file, not to be exceeded.
        target_size: bytes of the whole file, not to be exceeded.
        target_psnr: dB over R, G and B, approached from below where quality 0 is not above it.
        strip: leave out ICC, EXIF and XMP.

    Returns:
        The file's bytes.

    Raises:
        UsageError: an argument out of range, or a target out of reach.
        UnsupportedError, PictureError: see `picture.from_image`.
        ModelError: no such model.
    """
    goals = {
        "quality": quality,
        "lambda": lam,
        "target bpp": target_bpp,
        "target size": target_size,
        "target PSNR": target_psnr,
    }
    given = {name: value for name, value in goals.items() if value is not None}
    if len(given) > 1:
        raise UsageError(f"give only one of {', '.join(given)}")
    for name, value in given.items():
        if name != "quality" and not SMALLEST_GOAL <= value <= LARGEST_GOAL:
            raise UsageError(f"{name} must lie in {SMALLEST_GOAL:g}..{LARGEST_GOAL:g}")
    weights = rates.betas(rate_weights)
    encoder = Encoder(engine.load(modelfile.locate(model)), picture.from_image(image, strip))
    if lam is not None:
        return encoder.encode(rates.step_indices(lam, weights))

    def steps_at(q: float) -> list[int]:
        return rates.step_indices(rates.lambda_of_quality(q), weights)

    if target_bpp is not None:
        target_size = int(target_bpp * encoder.header.width * encoder.header.height / 8)
    if target_size is not None:
        goal = math.log(max(target_size, 1))
        found = ratecontrol.search(
            lambda q: math.log(len(encoder.encode(steps_at(q)))),
            goal,
            SIZE_SLACK,
            SIZE_SLOPE,
        )
        if found is None:
            least = len(encoder.encode(steps_at(0)))
            raise UsageError(f"the smallest file of this picture takes {least} bytes")
        quality = found
    elif target_psnr is not None:
        found = ratecontrol.search(
            lambda q: encoder.psnr(steps_at(q)),
            target_psnr,
            PSNR_SLACK,
            PSNR_SLOPE,
        )
        # Even the coarsest file is better than asked for: it is also the smallest.
        quality = 0.0 if found is None else found
        if quality == 100 and (best := encoder.psnr(steps_at(100))) < target_psnr - PSNR_SLACK:
            raise UsageError(f"quality 100 reaches {best:.2f} dB on this picture")
    return encoder.encode(steps_at(DEFAULT_QUALITY if quality is None else quality))


def decode(data: bytes, layers: int | None = None, model: str | Path | None = None) -> Image.Image:
    """Decode a `.hvc` file, or a prefix of one that ends at a layer's end.

    Args:
        data: the file's bytes.
        layers: use only this many layers, coarse first; default: all that are there.
        model: a model file, for streams whose model is not shipped.

    Returns:
        The picture (mode RGB, L, RGBA or LA), with `icc_profile`, `exif` and `xmp` in its `info`.

    Raises:
        FormatError, UnsupportedError: see `container.read`; or damaged data.
        UsageError: more layers asked for than the file holds.
        ModelError: the model is not here, or not the one that the stream names.
    """
    file = container.read(data)
    if layers is None:
        layers = file.layers
    if not 1 <= layers <= file.layers:
        raise UsageError(f"the file holds layers 1 to {file.layers}")
    header = file.header
    if len(header.steps) != len(LAYERS):
        raise FormatError(f"the file has {len(header.steps)} layers, its model {len(LAYERS)}")
    network = engine.load(modelfile.locate(model, header.model_id))
    if network.id != header.model_id:
        raise ModelError(f"the stream needs model {header.model_id}, not {network.id}")
    rgb = np.empty((header.height, header.width, 3), np.uint8)
    for number, tile in enumerate(_tiles(header)):
        rgb[tile] = _decode_tile(file, number, rgb[tile].shape[:2], layers, network)
    return picture.to_image(Picture(rgb, header.colour, header.metadata))


def _decode_tile(
    file: File, number: int, shape: tuple[int, int], layers: int, network: Engine
) -> np.ndarray:
    """One tile from its first layers; uint8 H x W x 3."""
    steps = file.header.steps
    present = steps[:layers] + [rates.OFF] * (len(steps) - layers)
    stack = Stack(b"".join(file.segment(layer, number) for layer in range(layers)))
    found = network.decode(lambda _, index: stack.pop(index, network.tables), steps, present, *shape)
    if layers == len(steps) and not stack.empty:
        raise FormatError("the coded data do not fit the model")
    return network.synthesise(found, present, *shape)

"""Decode: file -> stack -> symbols -> latents -> picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from . import container, engine, modelfile, refinement, restoration, side_information, signs, tiles
from . import picture as pictures
from . import steps as rates
from .ans import Grid, Stack
from .container import Colour, File, Signs
from .engine import Engine, Found, Pop
from .errors import FormatError, ModelError, UsageError
from .exact import Array
from .ladder import LAYERS, LAYERS_PER_LEVEL, MAX_LEVELS, RATIO
from .lossless_tables import UNIT
from .picture import Picture
from .restoration import Restoration
from .tables import Index
from .transform import PLANES, REDUCTIONS


@dataclass
class Decoder:
    """A file that is to be decoded, as far as its layers go.

    Attributes:
        file: the file.
        network: the model that it names.
        restoration: the filter of the picture: that of the last layer that ends in one, of those that
            are there.
    """

    file: File
    network: Engine

    def __post_init__(self) -> None:
        self.restoration: Restoration | None = None
        self.steps = self.file.header.steps
        self.layers = min(self.file.layers, len(self.steps))
        self.tiles = tiles.tiles(self.file.header)
        self.filtered = [n for n in self.file.header.filtered if n < self.layers]
        if self.filtered:
            _, self.restoration = restoration.split(self.file.segment(self.filtered[-1], 0))

    def picture(self, region: tiles.Region | None = None) -> np.ndarray:
        """The picture or a region of it; uint8 H x W x 3."""
        if self.file.layers > self.layers:
            return self._exact(region)
        return tiles.picture(
            self.file.header, self.network, self._find, region, finish=self.restoration
        )

    def _exact(self, region: tiles.Region | None) -> np.ndarray:
        """The same from the lossless layer, which all pixels of a tile are needed for."""
        header, layer = self.file.header, self.network.lossless
        if layer is None:
            raise FormatError("the stream's model has no lossless layer")
        numbers, covered = tiles.touched(header, region)
        stacks: dict[int, Stack] = {}
        known = refinement.steps_of(self.steps, refinement.levels(self.steps), len(self.steps))

        def find(number: int) -> Found:
            stacks[number], found = self._descend(number)
            return found

        shown = tiles.picture(header, self.network, find, covered, UNIT)
        x, y = covered[:2]
        pixels = np.empty(shown.shape, np.uint8)
        for number in numbers:
            rows, columns = self.tiles[number]
            here = slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x)
            stack = stacks.pop(number)
            pixels[here] = layer.decode(stack, shown[here], known, header.colour == Colour.GREY)
            if not stack.empty:
                raise FormatError("the coded data do not fit the model")
        left, top, width, height = region or covered
        return pixels[top - y : top - y + height, left - x : left - x + width]

    def reduced(self, reduce: int) -> np.ndarray:
        """The picture `reduce` times smaller, one of `REDUCTIONS`; uint8 H x W x 3."""
        header = self.file.header
        if refinement.levels(self.steps):
            return np.asarray(Image.fromarray(self.picture()).reduce(reduce))
        rgb = np.empty((-(-header.height // reduce), -(-header.width // reduce), 3), np.uint8)
        for number, tile in enumerate(self.tiles):
            _, pop = self._stack(number)
            size = tiles.shape(tile)
            part = self.network.decode_reduced(pop, self.steps, self.layers, *size, reduce)
            top, left = (s.start // reduce for s in tile)
            rgb[top : top + part.shape[0], left : left + part.shape[1]] = part
        return rgb

    def latents(self) -> dict[str, Array]:
        """Values of the ladder's layers; see `latents`."""
        found: dict[str, list[Array]] = {la.name: [] for la in LAYERS}
        for number in range(len(self.tiles)):
            planes = self._find(number).features[..., :PLANES]
            for name, values in zip(found, self.network.network.transform.split(planes)):
                found[name].append(values)
        across = len({columns.start for _, columns in self.tiles})
        rows = range(0, len(self.tiles), across)
        return {
            name: np.concatenate([np.concatenate(parts[r : r + across], 1) for r in rows])
            for name, parts in found.items()
        }

    def _find(self, number: int) -> Found:
        """What the ladder ends with in a tile."""
        stack, found = self._descend(number)
        if self.layers == len(self.steps) and not (self.file.header.lossless or stack.empty):
            raise FormatError("the coded data do not fit the model")
        return found

    def _descend(self, number: int) -> tuple[Stack, Found]:
        """What is left of a tile's words, and what the ladder ends with."""
        stack, pop = self._stack(number)
        shape = tiles.shape(self.tiles[number])
        return stack, self.network.decode(pop, self.steps, self.layers, *shape)

    def _stack(self, number: int) -> tuple[Stack, Pop]:
        """The words of a tile, and what pops a pass of a layer off them."""
        words = [self.file.segment(layer, number) for layer in range(self.file.layers)]
        for layer in self.filtered if not number else ():
            words[layer], _ = restoration.split(words[layer])
        stack = Stack(b"".join(words))

        def pop(layer: int, index: Index, grid: Grid | None) -> Array:
            header = self.file.header
            hidden = header.signs if layer in header.saying else Signs.NONE
            if grid and header.bits_back:
                kinds = header.of_channels, hidden
                return side_information.pop(stack, index, grid, self.network.costs, *kinds)
            if hidden:
                return signs.pop(stack, index, self.network.tables)
            return stack.pop(index, self.network.tables)

        return stack, pop


def _open(
    data: bytes, layers: int | None, model: str | Path | None, partial: bool, max_pixels: int
) -> Decoder:
    """For arguments and errors see `decode`."""
    file = container.read(data, max_pixels, partial)
    if layers is not None:
        if not 1 <= layers <= file.layers:
            raise UsageError(f"the file holds layers 1 to {file.layers}")
        file.layers = layers
    header = file.header
    ladder, refinements = header.steps[: len(LAYERS)], header.steps[len(LAYERS) :]
    if (
        len(ladder) < len(LAYERS)
        or len(refinements) not in range(0, (MAX_LEVELS + 1) * LAYERS_PER_LEVEL, LAYERS_PER_LEVEL)
        or set(refinements) - {RATIO}
        or (refinements and rates.OFF in ladder)
        or min(ladder) < rates.INDEX_PER_LEVEL * refinement.levels(header.steps)
    ):
        raise FormatError("the file's layers are not those of this format")
    network = engine.load(modelfile.locate(model, header.model_id))
    if network.id != header.model_id:
        raise ModelError(f"the stream needs model {header.model_id}, not {network.id}")
    return Decoder(file, network)


def decode(
    data: bytes,
    layers: int | None = None,
    model: str | Path | None = None,
    *,
    region: tiles.Region | None = None,
    reduce: int = 1,
    partial: bool = False,
    max_pixels: int = container.DEFAULT_MAX_PIXELS,
) -> Image.Image:
    """Decode a `.hvc` file, or a prefix of one that ends at a layer's end.

    Args:
        data: the file's bytes.
        layers: use only this many layers, coarse first; default: all that are there.
        model: a model file, for streams whose model is not shipped.
        region: x, y, width and height in pixels of the part wanted; only tiles that it depends on are
            decoded. The pixels are those that the whole picture has there.
        reduce: 8, 16, 32 or 64 for a picture so many times smaller, both ways: of a balanced file only
            the coarsest layers are decoded then, which takes a fraction of the time.
        partial: take a file that ends anywhere, and use the layers that are whole.
        max_pixels: refuse larger pictures before anything is allocated for them; see `container.read`.

    Returns:
        The picture (mode RGB, L, RGBA or LA), with `icc_profile`, `exif` and `xmp` in its `info`.

    Raises:
        FormatError, UnsupportedError: see `container.read`; or damaged data.
        UsageError: more layers asked for than the file holds, a region outside the picture, or no such
            reduction.
        ModelError: the model is not here, or not the one that the stream names.
    """
    decoder = _open(data, layers, model, partial, max_pixels)
    header = decoder.file.header
    whole = header.width, header.height
    if reduce != 1:
        if reduce not in REDUCTIONS or region:
            raise UsageError(f"a whole picture can be reduced by {', '.join(map(str, REDUCTIONS))}")
        rgb = decoder.reduced(reduce)
        return pictures.to_image(Picture(rgb, header.colour, header.metadata), whole, reduce=reduce)
    rgb = decoder.picture(region)
    corner = region[:2] if region else (0, 0)
    return pictures.to_image(Picture(rgb, header.colour, header.metadata), whole, corner)


def latents(
    data: bytes,
    layers: int | None = None,
    model: str | Path | None = None,
    *,
    partial: bool = False,
    max_pixels: int = container.DEFAULT_MAX_PIXELS,
) -> dict[str, Array]:
    """The latents that a file holds, without the picture that they make.

    Args:
        data, layers, model, partial, max_pixels: see `decode`.

    Returns:
        For each layer of the ladder, `z7` to `z1`, its values in the units of 8-bit pixels under an
        orthonormal transform: float32, H / stride x W / stride x channels, with sides of the picture
        rounded up to multiples of 64. Those of layers that are not there are what the others predict.

    Raises:
        HvcError: see `decode`.
    """
    return _open(data, layers, model, partial, max_pixels).latents()

"""Encode: picture -> latents -> symbols -> stack -> file."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

from . import (
    container,
    engine,
    modelfile,
    picture,
    ratecontrol,
    refinement,
    side_information,
    signs,
    tiles,
    tuning,
)
from . import steps as rates
from .ans import Pass, Stack
from .container import Colour, Filters, Header, Signs
from .decoder import Decoder
from .engine import Engine, pad
from .errors import ModelError, UnsupportedError, UsageError, need_torch
from .exact import Array
from .ladder import RATIO
from .lossless import levels_of
from .lossless_tables import UNIT
from .picture import Picture
from .ratecontrol import Setting
from .restoration import COMPONENTS, Restoration, fit
from .side_information import Costs

Progress = Callable[[float], None]

DEFAULT_QUALITY = 50.0
# Of the lossy part of a lossless file, where the whole is smallest: 0.6 % more at 58 and 77
# (docs/training-log.md).
LOSSLESS_QUALITY = 68.0
SMALLEST_GOAL, LARGEST_GOAL = 1e-6, 1e12  # of any lambda or target that can be meant

SURE = 4096  # bytes, from which side information with signs always pays
WINDOW = 256  # side of what a filter is fitted to in each of many tiles, pixels

# Rounds of the search (`effort.py`) at each effort; the first is about the plain latents.
EFFORTS = (0, 3, 5, 8, 12, 18, 27, 40, 60, 100)
EFFORT_ROUNDS = 3  # searches at most, to meet a target with effort


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of two uint8 arrays; infinite if they are equal."""
    mse = np.square(a.astype(np.float32) - b).mean()
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def _round(number: int) -> tuple[float, float]:
    """Which part of the work one of several searches is, if all are needed."""
    return number / EFFORT_ROUNDS, (number + 1) / EFFORT_ROUNDS


@dataclass
class Encoder:
    """A picture to be coded at any lambda, tile by tile.

    Attributes:
        network: the model.
        source: the picture.
        weights: rate weight per layer.
        tune: what squared errors are worth where, see `tuning.py`.
        effort: 0..9.
        progress: called with the share of the work done, 0..1, during a search.
        lossless: end the file in the picture itself.
        bits_back: use side information where it pays, and signs in syndromes.
    """

    network: Engine
    source: Picture
    weights: list[float]
    tune: str = "psnr"
    effort: int = 0
    progress: Progress = field(default=lambda share: None)
    lossless: bool = False
    bits_back: bool = True

    def __post_init__(self) -> None:
        height, width = self.source.rgb.shape[:2]
        self.header = Header(
            width,
            height,
            self.network.id,
            [],
            container.tile_size(width, height),
            colour=self.source.colour,
            metadata=self.source.metadata,
            lossless=self.lossless,
        )
        self.tiles = tiles.tiles(self.header)
        logs = [tuning.log_importance(pad(self.source.rgb[t]), self.tune) for t in self.tiles]
        mean = sum(float(t.sum()) for t in logs) / sum(t.size for t in logs)
        self.importances = [tuning.importance(t, mean) for t in logs]
        for tile, importance in zip(self.tiles, self.importances):
            tuning.stress_borders(importance, tile, (height, width))
        self.windows = self._windows()

    def _windows(self) -> dict[int, tiles.Tile]:
        """By tiles' numbers what a filter is fitted to: all of a picture that is one tile, else the
        middle of each tile, if nothing that the pixels there depend on lies in others."""
        if len(self.tiles) == 1:
            return {0: self.tiles[0]}
        found = {}
        for number, tile in enumerate(self.tiles):
            margins = [(part.stop - part.start - WINDOW) // 2 for part in tile]
            if min(margins) >= tiles.STRIDE * self.network.network.halo:
                starts = [part.start + margin for part, margin in zip(tile, margins)]
                rows, columns = (slice(start, start + WINDOW) for start in starts)
                found[number] = rows, columns
        return found

    def encode(self, lam: float, thrift: float = 1.0, decoded: np.ndarray | None = None) -> bytes:
        """The file at this lambda without effort; what it decodes to, without a lossless layer, is left
        in `decoded`, if given.

        Args:
            thrift: see `tuning.worth`.
        """
        return self._encode(lam, thrift, self._latents, decoded)

    def encode_with_effort(
        self, lam: float, thrift: float = 1.0, part: tuple[float, float] = (0.0, 1.0)
    ) -> bytes:
        """The file at this lambda, its symbols searched for; of the same objective or better.

        Args:
            part: of all the work that this is, from and to which share.
        """
        if not self.effort:
            return self.encode(lam, thrift)

        def search(number: int, steps: list[int]) -> list[list[Array]]:
            def advance(share: float) -> None:
                whole = (number + share) / len(self.tiles)
                self.progress(part[0] + (part[1] - part[0]) * whole)

            return self._search(number, steps, lam, thrift, advance)

        found = np.empty_like(self.source.rgb)
        best, least = b"", math.inf
        for latents in (search, self._latents):
            data = self._encode(lam, thrift, latents, found)
            cost = self._cost(data, found, lam, thrift)
            if cost < least:
                best, least = data, cost
        return best

    def _latents(self, number: int, steps: list[int]) -> list[list[Array]]:
        return self.network.analyse(self.source.rgb, steps, self.tiles[number])

    def _encode(
        self,
        lam: float,
        thrift: float,
        latents: Callable[[int, list[int]], list[list[Array]]],
        decoded: np.ndarray | None,
    ) -> bytes:
        """The file of some latents, which are given by the tile's number and the steps."""
        steps = rates.step_indices(lam, self.weights)
        levels = refinement.levels(steps)
        known = refinement.steps_of(steps, levels, len(steps))
        plain: list[list[bytes]] = []  # per tile, segments
        saving: list[list[bytes]] = []  # the same with side information
        waiting: list[list[list[Pass]]] = []  # the lossless layer lies under the others on the stack
        written: list[Future[None]] = []
        earlier: list[list[Array]] = [[] for _ in range(levels - 1)]  # windows, at the ends of levels

        def find(number: int) -> engine.Found:
            worth = tuning.worth(self.importances[number], thrift, levels)
            encoded = self.network.encode(
                latents(number, steps), steps, self.weights, worth, self.bits_back
            )
            if self.lossless:
                waiting.append(encoded.layers)
            else:
                written.append(writer.submit(write, encoded.layers))
                for end, parts in zip(encoded.found[1:], earlier):
                    parts.extend(self._in_window(number, end))
            return encoded.found[-1]

        def write(layers: list[list[Pass]]) -> None:
            if self.bits_back:
                saving.append(push(layers, self.network.costs))
            if not self.bits_back or _size(saving) < SURE:
                plain.append(push(layers))

        # Words are made beside pixels, which do not keep all cores busy all the time.
        with ThreadPoolExecutor(1) as writer:
            restoration = None
            if self.network.lossless and self.lossless:
                shown = tiles.picture(self.header, self.network, find, unit=UNIT)
                grey = self.source.colour == Colour.GREY
                for tile, layers in zip(self.tiles, waiting):
                    own = self.network.lossless.encode(self.source.rgb[tile], shown[tile], known, grey)
                    write([*layers, own])
                if decoded is not None:
                    # What the layers above decode to: their objective is that of a lossy file.
                    decoded[...] = levels_of(shown)
            elif decoded is not None:
                shown = tiles.picture(self.header, self.network, find, unit=UNIT)
                restoration = self._fit(
                    [shown[window] for window in self.windows.values()], lam / thrift
                )
                if restoration:
                    decoded[...] = restoration.apply(shown)
            else:
                parts = []
                for number in range(len(self.tiles)):
                    parts.extend(self._in_window(number, find(number)))
                restoration = self._fit(parts, lam / thrift)
            for job in written:
                job.result()
        self.header.steps = steps
        surely = len(saving) > len(plain)
        self.header.bits_back = surely or (bool(saving) and _size(saving) < _size(plain))
        self.header.of_channels = self.header.bits_back
        self.header.signs = Signs.SYNDROMES if self.header.bits_back else Signs.NONE
        columns = saving if self.header.bits_back else plain
        # Each at the lambda that the level's steps are for.
        filters = [
            self._fit(parts, lam / thrift / RATIO ** (2 * (levels - level)))
            for level, parts in enumerate(earlier, 1)
        ]
        filters.append(restoration)
        self.header.filters = Filters.NONE
        if any(filters):
            self.header.filters = Filters.LEVELS if levels else Filters.LAST
        for layer, filter_ in zip(self.header.filtered, filters):
            columns[0][layer] += (filter_ or Restoration([None] * len(COMPONENTS))).pack()
        data = container.write(self.header, [s for layer in zip(*columns) for s in layer])
        if decoded is not None and not self.lossless and not restoration:
            # Sixteenths say too little of how a pixel is rounded.
            decoded[...] = Decoder(container.read(data), self.network).picture()
        return data

    def _in_window(self, number: int, found: engine.Found) -> list[Array]:
        """What is decoded in a tile's window, if it has one; sixteenths of grey levels."""
        if number not in self.windows:
            return []
        region = _region(self.windows[number])
        return [tiles.picture(self.header, self.network, {number: found}.__getitem__, region, UNIT)]

    def _fit(self, shown: list[Array], lam: float) -> Restoration | None:
        """The filter that `windows` ask for.

        Args:
            shown: what is decoded there, sixteenths of grey levels.
        """
        originals = [self.source.rgb[window] for window in self.windows.values()]
        fitted = sum(original.size for original in originals)
        # It takes bits of the last layer, whatever that costs.
        price = self.weights[-1] if math.isfinite(self.weights[-1]) else 1.0
        worth = lam / 3 / price * self.source.rgb.size / max(fitted, 1)
        return fit(list(zip(shown, originals)), worth)

    def _cost(self, data: bytes, decoded: np.ndarray, lam: float, thrift: float) -> float:
        """J of a file, in bits."""
        sizes = np.reshape(container.read(data).header.lengths, (-1, len(self.tiles))).sum(1)
        # The coder's last words are in the first segment even if its layer is off.
        cost = sum(n * (beta if math.isfinite(beta) else 1.0) for beta, n in zip(self.weights, sizes))
        error = 0.0
        for tile, importance in zip(self.tiles, self.importances):
            difference = decoded[tile].astype(np.float32) - self.source.rgb[tile]
            here = tuning.at_pixels(importance, *difference.shape[:2])
            error += float((np.square(difference).sum(2) * here).sum())
        return 8 * cost + lam / thrift / 3 * error

    def _search(
        self, number: int, steps: list[int], lam: float, thrift: float, progress: Progress
    ) -> list[list[Array]]:
        """Latents of one tile after a search."""
        from . import effort as searching
        from .model import model_of

        importance = self.importances[number]
        *earlier, last = self._latents(number, steps)
        worth = tuning.worth(importance, thrift, refinement.levels(steps))
        before = self.network.encode(earlier, steps, self.weights, worth)
        pixels = pad(self.source.rgb[self.tiles[number]])
        goal = searching.Goal(model_of(self.network.path), steps, self.weights, lam, thrift)
        rounds = EFFORTS[self.effort]
        runs = len(searching.windows(*pixels.shape[:2])) * rounds
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            progress(done / runs)

        best, least = last, math.inf
        for turn in range(rounds):
            there = self.network.encode([last], steps, self.weights, worth, self.bits_back, before)
            values = self.network.values(there.found[-1])
            cost, aims = searching.aims(goal, pixels, importance, before.memory, values, advance)
            cost -= sum(
                beta * len(coded.signs.at(coded.symbols, len(signs.EIGHTHS)))
                for beta, passes in zip(self.weights, there.layers)
                for coded in passes
                if coded.signs
            )
            if cost < least:
                best, least = last, cost
            share = np.float32(max(2 / (turn + 3), searching.LEAST_SHARE))
            last = [y + share * (aim - y) for y, aim in zip(last, aims)]
        return [*earlier, best]

    def within(self, size: int) -> bytes:
        """The largest file of at most this many bytes.

        Raises:
            UsageError: there is none.
        """

        tried: dict[Setting, bytes] = {}

        def measure(at: Setting) -> float:
            if at not in tried:
                tried[at] = self.encode(rates.lambda_of_quality(at.quality), 2**at.log2_thrift)
            return math.log(len(tried[at]))

        def search(goal: float) -> Setting | None:
            return ratecontrol.search(measure, goal, ratecontrol.LOG_SIZE)

        goal = log_size = math.log(max(size, 1))
        plain = search(goal)
        if plain is None:
            least = min(map(len, tried.values()))
            raise UsageError(f"the smallest file of this picture takes {least} bytes")
        best = tried[plain]
        for number in range(EFFORT_ROUNDS if self.effort else 0):
            at = search(goal)
            if at is None:
                break
            data = self.encode_with_effort(
                rates.lambda_of_quality(at.quality), 2**at.log2_thrift, _round(number)
            )
            over = math.log(len(data)) - log_size
            if over <= 0:
                best = data
                self.progress(1.0)
                break
            # Effort changes sizes a little: aim so much lower.
            goal -= over + ratecontrol.LOG_SIZE.slack / 3
        return best

    def reaching(self, psnr: float) -> bytes:
        """The file whose PSNR comes closest to this one from below, or that of quality 0.

        Raises:
            UsageError: quality 100 does not reach it.
        """

        tried: dict[Setting, tuple[bytes, float]] = {}

        def measure(at: Setting) -> float:
            if at not in tried:
                decoded = np.empty_like(self.source.rgb)
                lam = rates.lambda_of_quality(at.quality)
                data = self.encode(lam, 2**at.log2_thrift, decoded)
                tried[at] = data, _psnr(self.source.rgb, decoded)
            return tried[at][1]

        def search(goal: float) -> Setting:
            found = ratecontrol.search(measure, goal, ratecontrol.PSNR)
            # Even the coarsest file is better than asked for: it is also the smallest.
            return found or Setting(0.0)

        goal, plain = psnr, search(psnr)
        best, reached = tried[plain]
        if plain == Setting(100.0) and reached < psnr - ratecontrol.PSNR.slack:
            raise UsageError(f"quality 100 reaches {reached:.2f} dB on this picture")
        for number in range(EFFORT_ROUNDS if self.effort else 0):
            at = search(goal)
            data = self.encode_with_effort(
                rates.lambda_of_quality(at.quality), 2**at.log2_thrift, _round(number)
            )
            decoded = Decoder(container.read(data), self.network).picture()
            reached = _psnr(self.source.rgb, decoded)
            if reached <= psnr or at == Setting(0.0):
                best = data
                self.progress(1.0)
                break
            # Effort brings quality for the same bits: ask for so much less.
            goal -= reached - psnr + ratecontrol.PSNR.slack / 3
        return best


def _region(window: tiles.Tile) -> tiles.Region:
    rows, columns = window
    height, width = tiles.shape(window)
    return columns.start, rows.start, width, height


def _size(columns: list[list[bytes]]) -> int:
    return sum(len(segment) for segments in columns for segment in segments)


def push(layers: list[list[Pass]], costs: Costs | None = None) -> list[bytes]:
    """One tile's symbols -> the words of its segments, coarse layer first.

    Args:
        costs: for passes of the ladder with side information.
    """
    stack = Stack()
    # Per layer, coarse first, the words that a decoder can leave on the stack: those that were there
    # before it, less what it took out on loan.
    bottoms: list[int] = []
    for passes in reversed(layers):
        bottom = stack.words
        for coded in reversed(passes):
            if costs is None or not (coded.grid or coded.signs):
                stack.push(coded.symbols, coded.index, coded.tables)
                continue
            if coded.grid:
                stack, least = side_information.push(stack, coded, costs)
            else:
                stack, least = signs.push(stack, coded)
            bottom = min(bottom, least)
        bottoms.insert(0, bottom)
    content = stack.content()
    total = len(content) // 4
    # The head (what is on top of the counted words) goes with the coarsest layer. A layer without
    # symbols takes no words, nor one whose words a layer above had to borrow.
    ends = [total - bottom for bottom in bottoms[:-1]] + [total]
    ends = list(accumulate((min(end, total) for end in ends), max))
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
    effort: int = 0,
    tune: str = "psnr",
    strip: bool = False,
    lossless: bool = False,
    bits_back: bool = True,
    progress: Progress | None = None,
) -> bytes:
    """Encode a picture as a `.hvc` file.

    At most one of quality, lam, target_bpp, target_size and target_psnr may be given.

    Args:
        image: PIL image, or uint8 array H x W x 3 (RGB) or H x W (grey).
        quality: 0..100, default 50; any float.
        rate_weights: a preset's name, or a mapping from layer name to beta (0.125..8, or inf to
            leave a layer out), the price of a bit in that layer, 1 by default; see `steps.betas`.
        model: a shipped model's name or a model file; default: the shipped photo model.
        lam: lambda of the objective, in place of a quality: bits per pixel that one unit of squared
            error (8-bit units) is worth.
        target_bpp: bits per pixel of the whole file, not to be exceeded.
        target_size: bytes of the whole file, not to be exceeded.
        target_psnr: dB over R, G and B, approached from below where quality 0 is not above it.
        effort: 0..9; above 0 the encoder searches for symbols of a smaller J, the longer the higher.
        tune: "psnr", or "ms-ssim" for eyes: bits go where this measure, which counts errors for less
            where a picture is busy, says that they are seen.
        strip: leave out ICC, EXIF and XMP.
        lossless: end the file in the exact pixels. The layers above are a lossy file of the given
            quality, 68 by default, where the whole is smallest; a target cannot be given.
        bits_back: use side information with bits-back where it makes the file smaller, and signs in
            syndromes.
        progress: called now and then during a search, with the share of it that is done, 0..1.

    Returns:
        The file's bytes.

    Raises:
        UsageError: an argument out of range, or a target out of reach.
        UnsupportedError, PictureError: see `picture.from_image`.
        ModelError: no such model, or none with a lossless layer.
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
    if type(effort) is not int or effort not in range(len(EFFORTS)):
        raise UsageError(f"effort must be a whole number 0..{len(EFFORTS) - 1}, not {effort}")
    if effort:
        need_torch("effort")
    if tune not in tuning.TUNINGS:
        raise UsageError(f"no tuning {tune!r}; there are {', '.join(tuning.TUNINGS)}")
    if lossless and given and not {"quality", "lambda"} & set(given):
        raise UsageError(f"a lossless file has the size that it needs: give no {min(given)}")
    network = engine.load(modelfile.locate(model))
    if lossless and network.lossless is None:
        raise ModelError("this model has no lossless layer")
    source = picture.from_image(image, strip)
    if lossless and source.converted:
        raise UnsupportedError(f"a {source.converted} picture is coded as RGB, so not without loss")
    encoder = Encoder(
        network,
        source,
        rates.betas(rate_weights),
        tune,
        effort,
        progress or (lambda share: None),
        lossless,
        bits_back,
    )
    if target_bpp is not None:
        target_size = int(target_bpp * encoder.header.width * encoder.header.height / 8)
    if target_size is not None:
        return encoder.within(target_size)
    if target_psnr is not None:
        return encoder.reaching(target_psnr)
    if lam is None:
        usual = LOSSLESS_QUALITY if lossless else DEFAULT_QUALITY
        lam = rates.lambda_of_quality(usual if quality is None else quality)
    return encoder.encode_with_effort(lam)

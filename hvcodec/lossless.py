"""The lossless layer: the picture's own pixels, given the picture that all layers above decode to.

It lies at the bottom of the stack, so a file that is cut before it is a lossy file. A small network at
stride 2 sees the decoded picture in sixteenths of a grey level, and goes over the positions of every
2x2 pixels in four passes, of which each sees the pixels of those before it. In a pass green comes
first, then red, then blue: mean and scale of a colour are corrected by what the ones before it turned
out to be, and then by what the encoder found out about this picture (`correction.py`). Pixels are coded
as differences to the decoded ones (`lossless_tables.py`).

It depends on the decoded picture and the known steps only, not on the network that made them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np

from . import exact
from .ans import Pass, Stack
from .correction import Correction, corrected, fitted, neighbours
from .errors import FormatError, ModelError
from .exact import Array
from .lossless_tables import (
    HIGHEST,
    LOWEST,
    MEAN_MAX,
    SCALES_PER_OCTAVE,
    SHAPES,
    UNIT,
    Predicted,
    Tables,
)
from .network import Block, Parts, Product, conditions, unshuffle
from .parallel import single_threaded_blas
from .tables import Index

# What follows holds for training too (`lossless_model.py`).
POSITIONS = ((0, 0), (1, 1), (0, 1), (1, 0))  # row and column of the pixel of each pass
COLOURS = (1, 0, 2)  # in the order in which they are coded
OUTPUTS = 15  # of a head, see `_colours`
MEAN_UNIT = 4  # grey levels per unit of the head's output
SCALE_SHIFT = 1.0  # log2 of the scale of a head that says nothing
SURPRISE_UNIT = 0.25
SURPRISE_MAX = 6.0
# What an error in one colour means for the next ones, to begin with: (from, to, share).
SHARES = ((0, 1, 0.8), (0, 2, 0.4), (1, 2, 0.4))

# Corrections are coded like differences, around zero, with these scales: log2, in units.
HEAD_SCALE, SHARE_SCALE = -1, 3


def _plain(count: int, log2_scale: int) -> Index:
    """Tables of numbers around zero."""
    level = np.full(count, (log2_scale - LOWEST) * SCALES_PER_OCTAVE, np.int32)
    return Predicted(np.zeros_like(level), level, np.full_like(level, SHAPES - 1)).coding()[0]


class Exchange(Protocol):
    """The coder's side of a tile."""

    def correction(self, p: int, colour: int, predicted: Predicted, known: list[Array]) -> Correction:
        """The correction of a colour of a pass; for the arguments see `correction.fitted`."""

    def differences(self, p: int, colour: int, predicted: Predicted) -> Array:
        """Its pixels minus the nearest decoded levels, int32."""


class Writer:
    """What has to be coded of a tile.

    Attributes:
        passes: of which.
    """

    def __init__(self, below: Array, tables: Tables) -> None:
        """Args: pixels minus nearest decoded levels, int16 H x W x 3."""
        self.passes: list[Pass] = []
        self._below, self._tables = below, tables

    def _add(self, symbols: Array, index: Index) -> None:
        self.passes.append(Pass(symbols.astype(np.int32).ravel(), index, self._tables))

    def _differences(self, p: int, colour: int) -> Array:
        i, j = POSITIONS[p]
        return self._below[i::2, j::2, colour].astype(np.int32)

    def correction(self, p: int, colour: int, predicted: Predicted, known: list[Array]) -> Correction:
        found = fitted(predicted, known, self._differences(p, colour), self._tables)
        self._add(np.array([found.octaves, bool(found.shares)]), _plain(2, HEAD_SCALE))
        if found.shares:
            self._add(np.array(found.shares), _plain(len(known), SHARE_SCALE))
        return found

    def differences(self, p: int, colour: int, predicted: Predicted) -> Array:
        index, whole, mirrored = predicted.coding()
        found = self._differences(p, colour)
        self._add(np.where(mirrored, whole - found, found - whole), index)
        return found


class Reader:
    """The inverse of `Writer`.

    Attributes:
        pixels: what was read, uint8 H x W x 3.
    """

    def __init__(self, levels: Array, tables: Tables, stack: Stack) -> None:
        """Args: nearest decoded levels, int16 H x W x 3; and what is left of the tile's words."""
        self.pixels = np.empty(levels.shape, np.uint8)
        self._levels, self._tables, self._stack = levels, tables, stack

    def _next(self, index: Index) -> Array:
        return self._stack.pop(index, self._tables)

    def correction(self, p: int, colour: int, predicted: Predicted, known: list[Array]) -> Correction:
        octaves, shared = self._next(_plain(2, HEAD_SCALE)).tolist()
        shares = self._next(_plain(len(known), SHARE_SCALE)).tolist() if shared else []
        return Correction(octaves, shares)

    def differences(self, p: int, colour: int, predicted: Predicted) -> Array:
        index, whole, mirrored = predicted.coding()
        symbols = self._next(index).reshape(whole.shape)
        found = np.where(mirrored, -symbols, symbols) + whole
        i, j = POSITIONS[p]
        value = self._levels[i::2, j::2, colour] + found
        if value.size and not 0 <= value.min() <= value.max() <= 255:
            raise FormatError("the coded data do not fit the model")
        self.pixels[i::2, j::2, colour] = value
        return found


class Lossless:
    """The network of the lossless layer.

    Attributes:
        tables: its probability tables.
    """

    def __init__(
        self, into: Product, passes: list[tuple[list[Block], Product, Product | None]], tail: Array
    ) -> None:
        self.into, self.passes, self.tables = into, passes, Tables(tail)

    def encode(self, pixels: Array, shown: Array, known: list[int], grey: bool) -> list[Pass]:
        """What has to be coded of a tile.

        Args:
            pixels: uint8 H x W x 3.
            shown: what is decoded without this layer, in units of 1/16; int16, of the same shape.
            known: steps that coefficients are known to.
            grey: all three colours are the same.
        """
        writer = Writer(pixels.astype(np.int16) - levels_of(shown), self.tables)
        self._run(shown, known, grey, writer)
        return writer.passes

    def decode(self, stack: Stack, shown: Array, known: list[int], grey: bool) -> Array:
        """The inverse of `encode`: pixels, uint8 H x W x 3.

        Args:
            stack: what is left of the tile's words.

        Raises:
            FormatError: symbols that cannot be.
        """
        reader = Reader(levels_of(shown), self.tables, stack)
        self._run(shown, known, grey, reader)
        return np.repeat(reader.pixels[..., COLOURS[:1]], 3, 2) if grey else reader.pixels

    def _run(self, shown: Array, known: list[int], grey: bool, exchange: Exchange) -> None:
        """All passes."""
        rows, columns = shown.shape[:2]
        even = np.pad(shown, ((0, rows % 2), (0, columns % 2), (0, 0)), mode="edge")
        levels = levels_of(even)
        fractions = (even - levels * np.int16(UNIT)).astype(np.float32) / UNIT
        seen = unshuffle(levels.astype(np.float32) - 128, 2) / 64
        condition = conditions(known)
        errors: list[list[Array]] = []  # of every pass and colour
        with single_threaded_blas():
            h = self.into(np.concatenate([seen, unshuffle(fractions, 2)], 2))
            for p, (blocks, head, absorb) in enumerate(self.passes):
                for block in blocks:
                    h = block(h, condition)
                i, j = POSITIONS[p]
                # Of an odd picture's last row or column there are no pixels at some positions.
                inside = slice(-(-(rows - i) // 2)), slice(-(-(columns - j) // 2))
                out, start = head(h)[inside], fractions[i::2, j::2][inside]
                found = np.zeros((*h.shape[:2], len(COLOURS)), np.float32)
                errors.append([])
                for k, (predicted, learn) in enumerate(self._colours(out, start)):
                    near = neighbours(errors, POSITIONS, inside)
                    correction = exchange.correction(p, COLOURS[k], predicted, near)
                    own = corrected(predicted, correction, near)
                    differences = exchange.differences(p, COLOURS[k], own)
                    found[inside][..., k] = differences
                    errors[p].append(np.zeros(h.shape[:2], np.float32))
                    errors[p][k][inside] = learn(differences)
                    if grey:  # what is left of the others follows from the first
                        here = levels[i::2, j::2][inside][..., COLOURS]
                        found[inside] = differences[..., None] + here[..., :1] - here
                        break
                if absorb is not None:
                    logs = exact.symlog2(found) / 2
                    h += absorb(np.concatenate([np.clip(found / 8, -8, 8), logs], 2))

    def _colours(
        self, out: Array, fractions: Array
    ) -> Iterator[tuple[Predicted, Callable[[Array], Array]]]:
        """For each colour of a pass its distributions, and what has to be told the differences before
        the next colour, and gives their errors."""
        mean, log2_scale = out[..., 0:3] * MEAN_UNIT, out[..., 3:6] + np.float32(SCALE_SHIFT)
        shapes = np.rint(np.clip(out[..., 6:9] + np.float32(0.5), 0, 1) * (SHAPES - 1)).astype(np.int32)
        errors: list[Array] = []
        surprises: list[Array] = []
        for k in range(len(COLOURS)):
            centre, size = mean[..., k] + fractions[..., COLOURS[k]], log2_scale[..., k]
            for n, (source, target, share) in enumerate(SHARES):
                if target == k:
                    centre = centre + (out[..., 9 + n] + np.float32(share)) * errors[source]
                    size = size + out[..., 12 + n] * np.float32(SURPRISE_UNIT) * surprises[source]
            sixteenths = np.rint(np.clip(centre, -MEAN_MAX, MEAN_MAX) * UNIT)
            level = np.rint((np.clip(size, LOWEST, HIGHEST) - LOWEST) * SCALES_PER_OCTAVE)

            def learn(
                differences: Array, sixteenths: Array = sixteenths, level: Array = level
            ) -> Array:
                error = differences.astype(np.float32) - sixteenths / UNIT
                scale = exact.exp2(level / SCALES_PER_OCTAVE + LOWEST)
                surprise = exact.log2(1 + np.abs(error) / scale)
                errors.append(error)
                surprises.append(np.minimum(surprise, np.float32(SURPRISE_MAX)))
                return error

            numbers = sixteenths.astype(np.int32), level.astype(np.int32)
            yield Predicted(*numbers, shapes[..., k]), learn


def levels_of(shown: Array) -> Array:
    """Nearest grey levels of pixels in sixteenths; int16."""
    return (shown + UNIT // 2) // UNIT


def load(tensors: Mapping[str, Array], name: str) -> Lossless | None:
    """The lossless layer of a model, None if it has none.

    Args:
        tensors: float32, by name.
        name: of the model's file.

    Raises:
        ModelError: tensors that do not fit.
    """
    if "exact.lossless" not in tensors:
        return None
    parts = Parts(tensors, tensors["exact.lossless"])
    try:
        into = parts.product("lossless.into")
        passes: list[tuple[list[Block], Product, Product | None]] = []
        for p in range(len(POSITIONS)):
            own = f"lossless.passes.{p}"
            count = sum(key.startswith(own) and key.endswith(".depthwise") for key in tensors)
            blocks, head = parts.blocks(own + ".blocks", count), parts.product(own + ".head")
            last = p == len(POSITIONS) - 1
            passes.append((blocks, head, None if last else parts.product(own + ".absorb")))
        parts.end()
        return Lossless(into, passes, tensors["lossless.tail"])
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"{name} does not fit this version of hvcodec: {error}") from None

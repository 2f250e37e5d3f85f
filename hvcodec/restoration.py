"""Restoration: a filter of the decoded picture that is made for this picture and sent with it.

The synthesis is right on average over all photographs. One photograph has been sharpened, another has
its chroma from a JPEG file at half the resolution, a third is a scan with grain, and what the decoder
shows of it is off in a way that a few numbers describe. So the encoder decodes, fits a small filter to
the original by least squares, and sends its weights at the end of the last layer, if they are worth
their bits by the file's own objective; a file that is cut does without.

A Wiener filter as in AV1 ("loop restoration"), in the shape of VVC's adaptive loop filters: taps in
pairs, symmetric about the pixel, on differences from the pixel, some of which are clipped, which
tells noise from edges (Taquet et al., "Non-linear adaptive loop filter", JVET-N0242, 2019), and across
colour components (Misra et al., "Cross-component adaptive loop filter for chroma", JVET-O0636, 2019).

All of it is whole numbers, so that every decoder finds the same pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from .errors import FormatError
from .exact import CAPACITY, Array
from .lossless_tables import UNIT
from .parallel import in_parallel, single_threaded_blas, strips

# Components of a picture, in sixteenths of a grey level: R + G + B and two of colour; orthogonal.
COMPONENTS = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]], np.float32)
SQUARES = (COMPONENTS**2).sum(1)
BACK = np.array([[2, 3, 1], [2, -3, 1], [2, 0, -2]])  # 6 times the inverse
SIXTH = 6

NEAR = ((0, 1), (1, -1), (1, 0), (1, 1), (0, 2), (2, 0))  # rows and columns away; and as far opposite
FAR = (*NEAR, (0, 3), (1, -2), (1, 2), (2, -1), (2, 1), (3, 0))
REACH = 3
# What there is to weigh: differences of a component, and clipped ones.
INPUTS = [*((0, d, False) for d in FAR), *((c, d, False) for c in (1, 2) for d in NEAR)]
INPUTS += [(c, d, True) for c in range(3) for d in NEAR]


def _used(own: int) -> list[int]:
    """Inputs that a component is corrected by: luma by its own, colours by what is near in all."""
    return [
        n for n, (c, d, clipped) in enumerate(INPUTS) if (c == own if clipped or not own else d in NEAR)
    ]


USED = [_used(own) for own in range(len(COMPONENTS))]
UNITS = (64, 128, 256, 512)  # weights per 1, one of these for each component
FINEST = UNITS[-1]
MOST = 685  # sum of the sizes of a component's weights: corrections fit into 32 bits
LIMITS = [math.isqrt(1 << n) for n in range(24)]  # of clipped differences
CLIP_AT = 1.5  # in root mean squared errors of the component
ENOUGH = 0.5  # of what errors are worth by the objective, to be sure that a filter pays
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)  # shares of the mean of the normal matrix's diagonal
LIMIT_BITS, UNIT_BITS, RICE_BITS = 5, 2, 3
WORD = 4  # bytes
STRIP = 1 << 16  # pixels worked on at a time: smaller parts only make threads wait for each other


class Weights(NamedTuple):
    """What a component is corrected by.

    Attributes:
        limit: which of `LIMITS` its differences are clipped to.
        unit: which of `UNITS` weights are in.
        weights: of its inputs (`USED`), int64.
    """

    limit: int
    unit: int
    weights: Array


@dataclass(frozen=True)
class Restoration:
    """A picture's filter.

    Attributes:
        components: what is done to each component; None where it is left alone.
    """

    components: list["Weights | None"]

    def apply(self, shown: Array) -> Array:
        """int16 H x W x 3 in sixteenths of a grey level, 0 .. 4080 -> uint8."""
        matrix = np.zeros((len(COMPONENTS), len(INPUTS)))
        back = BACK.astype(np.float64)
        limits = [found.limit if found else 0 for found in self.components]
        for own, found in enumerate(self.components):
            if found:
                matrix[own, USED[own]] = found.weights
                back[:, own] *= FINEST // UNITS[found.unit]
        wanted = np.flatnonzero(matrix.any(0)).tolist()
        matrix = matrix[:, wanted]
        # Corrections are whole numbers: float32 holds them if none is too large, as good as always.
        largest = np.abs(matrix) @ [_largest(n, limits) for n in wanted]
        matrix = matrix.astype(np.float32 if largest.max(initial=0) < CAPACITY else np.float64)
        restored = np.empty(shown.shape, np.uint8)
        scale = SIXTH * FINEST

        def work(top: int, inputs: Array) -> None:
            # Row by row: products of few numbers are faster. Of what follows float64 holds whole
            # numbers, and the floor of their quotient, exactly.
            after = back @ (matrix @ inputs.transpose(1, 0, 2))
            rows = slice(top, top + len(after))
            after += shown[rows].transpose(0, 2, 1) * float(scale)
            after += scale * UNIT // 2
            after /= scale * UNIT
            np.floor(after, out=after)
            restored[rows] = after.clip(0, 255, out=after).transpose(0, 2, 1)

        _over_strips(work, shown, limits, wanted)
        return restored

    def pack(self) -> bytes:
        """Whole words, the last byte of which says how many they are."""
        bits = []
        for found in self.components:
            if not found:
                bits.append("0")
                continue
            rice = _best_rice(found.weights)
            bits += ["1", f"{found.limit:0{LIMIT_BITS}b}", f"{found.unit:0{UNIT_BITS}b}"]
            bits.append(f"{rice:0{RICE_BITS}b}")
            for number in _folded(found.weights).tolist():
                bits += ["1" * (number >> rice), "0"]
                bits += [f"{number & (1 << rice) - 1:0{rice}b}"] if rice else []
        content = "".join(bits)
        words = -(-(len(content) + 8) // (8 * WORD))
        content = content.ljust(8 * (WORD * words - 1), "0")
        return int(content, 2).to_bytes(WORD * words - 1, "big") + bytes([words])


class _Bits:
    """Takes bits from the front of bytes; never past their end."""

    def __init__(self, data: bytes) -> None:
        self.left = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""

    def take(self, count: int) -> int:
        if count > len(self.left):
            raise FormatError("the restoration is damaged")
        taken, self.left = self.left[:count], self.left[count:]
        return int(taken, 2) if taken else 0

    def ones(self) -> int:
        """How many ones there are before the next zero, which is taken too."""
        count = self.left.find("0")
        if count < 0:
            raise FormatError("the restoration is damaged")
        self.left = self.left[count + 1 :]
        return count


def split(words: bytes) -> tuple[bytes, Restoration]:
    """The words of the segment that ends in a restoration: those before it, and the restoration.

    Raises:
        FormatError: it does not end in one.
    """
    size = WORD * words[-1] if words else 0
    if not 0 < size <= len(words):
        raise FormatError("the restoration is damaged")
    bits = _Bits(words[-size:-1])
    components: list[Weights | None] = []
    for used in USED:
        if not bits.take(1):
            components.append(None)
            continue
        limit, unit, rice = map(bits.take, (LIMIT_BITS, UNIT_BITS, RICE_BITS))
        folded = [(bits.ones() << rice) + bits.take(rice) for _ in used]
        weights = np.array([n // 2 if n % 2 == 0 else -(n + 1) // 2 for n in folded], np.int64)
        if limit >= len(LIMITS) or np.abs(weights).sum() > MOST:
            raise FormatError("the restoration is damaged")
        components.append(Weights(limit, unit, weights))
    if "1" in bits.left:
        raise FormatError("the restoration is damaged")
    return words[:-size], Restoration(components)


def _folded(weights: Array) -> Array:
    """Whole numbers 0, -1, 1, -2, .. -> 0, 1, 2, 3, .."""
    return np.where(weights < 0, -2 * weights - 1, 2 * weights)


def _rice_bits(weights: Array, rice: int) -> int:
    return int((_folded(weights) >> rice).sum()) + len(weights) * (1 + rice)


def _best_rice(weights: Array) -> int:
    return min(range(1 << RICE_BITS), key=lambda rice: _rice_bits(weights, rice))


def _largest(number: int, limits: list[int]) -> int:
    """What an input cannot be beyond, either way: sum of two differences."""
    c, _, clipped = INPUTS[number]
    difference = int(np.abs(COMPONENTS[c]).sum()) * 255 * UNIT
    return 2 * min(difference, LIMITS[limits[c]] if clipped else difference)


def _moved(plane: Array, rows: slice, columns: slice, i: int, j: int) -> Array:
    """A part of a plane, so many rows further down and columns to the right."""
    return plane[rows.start + i : rows.stop + i, columns.start + j : columns.stop + j]


def _over_strips(
    work: Callable[[int, Array], None], shown: Array, limits: list[int], wanted: Sequence[int]
) -> None:
    """Call work(first row, inputs) for strips: float32, `wanted` x rows x columns, whole numbers."""
    height, width = shown.shape[:2]

    def own(top: int, bottom: int) -> None:
        first, last = max(top - REACH, 0), min(bottom + REACH, height)
        planes = COMPONENTS @ shown[first:last].reshape(-1, 3).T.astype(np.float32)
        margins = (REACH - (top - first), REACH - (last - bottom)), (REACH, REACH)
        planes = np.pad(planes.reshape(3, last - first, width), ((0, 0), *margins), "edge")
        tall = bottom - top
        twice = 2 * planes[:, REACH : REACH + tall, REACH : REACH + width]
        inputs = np.empty((len(wanted), tall, width), np.float32)
        for out, number in zip(inputs, wanted):
            c, (i, j), clipped = INPUTS[number]
            if clipped:
                # A step to the pixel before is the step onwards from there: clip those that way only.
                left, right = max(j, 0), max(-j, 0)
                tops, lefts = slice(REACH - i, REACH + tall), slice(REACH - left, REACH + width + right)
                steps = _moved(planes[c], tops, lefts, i, j) - planes[c, tops, lefts]
                limit = np.float32(LIMITS[limits[c]])
                np.clip(steps, -limit, limit, out=steps)
                onwards, before = steps[i:, left:], steps[:tall, right:]
                np.subtract(onwards[:, :width], before[:, :width], out=out)
            else:
                here = slice(REACH, REACH + tall), slice(REACH, REACH + width)
                np.add(_moved(planes[c], *here, i, j), _moved(planes[c], *here, -i, -j), out=out)
                out -= twice[c]
        work(top, inputs)

    with single_threaded_blas():
        in_parallel(own, strips(height, width, STRIP))


def fit(windows: Sequence[tuple[Array, Array]], worth: float) -> Restoration | None:
    """The filter that is worth most.

    Args:
        windows: of the picture; what the decoder makes of each, int16 H x W x 3 in sixteenths of a grey
            level, and the original, uint8.
        worth: bits that a squared error of one grey level is worth, in one colour of one pixel of
            these windows.

    Returns:
        None if no filter is worth its bits.
    """
    if not windows:
        return None
    errors = [
        COMPONENTS @ (original.astype(np.float32) * UNIT - shown).reshape(-1, 3).T
        for shown, original in windows
    ]
    count = sum(e.shape[1] for e in errors)
    squares = sum(np.square(e).sum(1, dtype=np.float64) for e in errors) / count
    limits = [round(math.log2(max(CLIP_AT**2 * square, 1))) for square in squares.tolist()]
    limits = [min(limit, len(LIMITS) - 1) for limit in limits]
    sums = [_sums(shown, error, limits) for (shown, _), error in zip(windows, errors)]
    normal, right = (np.stack([s[k] for s in sums]).sum(0) for k in range(2))
    components = []
    for own, used in enumerate(USED):
        price = ENOUGH * worth / (float(SQUARES[own]) * UNIT**2)
        components.append(_best(normal[np.ix_(used, used)], right[used, own], price, limits[own]))
    return Restoration(components) if any(components) else None


def _sums(shown: Array, errors: Array, limits: list[int]) -> tuple[Array, Array]:
    """Sums over pixels of products of inputs, and of inputs and errors; float64."""
    strips: dict[int, tuple[Array, Array]] = {}

    def work(top: int, inputs: Array) -> None:
        inputs = inputs.reshape(len(inputs), -1)
        here = errors[:, top * shown.shape[1] :][:, : inputs.shape[1]]
        strips[top] = inputs @ inputs.T, inputs @ here.T

    _over_strips(work, shown, limits, range(len(INPUTS)))
    in_order = [strips[top] for top in sorted(strips)]  # or the number of threads would change the sums
    normal, right = (np.stack([s[k] for s in in_order]).sum(0, dtype=np.float64) for k in range(2))
    return normal, right


def _best(normal: Array, right: Array, price: float, limit: int) -> Weights | None:
    """The weights that are worth most, if any are.

    Args:
        normal, right: of the normal equations.
        price: bits that a squared error is worth.
    """
    best, most = None, 0.0
    for ridge, (unit, size) in product(RIDGES, enumerate(UNITS)):
        level = ridge * np.trace(normal) / len(right) + 1
        found = np.rint(np.linalg.solve(normal + level * np.eye(len(right)), right) * size)
        removed = (2 * right - normal @ found / size) @ found / size
        weights = found.astype(np.int64)
        bits = LIMIT_BITS + UNIT_BITS + RICE_BITS + _rice_bits(weights, _best_rice(weights))
        if np.abs(weights).sum() <= MOST and price * removed - bits > most:
            best, most = Weights(limit, unit, weights), price * removed - bits
    return best

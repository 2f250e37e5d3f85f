"""Signs that nothing is sent for: syndromes say them.

Coded symbols of a pass, in an order of places and at each place of channels, are dealt out to slices,
each about twice as large as the one before. The parities of a slice's symbols have a syndrome
(`trellis.py`), and its bits are the signs of the slice before. Where the encoder's symbols say
otherwise it moves some of them, each to its other neighbour, so that this costs least. It is those that
lie near the edges of their intervals; and the nearer, the more symbols can say the same bit. (A parity
for each group of symbols, as video codecs have it, "sign data hiding", Clare, Henry & Jung, JCTVC-G271,
2011, gains half as much.)

Signs are as likely one way as the other, so the bit can be had without leaving one out: the encoder
pops a bit off the stack, and pushes the symbol with that for a sign; the decoder, once it has the
syndrome, sets the sign and pushes the bit back (bits-back, as in `side_information.py`).
"""

from dataclasses import dataclass

import numpy as np

from . import trellis
from .ans import Grid, Tables
from .exact import Array
from .parallel import in_parallel, strips
from .tables import TOTAL, Index
from .trellis import KINDS, PATTERNS

EIGHTHS = np.array([0, 4, 1, 6, 2, 5, 3, 7])  # of the rows, by their number modulo 8
# Of the coded symbols' numbers, the first of each slice and how far apart they are.
SLICES = (0, 16), (8, 16), (4, 8), (2, 4), (1, 2)
# What a symbol counts, in 1/4096 of a group: half of the probability that it is not zero, a quarter at
# most, which is about in proportion to how often it lies near an edge of its interval.
GROUP_BITS = 12
PROBABILITY_SHIFT, MOST = 13, 1024  # of the probability in 2^-24
ABSENT = int(np.float32(np.inf).view(np.int32)) << 32


def eighths(row: Array) -> Array:
    """In which eighth of its rows each row of a pass is: eighths are from everywhere in it, and all as
    busy."""
    return EIGHTHS[row % 8]


@dataclass(frozen=True)
class Slice:
    """Some of the coded symbols of a pass.

    Attributes:
        position: in the pass, in order.
        eighth: of the pass's rows (`eighths`), rising.
        bounds: where groups begin among these, and the end of the last.
    """

    position: Array
    eighth: Array
    bounds: Array

    def nonzero(self, symbols: Array, eighths: int) -> Array:
        """Positions of symbols other than zero in the first eighths of the rows."""
        inside = self.position[: np.searchsorted(self.eighth, eighths)]
        return inside[symbols[inside] != 0]

    def groups(self, eighths: int) -> int:
        """How many groups lie in the first eighths of the rows."""
        return int(np.searchsorted(self.eighth[self.bounds[1:] - 1], eighths))

    def syndrome(self, symbols: Array, count: int) -> Array:
        """The first bits of it, one a group; int32."""
        own = symbols[self.position[: self.bounds[count]]]
        odd = np.zeros(-(-len(own) // KINDS) * KINDS, np.uint8)
        odd[: len(own)] = own & 1
        patterns = (odd.reshape(-1, KINDS) * PATTERNS).ravel()[: len(own)]
        sums = np.bitwise_xor.reduceat(patterns, self.bounds[:count])
        return trellis.syndrome(sums).astype(np.int32)


@dataclass(frozen=True)
class Slices:
    """The coded symbols of a pass.

    Attributes:
        position: of all of them in the pass, in order.
        parts: slices, small ones first.
    """

    position: Array
    parts: list[Slice]

    def said(self, symbols: Array, eighths: int) -> tuple[Array, Array]:
        """Of the symbols in the first eighths of the rows, where those are whose signs are said, and
        whether they are negative, int32."""
        positions, negative = [np.zeros(0, int)], [np.zeros(0, np.int32)]
        for before, own in zip(self.parts, self.parts[1:]):
            at = before.nonzero(symbols, eighths)
            count = min(len(at), own.groups(eighths))
            if count:
                positions.append(at[:count])
                negative.append(own.syndrome(symbols, count))
        return np.concatenate(positions), np.concatenate(negative)


def slices(index: Index, grid: Grid, tables: Tables) -> Slices:
    """Slices of a pass of the ladder, given its tables, flat."""
    area = grid.rows * grid.columns
    channels = len(index.table) // max(area, 1)
    order = np.argsort(eighths(np.arange(grid.rows)), kind="stable").astype(np.int32)
    coded = (~tables.silent).take(index.table).reshape(channels, *grid[1:])
    number = np.flatnonzero(coded[:, order].transpose(1, 2, 0)).astype(np.int32)  # divided faster
    place = number // channels
    number -= place * channels
    row = order[place // grid.columns]
    position = number * area + row * grid.columns + place % grid.columns
    eighth = eighths(row)
    each = np.minimum((TOTAL - tables.zeros) >> PROBABILITY_SHIFT, MOST).take(index.table[position])
    parts = []
    for first, step in SLICES:
        counts = np.cumsum(each[first::step], dtype=np.int64)
        count = int(counts[-1]) >> GROUP_BITS if len(counts) else 0
        ends = np.searchsorted(counts, np.arange(1, count + 1) << GROUP_BITS) + 1
        parts.append(Slice(position[first::step], eighth[first::step], np.concatenate([[0], ends])))
    return Slices(position, parts)


def agreeing(
    symbols: Array, found: Slices, target: Array, index: Index, worth: Array, tables: Tables
) -> Array:
    """Symbols whose syndromes say signs, from those that the encoder would choose.

    Args:
        symbols: int32, of the pass.
        target: in steps from the prior's mean.
        worth: bits that a squared error of one step is worth.
    """
    position = found.position
    now, wanted = symbols[position], target[position]
    then = np.empty_like(now)
    price = np.empty(len(now), np.float32)

    def work(start: int, stop: int) -> None:
        here = slice(start, stop)
        at = position[here]
        then[here] = now[here] + np.where(wanted[here] < now[here], -1, 1)
        size, other = np.abs(now[here]), np.abs(then[here])
        more = tables.saved(np.maximum(size, other), *index.at(at)) * (other - size)
        price[here] = worth[at] * (1 - 2 * np.abs(wanted[here] - now[here])) + more

    in_parallel(work, strips(len(now), 1))
    symbols = symbols.copy()
    for (first, step), before, own in zip(SLICES[1:], found.parts, found.parts[1:]):
        signs = symbols[before.position]
        negative = signs[signs != 0] < 0
        count = min(len(negative), len(own.bounds) - 1)
        if count:
            cheapest, prices = _cheapest(price[first::step], own.bounds[: count + 1])
            wrong = own.syndrome(symbols, count) != negative[:count]
            moved = cheapest[trellis.cheapest_changes(prices, wrong)]
            symbols[own.position[moved]] = then[first::step][moved]
    return symbols


def _cheapest(price: Array, bounds: Array) -> tuple[Array, Array]:
    """Of every group and kind which symbol is cheapest to move, and its price; infinite if none is
    there. All groups x kinds."""
    # Bits of floats that are not negative are ordered as they are; the number follows.
    keys = np.full(-(-bounds[-1] // KINDS) * KINDS, ABSENT)
    bits = np.maximum(price[: bounds[-1]], 0).view(np.int32)
    keys[: len(bits)] = bits.astype(np.int64) << 32 | np.arange(len(bits))
    least = np.empty((len(bounds) - 1, KINDS), np.int64)
    for kind, own in enumerate(keys.reshape(-1, KINDS).T.copy()):
        ends = (bounds + (KINDS - 1 - kind)) // KINDS
        there = ends[1:] > ends[:-1]
        least[:, kind] = ABSENT
        least[there, kind] = np.minimum.reduceat(own, ends[:-1][there])
    return least & 0xFFFFFFFF, (least >> 32).astype(np.int32).view(np.float32)

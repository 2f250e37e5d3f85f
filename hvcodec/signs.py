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
from .ans import Grid, Pass, Stack, Tables
from .exact import Array
from .parallel import in_parallel, strips
from .tables import ODDS, SYMBOL_TABLES, TABLES, TOTAL, Index
from .trellis import KINDS, PATTERNS

EIGHTHS = np.array([0, 4, 1, 6, 2, 5, 3, 7])  # of the rows, by their number modulo 8
# Of the coded symbols' numbers, the first of each slice and how far apart they are.
SLICES = (0, 16), (8, 16), (4, 8), (2, 4), (1, 2)
# What a symbol counts, in 1/4096 of a group: half of the probability that it is not zero, a quarter at
# most, which is about in proportion to how often it lies near an edge of its interval.
GROUP_BITS = 12
PROBABILITY_SHIFT, MOST = 13, 1024  # of the probability in 2^-24
MOST_OF_PARTS = 512  # of parts of windows: there is but one other that is near
RUN = 64  # coded symbols of a level of refinement that stand for a row
ABSENT = int(np.float32(np.inf).view(np.int32)) << 32


def eighths(row: Array) -> Array:
    """In which eighth of its rows each row of a pass is: eighths are from everywhere in it, and all as
    busy."""
    return EIGHTHS[row & 7]  # numpy is slow at remainders


@dataclass(frozen=True)
class Slice:
    """Some of the coded symbols of a pass.

    Attributes:
        position: in the pass, in order.
        eighth: of the pass's rows (`eighths`), rising.
        bounds: where groups begin among these, and the end of the last.
        fair: where signs are as likely one way as the other, if not everywhere.
    """

    position: Array
    eighth: Array
    bounds: Array
    fair: Array | None = None

    def signed(self, symbols: Array, eighths: int) -> Array:
        """Positions of symbols whose signs can be said, in the first eighths of the rows."""
        count = np.searchsorted(self.eighth, eighths)
        inside = self.position[:count]
        there = symbols[inside] != 0
        return inside[there if self.fair is None else there & self.fair[:count]]

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
        eighth: of the pass's rows, rising.
        parts: slices, small ones first.
    """

    position: Array
    eighth: Array
    parts: list[Slice]

    def divided(self, eighths: int) -> tuple[Array, Array]:
        """Positions in the first eighths of the rows, and others; each rising."""
        count = np.searchsorted(self.eighth, eighths)
        return np.sort(self.position[:count]), np.sort(self.position[count:])

    def _pairs(self, symbols: Array, eighths: int) -> list[tuple[Array, Slice]]:
        """Where symbols are whose signs are said, and the slice that says them."""
        pairs = []
        for before, own in zip(self.parts, self.parts[1:]):
            at = before.signed(symbols, eighths)[: own.groups(eighths)]
            if len(at):
                pairs.append((at, own))
        return pairs

    def at(self, symbols: Array, eighths: int) -> Array:
        """Of the symbols in the first eighths of the rows, where those are whose signs are said."""
        found = [at for at, _ in self._pairs(symbols, eighths)]
        return np.concatenate([np.zeros(0, int), *found])

    def said(self, symbols: Array, eighths: int) -> tuple[Array, Array]:
        """The same, and whether they are negative, int32."""
        pairs = self._pairs(symbols, eighths)
        positions = [at for at, _ in pairs]
        negative = [own.syndrome(symbols, len(at)) for at, own in pairs]
        return (
            np.concatenate([np.zeros(0, int), *positions]),
            np.concatenate([np.zeros(0, np.int32), *negative]),
        )


def slices(index: Index, grid: Grid, tables: Tables) -> Slices:
    """Slices of a pass of the ladder, given its tables, flat."""
    area = grid.rows * grid.columns
    channels = len(index.table) // max(area, 1)
    order = np.argsort(eighths(np.arange(grid.rows)), kind="stable").astype(np.int32)
    coded = (~tables.silent).take(index.table).reshape(channels, *grid[1:])
    number = np.flatnonzero(coded[:, order].transpose(1, 2, 0)).astype(np.int32)  # divided faster
    place = number // channels
    number -= place * channels
    rank = place // grid.columns
    place -= rank * grid.columns
    row = order[rank]
    position = number * area + row * grid.columns + place
    return _dealt_out(position, eighths(row), index.table[position], tables)


def slices_of_refinement(index: Index, tables: Tables) -> Slices:
    """Slices of a pass of the last level of refinement: rows are runs of its coded symbols."""
    coded = np.flatnonzero(~tables.silent[index.table])
    eighth = eighths(np.arange(len(coded)) // RUN)
    order = np.argsort(eighth, kind="stable")
    position = coded[order]
    table = index.table[position]
    down, up = np.divmod(table - SYMBOL_TABLES, ODDS)
    return _dealt_out(position, eighth[order], table, tables, (table < SYMBOL_TABLES) | (down == up))


def _dealt_out(
    position: Array, eighth: Array, table: Array, tables: Tables, fair: Array | None = None
) -> Slices:
    """Coded symbols in order, with their tables."""
    most = np.where(np.arange(TABLES) < SYMBOL_TABLES, MOST, MOST_OF_PARTS)
    each = np.minimum((TOTAL - tables.zeros) >> PROBABILITY_SHIFT, most).take(table)
    parts = []
    for first, step in SLICES:
        own = slice(first, None, step)
        counts = np.cumsum(each[own], dtype=np.int64)
        count = int(counts[-1]) >> GROUP_BITS if len(counts) else 0
        ends = np.searchsorted(counts, np.arange(1, count + 1) << GROUP_BITS) + 1
        bounds = np.concatenate([[0], ends])
        parts.append(Slice(position[own], eighth[own], bounds, None if fair is None else fair[own]))
    return Slices(position, eighth, parts)


def moves(
    symbols: Array, target: Array, index: Index, worth: Array, tables: Tables
) -> tuple[Array, Array]:
    """The other neighbours of symbols of the ladder, int32, and what it costs to move there, bits.

    Args:
        symbols: int32.
        target: in steps from the prior's mean.
        worth: bits that a squared error of one step is worth.
    """
    then = np.empty_like(symbols)
    price = np.empty(len(symbols), np.float32)

    def work(start: int, stop: int) -> None:
        here = slice(start, stop)
        now, wanted = symbols[here], target[here]
        then[here] = now + np.where(wanted < now, -1, 1)
        size, other = np.abs(now), np.abs(then[here])
        saved = tables.saved(np.maximum(size, other), index.table[here], index.shift[here])
        price[here] = worth[here] * (1 - 2 * np.abs(wanted - now)) + saved * (other - size)

    in_parallel(work, strips(len(symbols), 1))
    return then, price


def agreeing(symbols: Array, found: Slices, then: Array, price: Array) -> Array:
    """Symbols of a pass whose syndromes say signs, from those that the encoder would choose.

    Args:
        symbols: int32, of the pass.
        then, price: of the coded ones in order (`Slices.position`), what they may be instead, and what
            that costs.
    """
    symbols = symbols.copy()
    for (first, step), before, own in zip(SLICES[1:], found.parts, found.parts[1:]):
        negative = symbols[before.signed(symbols, len(EIGHTHS))] < 0
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


def draw(stack: Stack, symbols: Array, at: Array) -> None:
    """Let bits that are on the stack be the signs of the symbols at some positions."""
    symbols[at] = np.abs(symbols[at]) * (1 - 2 * stack.pop_bits(len(at)))


def give_back(stack: Stack, symbols: Array, at: Array, negative: Array) -> None:
    """The inverse of `draw`, given which of them are negative."""
    stack.push_bits((symbols[at] < 0).astype(np.int32))
    symbols[at] = np.abs(symbols[at]) * (1 - 2 * negative)


# How many eighths of a refinement pass's rows say signs, by its mode.
MODES = 8, 7, 6, 0


def push(stack: Stack, coded: Pass) -> tuple[Stack, int]:
    """Push a pass of the last level of refinement, which has signs.

    Returns:
        The stack, and the least number of words that it had meanwhile.
    """
    assert coded.signs is not None
    for eighths in MODES:
        inside, rest = coded.signs.divided(eighths)
        tried, symbols = stack.copy(), coded.symbols.copy()
        tried.push(symbols[rest], coded.index.at(rest), coded.tables)
        at = coded.signs.at(symbols, eighths)
        draw(tried, symbols, at)
        least = tried.words
        if least or not len(at):
            break
    tried.push(symbols[inside], coded.index.at(inside), coded.tables)
    tried.push_one(MODES.index(eighths), len(MODES))
    return tried, min(least, stack.words)


def pop(stack: Stack, index: Index, tables: Tables) -> Array:
    """The inverse of `push`: int32 symbols.

    Raises:
        FormatError: the words are not what a stack of these symbols can be.
    """
    found = slices_of_refinement(index, tables)
    eighths = MODES[stack.pop_one(len(MODES))]
    inside, rest = found.divided(eighths)
    symbols = np.zeros(index.table.shape, np.int32)
    symbols[inside] = stack.pop(index.at(inside), tables)
    give_back(stack, symbols, *found.said(symbols, eighths))
    symbols[rest] = stack.pop(index.at(rest), tables)
    return symbols

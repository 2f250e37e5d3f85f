"""Side information with bits-back: what the symbols of a pass have in common.

Given what is decoded, the symbols of a pass are independent under their priors. In truth the network
is too sure of itself at one place and too timid at the next, and so it is in one channel and another:
film has its grain, a screen shot has none. So symbols y share latents h, shifts of all their scales:
one for every region of every channel, one for every block of places. With a prior p(h) they have the
probability sum_h p(h) p(y | h), which is a Gaussian scale mixture's kin (Wainwright & Simoncelli,
"Scale mixtures of Gaussians and the statistics of natural images", 2000).

To send h would cost more than it brings. With bits-back (Townsend, Bird & Barber 2019; for side
information Yang, Bamler & Mandt, "Improving inference for neural image compression", 2020) it costs
nothing: the posterior q(h | y) depends only on what the decoder has by then, so the encoder draws h
with bits that already are on the stack, and the decoder puts them back:

    encoder   pop h by q(h | y),  push y by p(y | h),  push h by p(h)
    decoder   pop h by p(h),      pop y by p(y | h),   push h by q(h | y)

That takes -log2 of the mixture net, but for the rounding of costs, if q is the exact posterior: for
blocks it is, given the latents of channels; that of channels leaves blocks aside. The bits that h was
drawn with are a loan from the layers beneath, returned before the next pass, and so are those for
signs (`signs.py`). A pass with too little beneath goes without, or its last rows do.

Posteriors are made of integers and of float32 operations that are exact (`exact.py`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from . import exact, parities, signs
from .ans import Grid, Pass, Stack, Tables
from .container import Signs
from .exact import Array
from .ladder import luma
from .tables import (
    MAX_SHIFT,
    SCALES,
    SCALES_PER_OCTAVE,
    SHAPES,
    SYMBOL_TABLES,
    TOTAL,
    Index,
    index,
    prior_of,
)


class Latents(NamedTuple):
    """Latents of a kind.

    Attributes:
        shifts: of scales, in 1/8 octaves, int32.
        priors: of these in 1/256, one in each row, int32; fitted to photographs
            (docs/training-log.md), from priors of symbols that are nearly right to some that are off by
            much.
    """

    shifts: Array
    priors: Array


OF_BLOCKS = Latents(
    np.arange(-16, 17, 4, dtype=np.int32),
    np.array(
        [
            [2, 3, 5, 47, 174, 18, 5, 1, 1],
            [5, 8, 29, 87, 95, 24, 5, 2, 1],
            [7, 12, 25, 43, 66, 59, 31, 10, 3],
        ],
        np.int32,
    ),
)
OF_CHANNELS = Latents(
    np.arange(-8, 9, 2, dtype=np.int32),
    np.array([[1, 1, 7, 52, 152, 37, 4, 1, 1], [26, 17, 38, 58, 64, 28, 14, 7, 4]], np.int32),
)

COST_UNIT = 64  # costs per bit
MOST = 255  # symbols beyond cost as much
HIGHEST = SCALES - 1 + MAX_SHIFT * SCALES_PER_OCTAVE  # level of a scale
MARGIN = int(OF_BLOCKS.shifts[-1] + OF_CHANNELS.shifts[-1])
LEVELS = HIGHEST + 2 * MARGIN + 1  # that shifts lead to
LEAST_SAVED = 8.0  # bits that are worth the time
PAIR = float(1 << 26)  # what the second of two costs is counted in where both are summed at once


class Costs:
    """What the symbols of the ladder cost under a model's tables.

    Attributes:
        tables: these.
        floor: the lowest level of scales that is coded, per shape.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.floor = tables.silent[:SYMBOL_TABLES].reshape(SCALES, SHAPES).sum(0).astype(np.int32)

    @cached_property
    def _costs(self) -> Array:
        """In 1/64 bits, int32: by shape, size of the symbol, and level from -MARGIN on, so that what
        shifts of a scale cost is close together."""
        bits = np.empty((SYMBOL_TABLES, MOST + 1), np.float32)
        for row, counts, reach in zip(bits, self.tables.counts, self.tables.reaches.tolist()):
            own = exact.log2(np.float32(TOTAL) / counts[reach:].astype(np.float32))
            row[:] = own[-1]  # of the escape
            row[: reach + 1] = own[:-1][: MOST + 1]
        levels = np.arange(-MARGIN, HIGHEST + MARGIN + 1)[:, None]
        table, shift = index(np.clip(levels, self.floor, HIGHEST), np.arange(SHAPES))
        low = shift[..., None].astype(np.int32)
        entry = (np.arange(MOST + 1) + ((1 << low) >> 1)) >> low
        costs = np.rint((bits[table[..., None], entry] + low) * COST_UNIT).astype(np.int32)
        return costs.transpose(1, 2, 0).ravel()

    @cached_property
    def _largest(self) -> int:
        return int(self._costs.max())

    @cached_property
    def _pairs(self) -> dict[int, Array]:
        """Each of these, and `PAIR` times that of a scale shifted by so much more; float64."""
        gaps = (int(kind.shifts[1] - kind.shifts[0]) for kind in (OF_BLOCKS, OF_CHANNELS))
        return {gap: self._costs + PAIR * np.roll(self._costs, -gap) for gap in gaps}

    def sums(self, coded: "Coded", shifts: Array, latent: Array, counts: Array) -> Array:
        """What the symbols of each latent cost for each of its values; float64 values x latents, whole
        numbers of 1/64 bits.

        Args:
            shifts: of scales, by value, evenly spaced.
            latent: of each symbol.
            counts: symbols of each latent.
        """
        size = np.minimum(np.abs(coded.symbol), MOST)
        at = (coded.shape * (MOST + 1) + size) * LEVELS + coded.level + MARGIN
        at = at.astype(np.intp)  # or every `take` would make it so
        if counts.max(initial=0) * self._largest >= PAIR:
            single = [self._costs.take(at + shift) for shift in shifts.tolist()]
            return np.stack([np.bincount(latent, cost, len(counts)) for cost in single])
        # Two at a time: most of the work is to find their latent.
        pairs = self._pairs[int(shifts[1] - shifts[0])]
        each: list[Array] = []
        for shift in shifts[::2].tolist():
            both = np.bincount(latent, pairs.take(at + shift), len(counts))
            second = np.floor(both / PAIR)
            each += [both - second * PAIR, second]
        return np.stack(each[: len(shifts)])

    def index(self, coded: "Coded") -> Index:
        """Tables of symbols."""
        return index(np.clip(coded.level, self.floor[coded.shape], HIGHEST), coded.shape)


class Coded:
    """The coded symbols of a pass; all arrays have one entry for each.

    Attributes:
        position: in the pass.
        channel, row, column: in the packed pass.
        colour: 0 luma, 1 another.
        level, shape: of their scales, not clamped, and of the tails, as integers.
        symbol: what they are; 0 before that is known.
    """

    def __init__(self, symbols: Array, tables: Index, grid: Grid, costs: Costs) -> None:
        self.position = np.flatnonzero((~costs.tables.silent).take(tables.table)).astype(np.int32)
        area = grid.rows * grid.columns
        self.channel = self.position // area
        place = self.position - self.channel * area  # numpy is slow at remainders
        self.row = place // grid.columns
        self.column = place - self.row * grid.columns
        self.colour = 1 - np.array(luma(grid.at), np.int32)[self.channel]
        own = Index(*(part[self.position].astype(np.int32) for part in tables))
        self.level, self.shape = prior_of(own)
        self.symbol = symbols[self.position]

    def __len__(self) -> int:
        return len(self.position)

    def part(self, chosen: Array) -> "Coded":
        """Some of them."""
        other = object.__new__(Coded)
        other.__dict__ = {name: field[chosen] for name, field in self.__dict__.items()}
        return other

    def but(self, **fields: Array) -> "Coded":
        """The same with other fields."""
        other = object.__new__(Coded)
        other.__dict__ = {**self.__dict__, **fields}
        return other


def _number(plane: Array | int, coded: Coded, grid: Grid, side: int) -> Array:
    """Of each symbol's square of places, plane by plane and row by row."""
    tall, broad = (-(-n // side) for n in (grid.rows, grid.columns))
    return (plane * tall + coded.row // side) * broad + coded.column // side


@dataclass(frozen=True)
class Blocks:
    """Which symbols of a pass share a latent: those of a square of places.

    Attributes:
        side: of it, in positions of the packed pass.
        apart: luma and the other colours have latents of their own.
        prior: row of `OF_BLOCKS.priors`.
    """

    side: int
    apart: bool
    prior: int

    latents: ClassVar[Latents] = OF_BLOCKS

    def number(self, coded: Coded, grid: Grid) -> Array:
        """Of each symbol's latent, in order but with gaps."""
        colour = coded.colour if self.apart else 0
        return _number(colour, coded, grid, self.side)


@dataclass(frozen=True)
class Regions:
    """Which symbols of a pass share a latent: those of a region of a channel.

    Attributes:
        side: of it, in positions of the packed pass.
        prior: row of `OF_CHANNELS.priors`.
    """

    side: int
    prior: int

    latents: ClassVar[Latents] = OF_CHANNELS

    def number(self, coded: Coded, grid: Grid) -> Array:
        """See `Blocks.number`."""
        return _number(coded.channel, coded, grid, self.side)


SQUARES = ((1, False), (1, True), (2, True), (4, False), (4, True))
SMALL = SQUARES[:2]
# By number: latents of blocks, and how many eighths of the rows have latents and say signs.
MODES: list[tuple[Blocks | None, int]] = [
    (None, 8),
    *((Blocks(*square, prior), 8) for square in SQUARES for prior in range(3)),
    *((Blocks(*square, prior), 6) for square in SMALL for prior in range(3)),
    (None, 6),
    (None, 0),
    *((Blocks(*square, prior), 7) for square in SMALL for prior in range(3)),
    (None, 7),
]
# How many of them files have.
COUNTS = {Signs.NONE: MODES.index((None, 6)), Signs.PARITIES: 24, Signs.SYNDROMES: len(MODES)}
SIDES = (16, 1 << 24)  # the latter is the whole channel
REGIONS = [None, *(Regions(side, prior) for side in SIDES for prior in range(2))]


class Sharing:
    """Latents of a pass, and the symbols that share them.

    Attributes:
        count: how many there are; only such as have any symbols.
    """

    def __init__(self, mode: Blocks | Regions, coded: Coded, grid: Grid) -> None:
        number = mode.number(coded, grid)
        counts = np.bincount(number)
        present = counts > 0
        self._counts = counts[present]
        self.count = len(self._counts)
        self._latent = (np.cumsum(present) - 1)[number]
        self._shifts, self._prior = mode.latents.shifts, mode.latents.priors[mode.prior]

    def prior(self) -> Array:
        """Counts of each latent's values, less one each; float64 `count` x shifts, whole numbers."""
        return np.tile(self._prior * (TOTAL / 256) - 1, (self.count, 1))

    def posterior(self, coded: Coded, costs: Costs) -> Array:
        """The same given the symbols."""
        _, weights = _weights(self.costs(coded, costs), self._prior)
        total = np.zeros(self.count, np.float32)
        for row in weights:  # in this order: sums of float32 depend on it
            total += row
        rest = TOTAL - len(self._shifts)
        counts = np.floor(weights * (np.float32(rest) / total)).astype(np.float64)
        counts[weights.argmax(0), np.arange(self.count)] += rest - counts.sum(0)
        return np.ascontiguousarray(counts.T)

    def costs(self, coded: Coded, costs: Costs) -> Array:
        """What the symbols of each latent cost for each of its values; see `Costs.sums`."""
        return costs.sums(coded, self._shifts, self._latent, self._counts)

    def moved(self, coded: Coded, latents: Array) -> Coded:
        """The symbols at the scales that latents, int32, mean."""
        return coded.but(level=coded.level + self._shifts[latents][self._latent])


def _weights(costs: Array, prior: Array) -> tuple[Array, Array]:
    """The least cost of symbols and latent, for each; and by value 2^-cost beyond that, float32."""
    own = np.rint((8 - exact.log2(prior.astype(np.float32))) * COST_UNIT)
    total = costs + own[:, None]
    least = total.min(0)
    return least, exact.exp2((least - total).astype(np.float32) / COST_UNIT)


def _saved(costs: Array, prior: Array) -> float:
    """Bits that latents of this prior save, from the costs of their symbols by shift."""
    least, weights = _weights(costs, prior)
    plain = costs[len(prior) // 2]
    return float(((plain - least) / COST_UNIT + np.log2(weights.sum(0))).sum())


def _best_regions(coded: Coded, grid: Grid, costs: Costs) -> Regions | None:
    """What would save most without blocks, if anything does."""
    best, most = None, LEAST_SAVED
    for side in SIDES:
        own = Sharing(Regions(side, 0), coded, grid).costs(coded, costs)
        for prior, counts in enumerate(OF_CHANNELS.priors):
            saved = _saved(own, counts)
            if saved > most:
                best, most = Regions(side, prior), saved
    return best


def _in_squares(costs: Array) -> Array:
    """Sums over squares of 2 x 2 places: ... x rows x columns -> ... x rows/2 x columns/2."""
    tall = costs[..., 0::2, :] + costs[..., 1::2, :]  # numpy is slow at sums over several short axes
    return tall[..., 0::2] + tall[..., 1::2]


def _best_blocks(coded: Coded, grid: Grid, costs: Costs, eighths: int) -> Blocks | None:
    """What saves most of the modes of so many eighths of the rows, if anything does."""
    rows, columns = (-(-n // 4) * 4 for n in (grid.rows, grid.columns))
    place = (coded.colour * rows + coded.row) * columns + coded.column
    counts = np.bincount(place, minlength=2 * rows * columns)
    found = costs.sums(coded, OF_BLOCKS.shifts, place, counts).reshape(-1, 2, rows, columns)
    sums = {1: found, 2: _in_squares(found)}
    sums[4] = _in_squares(sums[2])
    best, most = None, LEAST_SAVED
    for side, apart in SQUARES if eighths == 8 else SMALL:
        own = (sums[side] if apart else sums[side].sum(1)).reshape(len(found), -1)
        for prior, counts in enumerate(OF_BLOCKS.priors):
            saved = _saved(own, counts)
            if saved > most:
                best, most = Blocks(side, apart, prior), saved
    return best


def _push_modes(
    stack: Stack, regions: Regions | None, blocks: Blocks | None, eighths: int, hidden: Signs
) -> None:
    for number, count in (
        (MODES.index((blocks, eighths)), COUNTS[hidden]),
        (REGIONS.index(regions), len(REGIONS)),
    ):
        if not hidden:
            stack.push_one(number, count)
            continue
        # Files of few bytes have many passes with mode 0.
        if number:
            stack.push_one(number - 1, count - 1)
        stack.push_one(int(number > 0), 2)


def _pop_mode(stack: Stack, count: int, hidden: Signs) -> int:
    if not hidden:
        return stack.pop_one(count)
    return 1 + stack.pop_one(count - 1) if stack.pop_one(2) else 0


def _divided(coded: Coded, grid: Grid, eighths: int, hidden: Signs) -> tuple[Coded, Array]:
    """The symbols in rows that have latents and say signs, and where the others are."""
    if eighths == 8:
        return coded, coded.position[:0]
    if hidden == Signs.SYNDROMES:
        inside = signs.eighths(coded.row) < eighths
    else:
        inside = coded.row < grid.rows * eighths // 8
    return coded.part(inside), coded.position[~inside]


def _with_loans(
    stack: Stack, said: Coded, coded: Pass, costs: Costs, eighths: int, share: bool
) -> tuple[Stack, int] | None:
    """What `push` returns, if signs or latents (which are not tried unless `share`) save anything; the
    stack is of no use if it had no words left to draw these with."""
    symbols, grid = coded.symbols, coded.grid
    assert grid is not None
    here, rest = _divided(said, grid, eighths, coded.hidden)
    stack = stack.copy()
    stack.push(symbols[rest], coded.index.at(rest), costs.tables)
    if coded.signs:
        symbols = symbols.copy()
        signs.draw(stack, symbols, coded.signs.at(symbols, eighths))
        if not stack.words:
            return stack, 0
    own = here.but(symbol=symbols[here.position])
    drawn = []

    def draw(mode: Blocks | Regions | None, own: Coded) -> Coded:
        if not mode:
            return own
        sharing = Sharing(mode, own, grid)
        latents = stack.pop_each(sharing.posterior(own, costs))
        drawn.append((latents, sharing.prior()))
        return sharing.moved(own, latents)

    regions = _best_regions(own, grid, costs) if share else None
    own = draw(regions, own)
    blocks = _best_blocks(own, grid, costs, eighths) if share else None
    own = draw(blocks, own)
    least = stack.words
    if not coded.signs and (not drawn or (blocks, eighths) == (None, 6)):
        return None
    if not least:
        return stack, least
    stack.push(symbols[own.position], costs.index(own), costs.tables)
    for latents, prior in reversed(drawn):
        stack.push_each(latents, prior)
    _push_modes(stack, regions, blocks, eighths, coded.hidden)
    return stack, least


def push(stack: Stack, coded: Pass, costs: Costs) -> tuple[Stack, int]:
    """Push a pass of the ladder.

    Args:
        coded: has a grid.

    Returns:
        The stack, and the least number of words that it had meanwhile.
    """
    assert coded.grid is not None
    said = Coded(coded.symbols, coded.index, coded.grid, costs)
    if not len(said):
        return stack, stack.words
    # With less and less of the rows to lend bits to; to draw latents takes more than signs do.
    for eighths, share in (8, True), (6, True), (7, False), (6, False):
        if not (share or coded.signs):
            break
        found = _with_loans(stack, said, coded, costs, eighths, share)
        if not found:
            break
        if found[1]:
            return found
    least = stack.words
    stack.push(coded.symbols, coded.index, costs.tables)
    _push_modes(stack, None, None, 0 if coded.signs else 8, coded.hidden)
    return stack, least


def pop(
    stack: Stack, tables: Index, grid: Grid, costs: Costs, of_channels: bool, hidden: Signs
) -> Array:
    """The inverse of `push`: int32 symbols.

    Args:
        of_channels: False for older files, whose passes have no latents of channels.
        hidden: what says signs.

    Raises:
        FormatError: the words are not what a stack of these symbols can be.
    """
    symbols = np.zeros(tables.table.shape, np.int32)
    said = Coded(symbols, tables, grid, costs)
    if not len(said):
        return symbols
    regions = REGIONS[_pop_mode(stack, len(REGIONS), hidden)] if of_channels else None
    blocks, eighths = MODES[_pop_mode(stack, COUNTS[hidden], hidden)]
    if not (regions or blocks or hidden):
        return stack.pop(tables, costs.tables)
    own, rest = _divided(said, grid, eighths, hidden)
    drawn = []
    for mode in (regions, blocks):
        if mode:
            sharing = Sharing(mode, own, grid)
            latents = stack.pop_each(sharing.prior())
            drawn.append((sharing, own, latents))
            own = sharing.moved(own, latents)
    symbols[own.position] = stack.pop(costs.index(own), costs.tables)
    for sharing, before, latents in reversed(drawn):
        known = before.but(symbol=symbols[before.position])
        stack.push_each(latents, sharing.posterior(known, costs))
    if hidden:
        slices = signs.slices if hidden == Signs.SYNDROMES else parities.groups
        found = slices(tables, grid, costs.tables)
        signs.give_back(stack, symbols, *found.said(symbols, eighths))
    symbols[rest] = stack.pop(tables.at(rest), costs.tables)
    return symbols

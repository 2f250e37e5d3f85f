"""Side information with bits-back: what the symbols of a pass have in common.

Given what is decoded, the symbols of a pass are independent under their priors. In truth the network
is too sure of itself at one place and too timid at the next. So every block of a pass has a latent h, a
shift of the scales of all its symbols y, with a prior p(h): together they have the probability
sum_h p(h) p(y | h), which is a Gaussian scale mixture's kin (Wainwright & Simoncelli, "Scale mixtures
of Gaussians and the statistics of natural images", 2000).

To send h would cost more than it brings. With bits-back (Townsend, Bird & Barber 2019; for side
information Yang, Bamler & Mandt, "Improving inference for neural image compression", 2020) it costs
nothing: the posterior p(h | y) depends only on what the decoder has by then, so the encoder draws h
with bits that already are on the stack, and the decoder puts them back:

    encoder   pop h by p(h | y),  push y by p(y | h),  push h by p(h)
    decoder   pop h by p(h),      pop y by p(y | h),   push h by p(h | y)

That takes -log2 of the mixture net, but for the rounding of costs. The bits that h was drawn with are a
loan from the layers beneath, returned before the next pass. A pass with too little beneath goes
without, or its last rows do.

Posteriors are made of integers and of float32 operations that are exact (`exact.py`).
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from . import exact
from .ans import Grid, Pass, Stack, Tables
from .exact import Array
from .ladder import LAYERS, colour_planes
from .tables import MAX_SHIFT, SCALES, SCALES_PER_OCTAVE, SHAPES, SYMBOL_TABLES, TOTAL, Index, index

SHIFTS = np.arange(-16, 17, 4, dtype=np.int32)  # of scales, in 1/8 octaves
# Priors of the shifts in 1/256, fitted to photographs (docs/training-log.md): from priors of symbols
# that are nearly right to some that are off by much.
PRIORS = np.array(
    [
        [2, 3, 5, 47, 174, 18, 5, 1, 1],
        [5, 8, 29, 87, 95, 24, 5, 2, 1],
        [7, 12, 25, 43, 66, 59, 31, 10, 3],
    ],
    np.int32,
)

COST_UNIT = 64  # costs per bit
MOST = 255  # symbols beyond cost as much
HIGHEST = SCALES - 1 + MAX_SHIFT * SCALES_PER_OCTAVE  # level of a scale
MARGIN = int(SHIFTS[-1])
LEAST_SAVED = 8.0  # bits that are worth the time

LUMA = [np.array(colour_planes(k)) == 0 for k in range(len(LAYERS))]


class Mode(NamedTuple):
    """What blocks a pass has.

    Attributes:
        side: of a block, in positions of the packed pass.
        apart: luma and the other colours are blocks of their own.
        whole: False if the last quarter of the rows goes without.
        prior: row of `PRIORS`.
    """

    side: int
    apart: bool
    whole: bool
    prior: int


BLOCKS = ((1, False), (1, True), (2, True), (4, False), (4, True))
# By number; None is a pass without side information.
MODES = [
    None,
    *(Mode(*blocks, True, prior) for blocks in BLOCKS for prior in range(len(PRIORS))),
    *(Mode(*blocks, False, prior) for blocks in BLOCKS[:2] for prior in range(len(PRIORS))),
]


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
        """In 1/64 bits, int32: by level from -MARGIN on, shape, and size of the symbol."""
        bits = np.empty((SYMBOL_TABLES, MOST + 1), np.float32)
        for row, counts, reach in zip(bits, self.tables.counts, self.tables.reaches.tolist()):
            own = exact.log2(np.float32(TOTAL) / counts[reach:].astype(np.float32))
            row[:] = own[-1]  # of the escape
            row[: reach + 1] = own[:-1][: MOST + 1]
        levels = np.arange(-MARGIN, HIGHEST + MARGIN + 1)[:, None]
        table, shift = index(np.clip(levels, self.floor, HIGHEST), np.arange(SHAPES))
        low = shift[..., None].astype(np.int32)
        entry = (np.arange(MOST + 1) + ((1 << low) >> 1)) >> low
        return np.rint((bits[table[..., None], entry] + low) * COST_UNIT).astype(np.int32).ravel()

    def of(self, symbols: Array, level: Array, shape: Array) -> list[Array]:
        """Costs of symbols for each of `SHIFTS` of their scales; int32, in 1/64 bits."""
        at = ((level + MARGIN) * SHAPES + shape) * (MOST + 1) + np.minimum(np.abs(symbols), MOST)
        return [self._costs[at + shift * (SHAPES * (MOST + 1))] for shift in SHIFTS]

    def shifted(self, level: Array, shape: Array, latents: Array) -> Index:
        """Tables of symbols whose latents are these."""
        return index(np.clip(level + SHIFTS[latents], self.floor[shape], HIGHEST), shape)


class Coded:
    """The coded symbols of a pass; all arrays have one entry for each.

    Attributes:
        positions: in the pass.
        row, column: in the packed pass.
        colour: 0 luma, 1 another.
        level, shape: of their scales, and of the tails, as integers.
    """

    def __init__(self, tables: Index, grid: Grid, costs: Costs) -> None:
        self.positions = np.flatnonzero(~costs.tables.silent[tables.table])
        channel, place = np.divmod(self.positions, grid.rows * grid.columns)
        self.row, self.column = np.divmod(place, grid.columns)
        self.colour = 1 - LUMA[grid.layer][channel].astype(np.int64)
        table, shift = (part[self.positions].astype(np.int32) for part in tables)
        self.level, self.shape = table // SHAPES + shift * SCALES_PER_OCTAVE, table % SHAPES

    def part(self, chosen: Array) -> "Coded":
        """Some of them."""
        other = object.__new__(Coded)
        other.__dict__ = {name: field[chosen] for name, field in self.__dict__.items()}
        return other


class Blocks:
    """Symbols that have side information.

    Attributes:
        inside: these.
        rest: positions of the others.
        block: of each, the number of its block among the `count` that hold any.
    """

    def __init__(self, coded: Coded, grid: Grid, mode: Mode) -> None:
        chosen = coded.row < (grid.rows if mode.whole else grid.rows * 3 // 4)
        self.rest = coded.positions[~chosen]
        self.inside = own = coded if mode.whole else coded.part(chosen)
        number = own.row // mode.side * grid.columns + own.column // mode.side
        if mode.apart:
            number += own.colour * (grid.rows * grid.columns)
        present = np.bincount(number) > 0
        self.count = int(present.sum())
        self.block = (np.cumsum(present) - 1)[number]

    def costs(self, symbols: Array, costs: Costs) -> Array:
        """Costs of the blocks' symbols at every shift, float64 `count` x `SHIFTS`; whole numbers."""
        own = self.inside
        each = costs.of(symbols[own.positions], own.level, own.shape)
        return np.stack([np.bincount(self.block, cost, self.count) for cost in each], 1)


def _weights(costs: Array, prior: int) -> tuple[Array, Array]:
    """The least cost of a block with any latent; and for each latent 2^-cost beyond that, float32."""
    own = np.rint((8 - exact.log2(PRIORS[prior].astype(np.float32))) * COST_UNIT)
    total = costs + own
    least = total.min(1)
    return least, exact.exp2((least[:, None] - total).astype(np.float32) / COST_UNIT)


def _posterior(costs: Array, prior: int) -> Array:
    """Counts of latents given the symbols, less one each; float64 `count` x `SHIFTS`, whole numbers."""
    _, weights = _weights(costs, prior)
    total = np.zeros(len(weights), np.float32)
    for column in weights.T:  # in this order: sums of float32 depend on it
        total += column
    rest = TOTAL - len(SHIFTS)
    counts = np.floor(weights * (np.float32(rest) / total)[:, None]).astype(np.float64)
    counts[np.arange(len(counts)), weights.argmax(1)] += rest - counts.sum(1)
    return counts


def _prior(prior: int, count: int) -> Array:
    """The same before anything is known."""
    return np.tile(PRIORS[prior] * (TOTAL / 256) - 1, (count, 1))


def _best(coded: Coded, symbols: Array, grid: Grid, costs: Costs) -> list[Mode]:
    """The modes to try: the one that saves most, if any does, then the same without the last rows."""
    rows, columns = (-(-n // 4) * 4 for n in (grid.rows, grid.columns))
    place = (coded.colour * rows + coded.row) * columns + coded.column
    each = costs.of(symbols[coded.positions], coded.level, coded.shape)
    found = np.stack([np.bincount(place, cost, 2 * rows * columns) for cost in each])
    best, most = None, LEAST_SAVED
    for side, apart in BLOCKS:
        blocks = found.reshape(len(SHIFTS), 2, rows // side, side, columns // side, side).sum((3, 5))
        own = (blocks if apart else blocks.sum(1)).reshape(len(SHIFTS), -1).T
        for prior in range(len(PRIORS)):
            least, weights = _weights(own, prior)
            plain = own[:, len(SHIFTS) // 2]
            saved = float(((plain - least) / COST_UNIT + np.log2(weights.sum(1))).sum())
            if saved > most:
                best, most = Mode(side, apart, True, prior), saved
    if best is None:
        return []
    shorter = best._replace(whole=False)
    return [best, shorter] if shorter in MODES else [best]


def push(stack: Stack, coded: Pass, costs: Costs) -> tuple[Stack, int]:
    """Push a pass of the ladder.

    Args:
        coded: has a grid.

    Returns:
        The stack, and the least number of words that it had meanwhile.
    """
    symbols, tables, grid = coded.symbols, coded.index, coded.grid
    assert grid is not None
    said = Coded(tables, grid, costs)
    if not len(said.positions):
        return stack, stack.words
    for mode in _best(said, symbols, grid, costs):
        blocks = Blocks(said, grid, mode)
        trial = stack.copy()
        trial.push(symbols[blocks.rest], tables.at(blocks.rest), costs.tables)
        latents = trial.pop_each(_posterior(blocks.costs(symbols, costs), mode.prior))
        if not (least := trial.words):
            continue  # there was too little beneath
        own = blocks.inside
        shifted = costs.shifted(own.level, own.shape, latents[blocks.block])
        trial.push(symbols[own.positions], shifted, costs.tables)
        trial.push_each(latents, _prior(mode.prior, blocks.count))
        trial.push_one(MODES.index(mode), len(MODES))
        return trial, least
    least = stack.words
    stack.push(symbols, tables, costs.tables)
    stack.push_one(0, len(MODES))
    return stack, least


def pop(stack: Stack, tables: Index, grid: Grid, costs: Costs) -> Array:
    """The inverse of `push`: int32 symbols.

    Raises:
        FormatError: the words are not what a stack of these symbols can be.
    """
    said = Coded(tables, grid, costs)
    if not len(said.positions):
        return np.zeros(tables.table.shape, np.int32)
    mode = MODES[stack.pop_one(len(MODES))]
    if mode is None:
        return stack.pop(tables, costs.tables)
    blocks = Blocks(said, grid, mode)
    latents = stack.pop_each(_prior(mode.prior, blocks.count))
    own = blocks.inside
    shifted = costs.shifted(own.level, own.shape, latents[blocks.block])
    symbols = np.zeros(tables.table.shape, np.int32)
    symbols[own.positions] = stack.pop(shifted, costs.tables)
    stack.push_each(latents, _posterior(blocks.costs(symbols, costs), mode.prior))
    symbols[blocks.rest] = stack.pop(tables.at(blocks.rest), costs.tables)
    return symbols

"""Distributions -> integer probabilities.

Every symbol of the ladder's layers is coded under one of a few hundred tables, picked by two integers:
the scale of its distribution in 1/8 octaves and its tail shape in sevenths. Symbols of refinement
layers have tables of their own, picked by two log odds in halves. The tables are made once, when a
model is exported, and ship with it as integers that sum to 2^24, so that no two machines can disagree.

Scales above 2^3 use the table of that scale divided by a power of two, and code the low bits of the
symbol as they are. Scales so small that a zero is all but certain are not coded at all (`silent`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from . import exact
from .exact import Array

SCALES_PER_OCTAVE = 8
LOWEST, HIGHEST = -8, 3  # log2 of the scales that tables exist for
SCALES = (HIGHEST - LOWEST) * SCALES_PER_OCTAVE + 1
SHAPES = 8
TOTAL = 1 << 24
TAIL = 2.0**-18  # probability that is left to the escape symbol, at least
MAX_REACH = 500
MAX_SHIFT = 12
SYMBOL_TABLES = SCALES * SHAPES

ODDS_STEPS = 2  # log odds are quantised in halves
ODDS_MAX = 10.0
ODDS = int(2 * ODDS_MAX * ODDS_STEPS) + 2  # the first of them for a symbol that cannot be
PART_TABLES = ODDS * ODDS
TABLES = SYMBOL_TABLES + PART_TABLES
# A zero with a probability above this is not worth the time to code it: on the ladder, where the next
# level can mend it, and for parts of windows, where nothing can.
SILENT = 1 - 2.0**-10
PART_SILENT = 1 - 2.0**-16


class Index(NamedTuple):
    """Which table, and how many raw low bits, for each symbol; int16 arrays of one shape."""

    table: Array
    shift: Array

    def at(self, positions: Array) -> "Index":
        """Those of some symbols."""
        return Index(self.table[positions], self.shift[positions])


def quantise_scale(log2_scale: Array) -> Array:
    """log2 of scales in symbol units -> integers in 1/8 octaves, int16; `LOWEST` is 0."""
    level = log2_scale - LOWEST
    level *= SCALES_PER_OCTAVE
    np.rint(level, out=level)
    level.clip(0, SCALES - 1 + MAX_SHIFT * SCALES_PER_OCTAVE, out=level)
    return level.astype(np.int16)


def quantise_shape(shape: Array) -> Array:
    """Tail shapes 0..1 -> integers 0..7, int16."""
    return np.rint(shape * (SHAPES - 1)).astype(np.int16)


def scale_of(level: Array) -> Array:
    """The inverse of `quantise_scale`, as a scale; float32."""
    return exact.exp2(level / np.float32(SCALES_PER_OCTAVE) + LOWEST)


def index(level: Array, shape: Array) -> Index:
    """Table and shift of symbols from their quantised scale and shape."""
    over = np.maximum(level - (SCALES - 1), 0)
    shift = -(-over // SCALES_PER_OCTAVE)
    table = (level - shift * SCALES_PER_OCTAVE) * SHAPES + shape
    return Index(table.astype(np.int16), shift.astype(np.int16))


def prior_of(index: Index) -> tuple[Array, Array]:
    """The inverse of `index`: quantised scale and shape; of the dtype of the index."""
    octave = index.table // SHAPES  # and no remainder: numpy is slow at them
    return octave + index.shift * SCALES_PER_OCTAVE, index.table - octave * SHAPES


def quantise_odds(down: Array, up: Array) -> tuple[Array, Array, Array]:
    """The nearest log odds of -1 and 1 against 0 that have a table, and their table; int16."""
    both = []
    for odds in (down, up):
        steps = np.rint((odds + np.float32(ODDS_MAX)) * ODDS_STEPS) + 1
        both.append(np.where(np.isinf(odds), 0, np.clip(steps, 1, ODDS - 1)))
    table = (SYMBOL_TABLES + both[0] * ODDS + both[1]).astype(np.int16)
    return _odds_of(both[0]), _odds_of(both[1]), table


def _odds_of(steps: Array) -> Array:
    return np.where(steps == 0, -np.inf, (steps - 1) / ODDS_STEPS - ODDS_MAX).astype(np.float32)


def make(tail: Array) -> tuple[Array, Array]:
    """All tables, from the learned parameters of a model's distributions.

    Args:
        tail: 2 x 2, see `likelihood.py`.

    Returns:
        counts: int32, the tables one after the other. A table holds 2 reach + 2 counts that sum to
            2^24, none of them zero: symbols -reach .. reach, then the escape.
        reaches: int16, one for each table.
    """
    tables = [*_symbol_tables(tail.astype(np.float64)), *_part_tables()]
    reaches = [len(masses) // 2 - 1 for masses in tables]
    counts = []
    for masses, reach in zip(tables, reaches):
        table = np.maximum(np.rint(masses * TOTAL), 1).astype(np.int32)
        table[reach] += TOTAL - table.sum()
        counts.append(table)
    return np.concatenate(counts), np.array(reaches, np.int16)


def _symbol_tables(tail: Array) -> Iterator[Array]:
    """Probabilities of symbols, level by level and within a level shape by shape."""

    def sigmoid(x: Array) -> Array:
        return 1 / (1 + np.exp(-np.maximum(x, -600)))

    edges = np.arange(-MAX_REACH, 1) - 0.5
    for level in range(SCALES):
        at = edges / 2 ** (level / SCALES_PER_OCTAVE + LOWEST)
        for shape in np.linspace(0, 1, SHAPES):
            log2_ratio, logit = (1 - shape) * tail[0] + shape * tail[1]
            weight = sigmoid(logit)
            under = (1 - weight) * sigmoid(at) + weight * sigmoid(at / 2**log2_ratio)
            reach = min(max(int((under > TAIL / 2).sum()), 1), MAX_REACH)
            lower = under[-reach - 1 :]
            half = np.diff(lower)
            yield np.concatenate([half, 1 - 2 * lower[-1:], half[::-1], 2 * lower[:1]])


def _part_tables() -> Iterator[Array]:
    """Probabilities of the parts of a window, by the odds of -1 and within these by those of 1."""
    ratios = np.exp(_odds_of(np.arange(ODDS)).astype(np.float64))
    for down in ratios:
        for up in ratios:
            masses = np.array([down, 1.0, up]) / (down + 1.0 + up)
            yield np.append(masses * (1 - TAIL), TAIL)

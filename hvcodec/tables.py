"""Distributions -> integer probabilities.

Every symbol of the ladder's layers is coded under one of a few hundred tables, picked by two integers:
the scale of its distribution in 1/8 octaves and its tail shape in sevenths. Digits of refinement layers
have tables of their own, picked by skew and peak in halves.
The tables are made once, when a model is exported, and ship with it as integers that sum to 2^24, so
that no two machines can disagree.

Scales above 2^3 use the table of that scale divided by a power of two, and code the low bits of the
symbol as they are. Scales so small that a zero is all but certain are not coded at all (`silent`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from .likelihood import below, wide_part
from .refinement import PEAK_RANGE, SKEW_MAX, digit_bits

SCALES_PER_OCTAVE = 8
LOWEST, HIGHEST = -8, 3  # log2 of the scales that tables exist for
SCALES = (HIGHEST - LOWEST) * SCALES_PER_OCTAVE + 1
SHAPES = 8
TOTAL = 1 << 24
TAIL = 2.0**-18  # probability that is left to the escape symbol, at least
MAX_REACH = 500
MAX_SHIFT = 12
SYMBOL_TABLES = SCALES * SHAPES

SPLIT_STEPS = 2  # skews and peaks are quantised in halves
SKEWS = int(2 * SKEW_MAX * SPLIT_STEPS) + 1
PEAKS = int((PEAK_RANGE[1] - PEAK_RANGE[0]) * SPLIT_STEPS) + 1
SPLIT_TABLES = PEAKS * SKEWS
TABLES = SYMBOL_TABLES + SPLIT_TABLES
# A zero with a probability above this is not worth the time to code it.
SILENT = 1 - 2.0**-10


class Index(NamedTuple):
    """Which table, and how many raw low bits, for each symbol; int16 arrays of one shape."""

    table: np.ndarray
    shift: np.ndarray


def quantise_scale(log2_scale: torch.Tensor) -> torch.Tensor:
    """log2 of scales in symbol units -> integers in 1/8 octaves, int16; `LOWEST` is 0."""
    level = torch.round((log2_scale - LOWEST) * SCALES_PER_OCTAVE)
    return level.clamp(0, SCALES - 1 + MAX_SHIFT * SCALES_PER_OCTAVE).to(torch.int16)


def quantise_shape(shape: torch.Tensor) -> torch.Tensor:
    """Tail shapes 0..1 -> integers 0..7, int16."""
    return torch.round(shape * (SHAPES - 1)).to(torch.int16)


def scale_of(level: torch.Tensor) -> torch.Tensor:
    """The inverse of `quantise_scale`, as a scale; float32."""
    return torch.exp2(level / SCALES_PER_OCTAVE + LOWEST)


def index(level: np.ndarray, shape: np.ndarray) -> Index:
    """Table and shift of symbols from their quantised scale and shape."""
    over = np.maximum(level - (SCALES - 1), 0)
    shift = -(-over // SCALES_PER_OCTAVE)
    table = (level - shift * SCALES_PER_OCTAVE) * SHAPES + shape
    return Index(table.astype(np.int16), shift.astype(np.int16))


def quantise_split(
    skew: torch.Tensor, peak: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """The nearest skew and peak that have a table, and their table; int16, flat."""
    s = torch.round((skew + SKEW_MAX) * SPLIT_STEPS)
    p = torch.round((peak - PEAK_RANGE[0]) * SPLIT_STEPS)
    table = (SYMBOL_TABLES + p * SKEWS + s).to(torch.int16).numpy().ravel()
    return s / SPLIT_STEPS - SKEW_MAX, p / SPLIT_STEPS + PEAK_RANGE[0], table


def make(tail: torch.Tensor, falloff: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """All tables, from the learned parameters of a model's distributions.

    Args:
        tail: 2 x 2 float32, see `likelihood.py`.
        falloff: 2 float32, see `refinement.py`.

    Returns:
        counts: int32, the tables one after the other. A table holds 2 reach + 2 counts that sum to
            2^24, none of them zero: symbols -reach .. reach, then the escape.
        reaches: int16, one for each table.
    """
    tables = [*_symbol_tables(tail.double()), *_split_tables(falloff.double())]
    reaches = [len(masses) // 2 - 1 for masses in tables]
    counts = []
    for masses, reach in zip(tables, reaches):
        table = (masses * TOTAL).round().clamp(min=1).long()
        table[reach] += TOTAL - table.sum()
        counts.append(table.numpy().astype(np.int32))
    return np.concatenate(counts), np.array(reaches, np.int16)


def _symbol_tables(tail: torch.Tensor) -> Iterator[torch.Tensor]:
    """Probabilities of symbols, level by level and within a level shape by shape."""
    shapes = torch.linspace(0, 1, SHAPES, dtype=torch.float64)
    ratios, weights = wide_part(tail, shapes)
    edges = torch.arange(-MAX_REACH, 1, dtype=torch.float64) - 0.5
    for level in range(SCALES):
        scale = torch.exp2(torch.tensor(level / SCALES_PER_OCTAVE + LOWEST, dtype=torch.float64))
        for ratio, weight in zip(ratios, weights):
            under = below(edges, scale, ratio, weight)
            reach = min(max(int((under > TAIL / 2).sum()), 1), MAX_REACH)
            lower = under[-reach - 1 :]
            half = lower.diff()
            yield torch.cat([half, 1 - 2 * lower[-1:], half.flip(0), 2 * lower[:1]])


def _split_tables(falloff: torch.Tensor) -> Iterator[torch.Tensor]:
    """Probabilities of digits, peak by peak and within a peak skew by skew."""
    values = (torch.arange(n, dtype=torch.float64) / SPLIT_STEPS for n in (PEAKS, SKEWS))
    peak, skew = torch.meshgrid(*values, indexing="ij")
    bits = digit_bits(skew - SKEW_MAX, peak + PEAK_RANGE[0], falloff)
    for masses in torch.exp2(-torch.stack([b.flatten() for b in bits], 1)):
        yield torch.cat([masses * (1 - TAIL), torch.tensor([TAIL], dtype=torch.float64)])

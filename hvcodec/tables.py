"""Scale and shape -> integer probabilities.

Every symbol is coded under one of a few hundred tables, picked by two integers: the scale of its
distribution in 1/8 octaves and its tail shape in sevenths. The tables are made once, when a model is
exported, and ship with it as integers that sum to 2^24, so that no two machines can disagree.

Scales above 2^3 use the table of that scale divided by a power of two, and code the low bits of the
symbol as they are. Scales so small that a zero is all but certain are not coded at all (`silent`).
"""

from typing import NamedTuple

import numpy as np
import torch

from .likelihood import below, wide_part

SCALES_PER_OCTAVE = 8
LOWEST, HIGHEST = -8, 3  # log2 of the scales that tables exist for
SCALES = (HIGHEST - LOWEST) * SCALES_PER_OCTAVE + 1
SHAPES = 8
TOTAL = 1 << 24
TAIL = 2.0**-18  # probability that is left to the escape symbol, at least
MAX_REACH = 500
MAX_SHIFT = 12
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


def make(tail: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """All tables, from the learned tail of a model (2 x 2 float32, see `likelihood.py`).

    Returns:
        counts: int32, the tables one after the other. A table holds 2 reach + 2 counts that sum to
            2^24, none of them zero: symbols -reach .. reach, then the escape.
        reaches: int16, SCALES * SHAPES.
    """
    tables, reaches = [], []
    shapes = torch.linspace(0, 1, SHAPES, dtype=torch.float64)
    ratios, weights = wide_part(tail.double(), shapes)
    for level in range(SCALES):
        scale = torch.exp2(torch.tensor(level / SCALES_PER_OCTAVE + LOWEST, dtype=torch.float64))
        for ratio, weight in zip(ratios, weights):
            edges = torch.arange(-MAX_REACH, 1, dtype=torch.float64) - 0.5
            under = below(edges, scale, ratio, weight)
            reach = min(max(int((under > TAIL / 2).sum()), 1), MAX_REACH)
            lower = under[-reach - 1 :]
            half = lower.diff()
            masses = torch.cat([half, 1 - 2 * lower[-1:], half.flip(0), 2 * lower[:1]])
            counts = (masses * TOTAL).round().clamp(min=1).long()
            counts[reach] += TOTAL - counts.sum()
            tables.append(counts.numpy().astype(np.int32))
            reaches.append(reach)
    return np.concatenate(tables), np.array(reaches, np.int16)

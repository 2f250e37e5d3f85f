"""How the lossless layer's differences are distributed: parameters in integers, and their tables.

A difference is a whole number, coded under a mixture of two logistics (`mixture.py`) around a mean in
sixteenths: so there are tables by scale, fraction of the mean, and tail shape. They are made from the
model's tail shapes, exactly, when they are first needed.
"""

from typing import NamedTuple

import numpy as np

from . import exact
from .ans import Models
from .exact import Array
from .mixture import Mixture
from .tables import TOTAL, Index

UNIT = 16  # of decoded pixels and of means, per grey level
MEAN_MAX = 255  # grey levels
LOWEST, HIGHEST = -5, 7  # log2 of scales, in grey levels
SCALES_PER_OCTAVE = 8
SCALES = (HIGHEST - LOWEST) * SCALES_PER_OCTAVE + 1
FRACTIONS = UNIT // 2 + 1  # of means, 0 .. 1/2; negative ones are mirrored
SHAPES = 8
MAX_REACH = 2 * 255
FAR = np.float32(12.476649)  # scales beyond which a logistic has 2^-18 left


class Predicted(NamedTuple):
    """Distributions of differences, int32 arrays of one shape.

    Attributes:
        mean: in sixteenths of a grey level.
        level: of the scale, in 1/8 octaves above `LOWEST`.
        shape: of the tail, 0 .. 7.
    """

    mean: Array
    level: Array
    shape: Array

    def coding(self) -> tuple[Index, Array, Array]:
        """Tables, flat; whole parts of means; and where the sign of what is left is turned around."""
        whole = (self.mean + UNIT // 2) // UNIT
        rest = self.mean - whole * UNIT
        table = ((self.level * FRACTIONS + np.abs(rest)) * SHAPES + self.shape).astype(np.int16)
        return Index(table.ravel(), np.zeros(table.size, np.int16)), whole, rest < 0


class Tables:
    """Probability tables of differences, by scale, fraction of the mean and tail shape.

    Attributes: as `ans.Tables`, for `ans.Stack`.
    """

    def __init__(self, tail: Array) -> None:
        shapes = np.arange(SHAPES, dtype=np.float32) / (SHAPES - 1)
        ratio, logit = ((1 - shapes) * tail[0, i] + shapes * tail[1, i] for i in (0, 1))
        self.ratios, self.weights = exact.exp2(ratio), exact.sigmoid(logit)
        scales = exact.exp2(np.arange(SCALES, dtype=np.float32) / SCALES_PER_OCTAVE + LOWEST)
        far = np.ceil(scales[:, None] * self.ratios * FAR)
        reach = np.clip(far, 1, MAX_REACH).astype(np.int32)
        self.reaches = np.repeat(reach[:, None], FRACTIONS, 1).ravel()
        self.silent = np.zeros(len(self.reaches), bool)
        self._scales = scales
        self.models = Models(self.counts)

    def mixture(self, level: Array, shape: Array) -> Mixture:
        """Distributions around zero, in grey levels."""
        return Mixture(self._scales[level], self.ratios[shape], self.weights[shape])

    def counts(self, table: int) -> Array:
        """Symbols -reach .. reach and the escape; int32, sum 2^24."""
        (level, fraction), shape = divmod(table // SHAPES, FRACTIONS), table % SHAPES
        own = self.mixture(np.asarray(level), np.asarray(shape))
        reach, mean = int(self.reaches[table]), np.float32(fraction / UNIT)
        edges = np.arange(-reach, reach + 2, dtype=np.float32) - np.float32(0.5) - mean
        # On their own side of the mean probabilities are small, so their differences keep their digits.
        under, over = own.below(np.minimum(edges, 0)), own.below(-np.maximum(edges, 0))
        masses = np.where(edges[1:] <= 0, np.diff(under), -np.diff(over)).astype(np.float64)
        middle = (edges[:-1] < 0) & (edges[1:] > 0)
        masses[middle] = 1 - under[:-1][middle].astype(np.float64) - over[1:][middle]
        masses = np.append(masses, float(under[0]) + float(over[-1]))
        counts = np.maximum(np.rint(masses * TOTAL), 1).astype(np.int32)
        counts[reach] += TOTAL - counts.sum()
        return counts

"""The symbols' distribution (`likelihood.py`) as it is coded: a mixture of two logistics, exact.

Scale, ratio and weight are arrays that broadcast: the narrow logistic's scale in symbols, how many
times wider the other one is, and its weight.
"""

from typing import NamedTuple

import numpy as np

from . import exact
from .exact import Array

MASS_FLOOR = np.float32(2.0**-24)


class Mixture(NamedTuple):
    """One distribution, or one for each of many symbols."""

    scale: Array
    ratio: Array
    weight: Array

    def below(self, edge: Array) -> Array:
        """Probability of everything below `edge`, in symbols."""
        at = edge / self.scale
        wide = exact.sigmoid(at / self.ratio)
        return (1 - self.weight) * exact.sigmoid(at) + self.weight * wide

    def bits(self, symbol: Array) -> Array:
        """-log2 of the probability of the unit interval around `symbol` (any number), at most 24."""
        # On the negative side both probabilities are small, so their difference keeps its digits.
        far = -np.abs(symbol)
        half = np.float32(0.5)
        mass = self.below(far + half) - self.below(far - half)
        return -exact.log2(np.maximum(mass, MASS_FLOOR))

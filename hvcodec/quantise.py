"""Rate-distortion optimised quantisation: the encoder's choice of symbols.

Layers are factorised given the trunk, so each symbol is chosen alone: the nearest integer, or the
one nearer to zero if it saves more bits than its squared error costs. With the steps of `steps.py`,
lambda/3 Delta^2 / beta = 6 KAPPA^2 / ln 2 whatever lambda and beta are, so the rule needs neither.
"""

import torch
from torch import Tensor

from .likelihood import MASS_FLOOR, below
from .steps import BITS_PER_SQUARED_ERROR


def quantise(
    target: Tensor,
    scale: Tensor,
    ratio: Tensor,
    weight: Tensor,
    bits_per_squared_error: float | Tensor = BITS_PER_SQUARED_ERROR,
) -> Tensor:
    """Integer symbols (as floats) for targets in symbol units, under their distribution."""
    nearest = torch.round(target)
    nearer = nearest - nearest.sign()
    far = -nearest.abs()
    # Edges of the two intervals, outer to inner; they share the one in the middle.
    edges = [below(far + edge, scale, ratio, weight) for edge in (-0.5, 0.5, 1.5)]
    outer, inner = ((b - a).clamp(min=MASS_FLOOR) for a, b in zip(edges, edges[1:]))
    saved = torch.log2(inner / outer)
    cost = (target - nearer).square() - (target - nearest).square()
    worth = (saved > bits_per_squared_error * cost) & (nearest != 0)
    return torch.where(worth, nearer, nearest)

"""The symbols' distribution: a mixture of two logistics around zero, in bits.

P(z) integrates over [z - 1/2, z + 1/2] the density (1 - w) Logistic(s) + w Logistic(r s). The ratio
r > 1 and the weight w of the wide one follow a learned curve over a single tail shape in 0..1, so
that all distributions form one two-parameter family (scale, shape) that integer tables can hold.
`mixture.py` is the same at run time, in exact arithmetic.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

MASS_FLOOR = 2.0**-24


class Prior(NamedTuple):
    """Prior of some latents; every field is B x C x H x W float32.

    Attributes:
        mean: predicted value, in coefficient units.
        log2_scale: log2 of the main logistic's scale, in coefficient units.
        shape: of the tail, 0 .. 1, see `wide_part`.
    """

    mean: Tensor
    log2_scale: Tensor
    shape: Tensor


class _Bounded(torch.autograd.Function):
    """A clamp that lets gradients bring back what lies outside: an ordinary one gives it none, and
    then it stays there for the rest of the training."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.ends = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        low, high = ctx.ends
        further = ((x < low) & (gradient > 0)) | ((x > high) & (gradient < 0))
        return gradient.masked_fill(further, 0), None, None


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """x, clamped; see `_Bounded`."""
    return _Bounded.apply(x, low, high)


def wide_part(tail: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
    """Ratio r (over 1) and weight w (0..1) of the wide logistic at a tail shape in 0..1.

    Args:
        tail: 2 x 2 float32, (log2 of r, logit of w) at shape 0 and at shape 1.
        shape: any shape, float32.
    """
    start, end = tail
    log2_ratio, logit = ((1 - shape) * start[i] + shape * end[i] for i in (0, 1))
    return torch.exp2(log2_ratio), torch.sigmoid(logit)


def below(edge: Tensor, scale: Tensor, ratio: Tensor, weight: Tensor) -> Tensor:
    """Probability of everything below `edge`; `scale` is the narrow logistic's. Symbol units."""
    at = edge / scale
    return (1 - weight) * torch.sigmoid(at) + weight * torch.sigmoid(at / ratio)


def bits(symbol: Tensor, scale: Tensor, ratio: Tensor, weight: Tensor) -> Tensor:
    """-log2 of the probability of the unit interval around `symbol` (any float), at most 24."""
    # On the negative side both probabilities are small, so their difference keeps its digits.
    far = -symbol.abs()
    upper, lower = (below(far + edge, scale, ratio, weight) for edge in (0.5, -0.5))
    return -torch.log2((upper - lower).clamp(min=MASS_FLOOR))

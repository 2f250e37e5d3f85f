"""Refinement layers: coefficients that are known to one step are told to a third of it.

After the seven layers of the ladder, a file may go on with levels of refinement. Each takes every
coefficient from its quantiser step Delta to Delta / 3, given everything at the coarser step:

- Where all symbols so far were zero (the coefficient is fresh), little is known but the prior. The
  trunk predicts mean, scale and shape anew, and a symbol is coded as on the ladder, with the new step.
- Elsewhere the interval of the last symbol is split in three, so nothing that was sent before is sent
  again (nested quantisers with the density restricted to the interval, Equitz & Cover, "Successive
  refinement of information", 1991).

A level is four layers. How much squared error a bit is expected to save grows with how open a symbol
is: 0.047 Delta^2 where all three thirds are equally likely, 0.014 Delta^2 where a symbol other than 0
comes once in fifty times. So the layers send the symbols in the order of that return, by the
probability of 0, which both sides know; and each predicts what is left from what those before it sent.

The digit k of a split interval is -1, 0 or 1, or a little beyond where rate and distortion made the
encoder choose a symbol nearer zero before. Its distribution has two parameters, skew and peak:

    log P(k) - log P(0) = peak + sign(k) skew                  for |k| = 1
                        = peak + sign(k) skew + falloff(peak)  for |k| = 2

They start at what the prior says of the three parts of the interval, and the trunk corrects them.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .ladder import RATIO
from .likelihood import Prior, bits
from .steps import STEPS_PER_OCTAVE

INDEX_PER_LEVEL = STEPS_PER_OCTAVE * math.log2(RATIO)  # in step indices
REACH = 2
SKEW_MAX = 4.0
PEAK_RANGE = (-10.0, 3.0)
SCALE_FLOOR = 0.15  # of what a prior at the coarser step says, in new steps
ESCAPE_BITS = 20.0  # roughly what a digit beyond the reach costs

# A layer of a level sends symbols whose probability of 0 does not exceed its bound.
LAYER_BOUNDS = (0.32, 0.45, 0.72, 1.0)


class Level(NamedTuple):
    """What is known of the symbols of one layer; B x 192 x H/8 x W/8 each, woven (`transform.weave`).

    Attributes:
        waiting: bool, whether the symbol has not been sent at this level.
        fresh: bool, whether all symbols of the coefficient so far were zero.
        prior: of those that are fresh.
        skew, peak: of those that are not; -4 .. 4 and -10 .. 3.
        value: so far, coefficient units.
        delta: the new step, coefficient units.
    """

    waiting: Tensor
    fresh: Tensor
    prior: Prior
    skew: Tensor
    peak: Tensor
    value: Tensor
    delta: Tensor


def restricted(position: Tensor, scale: Tensor, ratio: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Skew and peak of the three parts of an interval under the prior of the ladder's layer.

    Args:
        position: of the interval's middle from the prior's mean, in new steps (an integer).
        scale, ratio, weight: of the prior, in new steps, see `likelihood.py`.
    """
    below, middle, above = (-math.log(2) * bits(position + k, scale, ratio, weight) for k in (-1, 0, 1))
    return (above - below) / 2, (above + below) / 2 - middle


def clamp(skew: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
    """Into their ranges."""
    return skew.clamp(-SKEW_MAX, SKEW_MAX), peak.clamp(*PEAK_RANGE)


def digit_bits(skew: Tensor, peak: Tensor, falloff: Tensor) -> list[Tensor]:
    """Bits that the digits -2 .. 2 cost, each of the shape of `skew` and `peak`.

    Args:
        falloff: two numbers, float32: the log odds of 2 against 1 at a peak of zero, and how much of a
            negative peak adds to it.
    """
    beyond = falloff[0] + falloff[1] * peak.clamp(max=0)
    down, up = peak - skew, peak + skew
    total = 1 + down.exp() + up.exp() + (down + beyond).exp() + (up + beyond).exp()
    total = total.log()
    logs = (down + beyond, down, torch.zeros_like(down), up, up + beyond)
    return [(total - log) / math.log(2) for log in logs]


def cost_of(digits: Tensor, costs: list[Tensor]) -> Tensor:
    """Bits of digits, from the costs of all of them as `digit_bits` gives them."""
    cost = torch.full_like(costs[0], ESCAPE_BITS)
    for k, bits_of_k in zip(range(-REACH, REACH + 1), costs):
        cost = torch.where(digits == k, bits_of_k, cost)
    return cost


def choose_digits(
    target: Tensor, costs: list[Tensor], bits_per_squared_error: float | Tensor
) -> Tensor:
    """Digits by rate and distortion: targets in new steps from the value -> integers (floats)."""
    nearest = torch.round(target)
    best = nearest
    least = torch.full_like(target, math.inf)
    for k, cost in zip(range(-REACH, REACH + 1), costs):
        total = cost + bits_per_squared_error * (target - k).square()
        best = torch.where(total < least, float(k), best)
        least = torch.minimum(total, least)
    return torch.where(nearest.abs() > REACH, nearest, best)

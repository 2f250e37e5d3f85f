"""Rate weights -> quantiser steps: how lambda and beta reach the network.

The objective per pixel, rates in bits and squared error in 8-bit units averaged over R, G and B, is

    J = sum_l beta_l R_l + lambda * MSE                      (Xiao & Bamler, ICLR 2023, with D scaled)

At high rate a step Delta costs MSE = Delta^2/12 per coefficient and dR/dDelta = -1/(Delta ln 2), so
the best step of layer l is KAPPA * sqrt(18 beta_l / (lambda ln 2)); KAPPA above 1 because the
encoder quantises by rate and distortion rather than by rounding. Steps live on a logarithmic grid
and are carried in files as integers 0..254; `OFF` says that a layer is not coded at all.

Where levels of refinement follow, the steps of the ladder's layers are coarser by 2 for each level, and
the steps above are reached at the end. The weight of a refinement layer acts on the encoder's choice of
symbols only, since its step is given: half of the one before.
"""

import math
from collections.abc import Mapping

from .errors import UsageError
from .ladder import COARSE_HALF, LAYERS_PER_LEVEL, MAX_LEVELS, NAMES, RATIO, names

KAPPA = 1.3
# Bits that a squared error of one step is worth, whatever lambda and beta are: lambda/3 Delta^2 / beta.
BITS_PER_SQUARED_ERROR = 6 * KAPPA**2 / math.log(2)
STEPS_PER_OCTAVE = 16
INDEX_PER_LEVEL = round(STEPS_PER_OCTAVE * math.log2(RATIO))  # what a level of refinement takes off
OFF = 255
MAX_INDEX = 254

BETA_RANGE = (1 / 8, 8.0)
LAMBDA_RANGE = (4e-5, 4.0)  # of qualities 0 and 100

# Named rate weights, coarse layer first; those of refinement layers, if there are any, last.
PRESETS: dict[str, tuple[float, ...]] = {
    "balanced": (1, 1, 1, 1, 1, 1, 1),
    "preview-first": (0.25, 0.25, 0.35, 0.5, 0.7, 1.4, 2.8),
    "detail-first": (2.8, 2.8, 2.0, 1.4, 1, 0.7, 0.5),
    # Where a level is half there, its coarse half has the finer steps: so they are a little coarser.
    "progressive": (1.3,) * COARSE_HALF
    + (1,) * (len(NAMES) - COARSE_HALF + MAX_LEVELS * LAYERS_PER_LEVEL),
}


def step_size(index: int) -> float:
    """Quantiser step in coefficient units (8-bit pixel units) of a step index 0..254."""
    return 2.0 ** (index / STEPS_PER_OCTAVE - 1)


def step_index(lam: float, beta: float, bias: float = 0.0) -> int:
    """The step index for lambda > 0 and a rate weight beta > 0; `OFF` if beta is infinite.

    `bias` (index units, below 1/2 in size) moves the places where the index is rounded.
    """
    if math.isinf(beta):
        return OFF
    delta = KAPPA * math.sqrt(18 * beta / (lam * math.log(2)))
    return min(max(round(STEPS_PER_OCTAVE * (math.log2(delta) + 1) + bias), 0), MAX_INDEX)


def lambda_of_quality(quality: float) -> float:
    """lambda of a quality 0..100 (any float): log-linear between the ends of `LAMBDA_RANGE`.

    Raises:
        UsageError: the quality lies outside 0..100.
    """
    if not 0 <= quality <= 100:
        raise UsageError(f"quality must lie in 0..100, not {quality:g}")
    low, high = (math.log(v) for v in LAMBDA_RANGE)
    return math.exp(low + (high - low) * quality / 100)


def betas(rate_weights: str | Mapping[str, float] | None) -> list[float]:
    """Rate weights beta_l, coarse layer first.

    Args:
        rate_weights: None (all 1), a preset's name, or a mapping from layer name (`z7` .. `z1`) to
            beta in 0.125 .. 8, or infinity to leave the layer out. Refinement layers (`r8` .. `r1`,
            finest last) that are named are there, with all before them that belong to their levels.
            Layers not named have beta 1.

    Raises:
        UsageError: an unknown preset or layer, or a weight out of range.
    """
    if rate_weights is None:
        return [1.0] * len(NAMES)
    if isinstance(rate_weights, str):
        if rate_weights not in PRESETS:
            raise UsageError(f"no preset {rate_weights!r}; there are {', '.join(PRESETS)}")
        return list(PRESETS[rate_weights])
    known = names(MAX_LEVELS)
    unknown = set(rate_weights) - set(known)
    if unknown:
        raise UsageError(f"no layer {min(unknown)!r}; there are {', '.join(known)}")
    refined = max((int(name[1:]) for name in rate_weights if name not in NAMES), default=0)
    levels = -(-refined // LAYERS_PER_LEVEL)
    for name, beta in rate_weights.items():
        may_be_off = not levels and beta == math.inf
        if not (BETA_RANGE[0] <= beta <= BETA_RANGE[1] or may_be_off):
            off = "" if levels else " or be inf"
            raise UsageError(f"rate weight of {name} must lie in 0.125..8{off}, not {beta:g}")
    return [float(rate_weights.get(name, 1.0)) for name in names(levels)]


def step_indices(lam: float, weights: list[float]) -> list[int]:
    """What the file says of each layer's step, coarse first, for lambda and rate weights beta_l.

    A step index for each of the ladder's layers; for refinement layers the number that they divide it
    by. Every layer rounds at a place of its own, so that size follows lambda in many small steps and
    rate control can come close to its target.
    """
    refinements = len(weights) - len(NAMES)
    levels = refinements // LAYERS_PER_LEVEL
    lam = lam / RATIO ** (2 * levels)
    biases = [(k + 0.5) / len(NAMES) - 0.5 for k in range(len(NAMES))]
    ladder = [step_index(lam, beta, bias) for beta, bias in zip(weights, biases)]
    return [max(index, INDEX_PER_LEVEL * levels) for index in ladder] + [RATIO] * refinements

"""Refinement: the ladder run again with half the steps, given all that is known by then.

After the seven layers of the ladder a file may go on with levels of refinement. Each is one more run of
the same network down the same ladder with every step halved. The priors of the new run know nothing of
the old one; what is known enters where the symbols are coded: the last symbol of a coefficient left it
in a window, and its prior is restricted to that window. By the chain rule nothing is sent twice, and no
rate is lost as long as the old run's prior of the window was as good as the new one's (Equitz & Cover,
"Successive refinement of information", 1991).

A window has at most three parts, and the symbol -1, 0 or 1 says in which the coefficient lies:

- where all symbols so far were zero (the coefficient is fresh), the parts are cells of the new step
  around the new prior's mean, the outer ones up to the ends of the window;
- elsewhere the window is split into as many equal parts as new steps fit into it.

Windows are exact: the encoder chooses by rate and distortion, which moves the borders between symbols
by what both sides can compute.

A level is two layers, the ladder's coarse half and its fine half, so that a file can be cut between
them.
"""

import math
from typing import NamedTuple

import numpy as np

from . import exact
from .exact import Array
from .ladder import COARSE_HALF, LAYERS, LAYERS_PER_LEVEL, Place
from .mixture import Mixture
from .steps import BITS_PER_SQUARED_ERROR, INDEX_PER_LEVEL, OFF

LARGEST_SHIFT = np.float32(0.4)  # of a border between symbols, in steps
NARROWEST = np.float32(0.02)  # part of a window that can be, in steps
LEAST_MASS = np.float32(1e-30)
HALF = np.float32(0.5)


class Known(NamedTuple):
    """What is known of some coefficients; all fields of one shape.

    Attributes:
        value: coefficient units.
        low, high: ends of the window, coefficient units.
        fresh: bool, whether all symbols so far were zero.
    """

    value: Array
    low: Array
    high: Array
    fresh: Array


Memory = dict[Place, Known]  # flat, channels outermost


class Parts(NamedTuple):
    """Up to three parts of each window, in steps from the prior's mean; parts that cannot be are empty.

    Attributes:
        edges: four ends in rising order.
        points: three values that the parts stand for.
        zero: three bools, whether the part keeps a fresh coefficient fresh.
    """

    edges: list[Array]
    points: list[Array]
    zero: list[Array]


def levels(steps: list[int]) -> int:
    """Levels of refinement of a file, from what it says of each layer's step."""
    return (len(steps) - len(LAYERS)) // LAYERS_PER_LEVEL


def layer_of(run: int, index: int) -> int:
    """The file's layer in which a run down the ladder (0 is the first) sends a layer of the ladder."""
    if not run:
        return index
    return len(LAYERS) + (run - 1) * LAYERS_PER_LEVEL + (index >= COARSE_HALF)


def steps_of(steps: list[int], run: int, count: int) -> list[int]:
    """Step indices that the ladder's layers are known to after a run, if `count` layers are there.

    Args:
        steps: what the file says of each layer's step.
    """
    return [
        OFF if layer_of(0, k) >= count else step - INDEX_PER_LEVEL * (run - (layer_of(run, k) >= count))
        for k, step in enumerate(steps[: len(LAYERS)])
    ]


def border_shift(bits_saved: Array, distance: Array | np.float32 = np.float32(1)) -> Array:
    """How far rate and distortion move the border between two symbols, in steps (`quantise.py`).

    Args:
        bits_saved: by choosing the symbol on the left; the border moves to the right.
        distance: between the values that the two stand for, in steps.
    """
    shift = bits_saved / (np.float32(2 * BITS_PER_SQUARED_ERROR) * distance)
    return np.clip(shift, -LARGEST_SHIFT, LARGEST_SHIFT)


def window(symbol: Array, prior: Mixture) -> tuple[Array, Array]:
    """Ends of the window that a symbol of the ladder leaves, in steps from the prior's mean.

    Args:
        symbol: integers, float32.
    """
    size = np.abs(symbol)
    smaller, here, larger = (prior.bits(size + k) for k in (-1, 0, 1))
    outer = size + HALF + border_shift(larger - here)
    inner = np.where(size == 0, -outer, size - HALF + border_shift(here - smaller))
    return np.where(symbol < 0, -outer, inner), np.where(symbol < 0, -inner, outer)


def parts(known: Known, mean: Array, delta: Array | np.float32) -> Parts:
    """The parts of each window at the new step.

    Args:
        mean, delta: of the new prior, and the new step; coefficient units.
    """
    low, high = ((end - mean) / delta for end in (known.low, known.high))
    width = high - low
    centre = np.rint((low + high) / 2)
    count = np.clip(np.rint(width), 1, 3)
    part = width / count
    # Of two parts, the first is 0 and the second 1.
    first = np.where(known.fresh, centre - HALF, low + part * (count == 3))
    second = np.where(known.fresh, centre + HALF, np.where(count == 1, high, first + part))
    edges = [low, np.clip(first, low, high), np.clip(second, low, high), high]
    points, zero = [], []
    for k, (a, b) in enumerate(zip(edges, edges[1:]), -1):
        here = known.fresh & (centre + k == 0) & (a < 0) & (b > 0)
        points.append(np.where(here, np.float32(0), (a + b) / 2))
        zero.append(here)
    unsplit = ~known.fresh & (count == 1)
    points[1] = np.where(unsplit, (known.value - mean) / delta, points[1])
    return Parts(edges, points, zero)


def odds(edges: list[Array], prior: Mixture) -> tuple[Array, Array]:
    """Log odds of the first and the third part against the second; -inf for parts that cannot be."""
    logs = []
    for a, b in zip(edges, edges[1:]):
        # On the negative side both probabilities are small, so their difference keeps its digits.
        flip = a + b > 0
        mass = prior.below(np.where(flip, -a, b)) - prior.below(np.where(flip, -b, a))
        logs.append(exact.log(np.maximum(mass, LEAST_MASS)))
    down, up = (
        np.where(edges[k + 1] - edges[k] < NARROWEST, np.float32(-np.inf), logs[k] - logs[1])
        for k in (0, 2)
    )
    return down, up


def costs(down: Array, up: Array) -> list[Array]:
    """Bits of the symbols -1, 0 and 1 from their log odds; infinite for parts that cannot be."""
    total = exact.log(1 + exact.exp(down) + exact.exp(up))
    return [(total - log) * np.float32(1 / math.log(2)) for log in (down, np.zeros_like(down), up)]


def choose(target: Array, found: Parts, cost: list[Array], worth: Array) -> Array:
    """Symbols by rate and distortion, int32.

    Args:
        target: in steps from the prior's mean.
        cost: bits of the three symbols.
        worth: bits that a squared error of one step is worth.
    """
    totals = [c + worth * np.square(target - point) for c, point in zip(cost, found.points)]
    return (np.argmin(totals, 0) - 1).astype(np.int32)


def moves(
    symbol: Array, target: Array, found: Parts, cost: list[Array], worth: Array
) -> tuple[Array, Array]:
    """The best symbols of the other parity, int32, and what they cost more, bits; see `choose`."""
    down, none, up = (c + worth * np.square(target - p) for c, p in zip(cost, found.points))
    other = np.where(symbol == 0, np.where(down < up, -1, 1), 0).astype(np.int32)
    with np.errstate(invalid="ignore"):
        return other, pick(other, [down, none, up]) - pick(symbol, [down, none, up])


def pick(symbol: Array, options: list[Array]) -> Array:
    """The option of each symbol -1, 0 or 1."""
    return np.where(symbol < 0, options[0], np.where(symbol > 0, options[2], options[1]))


def narrow(
    symbol: Array,
    found: Parts,
    cost: list[Array],
    mean: Array,
    delta: Array | np.float32,
    fresh: Array,
) -> Known:
    """What is known once the symbol is there."""
    ends = list(found.edges)
    for k, empty in ((1, np.isinf(cost[0])), (2, np.isinf(cost[2]))):
        left, right = found.points[k - 1], found.points[k]
        with np.errstate(invalid="ignore"):
            shift = border_shift(cost[k] - cost[k - 1], np.maximum(right - left, NARROWEST))
            border = np.minimum(np.maximum((left + right) / 2 + shift, left), right)
        ends[k] = np.where(empty, ends[k], border)
    return Known(
        mean + delta * pick(symbol, found.points),
        mean + delta * pick(symbol, ends[:3]),
        mean + delta * pick(symbol, ends[1:]),
        fresh & pick(symbol, found.zero),
    )

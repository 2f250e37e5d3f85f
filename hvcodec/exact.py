"""Arithmetic that gives the same bits on every machine, so that every decoder finds the same priors.

Three rules make the network exact in float32, whatever library, thread count or order of summation:

1. The inputs of every product over channels or positions are rounded to multiples of a unit, clamped to
   a limit of some hundreds or thousands of units, and its weights are whole numbers of a unit too. A
   sum of such products is exact in any order while sum |w| * limit + |bias| stays under 2^24 units.
   `rounded` chooses the finest weights for which that holds, channel by channel: the certificate.
2. Everything else goes element by element through +, -, *, /, comparison and rounding, which IEEE 754
   defines to the last bit.
3. Logarithms and powers are made of these here, since those of different libraries differ.

Weights are rounded when a model is loaded; the units of the inputs are measured when it is exported.
Arrays are float32 if nothing else is said.
"""

import math

import numpy as np

Array = np.ndarray

CAPACITY = 1 << 24  # whole numbers up to here are exact in float32
FINEST, COARSEST = 24, -12  # -log2 of the units of weights
LIMITS = (4095, 2047, 1023, 511)
ENOUGH = 127  # the largest weight of a typical channel should be at least so many units
CONDITION_UNIT = 32  # the features of steps are whole numbers of 1/32


def whole(x: Array, limit: int, out: Array | None = None, least: int | None = None) -> Array:
    """`x` rounded to whole numbers, halves to even, and clamped to -limit (or `least`) .. limit."""
    out = np.rint(x, out=out)
    return out.clip(np.float32(-limit if least is None else least), np.float32(limit), out=out)


def log2(x: Array) -> Array:
    """Base 2 logarithm of positive normal numbers, within 2.2e-5."""
    # In place where it can be: fresh memory costs more than the arithmetic.
    mantissa, exponent = np.frexp(x)
    rest = mantissa * np.float32(1.40815007)
    rest -= np.float32(4.45325453)
    rest *= mantissa
    rest += np.float32(5.52538099)
    rest *= mantissa
    rest -= np.float32(3.59235683)
    rest *= mantissa - np.float32(0.5)
    rest += 2
    mantissa -= 1
    rest *= mantissa
    rest += exponent.astype(np.float32)
    return rest


def symlog2(x: Array) -> Array:
    """sign(x) log2(1 + |x|)."""
    size = np.abs(x)
    size += 1
    result = log2(size)
    result *= np.sign(x, out=size)
    return result


def exp2(x: Array) -> Array:
    """2^x within 3e-7 of itself; x is clamped to -120 .. 120."""
    x = np.clip(x, np.float32(-120), np.float32(120))
    whole = np.rint(x)
    f = x - whole
    p = (f * np.float32(0.00132609) + np.float32(0.00967018)) * f + np.float32(0.05550712)
    p = ((p * f + np.float32(0.24022224)) * f + np.float32(0.693147)) * f + 1
    power = ((whole.astype(np.int32) + 127) << 23).view(np.float32)
    return p * power


def log(x: Array) -> Array:
    """Natural logarithm, from `log2`."""
    return log2(x) * np.float32(math.log(2))


def exp(x: Array) -> Array:
    """e^x, from `exp2`."""
    return exp2(x * np.float32(1 / math.log(2)))


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), from `exp2`."""
    return 1 / (1 + exp2(x * np.float32(-1 / math.log(2))))


def weight_units(weights: Array, biases: Array | None, unit: float, limit: int) -> Array:
    """The finest unit of each output's weights that the certificate allows; float64, a power of two.

    Args:
        weights: outputs first.
        unit, limit: of the inputs.

    Raises:
        ValueError: none does.
    """
    w = weights.reshape(len(weights), -1).astype(np.float64)
    b = np.zeros(len(w)) if biases is None else biases.astype(np.float64)

    def sums(step: Array) -> Array:
        weighted = np.abs(np.rint(w / step[:, None])).sum(1) * limit
        return weighted + np.abs(np.rint(b / step / unit))

    # Sums grow with fineness: from up to twice the capacity down to where they fit. (Beyond that they
    # never fit, since rounding takes off far less than the capacity.)
    guess = np.floor(np.log2(CAPACITY / np.maximum(np.abs(w).sum(1) * limit + np.abs(b) / unit, 1e-9)))
    fineness = np.clip(guess + 1, COARSEST, FINEST)
    while (over := sums(2.0**-fineness) >= CAPACITY).any():
        fineness -= over
        if fineness.min() < COARSEST:
            raise ValueError("weights too large for exact sums")
    return 2.0**-fineness


def rounded(
    weights: Array, biases: Array | None, unit: float, limit: int
) -> tuple[Array, Array | None]:
    """Weights and biases of a product, float32, so that all its sums are exact."""
    units = weight_units(weights, biases, unit, limit)
    column = units.reshape(-1, *[1] * (weights.ndim - 1))
    w = (np.rint(weights.astype(np.float64) / column) * column).astype(np.float32)
    if biases is None:
        return w, None
    b = np.rint(biases.astype(np.float64) / units / unit) * units * unit
    return w, b.astype(np.float32)


def rounded_condition(weights: Array) -> Array:
    """Weights of the features of steps, so that all sums are exact."""
    return rounded(weights, None, 1 / CONDITION_UNIT, CONDITION_UNIT)[0]


def grid_of(weights: Array, biases: Array | None, largest: float) -> tuple[int, int]:
    """log2 of the unit, and the limit, of inputs up to `largest`: as fine as leaves most channels'
    weights fine enough."""
    power = math.ceil(math.log2(max(largest, 2.0**-12)))
    for limit in LIMITS:
        # The limit is one short of a power of two, so that units are powers of two.
        exponent = power - (limit + 1).bit_length() + 1
        units = weight_units(weights, biases, 2.0**exponent, limit)
        magnitudes = np.abs(weights.reshape(len(weights), -1)).max(1)
        if np.median(magnitudes / units) >= ENOUGH:
            break
    return exponent, limit

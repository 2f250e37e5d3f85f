"""What a picture's own statistics change in the lossless layer's distributions.

The network knows pictures in general. Where the noise of one has a texture of its own (a scanner's, a
camera's interpolation), errors of neighbouring pixels still tell something of each other. So the
encoder may fit two things for each colour of each pass, and sends them ahead of the pixels: shares of
the errors of known neighbours, which are added to the mean, and a factor on all scales. Nothing that
the network sees changes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .errors import FormatError
from .exact import Array
from .lossless_tables import MEAN_MAX, SCALES, UNIT, Predicted, Tables

SHARE_UNIT = 64  # shares per 1
SHARE_MAX = 255  # of them
NEAR = 2  # pixels that neighbours are away, at most, both ways

# For the encoder.
SAMPLES = 1 << 14  # positions that bits are compared at, roughly
RIDGE = 1e-4
SHARE_BITS = 6  # what a share costs, roughly
LEAST_SCALE = 0.3  # grey levels; below it errors are those of rounding


class Correction(NamedTuple):
    """For one colour of one pass.

    Attributes:
        octaves: added to the levels of scales, in 1/8 octaves.
        shares: of each neighbour's error, in 1/64; empty if there are none.
    """

    octaves: int
    shares: Sequence[int]


def neighbours(
    errors: Sequence[Sequence[Array]], positions: Sequence[tuple[int, int]], inside: tuple[slice, slice]
) -> list[Array]:
    """Errors that are known next to the pixels of a pass, each float32 H x W.

    Args:
        errors: per pass, the last one being this one, per colour that is known: differences minus
            means at every 2x2, zero where there is no pixel. Of earlier passes the colour that this is
            about counts, of this one all.
        positions: row and column in every 2x2 of the pixels of these passes.
        inside: positions where this pass has pixels.
    """
    *earlier, own = errors
    colour = len(own)
    row, column = positions[len(earlier)]
    found = []
    for (i, j), planes in zip(positions, earlier):
        padded = np.pad(planes[colour], 1)
        height, width = planes[colour].shape
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                if max(abs(2 * down + i - row), abs(2 * right + j - column)) <= NEAR:
                    part = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
                    found.append(part[inside])
    return [*found, *(plane[inside] for plane in own)]


def corrected(predicted: Predicted, correction: Correction, known: Sequence[Array]) -> Predicted:
    """Distributions after a correction.

    Args:
        known: errors of the neighbours, as many as there are shares if there are any.

    Raises:
        FormatError: a correction that cannot be.
    """
    if max(map(abs, correction.shares), default=0) > SHARE_MAX or abs(correction.octaves) > SCALES:
        raise FormatError("the coded data do not fit the model")
    mean, level, shape = predicted
    if correction.shares:
        shift = np.zeros(mean.shape, np.float32)
        for share, error in zip(correction.shares, known):
            shift += np.float32(share / SHARE_UNIT) * error
        limit = MEAN_MAX * UNIT
        mean = np.clip(mean + np.rint(shift * UNIT), -limit, limit).astype(np.int32)
    return Predicted(mean, np.clip(level + correction.octaves, 0, SCALES - 1), shape)


def fitted(
    predicted: Predicted, known: Sequence[Array], differences: Array, tables: Tables
) -> Correction:
    """The correction that saves most, for the encoder: weighted least squares, then the scale."""
    step = max(int((differences.size / SAMPLES) ** 0.5), 1)
    some = slice(None, None, step), slice(None, None, step)
    worth = differences.size / max(differences[some].size, 1)
    few = Predicted(*(field[some] for field in predicted))

    def bits(correction: Correction) -> float:
        mean, level, shape = corrected(few, correction, [error[some] for error in known])
        error = differences[some] - mean.astype(np.float32) / UNIT
        total = float(tables.mixture(level, shape).bits(error).sum(dtype=np.float64))
        return total * worth + SHARE_BITS * len(correction.shares)

    def scaled(shares: Sequence[int]) -> tuple[float, Correction]:
        """The best scale with these shares."""
        best, least = Correction(0, shares), bits(Correction(0, shares))
        for way in (1, -1):
            while (cost := bits(further := Correction(best.octaves + way, shares))) < least:
                best, least = further, cost
        return least, best

    if not differences.size:
        return Correction(0, ())
    candidates = [scaled(())]
    if known:
        scale = tables.mixture(predicted.level, predicted.shape).scale
        weight = 1 / (scale + LEAST_SCALE)
        inputs = np.stack([(error * weight).ravel() for error in known], 1).astype(np.float64)
        target = ((differences - predicted.mean / UNIT) * weight).ravel()
        gram = inputs.T @ inputs
        gram += np.eye(len(gram)) * (RIDGE * np.trace(gram) / len(gram) + 1e-9)
        found = np.linalg.solve(gram, inputs.T @ target) * SHARE_UNIT
        candidates.append(scaled([int(s) for s in np.clip(np.rint(found), -SHARE_MAX, SHARE_MAX)]))
    return min(candidates, key=lambda found: found[0])[1]

"""Rate control: the setting whose file or picture comes closest to a target from below.

Files do not come in all sizes, since steps are whole numbers. So there are two settings: a quality, and
thrift, which makes the encoder count a bit for more than it is and moves both a little, smoothly.
"""

from collections.abc import Callable
from typing import NamedTuple

TRIALS = 6
FIRST_GUESS = 50.0
GRAIN = 0.4  # where two qualities are no farther apart, thrift decides
THRIFT_MAX = 2.0  # log2


class Setting(NamedTuple):
    """Quality 0..100, and log2 of thrift, 0 or more."""

    quality: float
    log2_thrift: float = 0.0


class Measure(NamedTuple):
    """What a target is of, as photographs have it; in one unit.

    Attributes:
        slack: how far below the target is near enough.
        slope: typical growth per unit of quality.
        thrift_slope: typical fall per unit of log2 of thrift.
    """

    slack: float
    slope: float
    thrift_slope: float


LOG_SIZE = Measure(0.015, 0.07, 0.2)
PSNR = Measure(0.08, 0.3, 0.5)  # dB


def search(measure: Callable[[Setting], float], target: float, kind: Measure) -> Setting | None:
    """The setting of the highest measure up to the target, within a few trials.

    Args:
        measure: grows with quality (log of a size, or a PSNR); each call costs a network pass.
        target: in the same unit.
        kind: of measure.

    Returns:
        None if even quality 0 with all thrift exceeds the target.
    """
    seen: dict[Setting, float] = {}
    aim = target - kind.slack / 2
    low, high = Setting(0.0), Setting(100.0)
    guess = Setting(FIRST_GUESS)
    for trial in range(TRIALS):
        value = seen[guess] = measure(guess)
        if value <= target:
            low = guess  # the highest one, though a lower one may measure more
        if target - kind.slack <= value <= target or guess == low == Setting(100.0):
            break
        if value > target:
            high = guess
        if trial == TRIALS - 2 and low not in seen:
            guess = low  # or nothing may have been found in the end
            continue
        guess = _next(seen, low, high, guess, aim, kind)
        if guess in seen:
            break
    if low not in seen:
        seen[low] = measure(low)
    within = [setting for setting, value in seen.items() if value <= target]
    return max(within, key=lambda setting: seen[setting], default=None)


def _next(
    seen: dict[Setting, float],
    low: Setting,
    high: Setting,
    last: Setting,
    aim: float,
    kind: Measure,
) -> Setting:
    """Where to look next."""
    bracketed = low in seen and high in seen
    if bracketed and high.quality - low.quality < GRAIN:
        # From the quality just above the target, spend less.
        tried = [(s.log2_thrift, v) for s, v in seen.items() if s.quality == high.quality]
        thrift, value = min(tried, key=lambda t: abs(t[1] - aim))
        fall = kind.thrift_slope
        if len(tried) > 1:
            (t0, v0), (t1, v1) = sorted(tried)[:: len(tried) - 1]
            fall = max((v0 - v1) / (t1 - t0), fall / 4)
        return Setting(high.quality, min(max(thrift + (value - aim) / fall, 0.0), THRIFT_MAX))
    if bracketed:
        share = (aim - seen[low]) / (seen[high] - seen[low])
        share = min(max(share, 0.05), 0.95)
        return Setting(low.quality + (high.quality - low.quality) * share)
    slope = kind.slope
    others = [s for s in seen if s.quality != last.quality]
    if others:
        near = min(others, key=lambda s: abs(s.quality - last.quality))
        found = (seen[last] - seen[near]) / (last.quality - near.quality)
        slope = min(max(found, slope / 3), slope * 3)
    quality = last.quality + (aim - seen[last]) / slope
    return Setting(min(max(quality, low.quality), high.quality))

"""Rate control: the quality whose file or picture comes closest to a target."""

from collections.abc import Callable

TRIALS = 8
QUALITY_STEP = 0.02  # finer differences of quality change nothing


def search(
    measure: Callable[[float], float], target: float, accept: Callable[[float], bool]
) -> float | None:
    """The highest quality 0..100, within a few trials, whose measure does not exceed the target.

    Args:
        measure: grows with quality (log of a size, or a PSNR); each call costs a network pass.
        target: in the same unit.
        accept: whether a measure at or below the target is close enough to stop.

    Returns:
        The best quality tried; None if even quality 0 exceeds the target.
    """
    low, high = 0.0, 100.0
    at_low, at_high = measure(low), measure(high)
    if at_low > target:
        return None
    if at_high <= target:
        return high
    for trial in range(TRIALS):
        if accept(at_low) or high - low < QUALITY_STEP:
            break
        # Regula falsi, a little short of the target so that both ends move; halving now and then.
        share = (target - at_low) / (at_high - at_low)
        if trial % 3 == 2:
            share = 0.5
        middle = low + (high - low) * min(max(share, 0.02), 0.98)
        value = measure(middle)
        if value <= target:
            low, at_low = middle, value
        else:
            high, at_high = middle, value
    return low

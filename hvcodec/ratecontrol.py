"""Rate control: the quality whose file or picture comes closest to a target from below."""

from collections.abc import Callable

TRIALS = 6
FIRST_GUESS = 50.0
QUALITY_STEP = 0.02  # finer differences of quality change nothing


def search(
    measure: Callable[[float], float], target: float, slack: float, slope: float
) -> float | None:
    """A quality 0..100 whose measure lies at most `slack` below the target, or as near as trials get.

    Args:
        measure: grows with quality (log of a size, or a PSNR); each call costs a network pass.
        target: in the same unit.
        slack: how far below the target is near enough.
        slope: typical growth of the measure per unit of quality.

    Returns:
        The highest quality tried whose measure does not exceed the target; None if even quality 0 does.
    """
    low, high, guess = 0.0, 100.0, FIRST_GUESS
    seen: dict[float, float] = {}
    aim = target - slack / 2
    for _ in range(TRIALS):
        value = seen[guess] = measure(guess)
        if value <= target:
            low = guess
        else:
            high = guess
        if target - slack <= value <= target or high - low < QUALITY_STEP:
            break
        if low in seen and high in seen:
            share = (aim - seen[low]) / (seen[high] - seen[low])
            guess = low + (high - low) * min(max(share, 0.05), 0.95)
        else:
            guess = min(max(guess + (aim - value) / slope, low), high)
        if guess in seen:
            break
    if low not in seen:
        seen[low] = measure(low)
    return low if seen[low] <= target else None

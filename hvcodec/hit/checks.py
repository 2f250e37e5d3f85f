"""What an acceptance check says."""

from dataclasses import dataclass

from ..exact import Array


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        id: its name in the specification, A1 .. T10.
        passed: whether it holds; None where results that it needs are missing.
        value: what was measured, bound: what it was held against.
        note: in words.
    """

    id: str
    passed: bool | None
    value: float | None
    bound: float | None
    note: str


def close(name: str, errors: Array | list[float] | float, bound: float, note: str) -> Check:
    """Passes if no error is above the bound."""
    worst = float(max(errors)) if isinstance(errors, list) else float(errors)
    return Check(name, worst <= bound, worst, bound, note)

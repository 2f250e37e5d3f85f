"""What an acceptance check says."""

from dataclasses import dataclass


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

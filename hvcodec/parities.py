"""Signs in files of the first coder version, for decoding: a parity says each (`signs.py` came after).

The coded symbols of a pass, in the order of places and at each place of channels, fall into groups.
The sign of the first symbol of a group that is not zero is the parity of its symbols' sum ("sign data
hiding", Clare, Henry & Jung, JCTVC-G271, 2011).
"""

from dataclasses import dataclass

import numpy as np

from .ans import Grid, Tables
from .exact import Array
from .tables import TOTAL, Index

# What a symbol counts, in 1/4096 of a group: half of the probability that it is not zero, an eighth at
# most.
GROUP_BITS = 12
PROBABILITY_SHIFT, MOST = 13, 512  # of the probability in 2^-24


@dataclass(frozen=True)
class Groups:
    """Groups of a pass.

    Attributes:
        position: in the pass of the coded symbols, group by group; those of no group are left out.
        bounds: where groups begin among these, and the end of the last.
        rows: how many of the pass's rows there are down to the end of each group, rising.
        height: rows of the pass.
    """

    position: Array
    bounds: Array
    rows: Array
    height: int

    def said(self, symbols: Array, eighths: int) -> tuple[Array, Array]:
        """See `signs.Slices.said`."""
        rows = self.height * eighths // 8
        bounds = self.bounds[: np.searchsorted(self.rows, rows, "right") + 1]
        own = symbols[self.position[: bounds[-1]]]
        end = len(own)
        at = np.append(np.flatnonzero(own), end)
        first = at[np.searchsorted(at, bounds[:-1])]
        having = first < bounds[1:]
        parity = np.add.reduceat(own, bounds[:-1]) & 1 if end else np.zeros(0, np.int32)
        return self.position[first[having]], parity[having]


def groups(index: Index, grid: Grid, tables: Tables) -> Groups:
    """Groups of a pass of the ladder, given its tables, flat."""
    area = grid.rows * grid.columns
    channels = len(index.table) // max(area, 1)
    coded = (~tables.silent).take(index.table).reshape(channels, area)
    number = np.flatnonzero(coded.T)
    place = number // channels
    position = number % channels * area + place
    each = np.minimum((TOTAL - tables.zeros) >> PROBABILITY_SHIFT, MOST)
    counts = np.cumsum(each.take(index.table[position]), dtype=np.int64)
    count = int(counts[-1]) >> GROUP_BITS if len(counts) else 0
    ends = np.searchsorted(counts, np.arange(1, count + 1) << GROUP_BITS) + 1
    bounds = np.concatenate([[0], ends])
    return Groups(position[: bounds[-1]], bounds, place[ends - 1] // grid.columns + 1, grid.rows)

"""Signs that nothing is sent for: a parity says each.

The coded symbols of a pass, in the order of places and at each place of channels, fall into groups.
The sign of the first symbol of a group that is not zero is the parity of its symbols' sum: where the
encoder's symbols say otherwise, it moves the one of them that this costs least ("sign data hiding",
Clare, Henry & Jung, JCTVC-G271, 2011; how HEVC and VVC do it). A group saves a bit, and pays in half of
all cases what moves a symbol that lies near an edge of its interval; the longer, the less.

Signs are as likely one way as the other, so the bit can be had without leaving one out: the encoder
pops a bit off the stack, and pushes the symbol with that for a sign; the decoder, once it has the
parity, sets the sign and pushes the bit back (bits-back, as in `side_information.py`).
"""

from dataclasses import dataclass

import numpy as np

from .ans import Grid, Tables
from .exact import Array
from .tables import TOTAL, Index

# What a symbol counts, in 1/4096 of a group: half of the probability that it is not zero, an eighth at
# most, which is about in proportion to how often it lies near an edge of its interval.
GROUP_BITS = 12
PROBABILITY_SHIFT, MOST = 13, 512  # of the probability in 2^-24


@dataclass(frozen=True)
class Groups:
    """Groups of a pass.

    Attributes:
        position: in the pass of the coded symbols, group by group; those of no group are left out.
        bounds: where groups begin among these, and the end of the last.
        rows: how many of the pass's rows there are down to the end of each group, rising.
    """

    position: Array
    bounds: Array
    rows: Array

    def firsts(self, symbols: Array, rows: int) -> tuple[Array, Array]:
        """Of the groups that end in the first rows and have symbols other than zero, where in the pass
        the first of these is, and the parity."""
        bounds = self.bounds[: np.searchsorted(self.rows, rows, "right") + 1]
        own = symbols[self.position[: bounds[-1]]]
        first, _ = _nonzero(own, bounds)
        having = first < bounds[1:]
        return self.position[first[having]], _parities(own, bounds)[having]


def _parities(own: Array, bounds: Array) -> Array:
    """Of each group's sum."""
    return np.add.reduceat(own, bounds[:-1]) & 1 if len(own) else np.zeros(0, np.int32)


def _nonzero(own: Array, bounds: Array) -> tuple[Array, Array]:
    """Where the first and the second symbol of each group are that are not zero; beyond the group's end
    if there is none."""
    end = len(own)
    at = np.append(np.flatnonzero(own), [end, end])
    first = np.searchsorted(at, bounds[:-1])
    return at[first], at[np.minimum(first + 1, len(at) - 1)]


def groups(index: Index, grid: Grid, tables: Tables) -> Groups:
    """Groups of a pass of the ladder, given its tables, flat."""
    area = grid.rows * grid.columns
    channels = len(index.table) // max(area, 1)
    coded = (~tables.silent).take(index.table).reshape(channels, area)
    number = np.flatnonzero(coded.T).astype(np.int32)  # numpy divides these faster
    place = number // channels
    position = (number - place * channels) * area + place
    each = np.minimum((TOTAL - tables.zeros) >> PROBABILITY_SHIFT, MOST)
    counts = np.cumsum(each.take(index.table[position]), dtype=np.int64)
    count = int(counts[-1]) >> GROUP_BITS if len(counts) else 0
    ends = np.searchsorted(counts, np.arange(1, count + 1) << GROUP_BITS) + 1
    bounds = np.concatenate([[0], ends])
    return Groups(position[: bounds[-1]], bounds, place[ends - 1] // grid.columns + 1)


def agreeing(
    symbols: Array, found: Groups, target: Array, index: Index, worth: Array, tables: Tables
) -> Array:
    """Symbols whose groups' parities say their signs, from those that the encoder would choose.

    Args:
        symbols: int32, of the pass.
        target: in steps from the prior's mean.
        worth: bits that a squared error of one step is worth.
    """
    bounds = found.bounds
    own = symbols[found.position]
    first, second = _nonzero(own, bounds)
    having = first < bounds[1:]
    padded = np.append(own, 0)
    parity = _parities(own, bounds)
    wrong = np.flatnonzero(having & (parity != (padded[first] < 0)))
    if not len(wrong):
        return symbols
    # From here on of these groups alone.
    lengths = np.diff(bounds)[wrong]
    group = np.repeat(np.arange(len(wrong)), lengths)
    starts = np.cumsum(lengths) - lengths
    at = np.arange(len(group)) + (bounds[wrong] - starts)[group]
    position = found.position[at]
    now, wanted = own[at], target[position]
    then = now + np.where(wanted < now, -1, 1).astype(np.int32)
    size, other = np.abs(now), np.abs(then)
    more = tables.saved(np.maximum(size, other), *index.at(position)) * (other - size)
    price = worth[position] * (1 - 2 * np.abs(wanted - now)) + more
    # Another symbol may be the first then, whose sign the new parity has to say.
    negative = parity[wrong][group] == 0
    ahead, behind = first[wrong][group], second[wrong][group]
    gone = (at == ahead) & (then == 0)
    alone = behind >= bounds[1:][wrong][group]
    price[(at < ahead) & ((then < 0) != negative)] = np.inf
    price[gone & ~alone & ((padded[behind] < 0) != negative)] = np.inf
    price[gone & alone] += 1  # nothing is hidden in what is left
    least = np.minimum.reduceat(price, starts)
    candidates = np.flatnonzero(price == least[group])
    moved = candidates[np.searchsorted(candidates, starts)]
    symbols = symbols.copy()
    symbols[position[moved]] = then[moved]
    return symbols

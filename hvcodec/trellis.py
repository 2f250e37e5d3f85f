"""Syndromes of bits under a band matrix, and the cheapest changes that make one right.

Bits come in groups, each of a kind. A bit that is 1 adds the pattern of its kind to the bits of the
syndrome, modulo 2: to that of its own group and to those of the groups that follow, as far as a
pattern reaches. So what changes of a group mean for later ones is a state of three bits, and Viterbi's
algorithm finds the cheapest changes of all, as in syndrome trellis codes (Filler, Judas & Fridrich,
"Minimizing additive distortion in steganography using syndrome-trellis codes", IEEE TIFS 2011).
"""

import numpy as np

from .exact import Array

# By kind; bit by bit, the low one first, of the group itself and of those that follow. All that they
# can add up to is t b b t, the middle that of one pattern if t = 1, or of two of them if t = 0; or
# of all the other patterns instead.
PATTERNS = np.array([0b1001, 0b1011, 0b1101, 0b1111], np.uint8)
KINDS = len(PATTERNS)
BAND = 4
LANE = 32  # groups, beyond which no pattern reaches: lanes are searched side by side

_ONE = np.eye(KINDS, dtype=bool)
_FEWER = np.stack([_ONE ^ _ONE[0], _ONE])
CHANGES = np.stack([_FEWER, ~_FEWER], 2)  # t, middle, whether the others, kind
MIDDLES = np.arange(KINDS)[:, None] ^ np.arange(KINDS)


def syndrome(sums: Array) -> Array:
    """Its bits, one for each group, uint8.

    Args:
        sums: of the patterns of each group, modulo 2, uint8.
    """
    lanes = np.zeros((-(-len(sums) // LANE), LANE), np.uint8)
    lanes.reshape(-1)[: len(sums)] = sums
    found = lanes & 1
    for later in range(1, BAND):
        found[:, later:] ^= lanes[:, :-later] >> later & 1
    return found.ravel()[: len(sums)]


def cheapest_changes(prices: Array, wrong: Array) -> Array:
    """Which bits to change, bool, groups x kinds, so that all of the syndrome is right.

    Args:
        prices: float32, not negative, of the cheapest bit of each kind in each group; infinite if there
            is none.
        wrong: which bits of the syndrome are wrong, bool.
    """
    count = len(wrong)
    lanes, length = -(-count // LANE), min(count, LANE)
    padded = np.zeros((lanes * length, KINDS), np.float32)
    padded[:count] = prices
    # By kind, group of the lane, and lane.
    p0, p1, p2, p3 = one = padded.reshape(lanes, length, KINDS).transpose(2, 1, 0).copy()
    low, high = p0 + p1, p2 + p3
    two = np.stack([np.zeros_like(p0), low, p0 + p2, p0 + p3])
    other_two = np.stack([low + high, high, p1 + p3, p1 + p2])
    three = np.stack([p1 + high, p0 + high, low + p3, low + p2])
    costs = np.minimum(np.stack([two, one]), np.stack([other_two, three]))  # t, middle, ...
    others = np.stack([other_two < two, three < one])
    # t is what the earlier groups of the lane leave wrong of the group's own bit. Of that, `before` is
    # what the search has no part in: what is wrong at first, and what was so three groups before, where
    # t reached this far.
    first_wrong = np.zeros(lanes * length, bool)
    first_wrong[:count] = wrong
    before = first_wrong.reshape(lanes, length).T.copy()
    for group in range(BAND - 1, length):
        before[group] ^= before[group - BAND + 1]
    costs = np.where(before, costs[::-1], costs)
    # By group, t less `before`, middles of the state before and of that after, and lane.
    steps = np.ascontiguousarray(costs[:, MIDDLES].transpose(3, 0, 1, 2, 4))
    # States: what all groups up to now add to the bits of the three to come, that of the last first.
    total = np.full((2, 2, 2, lanes), np.inf, np.float32)
    total[0, 0, 0] = 0
    for options in steps:
        options += total.transpose(2, 0, 1, 3).reshape(2, KINDS, 1, lanes)
        total = options.min(1).reshape(2, 2, 2, lanes)
    came = steps.argmin(2) * 2 + np.arange(2)[:, None, None]  # from which state
    came = came.reshape(length, 2 * KINDS, lanes)
    states = np.empty((length + 1, lanes), np.intp)
    states[length] = total.reshape(2 * KINDS, lanes).argmin(0)
    lane = np.arange(lanes)
    for group in range(length - 1, -1, -1):
        states[group] = came[group, states[group + 1], lane]
    t, middle = states[1:] >> 2 ^ before, states[1:] & 3 ^ states[:-1] >> 1
    which = others[t, middle, np.arange(length)[:, None], lane].astype(np.intp)
    return CHANGES[t, middle, which].transpose(1, 0, 2).reshape(-1, KINDS)[:count]

"""Windows and their parts: what a level of refinement knows and says."""

import math

import numpy as np
import pytest

from hvcodec import refinement
from hvcodec.ladder import LAYERS, NAMES
from hvcodec.mixture import Mixture
from hvcodec.refinement import Known
from hvcodec.steps import BITS_PER_SQUARED_ERROR, OFF

F = np.float32


def mixture(scale):
    return Mixture(F(scale), F(3), F(0.2))


@pytest.mark.parametrize("scale", [0.15, 0.6, 3.0])
def test_a_window_holds_what_its_symbol_was_chosen_for(scale):
    targets = np.linspace(-6, 6, 2401, dtype=F)
    own = mixture(scale)
    options = np.arange(-8, 9, dtype=F)[:, None]
    # Only the nearest and the one nearer to zero are options, as in the encoder.
    near = np.abs(options - np.rint(targets)) + np.abs(options) <= np.abs(np.rint(targets))
    near |= options == np.rint(targets)
    allowed = near & (np.abs(options - np.rint(targets)) <= 1)
    cost = own.bits(options) + BITS_PER_SQUARED_ERROR * np.square(targets - options)
    symbols = options[np.where(allowed, cost, np.inf).argmin(0), 0]
    low, high = refinement.window(symbols, own)
    assert (low <= targets + 1e-3).all() and (targets <= high + 1e-3).all()
    # And no more: windows of neighbouring symbols meet.
    edges = {int(s): (a, b) for s, a, b in zip(symbols, low, high)}
    for s in range(-4, 4):
        assert edges[s][1] == pytest.approx(edges[s + 1][0], abs=1e-4)


def some_known(count=4000):
    rng = np.random.default_rng(0)
    low = 4 * rng.normal(size=count)
    width = rng.uniform(0.2, 3.2, count)
    value = low + width * rng.uniform(0.3, 0.7, count)
    fields = (10 + 2 * end for end in (value, low, low + width))
    return Known(*(field.astype(F) for field in fields), rng.random(count) < 0.5)


def test_parts_cover_the_window_and_hold_their_points():
    known = some_known()
    found = refinement.parts(known, F(10), F(2))
    assert np.allclose(found.edges[0], (known.low - 10) / 2, atol=1e-4)
    assert np.allclose(found.edges[3], (known.high - 10) / 2, atol=1e-4)
    for a, b, point in zip(found.edges, found.edges[1:], found.points):
        assert (a <= b).all()
        assert ((a <= point + 1e-4) & (point <= b + 1e-4)).all()
    wide = ~known.fresh & ((known.high - known.low) / 2 > 1.6)
    widths = np.stack([b - a for a, b in zip(found.edges, found.edges[1:])])
    assert (widths[:, wide].max(0) < 1.3).all()


def test_odds_are_those_of_the_prior_within_the_window():
    known = some_known()
    found = refinement.parts(known, F(10), F(2))
    down, up = refinement.odds(found.edges, mixture(1.2))

    def below(x):
        return 0.8 / (1 + np.exp(-x / 1.2)) + 0.2 / (1 + np.exp(-x / 3.6))

    masses = [
        below(b.astype(float)) - below(a.astype(float)) for a, b in zip(found.edges, found.edges[1:])
    ]
    for odds, mass in ((down, masses[0]), (up, masses[2])):
        possible = ~np.isinf(odds) & (mass > 1e-4) & (masses[1] > 1e-4)
        assert possible.sum() > 300
        assert np.allclose(odds[possible], np.log(mass[possible] / masses[1][possible]), atol=0.01)


def test_a_choice_narrows_the_window_to_where_the_target_is():
    known = some_known()
    mean, delta = F(10), F(2)
    found = refinement.parts(known, mean, delta)
    cost = refinement.costs(*refinement.odds(found.edges, mixture(0.5)))
    share = np.random.default_rng(1).random(len(known.low)).astype(F)
    y = known.low + share * (known.high - known.low)
    symbols = refinement.choose((y - mean) / delta, found, cost, F(BITS_PER_SQUARED_ERROR))
    assert np.isfinite(np.stack(cost)[symbols + 1, np.arange(len(symbols))]).all()
    after = refinement.narrow(symbols, found, cost, mean, delta, known.fresh)
    assert (after.low >= known.low - 1e-4).all() and (after.high <= known.high + 1e-4).all()
    # Borders move by a limited amount only, and never past a part's value.
    assert ((after.low <= y + 1e-3) & (y <= after.high + 1e-3)).mean() > 0.99
    assert ((after.value >= after.low - 1e-4) & (after.value <= after.high + 1e-4)).all()
    assert not (after.fresh & ~known.fresh).any()


def test_layers_and_steps_of_the_runs():
    steps = [100 + k for k in range(len(NAMES))] + [2] * 4
    assert refinement.levels(steps) == 2
    layers = [refinement.layer_of(run, k) for run in range(3) for k in range(len(LAYERS))]
    assert layers == [*range(7), *[7] * 4, *[8] * 3, *[9] * 4, *[10] * 3]
    assert refinement.steps_of(steps, 0, 3) == [100, 101, 102] + [OFF] * 4
    assert refinement.steps_of(steps, 1, 8) == [84, 85, 86, 87, 104, 105, 106]
    assert refinement.steps_of(steps, 2, 11) == [s - 32 for s in steps[:7]]
    assert math.log2(2 ** (refinement.INDEX_PER_LEVEL / 16)) == 1

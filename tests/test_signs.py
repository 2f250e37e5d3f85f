"""Signs that parities say: which symbols are moved, what that costs, and that all come back."""

import numpy as np
import pytest

import hvcodec
from hvcodec import container, side_information, signs, steps
from hvcodec.ans import Grid, Stack
from hvcodec.ladder import places
from hvcodec.tables import index

BALANCED = steps.betas("balanced")
WORTH = np.float32(steps.BITS_PER_SQUARED_ERROR)


@pytest.fixture(scope="module", params=[15, 50, 85])
def passes(network, photo, request):
    indices = steps.step_indices(steps.lambda_of_quality(request.param), BALANCED)
    latents = network.analyse(np.asarray(photo), indices)
    layers = network.encode(latents, indices, BALANCED, hide=True).layers
    return [one for layer in layers for one in layer]


@pytest.fixture(params=range(4))
def small(network, request):
    """A pass of 4 x 6 places and 9 channels: tables, targets, and the symbols next to them."""
    rng = np.random.default_rng(request.param)
    grid = Grid(places(3, 0, False)[0], 4, 6)
    level = rng.integers(40, 90, 9 * 4 * 6)
    tables = index(level.astype(np.int16), rng.integers(0, 8, len(level)).astype(np.int16))
    target = rng.laplace(scale=2.0 ** (level / 8 - 8)).astype(np.float32)
    return grid, tables, target, np.rint(target).astype(np.int32)


def bits(network, symbols, tables):
    found = []
    for symbol, table, shift in zip(symbols.tolist(), *(part.tolist() for part in tables)):
        counts, reach = network.tables.counts[table], network.tables.reaches[table]
        high = symbol + ((1 << shift) >> 1) >> shift
        found.append(24 - np.log2(counts[reach + high]) + shift)
    return np.array(found)


def hidden_in(group, symbols):
    """Whether a group has a sign, and whether its parity says it."""
    said = [symbols[at] for at in group if symbols[at]]
    return bool(said), not said or (said[0] < 0) == sum(said) % 2


def grouped(found):
    return [found.position[a:b] for a, b in zip(found.bounds, found.bounds[1:])]


def test_groups_go_from_place_to_place_and_are_long_enough(network, small):
    grid, tables, _, _ = small
    found = signs.groups(tables, grid, network.tables)
    area = grid.rows * grid.columns
    order = found.position % area * 9 + found.position // area
    assert (np.diff(order) > 0).all() and len(found.rows) > 5
    assert not network.tables.silent[tables.table[found.position]].any()
    for group, rows in zip(grouped(found), found.rows):
        assert len(group) >= 8
        assert rows == group[-1] % area // grid.columns + 1


def test_every_group_moves_one_symbol_at_most_and_that_costs_least(network, small):
    grid, tables, target, plain = small
    found = signs.groups(tables, grid, network.tables)
    worth = np.full(len(plain), WORTH)
    moved = signs.agreeing(plain, found, target, tables, worth, network.tables)
    before, after = (bits(network, s, tables) + WORTH * np.square(target - s) for s in (plain, moved))
    changed = 0
    for group in grouped(found):
        at = [k for k in group if plain[k] != moved[k]]
        assert hidden_in(group, moved)[1] and len(at) <= 1
        if hidden_in(group, plain)[1]:
            assert not at
            continue
        changed += 1
        options = []
        for k in group:
            other = plain.copy()
            other[k] += 1 if target[k] >= plain[k] else -1
            any_sign, agrees = hidden_in(group, other)
            if agrees:
                own = bits(network, other[[k]], tables.__class__(*(p[[k]] for p in tables)))[0]
                lost = 0 if any_sign else 1
                options.append(own + WORTH * (target[k] - other[k]) ** 2 - before[k] + lost)
        price = after[at[0]] - before[at[0]] + (not hidden_in(group, moved)[0])
        assert price == pytest.approx(min(options), abs=1e-3)
    assert changed > 3
    outside = np.setdiff1d(np.arange(len(plain)), found.position)
    assert (plain[outside] == moved[outside]).all()


def test_every_pass_comes_back_and_the_stack_too(network, passes):
    for words in (4000, 100, 3, 0):
        below = np.random.default_rng(words).integers(1 << 31, 1 << 32, words, np.uint32).tobytes()
        for coded in passes:
            stack, _ = side_information.push(Stack(below), coded, network.costs)
            found = side_information.pop(stack, coded.index, coded.grid, network.costs, True, True)
            assert (found == coded.symbols).all()
            assert stack.content() == below


def test_a_sign_takes_no_bits(network, passes):
    """All of a pass takes so many bits less as it has groups with a sign."""
    below = np.random.default_rng(5).integers(1 << 31, 1 << 32, 9000, np.uint32).tobytes()
    saved = expected = 0
    for coded in passes:
        sizes = []
        for own in (coded.signs, None):
            one = coded.__class__(coded.symbols, coded.index, coded.tables, coded.grid, own)
            stack, _ = side_information.push(Stack(below), one, network.costs)
            sizes.append(len(stack.content()))
        saved += 8 * (sizes[1] - sizes[0])
        expected += sum(hidden_in(group, coded.symbols)[0] for group in grouped(coded.signs))
    # Words are whole, and latents are drawn anew.
    assert expected > 100 and abs(saved - expected) < 0.1 * expected + 32 * len(passes) ** 0.5


@pytest.mark.parametrize("quality", [30, 50, 80])
def test_files_are_better_for_it(photo, quality, request):
    """Less J than without, on a photograph."""
    lam = steps.lambda_of_quality(quality)
    costs = []
    for hide in (True, False):
        if not hide:
            request.getfixturevalue("no_signs")
        data = hvcodec.encode(photo, quality)
        difference = np.asarray(hvcodec.decode(data), float) - np.asarray(photo)
        costs.append(8 * len(data) / (384 * 256) + lam * np.square(difference).mean())
    assert costs[0] < costs[1]


def test_files_with_levels_of_refinement_have_none(photo):
    header = container.read(hvcodec.encode(photo, 90, "progressive")).header
    assert header.bits_back and not header.signs

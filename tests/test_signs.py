"""Signs that syndromes say: which symbols are moved, what that costs, and that all come back."""

import numpy as np
import pytest

import hvcodec
from hvcodec import container, side_information, signs, steps, trellis
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


def spots(found, grid):
    """Eighth of its rows, row, column and channel of each symbol of a slice."""
    area = grid.rows * grid.columns
    channel, place = found.position // area, found.position % area
    row = place // grid.columns
    return list(zip(signs.eighths(row), row, place % grid.columns, channel))


def agreed(network, found, tables, target, plain):
    """Symbols whose syndromes say signs."""
    at = found.position
    worth = np.full(len(at), WORTH)
    then, price = signs.moves(plain[at], target[at], tables.at(at), worth, network.tables)
    return signs.agreeing(plain, found, then, price)


def test_moves_cost_what_they_are_said_to(network, small):
    _, tables, target, plain = small
    then, price = signs.moves(plain, target, tables, np.full(len(plain), WORTH), network.tables)
    before, after = (bits(network, s, tables) + WORTH * np.square(target - s) for s in (plain, then))
    assert (np.abs(then - plain) == 1).all() and ((then > plain) == (target >= plain)).all()
    exactly = tables.shift == 0  # else what an entry saves is spread evenly over its symbols
    assert exactly.sum() > 150
    assert price[exactly] == pytest.approx((after - before)[exactly], abs=1e-3)


def grouped(part):
    return [part.position[a:b] for a, b in zip(part.bounds, part.bounds[1:])]


def syndrome(part, symbols):
    """As docs/format.md has it, bit by bit."""
    found = [0] * (len(part.bounds) - 1)
    for group, (first, end) in enumerate(zip(part.bounds, part.bounds[1:])):
        for number in range(first, end):
            pattern = (0b1001, 0b1011, 0b1101, 0b1111)[number % 4] * (
                symbols[part.position[number]] % 2
            )
            for later in range(4):
                if group // 32 == (group + later) // 32 and group + later < len(found):
                    found[group + later] ^= pattern >> later & 1
    return found


def test_slices_deal_out_all_coded_symbols_place_by_place(network, small):
    grid, tables, _, _ = small
    found = signs.slices(tables, grid, network.tables)
    coded = np.flatnonzero(~network.tables.silent[tables.table])
    assert sorted(np.concatenate([part.position for part in found.parts])) == list(coded)
    assert len(found.parts[-1].position) == len(coded) // 2
    for part, smaller in zip(found.parts[2:], found.parts[1:]):
        assert abs(2 * len(smaller.position) - len(part.position)) <= 1
    for part in found.parts:
        assert spots(part, grid) == sorted(spots(part, grid))
        assert all(len(group) >= 4 for group in grouped(part))


def test_eighths_of_rows_lie_apart():
    for count in (1, 2, 4):
        left_out = np.flatnonzero(signs.eighths(np.arange(64)) >= 8 - count)
        assert len(left_out) == 8 * count
        assert np.diff(left_out).min() >= 8 // count // 2


def test_syndromes_say_the_signs_of_the_slice_before(network, small):
    grid, tables, target, plain = small
    found = signs.slices(tables, grid, network.tables)
    moved = agreed(network, found, tables, target, plain)
    assert (np.abs(moved - plain) <= 1).all() and (moved != plain).any()
    other = moved - plain
    assert (np.sign(other) == np.sign(target - plain))[other != 0].all()  # to the nearer neighbour
    positions, negative = found.said(moved, 8)
    assert len(positions) > 5 and ((moved[positions] < 0) == negative).all()
    at = 0
    for before, own in zip(found.parts, found.parts[1:]):
        expected = [k for k in before.position if moved[k]][: len(own.bounds) - 1]
        assert list(positions[at : at + len(expected)]) == expected
        assert list(negative[at : at + len(expected)]) == syndrome(own, moved)[: len(expected)]
        at += len(expected)
    assert at == len(positions)


@pytest.mark.parametrize("eighths", [0, 3, 6, 7])
def test_of_fewer_rows_only_symbols_in_them_matter(network, small, eighths):
    grid, tables, target, plain = small
    found = signs.slices(tables, grid, network.tables)
    moved = agreed(network, found, tables, target, plain)
    rows = np.arange(len(plain)) % (grid.rows * grid.columns) // grid.columns
    outside = signs.eighths(rows) >= eighths
    changed = moved + outside * np.random.default_rng(1).integers(0, 3, len(plain))
    positions, negative = found.said(changed, eighths)
    assert not outside[positions].any() and ((moved[positions] < 0) == negative).all()
    assert (len(positions) > 0) == (eighths > 0)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_moves_are_the_cheapest_of_all(count):
    """Against all that there are."""
    rng = np.random.default_rng(count)
    prices = rng.exponential(size=(count, 2)).astype(np.float32)
    prices = np.pad(prices, ((0, 0), (0, 2)), constant_values=np.inf)[:, rng.permutation(4)]
    wrong = rng.integers(0, 2, count) > 0
    part = signs.Slice(np.arange(4 * count), np.zeros(4 * count, int), np.arange(count + 1) * 4)
    movable = np.flatnonzero(np.isfinite(prices.ravel()))
    least = np.inf
    for number in range(2 ** len(movable) if count < 9 else 0):
        moved = np.zeros(4 * count, int)
        moved[movable] = number >> np.arange(len(movable)) & 1
        if syndrome(part, moved) == wrong.tolist():
            least = min(least, prices.ravel()[moved > 0].sum())
    found = trellis.cheapest_changes(prices, wrong)
    assert syndrome(part, found.ravel().astype(int)) == wrong.tolist()
    if count < 9:
        assert prices[found].sum() == pytest.approx(least)


def test_moves_cost_less_than_one_in_every_group_that_is_wrong():
    """What a parity for each group would cost: half of the cheapest symbols are moved."""
    rng = np.random.default_rng(3)
    prices = rng.random((3200, 4), np.float32)
    wrong = rng.integers(0, 2, 3200) > 0
    assert prices[trellis.cheapest_changes(prices, wrong)].sum() < 0.6 * prices[wrong].min(1).sum()


def test_every_pass_comes_back_and_the_stack_too(network, passes):
    for words in (4000, 100, 3, 0):
        below = np.random.default_rng(words).integers(1 << 31, 1 << 32, words, np.uint32).tobytes()
        for coded in passes:
            stack, _ = side_information.push(Stack(below), coded, network.costs)
            found = side_information.pop(
                stack, coded.index, coded.grid, network.costs, True, coded.hidden
            )
            assert (found == coded.symbols).all()
            assert stack.content() == below


def test_a_sign_takes_no_bits(network, passes):
    """All of a pass takes so many bits less as signs are said."""
    below = np.random.default_rng(5).integers(1 << 31, 1 << 32, 9000, np.uint32).tobytes()
    saved = expected = 0
    for coded in passes:
        sizes = []
        for own in (coded.signs, None):
            one = coded.__class__(coded.symbols, coded.index, coded.tables, coded.grid, own)
            stack, _ = side_information.push(Stack(below), one, network.costs)
            sizes.append(len(stack.content()))
        saved += 8 * (sizes[1] - sizes[0])
        expected += len(coded.signs.said(coded.symbols, 8)[0])
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


@pytest.fixture(scope="module", params=[30, 75])
def refinements(network, photo, request):
    """Passes of levels of refinement, but for the last, and of the last."""
    weights = steps.betas("progressive")
    indices = steps.step_indices(steps.lambda_of_quality(request.param), weights)
    latents = network.analyse(np.asarray(photo), indices)
    layers = network.encode(latents, indices, weights, hide=True).layers
    earlier, last = ([one for layer in own for one in layer] for own in (layers[:-2], layers[-2:]))
    return earlier, last


def test_of_levels_of_refinement_the_last_says_signs(network, refinements):
    earlier, last = refinements
    assert not any(coded.signs for coded in earlier)
    count = 0
    for coded in last:
        at, negative = coded.signs.said(coded.symbols, 8)
        assert ((coded.symbols[at] < 0) == negative).all()
        count += len(at)
        # As likely one way as the other.
        for table in set(coded.index.table[at].tolist()):
            counts = network.tables.counts[table][:-1]
            assert np.abs(counts - counts[::-1]).max() <= 1
    assert count > 100


@pytest.mark.parametrize("words", [4000, 100, 3, 0])
def test_passes_of_the_last_level_come_back_and_the_stack_too(network, refinements, words):
    below = np.random.default_rng(words).integers(1 << 31, 1 << 32, words, np.uint32).tobytes()
    saved = expected = 0
    for coded in refinements[1]:
        stack, _ = signs.push(Stack(below), coded)
        plain = Stack(below)
        plain.push(coded.symbols, coded.index, coded.tables)
        saved += 8 * (len(plain.content()) - len(stack.content()))
        expected += len(coded.signs.said(coded.symbols, 8)[0])
        assert (signs.pop(stack, coded.index, network.tables) == coded.symbols).all()
        assert stack.content() == below
    if words == 4000:
        assert abs(saved - expected) < 0.05 * expected + 32 * len(refinements[1]) ** 0.5


def test_progressive_files_are_better_for_it(photo):
    """The whole file, at no cost to what is cut before the last level."""
    data, plain = (hvcodec.encode(photo, 75, "progressive", bits_back=own) for own in (True, False))
    assert container.read(data).header.signs == container.Signs.SYNDROMES
    assert not container.read(plain).header.signs
    pictures = [np.asarray(hvcodec.decode(own, layers=13)) for own in (data, plain)]
    assert (pictures[0] == pictures[1]).all()
    assert len(data) < 0.99 * len(plain)

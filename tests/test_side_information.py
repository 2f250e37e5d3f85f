"""Side information with bits-back: what it saves, that it comes back, and that cuts stay cuts.

Names C1 .. C7 are those of the checks that bits-back coders are held to: rate, restoration, cuts,
accounting, the same posterior everywhere (C5: `test_exact.py` decodes such a file in processes with
other settings, `test_golden.py` and two other decoders old ones), no bits from nowhere, and training
on the rate that is coded (C7: `test_model.py`, the objective is that of the stream).
"""

from unittest import mock

import numpy as np
import pytest
from conftest import gradient
from make_golden import FOLDER

import hvcodec
from hvcodec import container, engine, side_information, steps
from hvcodec.ans import Stack
from hvcodec.container import Signs
from hvcodec.encoder import push
from hvcodec.side_information import COUNTS, MODES, OF_BLOCKS, OF_CHANNELS, REGIONS
from hvcodec.tables import SHAPES, TOTAL, index

BALANCED = steps.betas("balanced")


@pytest.fixture(scope="module", params=[20, 50, 85])
def layers(network, photo, request):
    """Passes of all layers of the photograph."""
    indices = steps.step_indices(steps.lambda_of_quality(request.param), BALANCED)
    return network.encode(network.analyse(np.asarray(photo), indices), indices, BALANCED).layers


@pytest.fixture
def same_symbols(monkeypatch):
    """Files without side information have the symbols of those with it."""
    encode = engine.Engine.encode
    monkeypatch.setattr(
        engine.Engine, "encode", lambda own, *arguments: encode(own, *arguments[:4], True)
    )


def beneath(words=4000, seed=0):
    """A stack that has been in use."""
    return Stack(np.random.default_rng(seed).integers(1 << 31, 1 << 32, words, np.uint32).tobytes())


def passes_of(layers):
    return [one for passes in layers for one in passes]


def bits_of_symbols(network, symbols, level, shape):
    """What each takes under the coder's tables, with low bits and escapes."""
    table, shift = index(level, shape)
    high = (symbols + ((1 << shift) >> 1)) >> shift
    found = []
    for t, size in zip(table.tolist(), np.abs(high).tolist()):
        counts, reach = network.tables.counts[t], network.tables.reaches[t]
        beyond = int(size - reach)
        sign = np.sign(high[len(found)])
        count = counts[-1] if beyond > 0 else counts[reach + sign * size]
        more = 1 + np.log2(24) + beyond.bit_length() - 1 if beyond > 0 else 0
        found.append(np.log2(TOTAL / count) + more)
    return np.array(found) + shift


def test_floors_are_where_silence_ends(network):
    # Every level below is silent and none from there on, or a shift could leave the coded tables.
    silent = network.tables.silent[: 89 * SHAPES].reshape(89, SHAPES)
    floor = network.costs.floor
    assert all(silent[: floor[s], s].all() and not silent[floor[s] :, s].any() for s in range(SHAPES))


@pytest.mark.parametrize("latents", [OF_BLOCKS, OF_CHANNELS])
def test_priors(latents):
    assert (latents.priors.sum(1) == 256).all() and latents.priors.min() > 0
    assert latents.priors.shape[1] == len(latents.shifts) == 9 and latents.shifts[4] == 0


def test_modes_are_numbered_once():
    assert len(set(MODES)) == len(MODES) == 31 and len(set(REGIONS)) == len(REGIONS) == 5
    assert list(COUNTS.values()) == [22, 24, 31]


@pytest.mark.parametrize("seed", range(3))
def test_every_pass_comes_back_and_the_stack_too(network, layers, seed):
    """C2."""
    for coded in passes_of(layers):
        stack = beneath(seed=seed)
        before = stack.content()
        stack, _ = side_information.push(stack, coded, network.costs)
        found = side_information.pop(stack, coded.index, coded.grid, network.costs, True, Signs.NONE)
        assert (found == coded.symbols).all()
        assert stack.content() == before


def joint(network, said, number, latents, prior):
    """log2 p(h) p(y | h) for every group of symbols and every h, from the coder's own probabilities."""
    sums = []
    for shift in latents.shifts:
        moved = np.clip(said.level + shift, network.costs.floor[said.shape], 184)
        sums.append(np.bincount(number, bits_of_symbols(network, said.symbol, moved, said.shape)))
    return np.log2(latents.priors[prior] / 256) - np.array(sums).T


def test_what_a_pass_takes_is_what_its_mixture_says(network, layers):
    """C1: net bits of all passes: log2 q(c) / p(c) for the latents c of channels that were drawn, and
    sums over those of blocks."""
    taken = ideal = 0.0
    passes = 0
    for coded in passes_of(layers):
        said = side_information.Coded(coded.symbols, coded.index, coded.grid, network.costs)
        drawn = []
        pop_each = Stack.pop_each

        def noted(stack, counts, pop_each=pop_each, drawn=drawn):
            drawn.append(pop_each(stack, counts))
            return drawn[-1]

        with mock.patch.object(Stack, "pop_each", noted):
            stack, _ = side_information.push(beneath(), coded, network.costs)
        popped = Stack(stack.content())
        regions, (blocks, eighths) = REGIONS[popped.pop_one(5)], MODES[popped.pop_one(22)]
        if not drawn or eighths < 8:
            continue
        taken += 32 * (len(stack.content()) // 4 - 4000)
        ideal += np.log2(5 * 22)
        passes += 1
        if regions:
            square = said.channel * 10000 + said.row // regions.side * 100 + said.column // regions.side
            _, number = np.unique(square, return_inverse=True)
            both = joint(network, said, number, OF_CHANNELS, regions.prior)
            each = np.arange(len(both)), drawn[0]
            own = np.log2(OF_CHANNELS.priors[regions.prior] / 256)[drawn[0]]
            # log2 q(c) - log2 p(c), q being `both` normalised.
            ideal += (both[each] - np.logaddexp2.reduce(both, 1) - own).sum()
            said = said.but(level=said.level + OF_CHANNELS.shifts[drawn[0]][number])
        if blocks:
            colour = said.colour if blocks.apart else 0 * said.colour
            square = (colour * 1000 + said.row // blocks.side) * 1000 + said.column // blocks.side
            _, number = np.unique(square, return_inverse=True)
            both = joint(network, said, number, OF_BLOCKS, blocks.prior)
            ideal -= np.logaddexp2.reduce(both, 1).sum()
        else:
            moved = np.clip(said.level, network.costs.floor[said.shape], 184)
            ideal += bits_of_symbols(network, said.symbol, moved, said.shape).sum()
    assert passes > 4
    # Words are counted whole.
    assert ideal - 32 * passes < taken < 1.005 * ideal + 32 * passes


@pytest.mark.parametrize("latents", [OF_BLOCKS, OF_CHANNELS])
@pytest.mark.parametrize("together", [True, False])
def test_sums_of_costs_are_exact(network, layers, latents, together, monkeypatch):
    """Also of so many symbols that two sums do not fit into one number."""
    if not together:
        monkeypatch.setattr(side_information, "PAIR", 1.0)
    one = layers[3][0]
    small = one.symbols.clip(-1, 1)  # without escapes
    coded = side_information.Coded(small, one.index, one.grid, network.costs)
    latent = np.arange(len(coded)) % 7
    found = network.costs.sums(coded, latents.shifts, latent, np.bincount(latent))
    for value, shift in enumerate(latents.shifts.tolist()):
        level = np.clip(coded.level + shift, network.costs.floor[coded.shape], 184)
        each = bits_of_symbols(network, np.abs(coded.symbol), level, coded.shape)
        for k in range(7):
            # Each was rounded to 1/64.
            bound = 0.6 * (latent == k).sum()
            assert found[value, k] == pytest.approx(64 * each[latent == k].sum(), abs=bound)
    assert (found == np.rint(found)).all()


@pytest.mark.parametrize("quality", [20, 50, 85])
def test_it_saves_bytes(network, photo, quality):
    """With signs in syndromes, as files have them."""
    indices = steps.step_indices(steps.lambda_of_quality(quality), BALANCED)
    latents = network.analyse(np.asarray(photo), indices)
    layers = network.encode(latents, indices, BALANCED, hide=True).layers
    with_it, without = (sum(map(len, push(layers, costs))) for costs in (network.costs, None))
    assert with_it < 0.99 * without


def test_a_file_takes_what_was_pushed_less_its_loans(network, layers):
    """C4: words = bits of all that was pushed - bits that were popped for latents."""
    pushed, popped = [], []

    def bits_of(numbers, counts):
        return np.log2(TOTAL / (counts[np.arange(len(numbers)), numbers] + 1)).sum()

    push_each, pop_each, push_symbols = Stack.push_each, Stack.pop_each, Stack.push

    def gave(stack, numbers, counts):
        pushed.append(bits_of(numbers, counts))
        push_each(stack, numbers, counts)

    def took(stack, counts):
        numbers = pop_each(stack, counts)
        popped.append(bits_of(numbers, counts))
        return numbers

    def coded(stack, symbols, tables, own):
        before = stack._coder.num_valid_bits()
        push_symbols(stack, symbols, tables, own)
        pushed.append(stack._coder.num_valid_bits() - before)

    with (
        mock.patch.object(Stack, "push_each", gave),
        mock.patch.object(Stack, "pop_each", took),
        mock.patch.object(Stack, "push", coded),
        mock.patch.object(Stack, "push_one", lambda *_: None),
        mock.patch.object(side_information, "_with_loans", counted(pushed, popped)),
    ):
        total = 8 * sum(map(len, push(layers, network.costs)))
    assert sum(popped) > 0
    assert abs(total - (sum(pushed) - sum(popped))) < 0.002 * total + 96


def counted(*counts):
    """Tries that come to nothing count for nothing."""
    attempt = side_information._with_loans

    def own(*arguments):
        before = [len(one) for one in counts]
        found = attempt(*arguments)
        if not found or not found[1]:
            for one, size in zip(counts, before):
                del one[size:]
        return found

    return own


@pytest.mark.parametrize("quality", [30, 60, 85])
def test_cuts_are_those_of_a_file_without(photo, same_symbols, quality):
    """C3: the same pictures, for at most one layer's loan more."""
    saving = hvcodec.encode(photo, quality)
    plain = hvcodec.encode(photo, quality, bits_back=False)
    assert container.read(saving).header.bits_back and len(saving) < len(plain)
    points = [hvcodec.info(data)["cut_points"] for data in (saving, plain)]
    for count, (own, other) in enumerate(zip(*points), 1):
        pictures = [np.asarray(hvcodec.decode(d[:n])) for d, n in ((saving, own), (plain, other))]
        assert (pictures[0] == pictures[1]).all()
        # No latent is a loan of more than log2 9 bits in the mean: those of places, of two colours at
        # most, and those of regions of 16 x 16 places, of 126 channels at most.
        latents = 2 * 48 * 32 + 126 * 6 if count > 3 else 2 * 24 * 16 + 12 * 2
        # A bit for four symbols at most.
        signs = 48 * 16 * 126 / 4 if count > 3 else 24 * 8 * 9 / 4
        assert own <= other + (latents * np.log2(9) + signs) / 8 + 8


def test_no_bits_come_from_an_empty_stack(network, layers):
    """C6: with nothing beneath, a pass goes without; with too little, its first rows only."""
    coded = max(passes_of(layers), key=lambda one: np.abs(one.symbols).sum())
    for words in (0, 1, 2, 30, 100):
        stack = beneath(words)
        before = stack.content()
        stack, least = side_information.push(stack, coded, network.costs)
        assert least >= min(words, 1) - 1
        found = side_information.pop(stack, coded.index, coded.grid, network.costs, True, Signs.NONE)
        assert (found == coded.symbols).all()
        assert stack.content() == before
    alone = Stack(side_information.push(Stack(), coded, network.costs)[0].content())
    regions, (blocks, eighths) = REGIONS[alone.pop_one(5)], MODES[alone.pop_one(22)]
    assert (not regions and not blocks) or eighths == 6


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (65, 3), (130, 100)])
@pytest.mark.parametrize("quality", [0, 50, 100])
def test_any_size_at_any_quality(same_symbols, size, quality):
    rgb = gradient(*size)
    saving, plain = (hvcodec.encode(rgb, quality, bits_back=own) for own in (True, False))
    assert len(saving) <= len(plain)
    assert (np.asarray(hvcodec.decode(saving)) == np.asarray(hvcodec.decode(plain))).all()


def test_layers_that_are_off(photo, same_symbols):
    weights = {"z1": np.inf, "z2": np.inf, "z7": 0.25}
    saving, plain = (hvcodec.encode(photo, 70, weights, bits_back=own) for own in (True, False))
    assert container.read(saving).header.bits_back and len(saving) < len(plain)
    assert (np.asarray(hvcodec.decode(saving)) == np.asarray(hvcodec.decode(plain))).all()


def test_lossless_files_have_it_too(photo):
    image = photo.crop((100, 60, 230, 160))
    saving, plain = (hvcodec.encode(image, lossless=True, bits_back=own) for own in (True, False))
    assert container.read(saving).header.bits_back and len(saving) < len(plain)
    assert (np.asarray(hvcodec.decode(saving)) == np.asarray(image)).all()


@pytest.mark.parametrize("flags", [1, 2, 4, 7, 32, 33, 36, 128, 133, 160])
def test_half_of_its_flags_are_refused(flags):
    data = (FOLDER / "channels.hvc").read_bytes()
    assert data[6] & 0b100101 == 0b100101
    header = container.read(data).header
    header.of_channels, header.signs = False, Signs.NONE
    with mock.patch.object(container, "BITS_BACK", flags):
        changed = header.pack()
    with pytest.raises(hvcodec.UnsupportedError, match="does not know"):
        hvcodec.decode(changed + data[len(changed) :])


def test_files_without_latents_of_channels_stay_so_when_cut():
    data = (FOLDER / "bits-back-fine.hvc").read_bytes()
    cut = hvcodec.cut(data, layers=6)
    for file in (data, cut):
        header = container.read(file).header
        assert header.bits_back and not header.of_channels
    assert (np.asarray(hvcodec.decode(cut)) == np.asarray(hvcodec.decode(data, layers=6))).all()

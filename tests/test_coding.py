"""Tables and the ANS stack: what is pushed comes back, at the cost that the tables say."""

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvcodec import FormatError, ModelError, tables
from hvcodec.ans import Stack, Tables
from hvcodec.mixture import Mixture

TAIL = np.array([[1.0, -1.0], [2.5, -1.0]], np.float32)


@pytest.fixture(scope="module")
def coder_tables():
    return Tables(*tables.make(TAIL))


def draw(rng, count, top=tables.SCALES + 40):
    level = rng.integers(0, top, count)
    index = tables.index(level, rng.integers(0, tables.SHAPES, count))
    scale = 2.0 ** (level / tables.SCALES_PER_OCTAVE + tables.LOWEST)
    return index, np.round(rng.logistic(size=count) * scale).astype(np.int32)


def test_tables_are_distributions(coder_tables):
    assert len(coder_tables.counts) == tables.TABLES
    for number, (counts, reach) in enumerate(zip(coder_tables.counts, coder_tables.reaches)):
        assert counts.sum() == tables.TOTAL
        assert counts.min() >= 1
        assert len(counts) == 2 * reach + 2
        if number < tables.SYMBOL_TABLES:
            assert (counts[: 2 * reach + 1] == counts[: 2 * reach + 1][::-1]).all()


def test_odds_the_other_way_are_the_mirrored_table(coder_tables):
    down, up = (np.array(v, np.float32) for v in ([2.5, -3.0], [-3.0, 2.5]))
    known_down, known_up, (one, other) = tables.quantise_odds(down, up)
    assert (known_down == down).all() and (known_up == up).all()
    a, b = (coder_tables.counts[t][:-1] for t in (one, other))
    assert np.abs(a - b[::-1]).max() <= 2
    assert a[0] > 100 * a[2]


def test_tables_are_the_likelihood_of_training(coder_tables):
    import torch

    from hvcodec.likelihood import bits, wide_part

    for level in (24, 44, 64, tables.SCALES - 1):
        for shape in (0, 7):
            number = tables.index(np.array([level]), np.array([shape])).table[0]
            counts, reach = coder_tables.counts[number], int(coder_tables.reaches[number])
            symbols = np.arange(-reach, reach + 1, dtype=np.float32)
            ratio, weight = wide_part(torch.from_numpy(TAIL), torch.tensor(shape / (tables.SHAPES - 1)))
            scale = tables.scale_of(np.array([level]))
            expected = bits(torch.from_numpy(symbols), torch.from_numpy(scale), ratio, weight).numpy()
            found = -np.log2(counts[:-1] / tables.TOTAL)
            likely = expected < 16
            assert np.abs(found - expected)[likely].max() < 0.02
            mixture = Mixture(scale, ratio.numpy(), weight.numpy())
            assert np.abs(mixture.bits(symbols) - expected)[likely].max() < 0.01


def test_the_encoder_of_the_ladder_minimises_rate_and_distortion(coder_tables):
    targets = np.linspace(-4, 4, 401, dtype=np.float32)
    for level, shape in ((46, 0), (70, 7)):
        index = tables.index(np.full(401, level), np.full(401, shape))
        counts, reach = (part[index.table[0]] for part in (coder_tables.counts, coder_tables.reaches))
        chosen = coder_tables.quantise(targets, index, np.full(401, 14.0, np.float32))

        def cost(symbols, counts=counts, reach=reach):
            bits = -np.log2(counts[np.clip(symbols + reach, 0, 2 * reach)] / tables.TOTAL)
            return bits + 14 * np.square(targets - symbols)

        nearest = np.rint(targets).astype(int)
        options = [cost(nearest), cost(nearest - np.sign(nearest))]
        assert (cost(chosen) <= np.min(options, 0) + 1e-2).all()


def test_part_tables_are_the_odds(coder_tables):
    from hvcodec.refinement import costs

    down = np.array([0.0, 1.5, -20.0, -np.inf], np.float32)
    up = np.array([0.0, -2.0, 3.0, 0.5], np.float32)
    near_down, near_up, found = tables.quantise_odds(down, up)
    assert near_down.tolist() == [0, 1.5, -tables.ODDS_MAX, -np.inf]
    expected = np.stack(costs(near_down, near_up), 1)
    assert np.exp2(-expected).sum(1) == pytest.approx(1, rel=1e-4)
    for number, bits in zip(found, expected):
        assert coder_tables.reaches[number] == 1
        assert not coder_tables.silent[number]
        cost = -np.log2(coder_tables.counts[number][:-1] / tables.TOTAL)
        assert np.abs(cost - bits)[bits < 16].max() < 0.02
    # Where only one part can be, nothing is said.
    alone = tables.quantise_odds(*np.full((2, 1), -np.inf, np.float32))[2]
    assert coder_tables.silent[alone].all()


def test_passes_come_back_in_reverse(coder_tables):
    rng = np.random.default_rng(1)
    passes = [draw(rng, n) for n in (1, 5000, 300)]
    stack = Stack()
    for index, symbols in passes:
        symbols[coder_tables.silent[index.table]] = 0
        stack.push(symbols, index, coder_tables)
    reader = Stack(stack.content())
    for index, symbols in reversed(passes):
        assert (reader.pop(index, coder_tables) == symbols).all()
    assert reader.empty


@pytest.mark.parametrize("symbol", [1 << 30, -(1 << 30), 1 << 31, -(1 << 35)])
def test_symbols_beyond_all_bounds_are_refused(coder_tables, symbol):
    """An escape and low bits may say numbers that no encoder writes."""
    widest = tables.Index(np.array([88 * 8], np.int16), np.array([12], np.int16))
    stack = Stack()
    stack.push(np.array([symbol]), widest, coder_tables)
    reader = Stack(stack.content())
    if abs(symbol) < 1 << 31:
        assert reader.pop(widest, coder_tables).tolist() == [symbol]
    else:
        with pytest.raises(FormatError):
            reader.pop(widest, coder_tables)


def test_a_prefix_of_the_words_is_the_top_of_the_stack(coder_tables):
    rng = np.random.default_rng(2)
    (low, low_symbols), (high, high_symbols) = draw(rng, 4000), draw(rng, 4000)
    low_symbols[coder_tables.silent[low.table]] = 0
    high_symbols[coder_tables.silent[high.table]] = 0
    stack = Stack()
    stack.push(low_symbols, low, coder_tables)
    bottom = stack.words
    stack.push(high_symbols, high, coder_tables)
    prefix = stack.content()[: -4 * bottom]
    assert (Stack(prefix).pop(high, coder_tables) == high_symbols).all()


def test_the_cost_is_what_the_tables_say(coder_tables):
    rng = np.random.default_rng(3)
    index, symbols = draw(rng, 100_000, tables.SCALES)
    symbols[coder_tables.silent[index.table]] = 0
    stack = Stack()
    stack.push(symbols, index, coder_tables)
    ideal = 0.0
    for number, symbol in zip(index.table, symbols):
        counts, reach = coder_tables.counts[number], coder_tables.reaches[number]
        if not coder_tables.silent[number]:
            ideal -= np.log2(counts[min(symbol + reach, 2 * reach + 1)] / tables.TOTAL)
    assert 8 * len(stack.content()) < 1.001 * ideal + 64


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**22), 2**22),
            st.integers(0, tables.SCALES + 12 * tables.SCALES_PER_OCTAVE - 1),
            st.integers(0, tables.SHAPES - 1),
        ),
        max_size=30,
    )
)
def test_any_symbol_under_any_table(coder_tables, entries):
    symbols, level, shape = (
        (np.array(column, np.int32) for column in zip(*entries))
        if entries
        else (np.zeros(0, np.int32),) * 3
    )
    index = tables.index(level, shape)
    symbols = np.where(coder_tables.silent[index.table], 0, symbols).astype(np.int32)
    stack = Stack()
    stack.push(symbols, index, coder_tables)
    assert (Stack(stack.content()).pop(index, coder_tables) == symbols).all()


def test_the_coder_uses_exactly_the_counts(coder_tables):
    """What a stranger finds by cumulating the integers: quantile at a boundary -> next entry."""
    for number in (0, 100, 300, len(coder_tables.counts) - 1):
        edges = np.concatenate([[0], np.cumsum(coder_tables.counts[number])])
        entry = len(edges) // 2
        for quantile, expected in ((edges[entry] - 1, entry - 1), (edges[entry], entry)):
            # A state whose low 24 bits are the quantile pops the entry that owns it.
            state = (1 << 40) + int(quantile)
            words = np.array([state & 0xFFFFFFFF, state >> 32], np.uint32)
            coder = constriction.stream.stack.AnsCoder(words)
            assert coder.decode(coder_tables.models[number], 1)[0] == expected


def test_damaged_tables_are_refused():
    counts, reaches = tables.make(TAIL)
    for damaged in ((counts[:-1], reaches), (counts, reaches[:-1]), (counts * 2, reaches)):
        with pytest.raises(ModelError):
            Tables(*damaged)


def test_words_that_no_stack_has():
    with pytest.raises(FormatError):
        Stack(bytes(8))

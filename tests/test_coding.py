"""Tables and the ANS stack: what is pushed comes back, at the cost that the tables say."""

import constriction
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvcodec import FormatError, ModelError, tables
from hvcodec.ans import Stack, Tables

TAIL = torch.tensor([[1.0, -1.0], [2.5, -1.0]])
FALLOFF = torch.tensor([-4.0, 0.5])


@pytest.fixture(scope="module")
def coder_tables():
    return Tables(*tables.make(TAIL, FALLOFF))


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


def test_a_skew_the_other_way_is_the_mirrored_table(coder_tables):
    skew, peak = (torch.tensor(v) for v in ([2.5, -2.5], [-3.0, -3.0]))
    known_skew, known_peak, (up, down) = tables.quantise_split(skew, peak)
    assert torch.equal(known_skew, skew) and torch.equal(known_peak, peak)
    a, b = (coder_tables.counts[t][:-1] for t in (up, down))
    assert np.abs(a - b[::-1]).max() <= 2
    assert a[3] > 100 * a[1]


def test_tables_are_the_likelihood_of_training(coder_tables):
    from hvcodec.likelihood import bits, wide_part

    for level in (24, 44, 64, tables.SCALES - 1):
        for shape in (0, 7):
            number = tables.index(np.array([level]), np.array([shape])).table[0]
            counts, reach = coder_tables.counts[number], int(coder_tables.reaches[number])
            symbols = torch.arange(-reach, reach + 1).float()
            ratio, weight = wide_part(TAIL, torch.tensor(shape / (tables.SHAPES - 1)))
            scale = tables.scale_of(torch.tensor(level))
            expected = bits(symbols, scale, ratio, weight).numpy()
            found = -np.log2(counts[:-1] / tables.TOTAL)
            likely = expected < 16
            assert np.abs(found - expected)[likely].max() < 0.02


def test_split_tables_are_the_likelihood_of_training(coder_tables):
    from hvcodec.refinement import REACH, digit_bits

    skew, peak = torch.tensor([0.0, 1.5, -4.0]), torch.tensor([0.0, -2.0, 3.0])
    expected = torch.stack(digit_bits(skew, peak, FALLOFF), 1).numpy()
    assert np.exp2(-expected).sum(1) == pytest.approx(1)
    for number, costs in zip(tables.quantise_split(skew, peak)[2], expected):
        assert coder_tables.reaches[number] == REACH
        found = -np.log2(coder_tables.counts[number][:-1] / tables.TOTAL)
        assert np.abs(found - costs)[costs < 16].max() < 0.02


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
            assert coder.decode(coder_tables.model(number), 1)[0] == expected


def test_damaged_tables_are_refused():
    counts, reaches = tables.make(TAIL, FALLOFF)
    for damaged in ((counts[:-1], reaches), (counts, reaches[:-1]), (counts * 2, reaches)):
        with pytest.raises(ModelError):
            Tables(*damaged)


def test_words_that_no_stack_has():
    with pytest.raises(FormatError):
        Stack(bytes(8))

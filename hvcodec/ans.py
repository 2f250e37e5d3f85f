"""The ANS stack: pushes and pops the symbols of one pass of one layer.

A stack: what was pushed last comes off first, so the encoder pushes fine layers first and each pass
back to front. Words are handed over in reverse, most recent first: a prefix of them is the top of
the stack, which is what makes a file that ends at a layer's end a whole file.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import constriction
import numpy as np

from .container import Signs
from .errors import FormatError, ModelError
from .ladder import Place
from .parallel import in_parallel, strips
from .tables import PART_SILENT, SILENT, SYMBOL_TABLES, TABLES, TOTAL, Index

if TYPE_CHECKING:
    from .signs import Slices

Categorical = constriction.stream.model.Categorical
Uniform = constriction.stream.model.Uniform

ESCAPE_BITS = 16  # an escaped magnitude is coded in chunks of at most this many bits
MAX_ESCAPE = 24  # no symbol needs more
LARGEST_SYMBOL = (1 << 31) - 1
MOST_SAVED = 32  # symbols beyond which savings hardly change


class Models(dict[int, Any]):
    """The coder's models of tables, each made when it is first looked up."""

    def __init__(self, counts: Callable[[int], np.ndarray]) -> None:
        """Args: what gives a table's counts, which sum to 2^24."""
        self._counts = counts

    def __missing__(self, table: int) -> Any:
        # constriction gives every entry one count and shares out the rest in proportion: here the rest
        # is a whole number of counts, so the coder's probabilities are the table's.
        rest = (self._counts(table) - 1).astype(np.float64)
        self[table] = model = Categorical(rest, perfect=False)
        return model


class Coding(Protocol):
    """Probability tables as the stack needs them.

    Attributes:
        reaches: int32 per table: it holds symbols -reach .. reach and then the escape.
        silent: bool per table: its symbols are zero without being coded.
        models: the coder's, by table.
    """

    reaches: np.ndarray
    silent: np.ndarray
    models: Models


class Tables:
    """The probability tables of a model, ready for the coder (format: `tables.make`).

    Attributes:
        zeros: counts of the symbol zero per table, int32.
        silent: bool per table: its symbols are zero without being coded.
        models: the coder's.
    """

    def __init__(self, counts: np.ndarray, reaches: np.ndarray) -> None:
        """Raises ModelError if the arrays are not tables."""
        self.reaches = reaches.astype(np.int32)
        ends = np.cumsum(2 * self.reaches + 2)
        whole = len(reaches) == TABLES and reaches.min() > 0 and ends[-1] == len(counts)
        if not whole or counts.min() < 1:
            raise ModelError("the model's probability tables are damaged")
        self.counts = np.split(counts, ends[:-1])
        if any(table.sum() != TOTAL for table in self.counts):
            raise ModelError("the model's probability tables are damaged")
        self.zeros = counts[ends - self.reaches - 2]
        limits = np.where(np.arange(TABLES) < SYMBOL_TABLES, SILENT, PART_SILENT)
        self.silent = self.zeros > limits * TOTAL
        self.models = Models(self.counts.__getitem__)

    @cached_property
    def _saved(self) -> np.ndarray:
        """Bits that the symbol n - 1 saves against n, tables x n; the last n for all above."""
        saved = np.zeros((SYMBOL_TABLES, MOST_SAVED + 1), np.float32)
        for table, (counts, reach) in enumerate(zip(self.counts[:SYMBOL_TABLES], self.reaches)):
            row = -np.diff(np.log2(counts[reach : 2 * reach + 1]))
            saved[table, 1:] = np.pad(row, (0, max(MOST_SAVED - len(row), 0)), "edge")[:MOST_SAVED]
        return saved

    def quantise(self, target: np.ndarray, index: Index, worth: np.ndarray) -> np.ndarray:
        """The encoder's symbols of the ladder, int32: the nearest integer, or the one nearer to zero if
        it saves more bits than its squared error costs (`quantise.py`).

        Args:
            target: in steps from the prior's mean.
            worth: bits that a squared error of one step is worth.
        """
        symbols = np.empty(len(target), np.int32)

        def work(start: int, stop: int) -> None:
            wanted, table, shift = (a[start:stop] for a in (target, *index))
            nearest = np.rint(wanted)
            size = np.abs(nearest)
            saved = self.saved(size, table, shift)
            cost = 2 * (np.abs(wanted) - size) + 1  # of the squared error of the one nearer to zero
            nearer = saved > worth[start:stop] * cost
            symbols[start:stop] = nearest - np.sign(nearest) * nearer

        in_parallel(work, strips(len(target), 1))
        return symbols

    def saved(self, size: np.ndarray, table: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Bits that symbols save if they are nearer to zero by one, from their size."""
        # Low bits cost the same for all symbols: only every 2^shift-th symbol is a table's next.
        entry = np.minimum(size / (1 << shift), MOST_SAVED).astype(np.int32)
        return self._saved[table, entry] / (1 << shift)


class Grid(NamedTuple):
    """Where symbols of the ladder belong.

    Attributes:
        at: what was coded in one go.
        rows, columns: of the packed pass.
    """

    at: Place
    rows: int
    columns: int


@dataclass(frozen=True)
class Pass:
    """What is coded in one go.

    Attributes:
        symbols: int32, one-dimensional: on the ladder channels outermost, then rows, then columns.
        index: which tables they are coded under.
        tables: of all tables.
        grid: of a pass of the ladder, which may have side information.
        signs: slices of its symbols whose syndromes say signs, if the file has them.
    """

    symbols: np.ndarray
    index: Index
    tables: "Coding"
    grid: Grid | None = None
    signs: "Slices | None" = None

    @property
    def hidden(self) -> Signs:
        """What says signs."""
        return Signs.SYNDROMES if self.signs else Signs.NONE


def _groups(index: Index, tables: "Coding") -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Coded positions sorted by table, and the (table, start, stop) of each group among them."""
    coded = np.flatnonzero((~tables.silent).take(index.table))
    used = index.table[coded]
    order = np.argsort(used, kind="stable")
    sorted_tables = used[order]
    later = np.flatnonzero(sorted_tables[1:] != sorted_tables[:-1]) + 1
    starts = [0, *later.tolist()][: len(order)]  # none if there is nothing
    stops = [*starts[1:], len(order)]
    return coded[order], list(zip(sorted_tables[starts].tolist(), starts, stops))


class Stack:
    """One ANS stack, empty or from the words of a file."""

    def __init__(self, words: bytes = b"") -> None:
        """Args: words as `segments` gives them, 32 bits each, little endian, top of the stack first.

        Raises:
            FormatError: no stack has these words.
        """
        stack = np.frombuffer(words, "<u4")[::-1].astype(np.uint32)
        if len(stack) and not stack[-1]:
            raise FormatError("the coded data cannot be a stack")
        self._coder = constriction.stream.stack.AnsCoder(stack)

    @property
    def words(self) -> int:
        """How many words have left the coder's head for good."""
        return self._coder.pos()[0]

    @property
    def empty(self) -> bool:
        return self._coder.is_empty()

    def content(self) -> bytes:
        """All words, top of the stack first."""
        words = self._coder.get_compressed()[::-1]
        return (words.byteswap() if sys.byteorder == "big" else words).tobytes()

    def copy(self) -> "Stack":
        """Another stack of the same content."""
        other = Stack()
        other._coder = self._coder.clone()
        return other

    def push(self, symbols: np.ndarray, index: Index, tables: Coding) -> None:
        """Push one pass: int32 symbols with their tables, both one-dimensional.

        Symbols of silent tables must be zero.
        """
        order, groups = _groups(index, tables)
        shifts = index.shift[order]
        sorted_symbols = symbols[order]
        # The symbol is high * 2^shift + low - 2^(shift - 1), so that high is centred too.
        shifted = sorted_symbols + ((1 << shifts) >> 1)
        high = shifted >> shifts
        reach = tables.reaches[index.table[order]]
        escaped = np.abs(high) > reach
        self._push_escapes(high[escaped], reach[escaped])
        self._push_low((shifted - (high << shifts)), shifts)
        entries = np.where(escaped, 2 * reach + 1, high + reach).astype(np.int32)
        encode, models = self._coder.encode_reverse, tables.models  # there are hundreds of groups
        for table, start, stop in reversed(groups):
            encode(entries[start:stop], models[table])

    def pop(self, index: Index, tables: Coding) -> np.ndarray:
        """Pop what `push` pushed: int32 symbols.

        Raises:
            FormatError: the words are not what a stack of these symbols can be.
        """
        order, groups = _groups(index, tables)
        decode, models = self._coder.decode, tables.models  # there are hundreds of groups
        found = [decode(models[table], stop - start) for table, start, stop in groups]
        entries = np.concatenate([np.zeros(0, np.int32), *found])
        shifts = index.shift[order]
        low = self._pop_low(shifts)
        reach = tables.reaches[index.table[order]]
        escaped = entries == 2 * reach + 1
        high = (entries - reach).astype(np.int64)
        high[escaped] = self._pop_escapes(reach[escaped])
        values = (high << shifts) + low - ((1 << shifts) >> 1)
        if np.abs(values).max(initial=0) > LARGEST_SYMBOL:
            raise FormatError("the coded data do not fit the model")
        symbols = np.zeros(index.table.shape, np.int32)
        symbols[order] = values
        return symbols

    def push_one(self, value: int, size: int) -> None:
        """Push a number of 0 .. size - 1, all of them as likely."""
        if size > 1:
            self._coder.encode_reverse(np.array([value], np.int32), Uniform(size))

    def pop_one(self, size: int) -> int:
        """The inverse of `push_one`."""
        return int(self._coder.decode(Uniform(size), 1)[0]) if size > 1 else 0

    def push_bits(self, bits: np.ndarray) -> None:
        """Push bits, int32."""
        self._coder.encode_reverse(bits, Uniform(2))

    def pop_bits(self, count: int) -> np.ndarray:
        """The inverse of `push_bits`."""
        return self._coder.decode(Uniform(2), count)

    def push_each(self, numbers: np.ndarray, counts: np.ndarray) -> None:
        """Push numbers, int32, each under a distribution of its own.

        Args:
            counts: of every number's choices, less one each, in 2^-24: float64, whole numbers.
        """
        self._coder.encode_reverse(numbers, Categorical(perfect=False), counts)

    def pop_each(self, counts: np.ndarray) -> np.ndarray:
        """The inverse of `push_each`."""
        return self._coder.decode(Categorical(perfect=False), counts)

    def _push_low(self, low: np.ndarray, shifts: np.ndarray) -> None:
        for shift in range(int(shifts.max(initial=0)), 0, -1):
            self._coder.encode_reverse(low[shifts == shift].astype(np.int32), Uniform(1 << shift))

    def _pop_low(self, shifts: np.ndarray) -> np.ndarray:
        low = np.zeros(len(shifts), np.int32)
        for shift in range(1, int(shifts.max(initial=0)) + 1):
            at = shifts == shift
            low[at] = self._coder.decode(Uniform(1 << shift), int(at.sum()))
        return low

    def _push_escapes(self, high: np.ndarray, reach: np.ndarray) -> None:
        """Sign and Elias gamma code of how far each symbol lies beyond its table."""
        for value, limit in zip(high[::-1].tolist(), reach[::-1].tolist()):
            beyond = abs(value) - limit  # at least 1
            length = beyond.bit_length()
            self._push_bits(beyond - (1 << (length - 1)), length - 1)
            self.push_one(length - 1, MAX_ESCAPE)
            self.push_one(int(value < 0), 2)

    def _pop_escapes(self, reach: np.ndarray) -> np.ndarray:
        values = []
        for limit in reach.tolist():
            negative = self.pop_one(2)
            length = self.pop_one(MAX_ESCAPE)
            beyond = (1 << length) + self._pop_bits(length)
            values.append(-(limit + beyond) if negative else limit + beyond)
        return np.array(values, np.int64)

    def _push_bits(self, value: int, count: int) -> None:
        for at in range(0, count, ESCAPE_BITS):
            width = min(ESCAPE_BITS, count - at)
            self.push_one(value >> at & ((1 << width) - 1), 1 << width)

    def _pop_bits(self, count: int) -> int:
        value = 0
        for at in reversed(range(0, count, ESCAPE_BITS)):
            value |= self.pop_one(1 << min(ESCAPE_BITS, count - at)) << at
        return value

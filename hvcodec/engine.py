"""What encode and decode run, from a model file: pixels <-> symbols.

Encoder and decoder call the same code, one pass of one layer at a time, in arithmetic that is exact
(`exact.py`), so the priors that they see are the same numbers on every machine.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import exact, lossless, modelfile, refinement, signs, tables
from .ans import Grid, Pass, Tables
from .errors import FormatError
from .exact import Array
from .ladder import LAYERS, MAX_STRIDE, Place
from .mixture import Mixture
from .network import Network, Prior, at_place, delta
from .parallel import in_parallel, single_threaded_blas, strips
from .refinement import Known, Memory, layer_of, levels, steps_of
from .side_information import Costs
from .steps import BITS_PER_SQUARED_ERROR, OFF
from .transform import PLANES, REDUCTIONS

# How far the latents of earlier runs move towards those of the last one: what they say apart from it
# cannot be mended (docs/training-log.md has what other shares do).
LAST_SHARE = np.float32(0.8)
WORTH = [np.full((1, 1), BITS_PER_SQUARED_ERROR, np.float32)] * len(LAYERS)

Symbols = Array  # int32, one-dimensional: channels outermost, then rows, then columns
Pop = Callable[[int, tables.Index, Grid | None], Symbols]


class Opening(NamedTuple):
    """What a pass has to say at the next step; all coefficients flat.

    Attributes:
        known: before.
        mean, delta: prior mean, and step, coefficient units.
        table: those that the prior means.
        whole: positions of coefficients that nothing was said of so far; coded as on the ladder.
        parted: positions of those that are coded as a part of their window.
        parts, costs: of these windows, and in bits.
        coded: tables of the first and then of the second.
    """

    known: Known
    mean: Array
    delta: np.float32
    table: tables.Index
    whole: Array
    parted: Array
    parts: refinement.Parts
    costs: list[Array]
    coded: tables.Index


class Found(NamedTuple):
    """What all runs down the ladder end with.

    Attributes:
        features: coefficients and trunk, all that the synthesis needs; H/8 x W/8 x (192 + C).
        known: steps that the coefficients are known to.
    """

    features: Array
    known: list[int]


class Encoded(NamedTuple):
    """What the encoder ends with.

    Attributes:
        layers: the passes of every layer, coarse first.
        found: what the decoder will find, after every run down the ladder.
        memory: what is known of each pass, if the file has levels of refinement.
    """

    layers: list[list[Pass]]
    found: list[Found]
    memory: Memory


def pad(rgb: Array) -> Array:
    """uint8 H x W x 3 -> float32 H' x W' x 3 minus 128, sides multiples of 64."""
    below, right = (-n % MAX_STRIDE for n in rgb.shape[:2])
    return np.pad(rgb, ((0, below), (0, right), (0, 0)), mode="edge").astype(np.float32) - 128


def flat(planes: Array) -> Array:
    """H x W x C -> one dimension, channels outermost."""
    return planes.transpose(2, 0, 1).ravel()


def unflat(numbers: Array, like: Array) -> Array:
    """The inverse of `flat`, in the shape of `like`."""
    h, w, c = like.shape
    return numbers.reshape(c, h, w).transpose(1, 2, 0)


class Engine:
    """A loaded model.

    Attributes:
        path: of its file.
        id: the model's id, 12 hexadecimal digits.
        network: the network.
        tables: its probability tables.
        lossless: its lossless layer, if it has one.
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelError if the file is not a model of this version."""
        self.path, self.network = path, Network(path)
        self.id = modelfile.identify(path.read_bytes())
        self.tables = Tables(*self.network.tables)
        self.lossless = lossless.load(self.network.tensors, path.name)

    def analyse(
        self, rgb: Array, steps: list[int], tile: tuple[slice, slice] = (slice(None), slice(None))
    ) -> list[list[Array]]:
        """Latents y of a picture for some steps: per run down the ladder and layer, coarse first.

        Args:
            rgb: the picture, uint8, H x W x 3.
            steps: what the file says of each layer's step.
            tile: rows and columns that latents are wanted of, from multiples of 64 on.
        """
        spans = [part.indices(size)[:2] for part, size in zip(tile, rgb.shape)]
        outer = [slice(max(first - MAX_STRIDE, 0), last + MAX_STRIDE) for first, last in spans]
        # In units of the coarsest stride.
        inner = [
            slice((first - o.start) // MAX_STRIDE, -(-(last - o.start) // MAX_STRIDE))
            for (first, last), o in zip(spans, outer)
        ]

        def crop(y: Array, stride: int) -> Array:
            scale = MAX_STRIDE // stride
            return y[tuple(slice(part.start * scale, part.stop * scale) for part in inner)]

        with single_threaded_blas():
            planes = self.network.transform.blocks(pad(rgb[tuple(outer)]))
            runs = [
                self.network.analyse(planes, steps_of(steps, run, len(steps)))
                for run in range(levels(steps) + 1)
            ]
        last = runs[-1]
        return [
            [
                crop(goal if run is last else y + (goal - y) * LAST_SHARE, la.stride)
                for y, goal, la in zip(run, last, LAYERS)
            ]
            for run in runs
        ]

    @cached_property
    def costs(self) -> Costs:
        """What symbols of the ladder cost, for side information."""
        return Costs(self.tables)

    @staticmethod
    def _index(prior: Prior, step: np.float32) -> tables.Index:
        """The tables that the quantised prior means; flat."""
        height, width, channels = prior.mean.shape
        found = np.empty((2, channels, height, width), np.int16)
        unit = exact.log2(np.asarray(step))

        def work(top: int, bottom: int) -> None:
            level = tables.quantise_scale(prior.log2_scale[top:bottom] - unit)
            shape = tables.quantise_shape(prior.shape[top:bottom])
            for target, part in zip(found, tables.index(level, shape)):
                target[:, top:bottom] = part.transpose(2, 0, 1)

        in_parallel(work, strips(height, width * channels))
        return tables.Index(*found.reshape(2, -1))

    def _mixture(self, index: tables.Index) -> Mixture:
        """The distribution in symbols, as the tables have it."""
        level, shape = tables.prior_of(index)
        ratio, weight = (part[shape] for part in self.network.wide_parts)
        return Mixture(tables.scale_of(level), ratio, weight)

    def _windows(self, symbols: Symbols, index: tables.Index) -> tuple[Array, Array]:
        """Windows that symbols of the ladder leave, in steps from the prior's mean; without ends where
        the table is silent, since nothing was said there."""
        said = ~self.tables.silent[index.table]
        low, high = (np.full(said.shape, end, np.float32) for end in (-np.inf, np.inf))
        own = self._mixture(index.at(said))
        low[said], high[said] = refinement.window(symbols[said].astype(np.float32), own)
        return low, high

    def _known(self, symbols: Symbols, mean: Array, step: np.float32, index: tables.Index) -> Known:
        """What symbols of the ladder leave known; all flat."""
        low_high = self._windows(symbols, index)
        value, low, high = (mean + at * step for at in (symbols.astype(np.float32), *low_high))
        return Known(value, low, high, symbols == 0)

    def _open(self, known: Known, prior: Prior, step: np.float32) -> Opening:
        """What a pass has to say at the next step, given what is known."""
        table = self._index(prior, step)
        mean = flat(prior.mean)
        # Where zero is all but certain and all that there was, nothing is said.
        quiet = known.fresh & self.tables.silent[table.table]
        quiet &= (known.low < mean) & (mean < known.high)
        open_ended = np.isinf(known.low)
        whole = np.flatnonzero(~quiet & open_ended)
        parted = np.flatnonzero(~quiet & ~open_ended)
        parts = refinement.parts(Known(*(field[parted] for field in known)), mean[parted], step)
        own = self._mixture(table.at(parted))
        down, up, part_table = tables.quantise_odds(*refinement.odds(parts.edges, own))
        return Opening(
            known._replace(value=np.where(quiet, mean, known.value)),
            mean,
            step,
            table,
            whole,
            parted,
            parts,
            refinement.costs(down, up),
            tables.Index(
                np.concatenate([table.table[whole], part_table]),
                np.concatenate([table.shift[whole], np.zeros_like(part_table)]),
            ),
        )

    def _chosen(self, opening: Opening, target: Array, worth: Array) -> Symbols:
        """The encoder's symbols of an opening; target and worth in steps, flat."""
        whole, parted = opening.whole, opening.parted
        index = tables.Index(*(part[: len(whole)] for part in opening.coded))
        first = self.tables.quantise(target[whole], index, worth[whole])
        second = refinement.choose(target[parted], opening.parts, opening.costs, worth[parted])
        return np.concatenate([first, second]) * ~self.tables.silent[opening.coded.table]

    def _moves(
        self, symbols: Symbols, opening: Opening, target: Array, worth: Array
    ) -> tuple[Symbols, Array]:
        """What symbols of an opening may be instead, of the other parity, and what that costs, bits."""
        whole, parted = opening.whole, opening.parted
        first, second = symbols[: len(whole)], symbols[len(whole) :]
        index = opening.coded.at(np.arange(len(whole)))
        ladder = signs.moves(first, target[whole], index, worth[whole], self.tables)
        parts = refinement.moves(second, target[parted], opening.parts, opening.costs, worth[parted])
        then, price = (np.concatenate(both) for both in zip(ladder, parts))
        return then, price

    def _close(self, opening: Opening, symbols: Symbols) -> Known:
        """What is known once the symbols of an opening are there.

        Raises:
            FormatError: symbols that cannot be.
        """
        before, mean, step, table, whole, parted, parts, costs, _ = opening
        first, second = symbols[: len(whole)], symbols[len(whole) :]
        if np.abs(second).max(initial=0) > 1:
            raise FormatError("the coded data do not fit the model")
        new = self._known(first, mean[whole], step, table.at(whole))
        narrower = refinement.narrow(second, parts, costs, mean[parted], step, before.fresh[parted])
        after = Known(*(field.copy() for field in before))
        for field, a, b in zip(after, new, narrower):
            field[whole], field[parted] = a, b
        return after

    def encode(
        self,
        latents: list[list[Array]],
        steps: list[int],
        weights: list[float],
        worth: Sequence[Array] = WORTH,
        hide: bool = False,
        before: Encoded = Encoded([], [], {}),
    ) -> Encoded:
        """Choose all symbols.

        Args:
            latents: from `analyse`, for all runs or some of them.
            steps: what the file says of each layer's step.
            weights: rate weight per layer.
            worth: bits that a squared error of one step is worth, for each of the ladder's layers,
                H x W or 1 x 1.
            hide: signs in syndromes; of levels of refinement in the last one only, since symbols that
                were moved lead those that follow astray.
            before: what the runs before these ended with.

        Returns:
            What all runs up to the last of these end with.
        """
        layers = [list(passes) for passes in before.layers] or [[] for _ in steps]
        found, memory = list(before.found), dict(before.memory)
        with single_threaded_blas():
            for run, goal in enumerate(latents, len(found)):
                found.append(self._encode_run(run, goal, steps, weights, worth, hide, layers, memory))
        return Encoded(layers, found, memory)

    def _encode_run(
        self,
        run: int,
        latents: list[Array],
        steps: list[int],
        weights: list[float],
        worth: Sequence[Array],
        hide: bool,
        layers: list[list[Pass]],
        memory: Memory,
    ) -> Found:
        """One run down the ladder; adds to `layers` and changes `memory`."""
        indices = steps_of(steps, run, len(steps))

        def choose(at: Place, prior: Prior) -> Array:
            index = at.layer
            layer = layer_of(run, index)
            if steps[layer] == OFF:
                return np.zeros_like(prior.mean)
            y = latents[index]
            step = delta(indices[index])
            target = flat((at_place(y, at) - prior.mean) / step)
            here = np.broadcast_to(worth[index][..., None], y.shape)
            here = flat(at_place(here, at))
            if run:
                opening = self._open(memory[at], prior, step)
                here = here * np.float32(weights[index] / weights[layer])
                symbols = self._chosen(opening, target, here)
                slices = None
                if hide and run == levels(steps):
                    slices = signs.slices_of_refinement(opening.coded, self.tables)
                    then, price = self._moves(symbols, opening, target, here)
                    order = slices.position
                    symbols = signs.agreeing(symbols, slices, then[order], price[order])
                layers[layer].append(Pass(symbols, opening.coded, self.tables, signs=slices))
                memory[at] = self._close(opening, symbols)
                return unflat(memory[at].value, prior.mean) - prior.mean
            table = self._index(prior, step)
            symbols = self.tables.quantise(target, table, here) * ~self.tables.silent[table.table]
            grid = Grid(at, *prior.mean.shape[:2])
            slices = signs.slices(table, grid, self.tables) if hide and not levels(steps) else None
            if slices:
                order = slices.position
                own = symbols[order], target[order], table.at(order), here[order]
                symbols = signs.agreeing(symbols, slices, *signs.moves(*own, self.tables))
            layers[layer].append(Pass(symbols, table, self.tables, grid, slices))
            if levels(steps):
                memory[at] = self._known(symbols, flat(prior.mean), step, table)
            return unflat(symbols.astype(np.float32), prior.mean) * step

        height, width = (n * LAYERS[-1].stride for n in latents[-1].shape[:2])
        return self._found(self.network.descend(indices, indices, height, width, choose), indices)

    def decode(
        self,
        pop: Pop,
        steps: list[int],
        count: int,
        height: int,
        width: int,
    ) -> Found:
        """Run the decoder's side of `encode`.

        Args:
            pop: called as pop(layer, index, grid) for each pass of each layer that is present; the
                grid is None in layers of refinement.
            steps: what the file says of each layer's step.
            count: how many layers, coarse first, are present.
            height, width: of the picture.

        Raises:
            FormatError: symbols that cannot be.
        """
        memory: Memory = {}
        with single_threaded_blas():
            found = self._decode_run(0, pop, steps, count, height, width, memory)
            run = 1
            while layer_of(run, 0) < count:
                found = self._decode_run(run, pop, steps, count, height, width, memory)
                run += 1
        known = steps_of(steps, run - 1, count)
        return self._found(found, known)

    def decode_reduced(
        self,
        pop: Pop,
        steps: list[int],
        count: int,
        height: int,
        width: int,
        stride: int,
    ) -> Array:
        """A picture of one pixel for every `stride` x `stride`, uint8, from the layers that it needs.

        Args:
            pop, steps, count, height, width: see `decode`; without levels of refinement.
            stride: one of `transform.REDUCTIONS`.
        """
        with single_threaded_blas():
            layers = REDUCTIONS[stride]
            values, _ = self._decode_run(0, pop, steps, count, height, width, {}, layers)
            colours = self.network.transform.reduced(values, stride) + 128
        rows, columns = (-(-n // stride) for n in (height, width))
        return np.clip(np.rint(colours[:rows, :columns]), 0, 255).astype(np.uint8)

    def _decode_run(
        self,
        run: int,
        pop: Pop,
        steps: list[int],
        count: int,
        height: int,
        width: int,
        memory: Memory,
        layers: int = len(LAYERS),
    ) -> tuple[list[Array], Array]:
        """One run down the ladder, or its first layers; changes `memory`."""
        height, width = (n + -n % MAX_STRIDE for n in (height, width))
        indices, present = (steps_of(steps, run, n) for n in (len(steps), count))

        def choose(at: Place, prior: Prior) -> Array:
            index = at.layer
            layer = layer_of(run, index)
            if present[index] == OFF:
                return np.zeros_like(prior.mean)
            step = delta(indices[index])
            if not run:
                table = self._index(prior, step)
                symbols = pop(layer, table, Grid(at, *prior.mean.shape[:2]))
                if levels(steps):
                    memory[at] = self._known(symbols, flat(prior.mean), step, table)
                return unflat(symbols.astype(np.float32), prior.mean) * step
            if layer < count:
                opening = self._open(memory[at], prior, step)
                memory[at] = self._close(opening, pop(layer, opening.coded, None))
            return unflat(memory[at].value, prior.mean) - prior.mean

        return self.network.descend(indices, present, height, width, choose, layers)

    def _found(self, ends: tuple[list[Array], Array], known: list[int]) -> Found:
        values, trunk = ends
        return Found(np.concatenate([self.network.transform.join(values), trunk], 2), known)

    def values(self, found: Found) -> list[Array]:
        """Coefficients of every layer, coarse first, of what the ladder ended with."""
        return self.network.transform.split(found.features[..., :PLANES])

    def synthesise(self, features: Array, known: list[int], unit: int = 1) -> Array:
        """Pixels of what the ladder ended with, or of a window of it; see `Network.synthesise`."""
        with single_threaded_blas():
            return self.network.synthesise(features[..., :PLANES], features[..., PLANES:], known, unit)


@lru_cache(maxsize=2)
def _load(path: Path, _modified: int, _size: int) -> Engine:
    return Engine(path)


def load(path: Path) -> Engine:
    """The engine of a model file, kept for the next call unless the file changes.

    Raises:
        ModelError: not a model of this version.
    """
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)

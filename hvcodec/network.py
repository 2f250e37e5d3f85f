"""The network as it runs: exact, in numpy, on all cores. `model.py` is what it was trained as.

Features and latents are arrays H x W x C of float32. Pictures are worked on in strips of rows that fit
into a processor's cache; since sums are exact, strips and threads change no bit of the result.
"""

import math
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import exact, modelfile
from .errors import ModelError
from .exact import Array
from .ladder import LAYERS, STRIDES, Place, of_layers, places
from .parallel import Scratch, in_parallel, strips
from .steps import OFF, STEPS_PER_OCTAVE
from .transform import BLOCK, DC_PLANES, OVERLAP, Transform

# What follows holds for training too (`model.py`).

# Ranges of the prior's parameters: means in spreads, scales in octaves around half a spread.
MEAN_MAX = 8.0
MEAN_UNIT = 0.25  # spreads per unit of the head's output
SCALE_MAX = 8.0

# Hat functions over log2(Delta) that the conditioning is a linear combination of, and one flag
# that says "layer is off". Any function of one layer's step on this grid is a table in the end.
KNOTS = 7
KNOT_RANGE = (0.0, 12.0)
FEATURES = KNOTS + 1

DC_SPREAD = 512.0  # of the three DC planes at stride 8, roughly

# The first layers are conditioned as if no step were finer than 2^5. Priors are in coefficient units,
# so there is little to know of finer steps; what the first model believed it knew of them made its
# means wrong and cost 5 % of the rate (docs/training-log.md).
COARSE_LAYERS = 4
FINEST_COARSE = 6 * STEPS_PER_OCTAVE  # the step index of 2^5


class Prior(NamedTuple):
    """Prior of the latents of a pass, H x W x C.

    Attributes:
        mean: coefficient units.
        log2_scale: log2 of the main logistic's scale, coefficient units.
        shape: of the tail, 0 .. 1.
    """

    mean: Array
    log2_scale: Array
    shape: Array


# OpenBLAS spares itself much copying where products are small, up to about 10^6 multiplications: with a
# matrix of up to so many numbers so many positions are a part.
SMALL, PART = 1 << 13, 96

# Numbers in a strip, at least, where many small things are done with them: threads that do so wait for
# each other most of the time.
FEW_CALLS = 1 << 17

RUN = 1024  # numbers that a depthwise product works on at a time: the fastest cache holds them

_scratch = Scratch()

Choose = Callable[[Place, Prior], Array]


def lines_of(x: Array, r: int) -> Array:
    """What `shuffle` makes, as a view of its channels: H x r x W x (r C)."""
    h, w, c = x.shape
    return x.reshape(h, w, r, c // r).transpose(0, 2, 1, 3)


def shuffle(x: Array, r: int) -> Array:
    """Channels to r x r positions: H x W x (r r C) -> H r x W r x C."""
    h, w, c = x.shape
    return lines_of(x, r).reshape(h * r, w * r, c // r**2)


def unshuffle(x: Array, r: int) -> Array:
    """r x r positions to channels: H r x W r x C -> H x W x (C r r)."""
    h, w, c = x.shape
    x = x.reshape(h // r, r, w // r, r, c).transpose(0, 2, 4, 1, 3)
    return x.reshape(h // r, w // r, c * r**2)


def take(x: Array, p: int, passes: int) -> Array:
    """The positions of a pass, packed: those whose row + column is p modulo 2, if there are two."""
    if passes == 1:
        return x
    part = np.empty((x.shape[0], x.shape[1] // 2, x.shape[2]), x.dtype)
    part[0::2], part[1::2] = x[0::2, p::2], x[1::2, 1 - p :: 2]
    return part


def at_place(x: Array, at: Place) -> Array:
    """What is coded in one go: H x W x C of a layer -> H x W/passes x channels."""
    own = take(x, at.p, LAYERS[at.layer].passes)
    return own if len(at.channels) == x.shape[2] else own[..., list(at.channels)]


def put(
    part: Array,
    p: int,
    passes: int,
    into: Array,
    channels: list[int] | None = None,
    add: bool = False,
) -> None:
    """The inverse of `take`: write a pass or some of its channels to its positions, or add it there."""
    if passes == 1:
        pairs = [(into, part)]
    else:
        pairs = [(into[0::2, p::2], part[0::2]), (into[1::2, 1 - p :: 2], part[1::2])]
    for target, source in pairs:
        if add:
            target += source
        elif channels is None or len(channels) == target.shape[2]:
            target[...] = source
        else:
            target[..., channels] = source


def dot(x: Array, matrix: Array, out: Array | None = None) -> Array:
    """N x inputs -> N x outputs, in `out` if given; all products over channels go through here."""
    count = math.gcd(len(x), PART)
    if matrix.size > SMALL or count < PART // 4:
        return np.matmul(x, matrix, out=out)
    out = np.empty((len(x), matrix.shape[1]), x.dtype) if out is None else out
    np.matmul(x.reshape(-1, count, x.shape[1]), matrix, out=out.reshape(-1, count, out.shape[1]))
    return out


def wide(vector: Array, count: int) -> Array:
    """Numbers per channel, along the last axis -> per channel of `count` positions: numpy is slow along
    short axes."""
    return np.tile(vector, count)


def run_of(width: int, channels: int) -> int:
    """How many positions `depthwise` works on at a time: a divisor of the row, as `RUN` allows."""
    most = min(max(RUN // channels, 1), width)
    return next(n for n in range(most, 0, -1) if width % n == 0)


def depthwise(padded: Array, kernel: Array, channels: int, out: Array) -> None:
    """3x3 correlation of every channel with a kernel of its own.

    Args:
        padded: (H + 2) x (W + 2) C: rows of positions, with a margin of one position.
        kernel: 3 x 3 x run C: the taps, for a run of positions that divides W.
        out: H x W C, contiguous.
    """
    height, size = out.shape
    run = kernel.shape[2]
    row, number = padded.strides
    windows = np.ndarray(
        (height, size // run, 3, 3, run),
        padded.dtype,
        padded,
        strides=(row, run * number, row, channels * number, number),
    )
    # The sum in one go over cached numbers: twice as fast as nine products and their sums.
    np.einsum("hwijc,ijc->hwc", windows, kernel, out=out.reshape(height, -1, run))


class Product:
    """A product over channels: rounded weights, and the grid of its inputs.

    Attributes:
        unit, limit: the inputs are whole numbers of this power of two, up to this one; 1 and None
            where nothing is rounded.
        matrix: inputs x outputs, for inputs counted in units.
        biases: per output.
    """

    def __init__(self, weights: Array, biases: Array, grid: tuple[int, int] | None) -> None:
        self.unit = 1.0 if grid is None else 2.0 ** grid[0]
        self.limit = None if grid is None else grid[1]
        if self.limit is not None:
            weights, rounded = exact.rounded(weights, biases, self.unit, self.limit)
            assert rounded is not None
            biases = rounded
        self.matrix = np.ascontiguousarray(weights.T) * np.float32(self.unit)
        self.biases = biases

    def of(self, outputs: list[int]) -> "Product":
        """The same for some of its outputs."""
        other = copy(self)
        other.matrix = np.ascontiguousarray(self.matrix[:, outputs])
        other.biases = self.biases[outputs]
        return other

    def rows(self, x: Array) -> Array:
        """H x W x inputs -> H x W x outputs."""
        h, w, c = x.shape
        flat = x.reshape(-1, c)
        if self.limit is not None:
            (inputs,) = _scratch.arrays(flat.shape)
            flat = np.multiply(flat, np.float32(1 / self.unit), out=inputs)
            exact.whole(flat, self.limit, out=flat)
        y = dot(flat, self.matrix).reshape(h, -1)
        y += wide(self.biases, w)
        return y.reshape(h, w, -1)

    def __call__(self, x: Array) -> Array:
        """The same in strips."""
        h, w, c = x.shape
        out = np.empty((h, w, self.matrix.shape[1]), np.float32)

        def work(top: int, bottom: int) -> None:
            out[top:bottom] = self.rows(x[top:bottom])

        in_parallel(work, strips(h, w * max(c, out.shape[2])))
        return out


class Block:
    """Residual block: depthwise 3x3, expand, condition on the steps, ReLU, project.

    The inputs of each of the three products are counted in units; what makes them so is folded into the
    weights before, which changes no bit, since units are powers of two.
    """

    def __init__(
        self,
        kernel: Array,
        condition: Array,
        expand: Product,
        project: Product,
        grid: tuple[int, int] | None,
    ) -> None:
        self.unit = 1.0 if grid is None else 2.0 ** grid[0]
        self.limit = None if grid is None else grid[1]
        if self.limit is not None:
            kernel, _ = exact.rounded(kernel, None, self.unit, self.limit)
            condition = exact.rounded_condition(condition)
        self.kernel = kernel[:, 0].transpose(1, 2, 0) * np.float32(self.unit / expand.unit)
        self.expand = expand.matrix * np.float32(1 / project.unit)
        self.condition = condition * np.float32(1 / project.unit)
        self.shift = expand.biases * np.float32(1 / project.unit)
        self.limits = expand.limit, project.limit
        self.project, self.biases = project.matrix, project.biases

    def __call__(self, h: Array, condition: Array) -> Array:
        height, width, channels = h.shape
        kernel = wide(self.kernel, run_of(width, channels))
        shift = wide(self.shift + self.condition @ condition, width)
        biases = wide(self.biases, width)
        h = h.reshape(height, -1)
        out = np.empty_like(h)

        def work(top: int, bottom: int) -> None:
            first, last = max(top - 1, 0), min(bottom + 1, height)
            rows, size = bottom - top, width * channels
            padded, u, hidden, result = _scratch.arrays(
                (rows + 2, size + 2 * channels),
                (rows * width, channels),
                (rows * width, self.expand.shape[1]),
                (rows * width, channels),
            )
            padded[: first - top + 1] = padded[last - top + 1 :] = 0
            padded[:, :channels] = padded[:, -channels:] = 0
            inner = padded[first - top + 1 : last - top + 1, channels:-channels]
            np.multiply(h[first:last], np.float32(1 / self.unit), out=inner)
            if self.limit is not None:
                exact.whole(inner, self.limit, out=inner)
            depthwise(padded, kernel, channels, out=u.reshape(rows, size))
            limit, hidden_limit = self.limits
            if limit is not None:
                exact.whole(u, limit, out=u)
            hidden = dot(u, self.expand, hidden)
            lines = hidden.reshape(rows, -1)
            lines += shift
            if hidden_limit is None:
                np.maximum(hidden, 0, out=hidden)
            else:
                exact.whole(hidden, hidden_limit, out=hidden, least=0)  # ReLU
            result = dot(hidden, self.project, result).reshape(rows, size)
            result += biases
            np.add(result, h[top:bottom], out=out[top:bottom])

        in_parallel(work, strips(height, 2 * width * channels))
        return out.reshape(height, width, channels)


class Follower(NamedTuple):
    """What a group's prior owes to the groups before it at the same positions."""

    from_trunk: Product
    from_values: Product
    out: Product
    condition: Array

    def rows(self, seen: Array, told: Array, condition: Array) -> Array:
        """Trunk H x W x width, and features of what is known, H x W x inputs -> as a prior's head.

        Args:
            condition: of the steps, for the hidden channels.
        """
        hidden = self.from_trunk.rows(seen)
        hidden += self.from_values.rows(told)
        hidden += condition
        return self.out.rows(np.maximum(hidden, 0, out=hidden))


class Rung(NamedTuple):
    """One pass of one layer.

    Attributes:
        blocks: before it.
        head: of the priors, for everything that is coded in one go.
        followers: of all of these but the first.
        absorb: the way back of the decoded values.
    """

    blocks: list[Block]
    head: list[Product]
    followers: list[Follower]
    absorb: Product


def in_places(outputs: Array, r: int) -> Array:
    """Along the first axis: C r r -> r r C, so that what goes to one place is together."""
    return outputs.reshape(-1, r * r, *outputs.shape[1:]).swapaxes(0, 1).reshape(outputs.shape)


class Parts:
    """Makes the parts of a network from a model's tensors.

    Args:
        tensors: float32, by name.
        grids: log2 of the unit, and the limit, of the inputs of each product, in the order in which
            they are made; None for parts that need not be exact.
    """

    def __init__(self, tensors: Mapping[str, Array], grids: Array | None) -> None:
        self._tensors = tensors
        self._grids = None if grids is None else iter(grids.astype(int).tolist())

    def _grid(self) -> tuple[int, int] | None:
        if self._grids is None:
            return None
        try:
            return next(self._grids)
        except StopIteration:
            raise ValueError("fewer grids than products") from None

    def product(self, name: str, r: int = 1) -> Product:
        """Its outputs in the order that `shuffle` by r takes; models have them as C r r."""
        weights, biases = (in_places(self._tensors[f"{name}.{x}"], r) for x in ("weight", "bias"))
        return Product(weights, biases, self._grid())

    def follower(self, name: str) -> "Follower":
        trunk, values, out = (self.product(f"{name}.{x}") for x in ("from_trunk", "from_values", "out"))
        return Follower(
            trunk, values, out, exact.rounded_condition(self._tensors[f"{name}.condition.weight"])
        )

    def blocks(self, name: str, count: int) -> list[Block]:
        found = []
        for n in range(count):
            own, grid = f"{name}.{n}", self._grid()
            parts = self.product(own + ".expand"), self.product(own + ".project")
            kernel, condition = (self._tensors[f"{own}.{x}"] for x in ("depthwise", "condition.weight"))
            found.append(Block(kernel, condition, *parts, grid))
        return found

    def end(self) -> None:
        """Raises ValueError if a grid is left."""
        if self._grids is not None and next(self._grids, None) is not None:
            raise ValueError("more grids than products")


def conditions(steps: list[int]) -> Array:
    """Features of the step indices of all layers: hat functions of log2 of each step, and a flag."""
    low, high = KNOT_RANGE
    spacing = (high - low) / (KNOTS - 1)
    features = []
    for step in steps:
        at = min(max(step / STEPS_PER_OCTAVE - 1, low), high)
        knots = [low + spacing * k for k in range(KNOTS)]
        hats = [max(1 - abs(at - knot) / spacing, 0.0) * (step != OFF) for knot in knots]
        features += [*hats, float(step == OFF)]
    return np.array(features, np.float32)


def delta(step: int) -> np.float32:
    """Quantiser step in coefficient units."""
    return exact.exp2(np.array([step / STEPS_PER_OCTAVE - 1], np.float32))[0]


def compress(value: Array) -> Array:
    """Coefficients on a logarithmic scale, about -3 .. 3."""
    result = exact.symlog2(value / 2)
    result /= 4
    return result


class Network:
    """A loaded model's network."""

    def __init__(self, path: Path) -> None:
        """Raises ModelError if the file is not a model of this version."""
        card, self.tensors = modelfile.card(path), modelfile.tensors(path)
        try:
            self._build(card["config"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelError(f"{path.name} does not fit this version of hvcodec: {error}") from None

    def _build(self, config: dict) -> None:
        grids = self.tensors.pop("exact.grids")
        self.transform = Transform(self.tensors.pop("exact.turns"))
        self.tables = tuple(self.tensors.pop(f"tables.{part}") for part in ("counts", "reaches"))
        t = self.tensors = {k: v.astype(np.float32) for k, v in self.tensors.items()}
        parts = Parts(t, grids)
        product, blocks = parts.product, parts.blocks
        self.grouped = config.get("groups", 1) > 1
        counts = of_layers(config["blocks"])
        self.rungs = [
            [self._rung(parts, k, p, counts[k]) for p in range(la.passes)]
            for k, la in enumerate(LAYERS)
        ]
        self.up = [product(f"up.{k}", 2) for k in range(len(STRIDES) - 1)]
        self.closing_blocks = blocks("closing_blocks", config["closing_blocks"])
        self.closing_head = product("closing_head")
        self.middle: tuple[Product, list[Block], Product] | None = None
        if count := config["middle_blocks"]:
            into = product("middle_in", 2)
            self.middle = into, blocks("middle_blocks", count), product("middle_out", 2)
        self.synthesis_in = product("synthesis_in", 4)
        self.synthesis_picture = product("synthesis_picture")
        self.synthesis_blocks = blocks("synthesis_blocks", config["synthesis_blocks"])
        self.synthesis_out = product("synthesis_out", 2)
        parts.end()
        loose = Parts(t, None)
        self.analysis = (
            loose.product("analysis_in"),
            loose.blocks("analysis_blocks", config["analysis_blocks"]),
            loose.product("analysis_out"),
        )
        self.gain = in_places(exact.rounded_condition(t["synthesis_gain.weight"]), 2)
        self.spreads = [t[f"spread_{la.name}"] for la in LAYERS]
        shapes = np.arange(8, dtype=np.float32) / 7
        start, end = t["tail"]
        ratio, logit = ((1 - shapes) * start[i] + shapes * end[i] for i in (0, 1))
        self.wide_parts = exact.exp2(ratio), exact.sigmoid(logit)

    def _rung(self, parts: Parts, k: int, p: int, blocks: int) -> Rung:
        name = f"rungs.{k}.{p}"
        before = parts.blocks(f"{name}.blocks", blocks)
        head, absorb = (parts.product(f"{name}.{part}") for part in ("head", "absorb"))
        groups = places(k, p, self.grouped)
        followers = [parts.follower(f"{name}.followers.{n}") for n in range(len(groups) - 1)]
        count = LAYERS[k].channels
        outputs = [[c + n * count for n in range(3) for c in at.channels] for at in groups]
        return Rung(before, [head.of(some) for some in outputs], followers, absorb)

    def analyse(self, planes: Array, steps: list[int]) -> list[Array]:
        """Latents y that the posterior is centred at, per layer, coarse first.

        The linear transform's coefficients and a correction by a small network, in units of the steps.
        Not exact, since only the encoder needs it.

        Args:
            planes: coefficients from `Transform.blocks`, H/8 x W/8 x 192.
        """
        into, blocks, out = self.analysis
        spread = np.concatenate([np.full(DC_PLANES, DC_SPREAD, np.float32), *self.spreads[3:]])
        condition = conditions(steps)
        gain = self.tensors["analysis_gain.weight"] @ condition
        height, width, channels = planes.shape
        rows = strips(height, 2 * width * channels)
        u = np.empty((height, width, into.matrix.shape[1]), np.float32)
        latents = np.empty_like(planes)

        def start(top: int, bottom: int) -> None:
            part = planes[top:bottom]
            parts = [np.clip(part / spread, -8, 8), compress(part)]
            u[top:bottom] = into.rows(np.concatenate(parts, 2))

        def finish(top: int, bottom: int) -> None:
            np.add(planes[top:bottom], out.rows(u[top:bottom]) * gain, out=latents[top:bottom])

        in_parallel(start, rows)
        for block in blocks:
            u = block(u, condition)
        in_parallel(finish, rows)
        return self.transform.split(latents)

    def descend(
        self,
        steps: list[int],
        present: list[int],
        height: int,
        width: int,
        choose: Choose,
        layers: int = len(LAYERS),
    ) -> tuple[list[Array], Array]:
        """Run the generative path from coarse to fine.

        Args:
            steps: step indices as coded.
            present: those that the layers are known to: `OFF` where a layer is missing because the
                stream was cut, coarser where it is known from an earlier run. From the first layer that
                differs on the trunk is conditioned on these, before it on `steps`, as when the layers
                were coded.
            height, width: of the picture, multiples of 64.
            choose: called as choose(place, prior) for all that is coded in one go; gives the values
                minus the prior mean, in coefficient units, packed (`take`).
            layers: how many of them to run.

        Returns:
            Values per layer (coarse first, coefficient units) and the trunk, at stride 8 in the end.
        """
        shape = height // STRIDES[0], width // STRIDES[0]
        h = np.broadcast_to(self.tensors["start"], (*shape, len(self.tensors["start"]))).copy()
        values = []
        for index, la in enumerate(LAYERS[:layers]):
            if index and la.stride < LAYERS[index - 1].stride:
                h = shuffle(self.up[STRIDES.index(la.stride) - 1](h), 2)
            missing = present[index] == OFF
            seen = steps if present[index] == steps[index] else present
            if index < COARSE_LAYERS:
                seen = [max(s, FINEST_COARSE) for s in seen]
            condition = conditions(seen)
            step = delta(steps[index] if missing else present[index])
            spread = self.spreads[index]
            layer = np.empty((height // la.stride, width // la.stride, la.channels), np.float32)
            for p, rung in enumerate(self.rungs[index]):
                for block in rung.blocks:
                    h = block(h, condition)
                told: list[Array] = []
                for n, at in enumerate(places(index, p, self.grouped)):
                    prior = self._prior(rung, n, at, h, spread, told, condition)
                    residual = choose(at, prior)
                    self._absorb(rung, n, at, prior.mean, residual, step, spread, told, layer, h)
            values.append(layer)
        return values, h

    @staticmethod
    def _prior(
        rung: Rung, n: int, at: Place, h: Array, spread: Array, told: list[Array], condition: Array
    ) -> Prior:
        """What the trunk makes of the latents of the n-th place of a pass, and what the places before
        it told."""
        height, width, channels = h.shape
        passes = LAYERS[at.layer].passes
        spread = spread[list(at.channels)]
        prior = Prior(*np.empty((3, height, width // passes, len(spread)), np.float32))
        middle = exact.log2(spread)
        shift = rung.followers[n - 1].condition @ condition if n else None

        def work(top: int, bottom: int) -> None:
            # Strips may begin at odd rows.
            seen = take(h[top:bottom], (at.p + top) % 2, passes)
            found = rung.head[n].rows(seen)
            if shift is not None:
                before = np.concatenate([of[top:bottom] for of in told], 3)
                before = before.reshape(*before.shape[:2], -1)
                found += rung.followers[n - 1].rows(seen, before, shift)
            mean, log2_scale, shape = (part[top:bottom] for part in prior)
            of_mean, of_scale, of_shape = np.split(found, 3, 2)
            np.clip(of_mean * np.float32(MEAN_UNIT), -MEAN_MAX, MEAN_MAX, out=mean)
            mean *= spread
            np.clip(of_scale, -SCALE_MAX, SCALE_MAX, out=log2_scale)
            log2_scale += middle
            log2_scale -= 1
            np.clip(of_shape + np.float32(0.5), 0, 1, out=shape)

        in_parallel(work, strips(height, width * channels, least=FEW_CALLS))
        return prior

    @staticmethod
    def _absorb(
        rung: Rung,
        n: int,
        at: Place,
        mean: Array,
        residual: Array,
        step: np.float32,
        spread: Array,
        told: list[Array],
        layer: Array,
        h: Array,
    ) -> None:
        """Put the values of the n-th place of a pass, mean and residual, into the layer.

        What they tell, themselves in units of the spread and on a logarithmic scale, and their symbols
        likewise, goes to `told`, H x W x 3 x channels; after the last place all of it goes through the
        product `absorb` to the trunk.
        """
        height, width, channels = mean.shape
        passes = LAYERS[at.layer].passes
        own = list(at.channels)
        spread = spread[own]
        last = n == len(rung.head) - 1
        if not last:
            told.append(np.empty((height, width, 3, channels), np.float32))
        order = np.argsort([c for place in places(at.layer, at.p, n > 0) for c in place.channels])

        def work(top: int, bottom: int) -> None:
            value = mean[top:bottom] + residual[top:bottom]
            put(value, (at.p + top) % 2, passes, layer[top:bottom], own)
            inputs = np.empty((bottom - top, width, 3, channels), np.float32)
            of_value, of_size, of_symbol = np.moveaxis(inputs, 2, 0)
            np.divide(value, spread, out=of_value)
            of_value.clip(-8, 8, out=of_value)
            of_size[...] = compress(value)
            symbol = residual[top:bottom] / step
            said = symbol != 0  # which few are, where time goes
            of_symbol[...] = 0
            of_symbol[said] = exact.symlog2(symbol[said]) / 2
            if not last:
                told[n][top:bottom] = inputs
                return
            if n:
                inputs = np.concatenate([*(of[top:bottom] for of in told), inputs], 3)[..., order]
            back = rung.absorb.rows(inputs.reshape(bottom - top, width, -1))
            put(back, (at.p + top) % 2, passes, h[top:bottom], add=True)

        numbers = max(3 * channels, h.shape[2] if last else 0)
        in_parallel(work, strips(height, width * numbers, least=FEW_CALLS))

    @property
    def halo(self) -> int:
        """How far pixels depend on what is around them, in positions of stride 8: a block sees one
        position of its own stride, the transform its overlap."""
        trunk = 2 * len(self.synthesis_blocks)
        if self.middle:
            trunk += 4 * len(self.middle[1])
        linear = 2 * len(self.synthesis_blocks) + OVERLAP
        return len(self.closing_blocks) + -(-max(trunk, linear) // BLOCK)

    def synthesise(self, planes: Array, h: Array, present: list[int], unit: int = 1) -> Array:
        """Coefficients (`Transform.join`), trunk and known steps -> pixels H x W x 3: uint8, or int16
        in parts of a grey level if there are `unit` of them."""
        condition = conditions(present)
        for block in self.closing_blocks:
            h = block(h, condition)
        # Where in its interval, or in its prior, is the value really? By now the trunk has seen more.
        open_to = [np.minimum(delta(step), spread) for step, spread in zip(present, self.spreads)]
        reach = np.concatenate(open_to[3:])
        planes = planes.copy()

        def correct(top: int, bottom: int) -> None:
            planes[top:bottom, :, DC_PLANES:] += self.closing_head.rows(h[top:bottom]) * reach

        in_parallel(correct, strips(len(planes), 2 * planes[0].size))
        linear = self.transform.pixels(planes)
        middle = None
        if self.middle:
            into, blocks, out_of_middle = self.middle
            middle = shuffle(into(h), 2)
            for block in blocks:
                middle = block(middle, condition)
        height, width = h.shape[:2]
        rows = strips(height, width * self.synthesis_in.matrix.shape[1])
        u = np.empty((4 * height, 4 * width, self.synthesis_out.matrix.shape[0]), np.float32)

        def start(top: int, bottom: int) -> None:
            part = u[4 * top : 4 * bottom]
            lines, halves = (part.reshape(-1, r, 4 * width // r, part.shape[2] * r) for r in (4, 2))
            lines[...] = lines_of(self.synthesis_in.rows(h[top:bottom]), 4)
            if middle is not None:
                halves += lines_of(out_of_middle.rows(middle[2 * top : 2 * bottom]), 2)
            part += self.synthesis_picture.rows(unshuffle(linear[8 * top : 8 * bottom] / 64, 2))

        in_parallel(start, rows)
        for block in self.synthesis_blocks:
            u = block(u, condition)
        gain = wide(self.gain @ condition * 8, 4 * width)
        picture = np.empty(linear.shape, np.uint8 if unit == 1 else np.int16)

        def finish(top: int, bottom: int) -> None:
            details = self.synthesis_out.rows(u[4 * top : 4 * bottom])
            details.reshape(len(details), -1)[...] *= gain
            details = shuffle(details, 2)
            details += linear[8 * top : 8 * bottom]
            details += 128
            details *= unit
            picture[8 * top : 8 * bottom] = np.clip(np.rint(details, out=details), 0, 255 * unit)

        in_parallel(finish, rows)
        return picture

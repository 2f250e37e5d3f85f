"""Encoder effort: a search for latents that make better symbols, against the file's own objective.

The plain encoder chooses every symbol alone. Here symbols are also judged by what they do to everything
after them: the picture through the network that corrects it, and the priors of later layers. Where the
encoder arrives with some latents, one run down the ladder and back gives the gradient of J with respect
to every value; a symbol moved by one changes J by about

    its own bits  +  Delta dJ/dvalue  +  lambda Delta^2 / 3      (bits; the transform is orthonormal)

A latent's aim is where the encoder, which knows the symbol's own bits and the latent's own squared
error alone, would find the better of both moves as dear as that. It is a rough guide, and true of one
state, while syndromes move symbols in every other way (`signs.py`): so latents go a part of the way to
their aims, the encoder runs again, and what they come to are means of aims over many states. The best
state of all is kept, and the decoder never changes.

Where levels of refinement follow, the search is for the symbols of the last one.

The search needs gradients, so PyTorch (`pip install hvcodec[torch]`) and the network as it was trained;
what it finds is coded by the exact one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import refinement, tuning
from .checkerboard import at_place, merge, take, together
from .exact import Array
from .ladder import LAYERS, MAX_STRIDE, Place
from .likelihood import Prior, below, bits, wide_part
from .model import Model
from .refinement import LEAST_MASS, NARROWEST, Known, Memory, layer_of, levels, steps_of

LEAST_SHARE = 0.25  # of the way to their aims that latents go

WINDOW, MARGIN = 12, 1  # sides of the windows that the network sees at once, in units of 64 pixels


@cache
def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 as such: a round takes a quarter less time then, and
    finds as much (docs/training-log.md). Elsewhere it is far slower than float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # older versions do not say
    return capabilities is not None and bool(capabilities().get("avx512_bf16"))


@dataclass(frozen=True)
class Goal:
    """What is searched for.

    Attributes:
        model: float32, its parameters without gradients.
        steps, weights: what the file says of each layer's step, and its rate weight.
        lam: lambda of the objective.
        thrift: see `tuning.worth`.
    """

    model: Model
    steps: list[int]
    weights: list[float]
    lam: float
    thrift: float


def _batch(planes: Array) -> Tensor:
    """H x W x C or H x W -> 1 x C x H x W."""
    planes = planes.reshape(*planes.shape[:2], -1).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes))[None]


def _part_bits(edges: list[Tensor], own: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """What the parts of a window cost, as `refinement.odds` and `costs`, with gradients."""
    logs: list[Tensor] = []
    for a, b in zip(edges, edges[1:]):
        flip = a + b > 0
        mass = below(torch.where(flip, -a, b), *own) - below(torch.where(flip, -b, a), *own)
        log = mass.clamp(min=float(LEAST_MASS)).log()
        logs.append(torch.where(b - a < float(NARROWEST), -math.inf, log) if len(logs) != 1 else log)
    total = torch.logsumexp(torch.stack(logs), 0)
    return [(total - log) / math.log(2) for log in logs]


def _blocks(costs: Tensor, stride: int, passes: int) -> Tensor:
    """Sums over blocks of 64x64 pixels of a packed pass: B x C x H x W -> B x H/64 x W/64."""
    size = MAX_STRIDE // stride
    window = (size, max(size // passes, 1))
    return F.avg_pool2d(costs.sum(1, keepdim=True), window, divisor_override=1)[:, 0]


class _Others(NamedTuple):
    """Symbols one up and one down.

    Attributes:
        up, down: values of these.
        up_bits, down_bits: how many bits more they take; infinite if there are none.
    """

    up: Tensor
    down: Tensor
    up_bits: Tensor
    down_bits: Tensor


class _Chosen(NamedTuple):
    """Symbols of a pass.

    Attributes:
        value, bits: of them; the bits follow the prior, if the value is held.
        others: finds what they might be instead.
    """

    value: Tensor
    bits: Tensor
    others: Callable[[], _Others]

    def unless(self, other: Tensor, there: "_Chosen") -> "_Chosen":
        """These, but for those where `other` is true."""

        def others() -> _Others:
            both = zip(there.others(), self.others())
            return _Others(*(torch.where(other, a, b) for a, b in both))

        value, bits = (torch.where(other, a, b) for a, b in zip(there[:2], self[:2]))
        return _Chosen(value, bits, others)


class _Moves(NamedTuple):
    """What moving symbols by one does, without its effect on what follows; all of one shape.

    Attributes:
        leaf: zeros in steps, whose gradient is the effect on what follows.
        value: now, coefficient units.
        delta: step, coefficient units.
        to: values one symbol up and down.
        cost: change of the symbol's own bits, by rate weight; infinite where there is no such symbol.
        worth: bits that a squared error of one step is worth, by rate weight.
    """

    leaf: Tensor
    value: Tensor
    delta: Tensor
    to: tuple[Tensor, Tensor]
    cost: tuple[Tensor, Tensor]
    worth: Tensor

    def aim(self, slope: Tensor, bend: Tensor) -> Tensor:
        """Where the better move would cost by its own bits and squared error what it does with all
        effects, from the gradient of everything that follows and lambda / 3 times the importance."""
        both = [(to - self.value) / self.delta for to in self.to]
        rest = [slope * move + bend * (move * self.delta).square() for move in both]
        up, down = (own + other for own, other in zip(self.cost, rest))
        move, other = (torch.where(up < down, of[0], of[1]) for of in (both, rest))
        # A squared error grows from e^2 to (move - e)^2 steps; nowhere to go if that is infinite.
        error = (move - other / (self.worth * move)) / 2
        error = torch.where(torch.minimum(up, down).isfinite(), error, 0.0)
        share = (error / move).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)
        return self.value + share * move * self.delta


class _Run:
    """One run down the ladder to where the encoder arrived: counts bits and notes all moves.

    If the mean of a prior moves, later symbols are chosen anew and values stay about where they are: so
    values are held, and rates follow the mean.
    """

    def __init__(self, goal: Goal, importance: Array, memory: Memory, values: list[Tensor]) -> None:
        self.goal, self.memory, self.values = goal, memory, values
        self.run = levels(goal.steps)
        self.steps = torch.tensor([steps_of(goal.steps, self.run, len(goal.steps))])
        self.worth = [_batch(w) for w in tuning.worth(importance, goal.thrift, self.run)]
        rows, columns = values[0].shape[2:]
        self.cost = values[0].new_zeros(1, rows, columns)  # bits of each block of 64x64 pixels
        self.bits = values[0].new_zeros(())
        self.moves: dict[Place, _Moves] = {}

    def choose(self, at: Place, prior: Prior) -> Tensor:
        """For `Model.descend`."""
        index = at.layer
        model, beta = self.goal.model, self.goal.weights[layer_of(self.run, index)]
        if math.isinf(beta):
            return torch.zeros_like(prior.mean)
        stride, passes = LAYERS[index].stride, LAYERS[index].passes
        delta = model.delta(self.steps, index)
        worth = take(self.worth[index], at.p, passes) * (self.goal.weights[index] / beta)
        scale = torch.exp2(prior.log2_scale) / delta
        ratio, weight = wide_part(model.tail, prior.shape)
        own = scale, ratio, weight
        place = (at_place(self.values[index], at) - prior.mean.detach()) / delta
        chosen = self._symbol(prior, delta, own, place, worth)
        if self.run:
            # As on the ladder where nothing was said so far.
            known = self.memory[at]
            said = torch.from_numpy(np.isfinite(known.low))
            chosen = chosen.unless(said, self._part(known, prior, delta, own, place))
        value = chosen.value
        self.cost = self.cost + _blocks(beta * chosen.bits.detach(), stride, passes)
        leaf = torch.zeros_like(value, requires_grad=True)
        up, down, *more = chosen.others()
        costs = beta * more[0], beta * more[1]
        self.moves[at] = _Moves(leaf, value, delta, (up, down), costs, beta * worth)
        self.bits = self.bits + beta * chosen.bits.sum()
        return value + leaf * delta - prior.mean

    @staticmethod
    def _symbol(
        prior: Prior, delta: Tensor, own: tuple[Tensor, Tensor, Tensor], place: Tensor, worth: Tensor
    ) -> _Chosen:
        """On the ladder's first run."""
        with torch.no_grad():
            symbol = place.round()
            value = prior.mean + symbol * delta
        held = bits((value - prior.mean) / delta, *own)

        @torch.no_grad()
        def others() -> _Others:
            more = (bits(symbol + by, *own) - held for by in (1, -1))
            # What takes more bits than its squared error would be worth, the choice takes back.
            return _Others(
                value + delta, value - delta, *(torch.where(m > worth, math.inf, m) for m in more)
            )

        return _Chosen(value, held, others)

    @staticmethod
    def _part(
        known: Known,
        prior: Prior,
        delta: Tensor,
        own: tuple[Tensor, Tensor, Tensor],
        place: Tensor,
    ) -> _Chosen:
        """In a level of refinement."""
        mean = prior.mean.detach()
        step = np.float32(delta.item())
        known = known._replace(
            low=np.where(np.isinf(known.low), known.value - step, known.low),
            high=np.where(np.isinf(known.high), known.value + step, known.high),
        )
        parts = refinement.parts(known, mean.numpy(), step)
        points = [torch.from_numpy(point) for point in parts.points]
        # Parts stay where they are if the mean moves.
        moved = (mean - prior.mean) / delta
        cost = _part_bits([torch.from_numpy(edge) + moved for edge in parts.edges], own)
        with torch.no_grad():
            away = [torch.where(c.isinf(), c, (place - p).abs()) for c, p in zip(cost, points)]
            symbol = torch.stack(away).argmin(0) - 1

        def pick(options: list[Tensor], by: int) -> Tensor:
            at = symbol + by
            return torch.where(at < 0, options[0], torch.where(at > 0, options[2], options[1]))

        held = pick(cost, 0)

        @torch.no_grad()
        def others() -> _Others:
            up, down = (mean + delta * pick(points, by) for by in (1, -1))
            more = (
                torch.where((symbol + by).abs() > 1, math.inf, pick(cost, by) - held) for by in (1, -1)
            )
            return _Others(up, down, *more)

        return _Chosen((mean + delta * pick(points, 0)).detach(), held, others)


def _evaluate(
    goal: Goal, pixels: Tensor, importance: Array, memory: Memory, values: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """J of each block where the encoder arrived in one window, 1 x H/64 x W/64, and all aims."""
    height, width = pixels.shape[2:]
    price = goal.lam / goal.thrift / 3  # bits that a squared error of one of the colours is worth
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
        run = _Run(goal, importance, memory, values)
        found = goal.model.descend(run.steps, run.steps, height, width, run.choose)
        error = (goal.model.synthesise(*found, run.steps) - pixels).square()
        error = error * price * F.interpolate(_batch(importance), (height, width))
        leaves = [moves.leaf for moves in run.moves.values()]
        slopes = torch.autograd.grad(run.bits + error.sum(), leaves) if leaves else ()
    aims: dict[int, dict[int, dict[Place, Tensor]]] = {}
    for (at, moves), slope in zip(run.moves.items(), slopes):
        la = LAYERS[at.layer]
        bend = take(_batch(tuning.at_stride(importance, la.stride)) * price, at.p, la.passes)
        aims.setdefault(at.layer, {}).setdefault(at.p, {})[at] = moves.aim(slope, bend)
    result = list(values)
    for index, passes in aims.items():
        result[index] = merge([together(own) for own in passes.values()])
    return run.cost + _blocks(error.detach(), 1, 1), result


def windows(height: int, width: int) -> list[tuple[slice, slice]]:
    """Windows that a picture is searched in, in units of 64 pixels; at most WINDOW of them a side."""
    rows, columns = (
        [slice(a, min(a + WINDOW, n)) for a in range(0, n, WINDOW)]
        for n in (height // MAX_STRIDE, width // MAX_STRIDE)
    )
    return [(r, c) for r in rows for c in columns]


def aims(
    goal: Goal,
    pixels: Array,
    importance: Array,
    memory: Memory,
    values: list[Array],
    advance: Callable[[], None],
) -> tuple[float, list[Array]]:
    """What latents should be, judged from where the encoder arrived in the last run down the ladder.

    The network sees one window of the picture after another, with a margin.

    Args:
        goal: the objective.
        pixels: RGB minus 128, H x W x 3, sides multiples of 64.
        importance: of squared errors, H/8 x W/8 (`tuning.py`).
        memory: what is known from earlier runs.
        values: per layer, coarse first; the result is likewise.
        advance: called after each window.

    Returns:
        J there in bits, of this run alone and without side information, as if no sign was said; and the
        aims.
    """
    picture, there = _batch(pixels), [_batch(y) for y in values]
    result, cost = [y.clone() for y in there], 0.0
    remembered = {}
    for place, fields in memory.items():
        rows, columns = there[place.layer].shape[2:]
        size = 1, len(place.channels), rows, columns // LAYERS[place.layer].passes
        remembered[place] = [field.reshape(size) for field in fields]
    for window in windows(*pixels.shape[:2]):
        outer = [slice(max(s.start - MARGIN, 0), s.stop + MARGIN) for s in window]
        inner = [slice(s.start - o.start, s.stop - o.start) for s, o in zip(window, outer)]

        def at(stride: int, area: list[slice], passes: int = 1) -> tuple[slice, ...]:
            scale = MAX_STRIDE // stride
            rows, columns = (
                slice(s.start * scale // n, s.stop * scale // n) for s, n in zip(area, (1, passes))
            )
            return slice(None), slice(None), rows, columns

        known = {
            place: Known(*(f[at(la.stride, outer, la.passes)] for f in fields))
            for place, fields in remembered.items()
            for la in [LAYERS[place.layer]]
        }
        seen = [y[at(la.stride, outer)] for y, la in zip(there, LAYERS)]
        here = importance[at(8, outer)[2:]]
        blocks, found = _evaluate(goal, picture[at(1, outer)], here, known, seen)
        cost += float(blocks[:, inner[0], inner[1]].sum())
        for y, new, la in zip(result, found, LAYERS):
            y[at(la.stride, list(window))] = new[at(la.stride, inner)]
        advance()
    return cost, [y[0].permute(1, 2, 0).contiguous().numpy() for y in result]

"""Encoder effort: a search for better symbols of this picture, against the file's own objective.

The plain encoder chooses every symbol alone. Here symbols are also judged by what they do to everything
after them: the picture through the network that corrects it, and the priors of later layers. One run
down the ladder and back gives the gradient of J with respect to every value; a symbol moved by one then
changes J by about

    its own bits  +  Delta dJ/dvalue  +  lambda Delta^2 / 3      (bits; the transform is orthonormal)

This is a rough guide: what later symbols do about a move is not in it, and moves turn out some bits
better than promised, give or take as many. So runs without a gradient, which take a third of the time,
try some moves at random: every block of 64x64 pixels keeps its own if its J fell, or takes them back
and tries fewer, down to one. What was tried is not tried again until the next gradient. So J falls
steadily, everywhere at its own pace; the best state of all is kept, and the decoder never changes.

What it ends with are latents that mean these symbols, and lie where the encoder finds from them what
every move would cost with all its effects: it moves symbols once more, for syndromes to say signs
(`signs.py`). Where levels of refinement follow, the search is for the symbols of the last one.

The search needs gradients, so PyTorch (`pip install hvcodec[torch]`) and the network as it was trained;
what it finds is coded by the exact one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
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
from .quantise import quantise
from .refinement import LEAST_MASS, NARROWEST, Known, Memory, layer_of, levels, steps_of

LEAST_GAIN = -2.0  # bits that a move must promise
LEAST_PRICE = 0.05  # bits, of moves that promise a gain and were not made
TRIALS = 8  # runs without a gradient after one with it
FIRST_SHARE, LARGEST_SHARE = 0.6, 0.9  # of a block's moves that are tried at once
AFTER_SUCCESS, AFTER_FAILURE = 1.3, 0.85  # factors on it

WINDOW, MARGIN = 12, 1  # sides of the windows that the network sees at once, in units of 64 pixels


@dataclass(frozen=True)
class Goal:
    """What is searched for.

    Attributes:
        model: float32, its parameters without gradients.
        steps, weights: what the file says of each layer's step, and its rate weight.
        lam: lambda of the objective.
        thrift: see `tuning.worth`.
        rounds: gradients of each window, and `TRIALS` runs after each; at least 1.
        progress: called after each run.
    """

    model: Model
    steps: list[int]
    weights: list[float]
    lam: float
    thrift: float
    rounds: int
    progress: Callable[[], None]


class _Promises(NamedTuple):
    """What the moves from some targets promise.

    Attributes:
        cost: J of each block with these targets, in bits; B x H/64 x W/64.
        moved: targets after the most promising move of each symbol, per layer of the ladder.
        gain: likewise, bits that this move promises.
        aim: likewise, targets that mean the same symbols, and as far from that move as it is dear.
    """

    cost: Tensor
    moved: list[Tensor]
    gain: list[Tensor]
    aim: list[Tensor]


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

    def best(self, slope: Tensor, bend: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the better move, from the gradient of everything that follows and lambda / 3 times the
        importance: target, gain in bits, and the target from which it would cost so much more without
        what follows."""
        moves = [to - self.value for to in self.to]
        up, down = (
            cost + slope * move / self.delta + bend * move**2 for cost, move in zip(self.cost, moves)
        )
        to, gain = torch.where(up < down, *self.to), -torch.minimum(up, down)
        own = torch.where(up < down, *self.cost)
        # A squared error grows from e^2 to (1 - e)^2 steps.
        share = (1 - ((-gain).clamp(min=LEAST_PRICE) - own) / self.worth) / 2
        aim = self.value + (to - self.value) * share.nan_to_num(0.0).clamp(min=0.0)
        return to, gain, aim


class _Run:
    """One run down the ladder with some targets: counts bits, and with gradients notes all moves.

    If the mean of a prior moves, later symbols are chosen anew and values stay about where they are: so
    values are held, and rates follow the mean.
    """

    def __init__(
        self, goal: Goal, importance: Array, memory: Memory, targets: list[Tensor], cost: Tensor
    ) -> None:
        self.goal, self.memory, self.targets, self.cost = goal, memory, targets, cost
        self.run = levels(goal.steps)
        self.steps = torch.tensor([steps_of(goal.steps, self.run, len(goal.steps))])
        self.worth = [_batch(w) for w in tuning.worth(importance, goal.thrift, self.run)]
        self.bits = cost.new_zeros(())
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
        target = (at_place(self.targets[index], at) - prior.mean.detach()) / delta
        chosen = self._symbol(prior, delta, own, target, worth)
        if self.run:
            # As on the ladder where nothing was said so far.
            known = self.memory[at]
            said = torch.from_numpy(np.isfinite(known.low))
            chosen = chosen.unless(said, self._part(known, prior, delta, own, target, worth))
        value = chosen.value
        self.cost = self.cost + _blocks(beta * chosen.bits.detach(), stride, passes)
        if not torch.is_grad_enabled():
            return value - prior.mean
        leaf = torch.zeros_like(value, requires_grad=True)
        up, down, *more = chosen.others()
        costs = beta * more[0], beta * more[1]
        self.moves[at] = _Moves(leaf, value, delta, (up, down), costs, beta * worth)
        self.bits = self.bits + beta * chosen.bits.sum()
        return value + leaf * delta - prior.mean

    @staticmethod
    def _symbol(
        prior: Prior, delta: Tensor, own: tuple[Tensor, Tensor, Tensor], target: Tensor, worth: Tensor
    ) -> _Chosen:
        """On the ladder's first run."""
        with torch.no_grad():
            symbol = quantise(target, *own, worth)
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
        target: Tensor,
        worth: Tensor,
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
            totals = [c + worth * (target - point).square() for c, point in zip(cost, points)]
            symbol = torch.stack(totals).argmin(0) - 1

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


@dataclass
class _Window:
    """A part of the picture that the network sees at once.

    Attributes:
        goal: what is searched for.
        pixels: B x 3 x H x W, -128 .. 127.
        importance, memory: see `search`.
    """

    goal: Goal
    pixels: Tensor
    importance: Array
    memory: Memory

    @property
    def price(self) -> float:
        """Bits that a squared error of one of the three colours is worth."""
        return self.goal.lam / self.goal.thrift / 3

    def run(self, targets: list[Tensor]) -> tuple[_Run, Tensor]:
        """Down the ladder with these targets; also lambda times the squared errors of the picture."""
        goal, (height, width) = self.goal, self.pixels.shape[2:]
        cost = self.pixels.new_zeros(1, height // MAX_STRIDE, width // MAX_STRIDE)
        run = _Run(goal, self.importance, self.memory, targets, cost)
        found = goal.model.descend(run.steps, run.steps, height, width, run.choose)
        error = (goal.model.synthesise(*found, run.steps) - self.pixels).square()
        worth = F.interpolate(_batch(self.importance), self.pixels.shape[2:])
        goal.progress()
        return run, error * self.price * worth

    @torch.no_grad()
    def costs(self, targets: list[Tensor]) -> Tensor:
        """J of each block, in bits; B x H/64 x W/64."""
        run, error = self.run(targets)
        return run.cost + _blocks(error, 1, 1)

    def evaluate(self, targets: list[Tensor]) -> _Promises:
        """The same, and from the gradient what moves promise."""
        with torch.enable_grad():
            run, error = self.run(targets)
            leaves = [moves.leaf for moves in run.moves.values()]
            slopes = torch.autograd.grad(run.bits + error.sum(), leaves) if leaves else ()
        best: dict[int, dict[int, dict[Place, tuple[Tensor, ...]]]] = {}
        for (at, moves), slope in zip(run.moves.items(), slopes):
            la = LAYERS[at.layer]
            bend = _batch(tuning.at_stride(self.importance, la.stride))
            bend = take(bend * self.price, at.p, la.passes)
            passes = best.setdefault(at.layer, {})
            passes.setdefault(at.p, {})[at] = moves.best(slope, bend)
        moved, gain, aim = (
            list(targets),
            [torch.full_like(y, -math.inf) for y in targets],
            list(targets),
        )
        for index, passes in best.items():
            parts = [
                [together(dict(zip(own, of))) for of in zip(*own.values())] for own in passes.values()
            ]
            moved[index], gain[index], aim[index] = (merge(list(fields)) for fields in zip(*parts))
        return _Promises(run.cost + _blocks(error.detach(), 1, 1), moved, gain, aim)


def _spread_over(blocks: Tensor, like: Tensor) -> Tensor:
    """A number per block of 64x64 pixels -> one per position of a layer, B x 1 x H x W."""
    return F.interpolate(blocks[:, None].to(like.dtype), like.shape[2:])


def _search(window: _Window, latents: list[Tensor], inner: list[slice]) -> list[Tensor]:
    """`search` in one window: targets of the symbols of least J seen. Only those in its inner part are
    moved."""
    random = torch.Generator().manual_seed(0)  # the same file on every run
    targets, best, least = latents, (latents, latents), math.inf
    share = torch.zeros(1, *(n // MAX_STRIDE for n in window.pixels.shape[2:]))
    share[:, inner[0], inner[1]] = FIRST_SHARE
    for _ in range(window.goal.rounds):
        cost, moved, gain, aim = window.evaluate(targets)
        if cost.sum() < least:
            best, least = (targets, aim), float(cost.sum())
        open_to = [g > LEAST_GAIN for g in gain]
        for _ in range(TRIALS):
            count = torch.ones_like(cost)
            for o, la in zip(open_to, LAYERS):
                count += _blocks(o.float(), la.stride, 1)
            part = torch.maximum(share, (share > 0) / count)  # about one move at least
            lots = [torch.rand(y.shape, generator=random) < _spread_over(part, y) for y in targets]
            chosen = [o & lot for o, lot in zip(open_to, lots)]
            tried = [torch.where(c, m, y) for c, m, y in zip(chosen, moved, targets)]
            found = window.costs(tried)
            better = found < cost
            share = share * torch.where(better, AFTER_SUCCESS, AFTER_FAILURE)
            share = share.clamp(max=LARGEST_SHARE)
            targets = [torch.where(_spread_over(better, y) > 0, t, y) for t, y in zip(tried, targets)]
            cost = torch.where(better, found, cost)
            open_to = [o & ~c for o, c in zip(open_to, chosen)]
    # What blocks did to each other is in no block's own J.
    last = window.evaluate(targets)
    if last.cost.sum() < least:
        best = targets, last.aim
    # Aims are for symbols of the ladder: they are no places inside windows.
    return best[0] if levels(window.goal.steps) else best[1]


def runs(rounds: int) -> int:
    """Runs of the network in each window, with or without a gradient."""
    return rounds * (1 + TRIALS) + 1


def windows(height: int, width: int) -> list[tuple[slice, slice]]:
    """Windows that a picture is searched in, in units of 64 pixels; at most WINDOW of them a side."""
    rows, columns = (
        [slice(a, min(a + WINDOW, n)) for a in range(0, n, WINDOW)]
        for n in (height // MAX_STRIDE, width // MAX_STRIDE)
    )
    return [(r, c) for r in rows for c in columns]


def search(
    goal: Goal, pixels: Array, importance: Array, memory: Memory, latents: list[Array]
) -> list[Array]:
    """Latents of the last run down the ladder whose symbols have a smaller J.

    The network sees one window of the picture after another, with a margin that is left as it is.

    Args:
        goal: the objective, and how long to search.
        pixels: RGB minus 128, H x W x 3, sides multiples of 64.
        importance: of squared errors, H/8 x W/8 (`tuning.py`).
        memory: what is known from earlier runs.
        latents: to start from, per layer, coarse first; the result is likewise.
    """
    picture, result = _batch(pixels), [_batch(y) for y in latents]
    remembered = {}
    for place, fields in memory.items():
        rows, columns = result[place.layer].shape[2:]
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
        seen = [y[at(la.stride, outer)] for y, la in zip(result, LAYERS)]
        here = importance[at(8, outer)[2:]]
        found = _search(_Window(goal, picture[at(1, outer)], here, known), seen, inner)
        for y, new, la in zip(result, found, LAYERS):
            y[at(la.stride, list(window))] = new[at(la.stride, inner)]
    return [y[0].permute(1, 2, 0).contiguous().numpy() for y in result]

"""Encoder effort: a search for better symbols of this picture, against the file's own objective.

The plain encoder chooses every symbol alone. Here symbols are also judged by what they do to everything
after them: the picture through the network that corrects it, and the priors of later layers. One run
down the ladder and back gives the gradient of J with respect to every value; a symbol moved by one then
changes J by about

    its own bits  +  Delta dJ/dvalue  +  lambda Delta^2 / 3      (bits; the transform is orthonormal)

Some of the moves that promise a gain are made at random, since they influence each other, and what they
did is measured by the next run: every block of 64x64 pixels keeps its moves if its own J fell, or takes
them back and tries fewer. So J falls steadily, everywhere at its own pace; the best state of all is
kept, and the decoder never changes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import tuning
from .checkerboard import merge, take
from .ladder import LAYERS, LAYERS_PER_LEVEL, MAX_STRIDE
from .likelihood import Prior, bits, wide_part
from .model import Model
from .quantise import quantise
from .refinement import LAYER_BOUNDS, Level, choose_digits, cost_of, digit_bits
from .steps import OFF
from .transform import weave

LEAST_GAIN = 0.0  # bits that a move must promise
FIRST_SHARE, LARGEST_SHARE = 0.6, 0.9  # of the promising moves that are made at once
AFTER_SUCCESS, AFTER_FAILURE = 1.3, 0.85  # factors on a block's share

WINDOW, MARGIN = 12, 1  # sides of the windows that the network sees at once, in units of 64 pixels


@dataclass(frozen=True)
class Goal:
    """What is searched for.

    Attributes:
        model: float32, its parameters without gradients.
        steps, weights: what the file says of each layer's step, and its rate weight.
        lam: lambda of the objective.
        thrift: see `tuning.worth`.
        iterations: runs of the network and its gradient in each window, at least 1.
        progress: called after each.
    """

    model: Model
    steps: list[int]
    weights: list[float]
    lam: float
    thrift: float
    iterations: int
    progress: Callable[[], None]


@dataclass
class State:
    """Where the search stands, and what the moves from here promise.

    Attributes:
        targets: y that symbols are chosen for: per layer of the ladder, then per level of refinement.
        cost: J of each block, in bits; B x H/64 x W/64.
        moved: likewise, the target of the most promising move of each symbol.
        gain: likewise, bits that this move promises.
    """

    targets: list[Tensor]
    cost: Tensor
    moved: list[Tensor]
    gain: list[Tensor]


def _blocks(costs: Tensor, stride: int, passes: int) -> Tensor:
    """Sums over blocks of 64x64 pixels of a packed pass: B x C x H x W -> B x H/64 x W/64."""
    size = MAX_STRIDE // stride
    window = (size, max(size // passes, 1))
    return F.avg_pool2d(costs.sum(1, keepdim=True), window, divisor_override=1)[:, 0]


class _Moves(NamedTuple):
    """What moving symbols by one does, without its effect on what follows; all of one shape.

    Attributes:
        leaf: zeros in steps, whose gradient is the effect on what follows.
        value: now, coefficient units.
        delta: step, coefficient units.
        up, down: change of the symbol's own bits, by rate weight.
        possible: bool, where there is a symbol.
    """

    leaf: Tensor
    value: Tensor
    delta: Tensor
    up: Tensor
    down: Tensor
    possible: Tensor

    def best(self, slope: Tensor, bend: Tensor) -> tuple[Tensor, Tensor]:
        """Target and gain in bits of the better move, from the gradient of everything that follows and
        lambda / 3 times the importance."""
        bend = bend * self.delta**2
        up, down = self.up + slope + bend, self.down - slope + bend
        target = self.value + torch.where(up < down, self.delta, -self.delta)
        gain = torch.where(self.possible, -torch.minimum(up, down), -math.inf)
        return torch.where(self.possible, target, 0), gain


class _Run:
    """One run down the ladder and its refinements with some targets: counts bits, notes all moves.

    If the mean of a prior moves, later symbols are chosen anew and values stay about where they are: so
    values are held, and rates follow the mean.
    """

    def __init__(self, goal: Goal, importance: Tensor, targets: list[Tensor], cost: Tensor) -> None:
        self.goal, self.targets, self.cost = goal, targets, cost
        self.steps = torch.tensor([goal.steps[: len(LAYERS)]])
        self.worth = tuning.worth(importance, goal.thrift)
        self.worths = tuning.woven_worth(self.worth, goal.weights, targets)
        self.bits = cost.new_zeros(())
        self.moves: dict[tuple[int, int], _Moves] = {}

    def count(self, held: Tensor, stride: int, passes: int) -> None:
        self.cost = self.cost + _blocks(held.detach(), stride, passes)
        self.bits = self.bits + held.sum()

    def choose(self, index: int, p: int, prior: Prior) -> Tensor:
        """For `Model.descend`."""
        if self.goal.steps[index] == OFF:
            return torch.zeros_like(prior.mean)
        model, beta = self.goal.model, self.goal.weights[index]
        stride, passes = LAYERS[index].stride, LAYERS[index].passes
        delta = model.delta(self.steps, index)
        ratio, weight = wide_part(model.tail, prior.shape)
        scale = torch.exp2(prior.log2_scale) / delta
        with torch.no_grad():
            target = (take(self.targets[index], p, passes) - prior.mean) / delta
            symbol = quantise(target, scale, ratio, weight, take(self.worth[index], p, passes))
            value = prior.mean + symbol * delta
            now, up, down = (beta * bits(symbol + k, scale, ratio, weight) for k in (0, 1, -1))
        leaf = torch.zeros_like(value, requires_grad=True)
        everywhere = torch.ones_like(value, dtype=torch.bool)
        self.moves[index, p] = _Moves(leaf, value, delta, up - now, down - now, everywhere)
        held = beta * bits((value - prior.mean) / delta, scale, ratio, weight)
        self.count(held, stride, passes)
        return value + leaf * delta - prior.mean

    def refine(self, layer: int, known: Level) -> tuple[Tensor, Tensor]:
        """For `Model.refine`."""
        level, part = divmod(layer, LAYERS_PER_LEVEL)
        model, beta = self.goal.model, self.goal.weights[len(LAYERS) + layer]
        ratio, weight = wide_part(model.tail, known.prior.shape)
        scale = torch.exp2(known.prior.log2_scale) / known.delta
        costs = digit_bits(known.skew, known.peak, model.falloff)
        fresh, mean = known.fresh, known.prior.mean

        def cost_at(symbols: Tensor) -> Tensor:
            return beta * torch.where(
                fresh, bits(symbols, scale, ratio, weight), cost_of(symbols, costs)
            )

        with torch.no_grad():
            sent = known.waiting & (
                torch.exp2(-cost_at(torch.zeros_like(scale)) / beta) <= LAYER_BOUNDS[part]
            )
            start = torch.where(fresh, mean, known.value)
            target = (self.targets[len(LAYERS) + level] - start) / known.delta
            here = self.worths / beta
            new = quantise(target, scale, ratio, weight, here)
            symbol = sent * torch.where(fresh, new, choose_digits(target, costs, here))
            value = start + symbol * known.delta
            now, up, down = (cost_at(symbol + k) for k in (0, 1, -1))
        leaf = torch.zeros_like(value, requires_grad=True)
        self.moves[len(LAYERS) + level, part] = _Moves(
            leaf, value, known.delta, up - now, down - now, sent
        )
        follow = torch.where(fresh, (mean.detach() - mean) / known.delta, 0)
        self.count(sent * cost_at(symbol + follow), 8, 1)
        return sent, symbol + sent * (leaf + follow)


def _evaluate(goal: Goal, pixels: Tensor, importance: Tensor, targets: list[Tensor]) -> State:
    """Run down the ladder with these targets, and back for the gradient."""
    model, lam = goal.model, goal.lam / goal.thrift
    height, width = pixels.shape[2:]
    run = _Run(
        goal, importance, targets, pixels.new_zeros(1, height // MAX_STRIDE, width // MAX_STRIDE)
    )
    with torch.enable_grad():
        found = model.descend(run.steps, run.steps, height, width, run.choose)
        found, known = model.refine(found, run.steps, len(goal.steps) - len(LAYERS), run.refine)
        error = (model.synthesise(found.values, found.trunk, known) - pixels).square()
        error = error * (lam / 3) * F.interpolate(importance, pixels.shape[2:])
        leaves = [moves.leaf for moves in run.moves.values()]
        slopes = torch.autograd.grad(run.bits + error.sum(), leaves) if leaves else ()
    best: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for (index, p), slope in zip(run.moves, slopes):
        on_ladder = index < len(LAYERS)
        bend = lam / 3 * tuning.at_stride(importance, LAYERS[index].stride if on_ladder else 8)
        if on_ladder:
            bend = take(bend, p, LAYERS[index].passes)
        best.setdefault(index, []).append(run.moves[index, p].best(slope, bend))
    moved, gain = list(targets), [torch.full_like(y, -math.inf) for y in targets]
    for index, parts in best.items():
        if index < len(LAYERS):
            moved[index], gain[index] = (merge(list(fields)) for fields in zip(*parts))
        else:
            # Every symbol of a level is sent in one of its layers.
            gain[index] = torch.stack([g for _, g in parts]).amax(0)
            moved[index] = torch.stack([t for t, _ in parts]).sum(0)
    return State(targets, run.cost + _blocks(error.detach(), 1, 1), moved, gain)


def _spread_over(blocks: Tensor, like: Tensor) -> Tensor:
    """A number per block of 64x64 pixels -> one per position of a layer, B x 1 x H x W."""
    return F.interpolate(blocks[:, None].to(like.dtype), like.shape[2:])


def _search(
    goal: Goal, pixels: Tensor, importance: Tensor, latents: list[Tensor], inner: list[slice]
) -> list[Tensor]:
    """`search` in one window: the state of least J seen. Only blocks of its inner part move."""
    random = torch.Generator().manual_seed(0)  # the same file on every run

    def evaluate(targets: list[Tensor]) -> State:
        state = _evaluate(goal, pixels, importance, targets)
        goal.progress()
        return state

    state = best = evaluate(latents)
    share = torch.zeros_like(state.cost)
    share[:, inner[0], inner[1]] = FIRST_SHARE
    for _ in range(goal.iterations - 1):
        tried = []
        for target, moved, gain in zip(state.targets, state.moved, state.gain):
            lot = torch.rand(gain.shape, generator=random)
            chosen = (gain > LEAST_GAIN) & (lot < _spread_over(share, gain))
            tried.append(torch.where(chosen, moved, target))
        new = evaluate(tried)
        if new.cost.sum() < best.cost.sum():
            best = new
        better = new.cost < state.cost
        share = share * torch.where(better, AFTER_SUCCESS, AFTER_FAILURE)
        share = share.clamp(max=LARGEST_SHARE)
        merged = [
            [torch.where(_spread_over(better, a) > 0, a, b) for a, b in zip(*pair)]
            for pair in ((new.targets, state.targets), (new.moved, state.moved), (new.gain, state.gain))
        ]
        state = State(merged[0], torch.where(better, new.cost, state.cost), merged[1], merged[2])
    return best.targets


def windows(height: int, width: int) -> list[tuple[slice, slice]]:
    """Windows that a picture is searched in, in units of 64 pixels; at most WINDOW of them a side."""
    rows, columns = (
        [slice(a, min(a + WINDOW, n)) for a in range(0, n, WINDOW)]
        for n in (height // MAX_STRIDE, width // MAX_STRIDE)
    )
    return [(r, c) for r in rows for c in columns]


def search(
    goal: Goal, pixels: Tensor, importance: Tensor, latents: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Latents whose symbols have a smaller J.

    The network sees one window of the picture after another, with a margin that is left as it is.

    Args:
        goal: the objective, and how long to search.
        pixels: RGB minus 128, 1 x 3 x H x W, sides multiples of 64.
        importance: of squared errors, 1 x 1 x H/8 x W/8 (`tuning.py`).
        latents: to start from, per layer, coarse first.

    Returns:
        Latents per layer of the ladder, and what each level of refinement refines towards.
    """
    height, width = pixels.shape[2:]
    levels = (len(goal.steps) - len(LAYERS)) // LAYERS_PER_LEVEL
    result = [y.clone() for y in [*latents, *[weave(latents)] * levels]]
    strides = [*(la.stride for la in LAYERS), *[8] * levels]
    for window in windows(height, width):
        outer = [slice(max(s.start - MARGIN, 0), s.stop + MARGIN) for s in window]
        inner = [slice(s.start - o.start, s.stop - o.start) for s, o in zip(window, outer)]

        def crop(planes: Tensor, stride: int, area: list[slice]) -> Tensor:
            scale = MAX_STRIDE // stride
            rows, columns = (slice(s.start * scale, s.stop * scale) for s in area)
            return planes[:, :, rows, columns]

        seen = [crop(y, stride, outer) for y, stride in zip(result, strides)]
        found = _search(goal, crop(pixels, 1, outer), crop(importance, 8, outer), seen, inner)
        for y, new, stride in zip(result, found, strides):
            crop(y, stride, list(window)).copy_(crop(new, stride, inner))
    return result[: len(LAYERS)], result[len(LAYERS) :]

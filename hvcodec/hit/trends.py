"""Checks T1 to T10: what a grid of trained models shows.

Where a model is chosen, it is chosen on validation pictures; what is reported are test pictures. Cells
with several seeds count as their mean. The same is asked of the one network for all weights. Directions
are those that theory predicts at optima: nothing here is a number of the paper.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import spearmanr

from ..exact import Array
from . import metrics
from .checks import Check
from .grid import AMORTISED, BETAS, GRIDS, NEAR, beside
from .theory import accuracy_bound
from .train import PRESETS, Cell

Result = dict[str, Any]
VAL, TEST = 0, 1
SLACK, LEAST = 0.02, 0.5  # of a rate: share, and nats below which a layer has collapsed
COLLAPSED = 0.05  # of the total rate
TOLD = 0.1  # nats about labels, below which the top layer is as good as empty
CLASSES = 10


def in_grid(result: Result, data: str) -> bool:
    """Whether this is a cell of the grid of a set of pictures: `GRIDS`, with any weights and seed."""
    return _like(result, GRIDS[data])


def of_round_one(result: Result, data: str) -> bool:
    """Whether this is what a cell of the grid may have started from."""
    return _like(result, GRIDS[data].round_one)


def _like(result: Result, base: Cell) -> bool:
    return _kin(result, base) and set(result["cell"]["beta"]) <= set(BETAS)


def _kin(result: Result, base: Cell) -> bool:
    """Whether this is a cell like another, with any weights and seed."""
    fields: Result = {k: tuple(v) if isinstance(v, list) else v for k, v in result["cell"].items()}
    alike = asdict(Cell(**fields)) | {"beta": base.beta, "seed": base.seed} == asdict(base)
    return alike and len(fields["beta"]) == len(base.beta)


def of_one_network(result: Result, data: str) -> bool:
    """Whether this is one of the settings at which the amortised network was measured."""
    return _like(result, AMORTISED[data])


def top(result: Result) -> str:
    """Name of the coarsest layer."""
    return f"z{len(result['cell']['beta'])}"


def accuracy(result: Result, split: int, layer: str = "z2", kind: str = "rbf-svm") -> float:
    return float(result["accuracy"][layer][kind][split])


def rate(result: Result, layer: int, split: int = TEST) -> float:
    """R of a layer, 0 for the coarsest."""
    return float(result["rates"][split]["rates"][layer])


def total(result: Result, split: int = TEST) -> float:
    return float(sum(result["rates"][split]["rates"]))


def psnr(result: Result, split: int = TEST, of: str = "psnr") -> float:
    return float(result["reconstructions"][split][of])


def inception(result: Result) -> float:
    """ln IS over all samples."""
    return float(result["samples"]["whole"]["log_score"])


def objective(result: Result, split: int = TEST) -> float:
    """D + sum_l beta_l R_l in nats, without what D cannot fall below."""
    least = PRESETS[result["cell"]["preset"]].least
    return metrics.objective(result["rates"][split], result["beta"]) - least


class Grid:
    """The 25 cells as arrays over (beta_2, beta_1), means over seeds.

    Args:
        results: of `grid.results`.
        data: whose grid.
        member: which of the results are of it.
    """

    def __init__(
        self, results: list[Result], data: str, member: Callable[[Result, str], bool] = in_grid
    ) -> None:
        self.cells: dict[tuple[float, ...], list[Result]] = defaultdict(list)
        for result in results:
            if member(result, data):
                self.cells[tuple(result["beta"])].append(result)
        self.complete = len(self.cells) == len(BETAS) ** 2

    def of(self, measure: Callable[..., float], *arguments: Any) -> Array:
        """A measure of every cell, 5 x 5."""
        return np.array(
            [
                [np.mean([measure(r, *arguments) for r in self.cells[a, b]]) for b in BETAS]
                for a in BETAS
            ]
        )

    def flat(self) -> list[Result]:
        return [result for cell in self.cells.values() for result in cell]


def _t1(grid: Grid) -> Check:
    falls = []
    for layer in range(2):
        rates = np.moveaxis(grid.of(rate, layer), layer, 0)
        slack = np.maximum(SLACK * rates[:-1], LEAST)
        falls.append(rates[1:] <= rates[:-1] + slack)
    share = float(np.mean(falls))
    return Check(
        "T1",
        share >= 0.95,
        share,
        0.95,
        "share of neighbours whose rate does not grow with its own beta",
    )


def _t2(grid: Grid) -> Check:
    rises: list[bool] = []
    alive: list[bool] = []
    for layer in range(2):
        rates = np.moveaxis(grid.of(rate, layer), 1 - layer, 0)
        # Of two rates of almost nothing, which is larger is chance.
        alive += (np.maximum(rates[1:], rates[:-1]) > LEAST).ravel().tolist()
        rises += (rates[1:] > rates[:-1]).ravel().tolist()
    share = float(np.mean(np.array(rises)[alive]))
    note = (
        f"share of {sum(alive)} neighbours, not both collapsed, whose rate grows with the other beta; "
        f"of all {len(rises)}: {np.mean(rises):.3f}"
    )
    return Check("T2", share >= 0.8, share, 0.8, note)


def pairs(results: list[Result], data: str) -> list[tuple[int, Result, Result]]:
    """Cells of the grid and those `beside` them: layer, cell, and neighbour of the same seed."""
    kin = {(tuple(r["beta"]), r["cell"]["seed"]): r for r in results if _kin(r, GRIDS[data])}
    found = [
        (layer, here, kin.get((beside(beta, layer), seed)))
        for (beta, seed), here in kin.items()
        if set(beta) <= set(BETAS)
        for layer in range(len(beta))
    ]
    return [(layer, here, there) for layer, here, there in found if there]


def _t3(grid: Grid, near: list[tuple[int, Result, Result]]) -> Check:
    """Slopes to the neighbours if there are any, else between the cells of the grid."""
    whole, cost = grid.of(total), grid.of(objective)
    monotone = bool((np.diff(np.diag(whole)) < 0).all())
    beta = np.array(BETAS)
    far: list[tuple[float, float]] = []  # what L grows by, and what rates say
    concave: list[bool] = []
    for layer in range(2):
        rates, costs = (np.moveaxis(a, layer, 0) for a in (grid.of(rate, layer), cost))
        for row in range(len(BETAS)):
            r, gained = rates[:, row], np.diff(costs[:, row])
            # Between cells r is interpolated over ln beta: dL = r dbeta = r beta dln beta.
            curve = PchipInterpolator(np.log(beta), r * beta)
            expected = [curve.integrate(a, b) for a, b in zip(np.log(beta), np.log(beta[1:]))]
            far += zip(gained.tolist(), expected)
            slope = gained / np.diff(beta)
            slack = np.maximum(SLACK * r[:-1], LEAST)
            concave += ((slope <= r[:-1] + slack) & (slope >= r[1:] - slack)).tolist()
    close = [
        (
            objective(there) - objective(here),
            (rate(here, layer) + rate(there, layer)) / 2 * (there["beta"][layer] - here["beta"][layer]),
        )
        for layer, here, there in near
    ]
    errors, between = (
        np.array([abs(gained / expected - 1) for gained, expected in steps if expected > LEAST])
        for steps in (close or far, far)
    )
    middle, share = float(np.median(errors)), float(np.mean(concave))
    steps = f"in {len(errors)} steps" + (f" of {NEAR:.2f}" if close else " between cells")
    note = (
        f"median error of dL = r dbeta {steps}; within 10 % in {np.mean(errors <= 0.1):.0%}; between "
        f"cells {np.median(between):.3f}; concave in {share:.0%} of steps; total rate falls along the "
        f"diagonal: {monotone}"
    )
    return Check("T3", monotone and middle <= 0.1 and share >= 0.9, middle, 0.1, note)


def _correlation(a: Array, b: Array) -> float:
    return float(spearmanr(a.ravel(), b.ravel()).statistic)


def best(values: Array) -> tuple[int, int]:
    """Where an array over the grid is largest: indices of beta_2 and beta_1."""
    row, column = np.unravel_index(values.argmax(), values.shape)
    return int(row), int(column)


def _named(cell: tuple[int, int]) -> str:
    return f"(beta_2 {BETAS[cell[0]]:g}, beta_1 {BETAS[cell[1]]:g})"


def _t4(grid: Grid, name: str = "T4", of: str = "psnr") -> Check:
    quality = grid.of(psnr, TEST, of)
    whole = _correlation(quality, grid.of(total))
    parts = [_correlation(quality, grid.of(rate, layer)) for layer in range(2)]
    place = best(grid.of(psnr, VAL, of))
    passed = whole >= 0.95 and whole > max(parts) and max(place) <= 1
    note = (
        f"rank correlation of PSNR with the total rate; with z2's {parts[0]:.3f}, z1's {parts[1]:.3f}; "
        f"best at {_named(place)}"
    )
    return Check(name, passed, whole, 0.95, note)


def _t5(grid: Grid, name: str = "T5", layer: str = "z2") -> Check:
    right, whole = grid.of(accuracy, TEST, layer), grid.of(total)
    own, all_rate = _correlation(right, grid.of(rate, 0)), _correlation(right, whole)
    place = best(grid.of(accuracy, VAL, layer))
    # The diagonal at this total rate, between its cells.
    order = np.argsort(np.diag(whole))
    diagonal = float(np.interp(whole[place], np.diag(whole)[order], np.diag(right)[order]))
    cell = grid.cells[BETAS[place[0]], BETAS[place[1]]]
    count = cell[0]["data"]["test"]
    found = float(right[place])
    spread = np.std([accuracy(r, TEST, layer) for r in cell], ddof=1) if len(cell) > 1 else 0.0
    binomial = (found * (1 - found) + diagonal * (1 - diagonal)) / count
    error = math.sqrt(binomial + 2 * spread**2 / len(cell))
    lead = (found - diagonal) / error
    note = (
        f"lead over the diagonal at equal total rate, in standard errors: {found:.3f} against "
        f"{diagonal:.3f} at {_named(place)}, {len(cell)} seeds; rank correlation with R(z2) {own:.3f}, "
        f"with the total {all_rate:.3f}"
    )
    return Check(name, own > all_rate and place[1] > place[0] and lead > 2, lead, 2, note)


def _t6(grid: Grid) -> Check:
    places = [best(grid.of(psnr, VAL)), best(grid.of(inception)), best(grid.of(accuracy, VAL))]
    distinct = len(set(places))
    names = [f"{n} {_named(p)}" for n, p in zip(("PSNR", "score", "accuracy"), places)]
    return Check(
        "T6",
        distinct == 3 and (0, 0) not in places[1:],
        float(distinct),
        3,
        "best: " + ", ".join(names),
    )


def _t7(grid: Grid) -> Check:
    rates = np.stack([grid.of(rate, layer) for layer in range(2)])
    share = rates / rates.sum(0)
    worst = float(max(share[0, -1, 0], share[1, 0, -1]))
    shares = f"at (10, 0.1) {share[0, -1, 0]:.3f}, at (0.1, 10) {share[1, 0, -1]:.3f}"
    return Check(
        "T7", worst < COLLAPSED, worst, COLLAPSED, f"the dear layer's share of the rate: {shares}"
    )


def _t8(results: list[Result]) -> Check:
    excess, empty, means, told = [], 0, 0, 0
    for result in results:
        about = result["data"]
        if result["information"]["saturated"]:
            empty += 1
            continue
        nats = max(result["information"]["nats"], 0)
        bound = accuracy_bound(nats, CLASSES, about["label_entropy"])
        slack = 2 * math.sqrt(bound * (1 - bound) / about["test"])
        for kind in (" sample", ""):
            found = result["accuracy"][top(result) + kind].values()
            over = max(splits[TEST] for splits in found) - bound - slack
            if kind:
                excess.append(over)
                told += nats > TOLD
            else:
                means += over > 0
    worst = max(excess, default=None)
    note = (
        f"accuracy from samples of the top layer less its bound and two standard errors, "
        f"{len(excess)} models, {told} of them with more than {TOLD} nats about labels; bound empty in "
        f"{empty}; from means, to which it does not apply, above it in {means}"
    )
    return Check("T8", None if worst is None else worst <= 0, worst, 0, note)


def _t9(results: list[Result]) -> Check:
    if not results:
        return Check("T9", None, None, 1e-9, "no models")
    errors, ordered, limited = [], True, True
    for result in results:
        found = result["samples"]
        for part in [*found["parts"], found["whole"]]:
            errors.append(abs(part["log_score"] - part["log_diversity"] - part["log_sharpness"]))
            limited &= part["log_score"] <= math.log(CLASSES) + 1e-9
        ordered &= found["information_top"] <= found["whole"]["log_score"] + 1e-9
    worst = max(errors)
    note = (
        f"ln IS less its parts, {len(results)} models; I(y; z_L) <= ln IS {ordered}, IS <= 10 {limited}"
    )
    return Check("T9", worst < 1e-9 and ordered and limited, worst, 1e-9, note)


def _t10(results: list[Result]) -> Check:
    trained = [r for r in results if r["cell"]["sent"]]

    def grows(result: Result) -> float:
        return max(
            b["distortion"] - a["distortion"] for a, b in zip(result["cuts"], result["cuts"][1:])
        )

    others = [r for r in results if not r["cell"]["sent"]]
    share = np.mean([grows(r) <= 0 for r in others]) if others else math.nan
    if not trained:
        return Check("T10", None, None, 0, f"no model trained for cuts; in {share:.0%} of the others")
    worst = max(grows(r) for r in trained)
    cuts = []
    for result in trained:
        preset = PRESETS[result["cell"]["preset"]]
        bits = np.cumsum(result["rates"][TEST]["rates"]) / math.log(2) / preset.side**2
        cuts.append(
            ", ".join(f"{b:.3f} bpp {c['psnr']:.2f} dB" for b, c in zip(bits, result["cuts"][1:]))
        )
    note = (
        f"growth of D as layers are added; {'; '.join(cuts)}; none in {share:.0%} of the other models"
    )
    return Check("T10", worst <= 0, worst, 0, note)


def amortised(results: list[Result], data: str) -> Check:
    """How much worse one network for all weights is by each setting's objective, the largest excess."""
    separate, one = Grid(results, data), Grid(results, data, of_one_network)
    if not (separate.complete and one.complete):
        return Check("one network", None, None, 0.05, "no amortised model, or no grid")
    excess = one.of(objective) / separate.of(objective) - 1
    worst = float(excess.max())
    ends = f"mean {excess.mean():+.3f}, least {excess.min():+.3f}"
    note = f"largest excess of J over separate networks; {ends}"
    return Check("one network", worst <= 0.05, worst, 0.05, note)


def checks(results: list[Result], data: str) -> list[Check]:
    """T1 to T10 on one set of pictures; the amortised network against the grid; and some of them once
    more, of samples in the place of means, and of the amortised network."""
    grid, one = Grid(results, data), Grid(results, data, of_one_network)
    scored = [r for r in results if r["cell"]["data"] == data and "samples" in r]
    of_scored = [_t8(scored), _t9(scored), _t10(scored)]
    if not grid.complete:
        note = f"{len(grid.cells)} of {len(BETAS) ** 2} cells"
        return [*(Check(f"T{k}", None, None, None, note) for k in range(1, 8)), *of_scored]
    found = [_t1(grid), _t2(grid), _t3(grid, pairs(results, data))]
    found += [test(grid) for test in (_t4, _t5, _t6, _t7)]
    found += [*of_scored, amortised(results, data)]
    # A rate pays for a sample of the posterior. Means are better pictures than it pays for, and those
    # of collapsed layers still tell classes.
    found.append(_t4(grid, "T4 of samples", "psnr_of_samples"))
    found.append(_t5(grid, "T5 of samples", "z2 sample"))
    if one.complete:
        # Those that need no classifier.
        beside = [
            *(_t1(one), _t2(one), _t3(one, []), _t4(one), _t7(one)),
            _t4(one, "T4 of samples", "psnr_of_samples"),
        ]
        found += [replace(check, id=f"{check.id} of one network") for check in beside]
    return found

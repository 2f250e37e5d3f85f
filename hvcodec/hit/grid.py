"""Many cells: each is trained and scored in a process of its own, and can be resumed.

Of cells of two rounds all first rounds come first; of these only rates are measured.

A cell leaves `<name>.safetensors`, its model, and `<name>.json`, its numbers, in the folder; what is
there is not made again. Cells are spread over local processes by joblib, or by Ray over machines that
share the folder.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from .. import files
from ..errors import HvcError, UsageError
from . import data as sets
from . import models
from .classifier import classifier
from .metrics import objective, rates, reconstructions, score
from .train import Cell, train

BETAS = (0.1, 0.316, 1.0, 3.16, 10.0)
NEAR = 10**0.1  # between neighbours in the paper's own grid
GRIDS = {
    "mnist": Cell(first=4000, steps=3000),
    "cifar10": Cell(data="cifar10", preset="colour", first=2400, steps=600, batch=64),
}
# One network for all weights. It sees each of them more seldom than a network of its own would.
AMORTISED = {
    name: replace(
        base, preset=f"{base.preset}-wide", amortised=True, first=8 * base.first, steps=6 * base.first
    )
    for name, base in GRIDS.items()
}
ENGINES = ("loky", "ray")
Job = tuple[Cell, Path | None]  # what to train, and the model to start from
Call = tuple[Cell, Path | None, Path, Path, bool]  # the arguments of `_cell`


def grid(base: Cell, betas: tuple[float, ...] = BETAS) -> list[Cell]:
    """The same cell for all combinations of rate weights."""
    return [replace(base, beta=beta) for beta in product(betas, repeat=len(base.beta))]


def beside(beta: tuple[float, ...], layer: int) -> tuple[float, ...]:
    """Rate weights with that of one layer, 0 for the coarsest, `NEAR` as large."""
    return tuple(round(b * NEAR, 4) if n == layer else b for n, b in enumerate(beta))


def neighbours(base: Cell) -> list[Cell]:
    """For every cell of the grid and layer the one `beside` it: slopes are measured to these."""
    return [
        replace(base, beta=beside(cell.beta, layer))
        for cell in grid(base)
        for layer in range(len(base.beta))
    ]


def _spread(calls: list[Call], engine: str, workers: int, address: str | None) -> Iterator[str]:
    """What `_cell` says, as cells end."""
    if engine == "loky":
        parallel = joblib.Parallel(workers, return_as="generator_unordered")
        yield from parallel(joblib.delayed(_cell)(*call) for call in calls)
        return
    if engine != "ray":
        raise UsageError(f"engines are {', '.join(ENGINES)}")
    try:
        import ray
    except ImportError:
        raise UsageError("the engine ray needs Ray: pip install hvcodec[fleet]") from None
    if not ray.is_initialized():
        ray.init(address=address)
    task = ray.remote(_cell)
    running = [task.remote(*call) for call in calls]
    while running:
        (ready,), running = ray.wait(running)
        yield ray.get(ready)


def run(
    cells: Iterable[Cell],
    pictures: Path,
    folder: Path,
    workers: int = 2,
    engine: str = "loky",
    address: str | None = None,
    pool: Iterable[Cell] = (),
    scored: bool = True,
) -> None:
    """Train and score the cells that are not in the folder yet.

    Args:
        pictures: folder of the sets of pictures.
        folder: of the results.
        workers: cells at a time, of one thread each; Ray takes the cores that it has.
        engine: one of `ENGINES`.
        address: of a running Ray cluster; one of this machine by default.
        pool: cells whose first rounds there are to start from; by default these.
        scored: whether more than rates is measured.

    Raises:
        UsageError: no such engine, or it is not installed.
        HvcError: a cell failed; the others are done, except those that nothing is left to start from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = list(cells)

    def missing(some: Iterable[Cell]) -> list[Cell]:
        return [cell for cell in some if not (folder / f"{cell.name}.json").exists()]

    def work(jobs: list[Job], whole: bool) -> list[str]:
        calls = [(*job, pictures, folder, whole) for job in jobs]
        found = tqdm(_spread(calls, engine, workers, address), total=len(jobs), desc="cells")
        return [error for error in found if error]

    # The longest first, so that no core is idle for long at the end.
    wanted = sorted(missing(cells), key=lambda cell: -cell.steps)
    for name in sorted({cell.data for cell in wanted}):
        classifier(name, sets.load(name, pictures), folder)
    first = [cell.round_one for cell in pool or cells if cell.first]
    failed = []
    if any(cell.first for cell in wanted):
        failed = work([(cell, None) for cell in missing(first)], whole=False)
    left = set(missing(first))
    jobs = [(cell, _start(cell, [f for f in first if f not in left], folder)) for cell in wanted]
    failed += work([(cell, start) for cell, start in jobs if start or not cell.first], scored)
    if failed:
        raise HvcError("; ".join(failed))


def _start(cell: Cell, first: list[Cell], folder: Path) -> Path | None:
    """What a cell of two rounds goes on from: the best at its weights, of its kind and seed, of the
    first rounds that are there."""
    if not cell.first:
        return None

    def cost(other: Cell) -> float:
        result = json.loads((folder / f"{other.name}.json").read_text())
        return objective(result["rates"][0], cell.beta)

    alike = [other for other in first if replace(other, beta=cell.beta) == cell.round_one]
    return folder / f"{min(alike, key=cost).name}.safetensors" if alike else None


def _cell(cell: Cell, start: Path | None, pictures: Path, folder: Path, scored: bool) -> str:
    """Train, measure and save one; what went wrong, or nothing."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        data = sets.load(cell.data, pictures)
        held = data.val, data.test
        path = folder / f"{cell.name}.safetensors"
        if not path.exists():
            try:
                model = train(cell, data.train, models.load(start) if start else None)
            except ArithmeticError as error:
                return str(error)
            models.save(model, path)
        model = models.load(path)
        found: dict[str, Any] = {"cell": asdict(cell)} | ({"start": start.stem} if start else {})
        judge = classifier(cell.data, data, folder)
        if not scored:
            found["rates"] = [rates(model, s, cell.beta) for s in held]
        elif not cell.amortised:
            found |= score(model, data, judge)
        else:
            # What one network does at every setting of the grid.
            found["settings"] = [
                {
                    "beta": beta,
                    "rates": [rates(model, s, beta) for s in held],
                    "reconstructions": [reconstructions(model, s, judge, beta) for s in held],
                }
                for beta in product(BETAS, repeat=len(cell.beta))
            ]
    files.write(folder / f"{cell.name}.json", json.dumps(found, indent=1).encode())
    return ""


def results(folder: Path) -> list[dict[str, Any]]:
    """All that cells have left in a folder, amortised ones as one result for each setting."""
    found = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if "cell" not in result:
            continue
        for part in result.get("settings", [result]):
            beta = tuple(part.get("beta", result["cell"]["beta"]))
            found.append({**part, "cell": result["cell"], "beta": beta})
    return found

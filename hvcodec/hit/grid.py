"""Many cells: each is trained and scored in a process of its own, and can be resumed.

Of cells of two rounds all first rounds come first; of these only rates are measured.

A cell leaves `<name>.safetensors`, its model, and `<name>.json`, its numbers, in the folder; what is
there is not made again. Cells are spread by joblib: over local processes by default, over machines that
share the folder with Dask or Ray.
"""

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import joblib
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ..errors import HvcError, UsageError
from . import data as sets
from . import models
from .classifier import classifier
from .metrics import objective, rates, reconstructions, score
from .train import Cell, train

BETAS = (0.1, 0.316, 1.0, 3.16, 10.0)
GRIDS = {
    "mnist": Cell(first=4000, steps=3000),
    "cifar10": Cell(data="cifar10", preset="colour", first=2400, steps=600, batch=64),
}
ENGINES = ("loky", "dask", "ray")
Job = tuple[Cell, Path | None]  # what to train, and the model to start from


def grid(base: Cell, betas: tuple[float, ...] = BETAS) -> list[Cell]:
    """The same cell for all combinations of rate weights."""
    return [replace(base, beta=beta) for beta in product(betas, repeat=len(base.beta))]


def _engine(name: str, workers: int, address: str | None) -> AbstractContextManager[Any]:
    if name == "dask":
        from dask.distributed import Client

        Client(address)
    elif name == "ray":
        import ray
        from ray.util.joblib import register_ray

        ray.init(address=address)
        register_ray()
    elif name != "loky":
        raise UsageError(f"engines are {', '.join(ENGINES)}")
    return joblib.parallel_config(backend=name, n_jobs=workers)


def run(
    cells: Iterable[Cell],
    pictures: Path,
    folder: Path,
    workers: int = 2,
    engine: str = "loky",
    address: str | None = None,
) -> None:
    """Train and score the cells that are not in the folder yet.

    Args:
        pictures: folder of the sets of pictures.
        folder: of the results.
        workers: cells at a time, of one thread each.
        engine: one of `ENGINES`.
        address: of a running Dask or Ray cluster; one of this machine by default.

    Raises:
        UsageError: no such engine.
        HvcError: a cell failed; the others are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = list(cells)

    def missing(some: Iterable[Cell]) -> list[Cell]:
        return [cell for cell in some if not (folder / f"{cell.name}.json").exists()]

    def work(jobs: list[Job], scored: bool) -> None:
        failed = []
        with _engine(engine, workers, address):
            parallel = joblib.Parallel(return_as="generator_unordered")
            calls = (joblib.delayed(_cell)(*job, pictures, folder, scored) for job in jobs)
            for error in tqdm(parallel(calls), total=len(jobs), desc="cells"):
                failed += [error] if error else []
        if failed:
            raise HvcError("; ".join(failed))

    # The longest first, so that no core is idle for long at the end.
    wanted = sorted(missing(cells), key=lambda cell: -cell.steps)
    for name in sorted({cell.data for cell in wanted}):
        classifier(name, sets.load(name, pictures), folder)
    first = [cell.round_one for cell in cells if cell.first]
    if any(cell.first for cell in wanted):
        work([(cell, None) for cell in missing(first)], scored=False)
    work([(cell, _start(cell, first, folder)) for cell in wanted], scored=True)


def _start(cell: Cell, first: list[Cell], folder: Path) -> Path | None:
    """What a cell of two rounds goes on from: the best at its weights, of its kind and seed."""
    if not cell.first:
        return None

    def cost(other: Cell) -> float:
        result = json.loads((folder / f"{other.name}.json").read_text())
        return objective(result["rates"][0], cell.beta)

    alike = [other for other in first if replace(other, beta=cell.beta) == cell.round_one]
    return folder / f"{min(alike, key=cost).name}.safetensors"


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
        if not scored:
            found["rates"] = [rates(model, s) for s in held]
        elif not cell.amortised:
            found |= score(model, data, classifier(cell.data, data, folder))
        else:
            judge = classifier(cell.data, data, folder)
            # What one network does at every setting of the grid.
            found["settings"] = [
                {
                    "beta": beta,
                    "rates": [rates(model, s, beta) for s in held],
                    "reconstructions": [reconstructions(model, s, judge, beta) for s in held],
                }
                for beta in product(BETAS, repeat=len(cell.beta))
            ]
    unfinished = folder / f"{cell.name}.json.part"
    unfinished.write_text(json.dumps(found, indent=1))
    unfinished.replace(folder / f"{cell.name}.json")
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

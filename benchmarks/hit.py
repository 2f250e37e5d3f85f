"""Information traded between latents: the experiment of Xiao & Bamler (ICLR 2023), and its checks.

    python benchmarks/hit.py --train mnist            # the grid; resumes
    python benchmarks/hit.py --train mnist-near mnist-seeds mnist-amortised mnist-families mnist-cuts
    python benchmarks/hit.py --train cifar10 cifar10-amortised lossless
    python benchmarks/hit.py --disk                   # rates of some of these models in bytes
    python benchmarks/hit.py --check [--json]         # A1 to A6, T1 to T10
    python benchmarks/hit.py --report OUT             # PNG files and a page

Cells run two at a time, in processes of one thread; `--engine ray` spreads them over machines that
share the folder. Options say where the data and the results are.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hvcodec import files
from hvcodec.errors import HvcError, UsageError
from hvcodec.hit import data, disk, exact, grid, models, report, trends
from hvcodec.hit.checks import Check
from hvcodec.hit.train import Cell

NEAR, SEEDS = "mnist-near", "mnist-seeds"
MNIST = grid.GRIDS["mnist"].round_one
THREE = (1.0, 1.0, 1.0)
LOSSLESS = Cell(data="cifar10-lossless", preset="colour-learned", steps=2000, batch=64)
ON_DISK = [
    grid.GRIDS["mnist"],
    replace(grid.GRIDS["mnist"], beta=(0.316, 1.0)),
    replace(MNIST, family="ladder"),
    replace(MNIST, beta=THREE),
    LOSSLESS,
]


def seeds(folder: Path) -> list[Cell]:
    """Two more seeds of nine cells: the diagonal, the corners off it, and the two others whose z_2
    served classification best on validation pictures.

    Raises:
        UsageError: the grid is not complete, of which these are chosen.
    """
    found = [r for r in grid.results(folder) if trends.in_grid(r, "mnist") and r["cell"]["seed"] == 1]
    if len(found) < len(grid.BETAS) ** 2:
        raise UsageError("the grid of mnist comes before its other seeds: --train mnist mnist-seeds")
    best = sorted(found, key=lambda r: -trends.accuracy(r, 0))
    corners = [(grid.BETAS[0], grid.BETAS[-1]), (grid.BETAS[-1], grid.BETAS[0])]
    chosen = [(b, b) for b in grid.BETAS] + corners
    chosen += [r["beta"] for r in best if r["beta"] not in chosen][:2]
    return [replace(grid.GRIDS["mnist"], beta=beta, seed=seed) for seed in (2, 3) for beta in chosen]


def group(name: str, folder: Path) -> list[Cell]:
    """Cells of a group, by its name."""
    if name in grid.GRIDS:
        return grid.grid(grid.GRIDS[name])
    if name == NEAR:
        return grid.neighbours(grid.GRIDS["mnist"])
    if name == SEEDS:
        return seeds(folder)
    if name.endswith("-amortised"):
        return [grid.AMORTISED[name.removesuffix("-amortised")]]
    if name == "mnist-families":
        weights = [(1.0, 1.0), (0.316, 3.16), (3.16, 0.316)]
        two = [replace(MNIST, family=f, beta=b) for f in ("ladder", "general") for b in weights]
        three = [replace(MNIST, family=f, beta=THREE) for f in ("free", "ladder", "general")]
        return [*two, *three, replace(MNIST, family="bottom-up")]
    if name == "mnist-cuts":
        return [
            replace(MNIST, sent=(0.5, 0.5)),
            replace(MNIST, beta=THREE, sent=(0.3, 0.3, 0.4)),
        ]
    return [LOSSLESS, replace(LOSSLESS, family="ladder")]


GROUPS = (
    "mnist",
    NEAR,
    SEEDS,
    "mnist-amortised",
    "mnist-families",
    "mnist-cuts",
    "cifar10",
    "cifar10-amortised",
    "lossless",
)


def on_disk(pictures: Path, folder: Path) -> None:
    """Code test pictures under trained models and keep what it took."""
    for cell in ON_DISK:
        path = folder / f"{cell.name}.safetensors"
        target = folder / "disk" / f"{cell.name}.json"
        if not path.exists() or target.exists():
            continue
        sets = data.load(cell.data, pictures)
        found = disk.code(models.load(path), sets.test, sets.train, quiet=False)
        files.write(target, json.dumps({"cell": asdict(cell), **found}, indent=1).encode())
        off = [100 * (a / b - 1) for a, b in zip(found["rates"], found["divergences"])]
        print(
            f"{cell.name}: {found['pictures']} pictures, {found['bytes']} bytes of which "
            f"{found['start_bytes']} were there before; {found['bits']:.2f} bits a picture, "
            f"{100 * (found['bits'] / found['elbo'] - 1):+.2f} % of the negative ELBO; layers "
            f"{', '.join(f'{x:+.2f} %' for x in off)}; exact: {found['exact']}"
        )


def table(checks: list[Check]) -> str:
    words = {True: "pass", False: "FAIL", None: "no results"}

    def number(x: float | None) -> str:
        return "" if x is None else f"{x:.4g}"

    rows = [
        f"| {c.id} | {words[c.passed]} | {number(c.value)} | {number(c.bound)} | {c.note} |"
        for c in checks
    ]
    return "\n".join(["| | | value | bound | |", "| --- " * 5 + "|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", nargs="+", choices=GROUPS, default=[])
    parser.add_argument("--disk", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true", help="the checks as JSON")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--data", choices=grid.GRIDS, default="mnist", help="whose trends to check")
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/small"))
    parser.add_argument("--folder", type=Path, default=Path("runs/hit"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", choices=grid.ENGINES, default="loky")
    parser.add_argument("--address", help="of a Ray cluster")
    arguments = parser.parse_args()
    folder = arguments.folder
    try:
        # Neighbours start from what the grid starts from, and which seeds are wanted is known once the
        # grid is.
        stages = [[n for n in arguments.train if n not in (NEAR, SEEDS)]]
        stages += [[n] for n in (NEAR, SEEDS) if n in arguments.train]
        near: dict[str, Any] = {"pool": grid.grid(grid.GRIDS["mnist"]), "scored": False}
        for names in filter(None, stages):
            grid.run(
                [cell for name in names for cell in group(name, folder)],
                arguments.pictures,
                folder,
                arguments.workers,
                arguments.engine,
                arguments.address,
                **(near if names == [NEAR] else {}),
            )
        if arguments.disk:
            on_disk(arguments.pictures, folder)
        if arguments.check or arguments.report:
            results = grid.results(folder)
            checks = exact.checks() + trends.checks(results, arguments.data)
        if arguments.check:
            print(
                json.dumps([asdict(c) for c in checks], indent=1) if arguments.json else table(checks)
            )
        if arguments.report:
            coded = [json.loads(path.read_text()) for path in sorted((folder / "disk").glob("*.json"))]
            report.write(results, checks, coded, arguments.data, arguments.report)
    except HvcError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""Pictures of a grid, and a page of them.

Metrics over the total rate with the beta-VAE diagonal in red and the upper hull, accuracy under its
bound, maps over (beta_2, beta_1), and the surface over three tasks, as in the paper.
"""

import html
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from ..errors import UsageError
from ..exact import Array
from . import trends
from .checks import Check
from .grid import BETAS
from .theory import accuracy_bound
from .trends import TEST, Grid, Result

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

RED, PURPLE = "tab:red", "tab:purple"
TOTAL = "total R, nats"


def _measures(grid: Grid) -> dict[str, Array]:
    return {
        "R(z2), nats": grid.of(trends.rate, 0),
        "R(z1 | z2), nats": grid.of(trends.rate, 1),
        TOTAL: grid.of(trends.total),
        "PSNR, dB": grid.of(trends.psnr),
        "ln IS": grid.of(trends.inception),
        "accuracy from z2 (RBF-SVM)": grid.of(trends.accuracy, TEST),
        "accuracy from samples of z2": grid.of(trends.accuracy, TEST, "z2 sample"),
        "accuracy from z1 (RBF-SVM)": grid.of(trends.accuracy, TEST, "z1"),
        "accuracy on reconstructions": grid.of(lambda r: r["reconstructions"][TEST]["accuracy"]),
    }


def upper_hull(x: Array, y: Array) -> Array:
    """Indices of the upper convex hull as seen from the left, by growing x (Andrew's chain)."""
    hull: list[int] = []
    for k in np.lexsort((-y, x)):
        while len(hull) > 1:
            a, b = hull[-2:]
            if (x[b] - x[a]) * (y[k] - y[a]) < (y[b] - y[a]) * (x[k] - x[a]):
                break
            hull.pop()
        hull.append(int(k))
    return np.array(hull[: int(np.argmax(y[hull])) + 1])


def maps(grid: Grid) -> Figure:
    """Every measure over (beta_2, beta_1); its largest value has a frame."""
    measures = _measures(grid)
    figure, axes = plt.subplots(3, 3, figsize=(14, 13), layout="constrained")
    for ax, (name, values) in zip(axes.flat, measures.items()):
        ax.imshow(values, origin="lower", cmap="viridis")
        middle = (values.min() + values.max()) / 2
        for row, column in np.ndindex(values.shape):
            ax.text(
                column,
                row,
                f"{values[row, column]:.3g}",
                ha="center",
                va="center",
                color="black" if values[row, column] > middle else "white",
                fontsize=8,
            )
        row, column = trends.best(values)
        ax.add_patch(
            plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=RED, linewidth=2)
        )
        ticks = range(len(BETAS))
        ax.set(title=name, xlabel="beta_1", ylabel="beta_2", xticks=ticks, yticks=ticks)
        ax.set(xticklabels=[f"{b:g}" for b in BETAS], yticklabels=[f"{b:g}" for b in BETAS])
    return figure


def over_rate(grid: Grid) -> Figure:
    """Tasks over the total rate."""
    measures = _measures(grid)
    whole = measures[TOTAL]
    figure, axes = plt.subplots(1, 4, figsize=(19, 4.5), layout="constrained")
    picked = ("PSNR, dB", "ln IS", "accuracy from z2 (RBF-SVM)", "accuracy from samples of z2")
    for ax, name in zip(axes, picked):
        values = measures[name]
        tilt = np.subtract.outer(np.log10(BETAS), np.log10(BETAS))
        points = ax.scatter(whole, values, c=tilt, cmap="coolwarm", s=30, edgecolors="grey")
        hull = upper_hull(whole.ravel(), values.ravel())
        ax.plot(whole.ravel()[hull], values.ravel()[hull], color=PURPLE, label="hull")
        ax.plot(np.diag(whole), np.diag(values), "--", color=RED, label="beta-VAE")
        ax.set(xlabel=TOTAL, ylabel=name)
        ax.grid(alpha=0.3)
    axes[0].legend()
    figure.colorbar(points, ax=axes, label="log10 beta_2 / beta_1")
    return figure


def under_bound(grid: Grid) -> Figure:
    """Accuracy from z2 against the estimate of I(y; z2) and its bound."""
    results = grid.flat()
    figure, ax = plt.subplots(figsize=(7, 5))
    labels = results[0]["data"]["label_entropy"]
    information = np.linspace(0, labels, 200)
    ax.plot(
        information,
        [accuracy_bound(i, 10, labels) for i in information],
        color="black",
        label="f^-1(I)",
    )
    for layer, marker, name in (
        ("z2 sample", "o", "from samples"),
        ("z2", "x", "from means (bound does not apply)"),
    ):
        for empty, alpha in ((False, 1.0), (True, 0.25)):
            some = [r for r in results if r["information"]["saturated"] == empty]
            ax.scatter(
                [r["information"]["nats"] for r in some],
                [max(v[TEST] for v in r["accuracy"][layer].values()) for r in some],
                marker=marker,
                alpha=alpha,
                label=name + (", estimate saturated" if empty else ""),
            )
    ax.set(xlabel="estimate of I(y; z2), nats", ylabel="best accuracy of three classifiers")
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)
    return figure


def surface(grid: Grid) -> Figure:
    """Three tasks at once; colours say how rate is split."""
    measures = _measures(grid)
    x, y, z = (measures[n] for n in ("PSNR, dB", "ln IS", "accuracy from z2 (RBF-SVM)"))
    figure = plt.figure(figsize=(8, 7))
    ax: Any = figure.add_subplot(projection="3d")
    ax.plot_wireframe(x, y, z, color="lightgrey", linewidth=0.8)
    row, column = np.mgrid[: len(BETAS), : len(BETAS)] / (len(BETAS) - 1)
    ax.scatter(
        x,
        y,
        z,
        c=np.stack([row, np.full(row.shape, 0.3), column], -1).reshape(-1, 3),
        s=40,
        depthshade=False,
    )
    ax.plot(np.diag(x), np.diag(y), np.diag(z), "--", color=RED)
    for values in (x, y, z):
        place = trends.best(values)
        ax.scatter(x[place], y[place], z[place], s=160, facecolors="none", edgecolors="black")
    ax.set(xlabel="PSNR, dB", ylabel="ln IS", zlabel="accuracy from z2")
    ax.set_title("red: beta_2 high, blue: beta_1 high; dashed: beta-VAE; rings: best of each")
    return figure


def one_network(results: list[Result], grid: Grid, data: str) -> Figure | None:
    """Rates of the amortised network beside those of separate ones."""
    together = Grid(results, data, trends.of_one_network)
    if not together.complete:
        return None
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    kinds: list[tuple[str, Callable[..., float], tuple[int, ...]]] = [
        ("R(z2)", trends.rate, (0,)),
        ("R(z1 | z2)", trends.rate, (1,)),
        ("objective", trends.objective, ()),
    ]
    for ax, (name, measure, arguments) in zip(axes, kinds):
        separate, one = (g.of(measure, *arguments) for g in (grid, together))
        ax.scatter(separate, one, s=20)
        ends = [min(separate.min(), one.min()), max(separate.max(), one.max())]
        ax.plot(ends, ends, color="grey", linewidth=0.8)
        ax.set(xlabel=f"{name}, one network per beta", ylabel=f"{name}, one network for all")
        ax.grid(alpha=0.3)
    return figure


def _beside(results: list[Result], data: str) -> list[str]:
    """Rows of a table of the models that are not of the grid: other families, layers, or for cuts."""
    rows = []
    for result in results:
        cell = result["cell"]
        of_grid = trends.in_grid(result, data) or trends.of_round_one(result, data)
        if cell["data"] != data or cell["amortised"] or of_grid:
            continue
        cut = f", may end early {tuple(cell['sent'])}" if cell["sent"] else ""
        name = f"{cell['family']} {tuple(cell['beta'])}{cut}, seed {cell['seed']}"
        rates = ", ".join(f"{r:.2f}" for r in result["rates"][TEST]["rates"])
        numbers = [
            rates,
            f"{result['rates'][TEST]['distortion']:.2f}",
            f"{trends.objective(result):.2f}",
        ]
        if "samples" in result:
            layers = [x for x in result["accuracy"] if "sample" not in x]
            right = ", ".join(f"{trends.accuracy(result, TEST, x):.4f}" for x in layers)
            numbers += [f"{trends.psnr(result):.2f}", right]
        rows.append(_row([name, *numbers]))
    return rows


def _row(cells: list[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"


def write(
    results: list[Result], checks: list[Check], disk: list[dict[str, Any]], data: str, out: Path
) -> None:
    """Write PNG files and index.html into a folder.

    Args:
        results: of `grid.results`.
        checks: to show as a table.
        disk: of `disk.code`, each with its "cell".
        data: whose grid.

    Raises:
        UsageError: the grid is not complete.
    """
    grid = Grid(results, data)
    if not grid.complete:
        raise UsageError(f"the grid of {data} has {len(grid.cells)} of {len(BETAS) ** 2} cells")
    out.mkdir(parents=True, exist_ok=True)
    figures = {
        "maps": maps(grid),
        "over-rate": over_rate(grid),
        "under-bound": under_bound(grid),
        "surface": surface(grid),
        "one-network": one_network(results, grid, data),
    }
    page = [
        '<!doctype html><meta charset="utf-8"><title>Information traded between latents</title>',
        "<style>body{font:15px sans-serif;max-width:1200px;margin:auto}img{max-width:100%}"
        "td,th{padding:2px 8px;text-align:left;vertical-align:top}</style>",
        f"<h1>Information traded between latents: {html.escape(data)}</h1>",
        f"<p>{len(grid.flat())} models of {len(grid.cells)} settings, on test pictures.</p>",
    ]
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(out / f"{data}-{name}.png", dpi=110, bbox_inches="tight")
            plt.close(figure)
            page.append(f'<p><img src="{data}-{name}.png" alt="{name}"></p>')
    words = {True: "pass", False: "fail", None: "no results"}
    page += ["<h2>Checks</h2><table>", _row(["", "", "value", "bound", ""], "th")]
    for c in checks:
        numbers = ["" if v is None or math.isnan(v) else f"{v:.4g}" for v in (c.value, c.bound)]
        page.append(_row([c.id, words[c.passed], *numbers, c.note]))
    page += ["</table>"]
    if beside := _beside(results, data):
        names = ["model", "rates, nats", "D", "J", "PSNR", "accuracy from each layer"]
        page += ["<h2>Beside the grid</h2><table>", _row(names, "th"), *beside, "</table>"]
    if disk:
        page += [
            "<h2>Rates on disk</h2><table>",
            _row(
                [
                    "model",
                    "pictures",
                    "bytes",
                    "of these at the start",
                    "bits a picture",
                    "-ELBO",
                    "layers: bits",
                    "KL",
                ],
                "th",
            ),
        ]
    for d in disk:
        lists = [", ".join(f"{v:.2f}" for v in d[k]) for k in ("rates", "divergences")]
        cell = d["cell"]
        name = f"{cell['data']} {cell['family']} {tuple(cell['beta'])}"
        numbers = [str(d[k]) for k in ("pictures", "bytes", "start_bytes")]
        page.append(_row([name, *numbers, f"{d['bits']:.2f}", f"{d['elbo']:.2f}", *lists]))
    page += ["</table>"] if disk else []
    (out / f"{data}.html").write_text("\n".join(page), encoding="utf-8")

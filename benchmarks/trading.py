"""Do rate weights trade what they say? R_l and PSNR over a grid of beta, and whether beta is obeyed.

    python benchmarks/trading.py PICTURES OUT [--pictures N] [--vectors N] [--model FILE]

Three questions, all answered by real files at one lambda:

- Does R_l fall when its own beta_l grows? For every layer five values of beta_l, the others 1; counted
  over neighbouring pairs of all pictures (Xiao & Bamler 2023: at the optimum R_l never grows).
- Are the steps that beta turns into the best ones for J_beta = sum beta_l R_l + lambda MSE? For random
  beta vectors, every layer's step is moved by a factor of 2^(1/2) both ways: how much lower can J be?
- What does trading look like? Share of the bits and PSNR for every layer and beta, as a picture.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
from metrics import psnr
from PIL import Image
from tqdm import tqdm

from hvcodec import engine, modelfile
from hvcodec.encoder import push
from hvcodec.engine import Engine
from hvcodec.ladder import MAX_LEVELS, NAMES, names
from hvcodec.refinement import levels, steps_of
from hvcodec.steps import BETA_RANGE, MAX_INDEX, STEPS_PER_OCTAVE, step_indices, step_size

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

LAMBDA = 0.01
BETAS = (1 / 8, 1 / 2.83, 1.0, 2.83, 8.0)


def coded(
    network: Engine, pixels: np.ndarray, steps: list[int], weights: list[float]
) -> tuple[list[float], float, float]:
    """Bits per pixel of every layer, MSE and PSNR."""
    # What an error of one step is worth follows the steps, also where they are not the usual ones.
    worth = [
        np.full((1, 1), LAMBDA / 3 * step_size(step) ** 2 / beta, np.float32)
        for step, beta in zip(steps_of(steps, levels(steps), len(steps)), weights)
    ]
    layers, found, _ = network.encode(network.analyse(pixels, steps), steps, weights, worth)
    area = pixels.shape[0] * pixels.shape[1]
    rates = [8 * len(words) / area for words in push(layers)]
    back = network.synthesise(*found[-1])[: pixels.shape[0], : pixels.shape[1]]
    return rates, float(np.square(pixels.astype(np.float32) - back).mean()), psnr(pixels, back)


def own_rate(network: Engine, pictures: list[np.ndarray]) -> dict:
    """R_l and PSNR for every layer over its own beta."""
    table: dict = {}
    falls = pairs = 0
    for refined in (False, True):
        layers = names(MAX_LEVELS if refined else 0)
        for index, name in enumerate(tqdm(layers, desc="own rate")):
            if refined and name in NAMES:
                continue
            each = []
            for pixels in pictures:
                row = []
                for beta in BETAS:
                    weights = [1.0] * len(layers)
                    weights[index] = beta
                    rates, _, quality = coded(network, pixels, step_indices(LAMBDA, weights), weights)
                    row.append((rates[index], sum(rates), quality))
                each.append(row)
                falls += sum(b[0] < a[0] for a, b in zip(row, row[1:]))
                pairs += len(row) - 1
            mean = np.mean(each, axis=0)
            table[name] = {"rate": mean[:, 0].tolist(), "total": mean[:, 1].tolist()}
            table[name]["psnr"] = mean[:, 2].tolist()
    return {"betas": BETAS, "falls": falls, "pairs": pairs, "layers": table}


def best_steps(network: Engine, pictures: list[np.ndarray], vectors: int) -> dict:
    """How much lower J_beta becomes if one layer's step is moved, in percent; positive is lower."""
    rng = np.random.default_rng(0)
    gains = []
    for _ in tqdm(range(vectors), desc="best steps"):
        low, high = np.log(BETA_RANGE)
        weights = np.exp(rng.uniform(low, high, len(NAMES))).tolist()
        steps = step_indices(LAMBDA, weights)

        def objective(steps: list[int], weights: list[float] = weights) -> float:
            total = 0.0
            for pixels in pictures:
                rates, mse, _ = coded(network, pixels, steps, weights)
                total += sum(b * r for b, r in zip(weights, rates)) + LAMBDA * mse
            return total

        here = objective(steps)
        for index in range(len(NAMES)):
            for move in (-STEPS_PER_OCTAVE // 2, STEPS_PER_OCTAVE // 2):
                moved = list(steps)
                moved[index] = min(max(moved[index] + move, 0), MAX_INDEX)
                gains.append(100 * (1 - objective(moved) / here))
    return {"moves": len(gains), "largest_gain_percent": max(gains), "gains": gains}


def plot(found: dict) -> Figure:
    """What `own_rate` found: each layer's bits over its beta, and PSNR over the file's bits."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5))
    for name, row in found["layers"].items():
        style = "-" if name in NAMES else "--"
        left.plot(found["betas"], row["rate"], style, marker=".", label=name)
        right.plot(row["total"], row["psnr"], style, marker=".", label=name)
    left.set(xscale="log", yscale="log", xlabel="beta of the layer", ylabel="its bits per pixel")
    right.set(xlabel="bits per pixel of the file", ylabel="PSNR (RGB), dB")
    left.set_xticks(found["betas"], [f"{beta:.2g}" for beta in found["betas"]], minor=False)
    left.tick_params(axis="x", which="minor", labelbottom=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", dest="count", type=int, default=8)
    parser.add_argument("--vectors", type=int, default=20)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    network = engine.load(modelfile.locate(arguments.model))
    pictures = [
        np.asarray(Image.open(p).convert("RGB"))
        for p in sorted(arguments.pictures.glob("*.png"))[: arguments.count]
    ]
    found = own_rate(network, pictures)
    moved = best_steps(network, pictures, arguments.vectors)
    result = {"lambda": LAMBDA, "own_rate": found, "best_steps": moved}
    (arguments.out / "trading.json").write_text(json.dumps(result, indent=1))
    plot(found).savefig(arguments.out / "trading.png", dpi=120, bbox_inches="tight")
    share = found["falls"] / found["pairs"]
    print(f"R_l falls with its own beta_l in {100 * share:.1f} % of {found['pairs']} pairs")
    print(f"moving one step lowers J by at most {moved['largest_gain_percent']:.2f} %")
    print("| layer | " + " | ".join(f"beta {b:.3g}" for b in BETAS) + " |\n" + "| --- " * 6 + "|")
    for name, row in found["layers"].items():
        cells = [f"{r:.4f} bpp, {q:.2f} dB" for r, q in zip(row["rate"], row["psnr"])]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

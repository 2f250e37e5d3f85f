"""Rate-distortion of real files: every picture through every encoder and decoder.

    python benchmarks/rd.py PICTURES OUT [--codecs hvcodec,jpeg,...] [--model FILE]
                                         [--effort N] [--tune ms-ssim] [--qualities 30,50,...]

Writes one JSON a codec (CompressAI's results schema, with the points of every picture beside the
means), a plot, and a table of BD-rates of hvcodec against each of them and against published curves in
`anchors/` (each names its source; those were measured on Kodak, so compare on Kodak). BD-rates are over
the range of the other codec from 0.15 to 2 bits per pixel, and over bands of PSNR.
"""

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from contenders import CLASSICAL, Codec, ours
from metrics import BANDS, band_of_rates, bd_rate, in_decibels, ms_ssim, psnr
from PIL import Image
from scipy.interpolate import PchipInterpolator
from tqdm import tqdm

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ANCHORS = Path(__file__).parent / "anchors"
MEASURES = ("bpp", "psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time")


def measure(codec: Codec, pictures: list[tuple[str, np.ndarray]]) -> dict:
    """Run a codec at all its settings over all pictures."""
    each: dict[str, dict[str, list[float]]] = {}
    for name, pixels in tqdm(pictures, desc=codec.name):
        points: dict[str, list[float]] = {measure: [] for measure in MEASURES}
        for setting in codec.settings:
            start = time.perf_counter()
            data = codec.encode(pixels, setting)
            middle = time.perf_counter()
            back = codec.decode(data)
            end = time.perf_counter()
            values = (
                8 * len(data) / (pixels.shape[0] * pixels.shape[1]),
                psnr(pixels, back),
                ms_ssim(pixels, back),
                middle - start,
                end - middle,
            )
            for key, value in zip(MEASURES, values):
                points[key].append(value)
        each[name] = points
    means = {key: np.mean([p[key] for p in each.values()], axis=0).tolist() for key in MEASURES}
    return {
        "name": codec.name,
        "description": codec.about,
        "settings": codec.settings,
        "results": means,
        "pictures": each,
    }


def curve(points: dict[str, list[float]]) -> tuple[list[float], list[float]]:
    return points["bpp"], points["psnr-rgb"]


def similarity(points: dict[str, list[float]]) -> tuple[list[float], list[float]]:
    return points["bpp"], in_decibels(points["ms-ssim-rgb"])


def compare(anchor: dict[str, list[float]], test: dict[str, list[float]], name: str) -> str:
    """BD-rate over the rates of interest, of curves that a function of this file picks."""
    pick = {"psnr": curve, "ms-ssim": similarity}[name]
    return f"{bd_rate(pick(anchor), pick(test), band_of_rates(pick(anchor))):+.1f} %"


def least_lead(anchor: dict[str, dict], test: dict[str, dict]) -> str:
    """PSNR at equal size, at the anchor's points: the smallest lead over all pictures and where."""
    leads = []
    for name, points in anchor.items():
        if name not in test:
            continue
        rates, qualities = (np.array(v) for v in curve(test[name]))
        at = PchipInterpolator(np.log(rates), qualities)
        for rate, quality in zip(*curve(points)):
            if rates[0] <= rate <= rates[-1]:
                leads.append((float(at(np.log(rate))) - quality, name, rate))
    if not leads:
        return ""
    lead, name, rate = min(leads)
    return f"{lead:+.2f} dB ({Path(name).stem}, {rate:.2f} bpp)"


def table(results: dict[str, dict]) -> str:
    """BD-rates of hvcodec as a Markdown table; negative: hvcodec needs fewer bits."""
    mine = results["hvcodec"]
    bands = (f"{a}-{b} dB" for a, b in BANDS)
    heads = ["against", "BD-rate", *bands, "mean of pictures", "MS-SSIM", "least lead at equal size"]
    rows = [heads, ["---"] * len(heads)]
    for name, other in results.items():
        if name == "hvcodec":
            continue
        anchor, test = curve(other["results"]), curve(mine["results"])
        cells = [compare(other["results"], mine["results"], "psnr")]
        cells += [f"{bd_rate(anchor, test, band):+.1f} %" for band in BANDS]
        pictures = other.get("pictures", {})
        singles = [
            bd_rate(curve(pictures[p]), curve(mine["pictures"][p]), band_of_rates(curve(pictures[p])))
            for p in pictures
            if p in mine["pictures"]
        ]
        cells.append(f"{np.mean(singles):+.1f} %" if singles else "")
        measured = "ms-ssim-rgb" in other["results"]
        cells.append(compare(other["results"], mine["results"], "ms-ssim") if measured else "")
        cells.append(least_lead(pictures, mine["pictures"]))
        rows.append([other["name"], *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def plot(results: dict[str, dict], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 6))
    for name, result in results.items():
        rates, qualities = curve(result["results"])
        published = "pictures" not in result
        style = "--" if published else "-"
        axes.plot(rates, qualities, style, marker="" if published else ".", label=result["name"])
        if name == "hvcodec":
            axes.lines[-1].set(linewidth=2.5, color="black")
    axes.set(xlabel="bits per pixel", ylabel="PSNR (RGB), dB", xlim=(0, 2.2), ylim=(24, 43))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def published() -> Iterable[tuple[str, dict]]:
    for path in sorted(ANCHORS.glob("*.json")):
        found = json.loads(path.read_text())
        points = {"bpp": found["bpp"], "psnr-rgb": found["psnr"]}
        yield path.stem, {"name": f"{found['codec']} (published)", "results": points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--codecs", help="comma-separated; default: all")
    parser.add_argument("--model", help="model name or file for hvcodec")
    parser.add_argument("--effort", type=int, default=0, help="of hvcodec")
    parser.add_argument("--tune", default="psnr", help="of hvcodec")
    parser.add_argument("--qualities", help="of hvcodec, comma-separated")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures = [
        (p.name, np.asarray(Image.open(p).convert("RGB")))
        for p in sorted(arguments.pictures.glob("*.png"))
    ]
    qualities = [float(q) for q in (arguments.qualities or "").split(",") if q]
    mine = ours(arguments.model, arguments.effort, arguments.tune, tuple(qualities))
    codecs = {codec.name: codec for codec in (mine, *CLASSICAL)}
    wanted = arguments.codecs.split(",") if arguments.codecs else list(codecs)
    for name in wanted:
        result = measure(codecs[name], pictures)
        (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=1))
    # Codecs measured into this folder earlier stay in the table.
    results = {
        name: json.loads((arguments.out / f"{name}.json").read_text())
        for name in codecs
        if (arguments.out / f"{name}.json").exists()
    } | dict(published())
    if "hvcodec" in results:
        (arguments.out / "bd-rate.md").write_text(table(results) + "\n")
        print(table(results))
    plot(results, arguments.out / "rd.png")


if __name__ == "__main__":
    main()

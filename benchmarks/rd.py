"""Rate-distortion of real files: every picture through every encoder and decoder.

    python benchmarks/rd.py PICTURES OUT [--codecs hvcodec,jpeg,...] [--model FILE]
                                         [--effort N] [--tune ms-ssim] [--qualities 30,50,...]

Writes one JSON a codec (CompressAI's results schema, with the points of every picture beside the
means), a plot, and a table of BD-rates of hvcodec against each of them and against published curves in
`anchors/` (each names its source; those were measured on Kodak, so compare on Kodak). BD-rates are over
the range of the other codec from 0.15 to 2 bits per pixel, and over bands of PSNR. What was interrupted
goes on where it was.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from contenders import CLASSICAL, Codec, ours
from metrics import BANDS, band_of_rates, bd_rate, in_decibels, ms_ssim, psnr
from PIL import Image
from scipy.interpolate import PchipInterpolator
from tqdm import tqdm

from hvcodec import files

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

ANCHORS = Path(__file__).parent / "anchors"
MEASURES = ("bpp", "psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time")


def measure(codec: Codec, pictures: list[tuple[str, np.ndarray]], part: Path) -> dict:
    """Run a codec at all its settings over all pictures.

    Args:
        part: file of what is measured so far, so that hours of effort can be interrupted.
    """
    what = {"description": codec.about, "settings": list(codec.settings)}
    before = json.loads(part.read_text()) if part.exists() else {}
    done = before.pop("pictures", {})
    each = {name: done[name] for name, _ in pictures if name in done and before == what}
    for name, pixels in tqdm([found for found in pictures if found[0] not in each], desc=codec.name):
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
        files.write(part, json.dumps({**what, "pictures": each}).encode())
    part.unlink(missing_ok=True)
    means = {key: np.mean([p[key] for p in each.values()], axis=0).tolist() for key in MEASURES}
    return {
        "name": codec.name,
        **what,
        "results": means,
        "pictures": each,
    }


Curve = tuple[list[float], list[float]]
Pick = Callable[[dict[str, list[float]]], Curve]


def curve(points: dict[str, list[float]]) -> Curve:
    """Bits per pixel and PSNR in dB."""
    return points["bpp"], points["psnr-rgb"]


def similarity(points: dict[str, list[float]]) -> Curve:
    """Bits per pixel and MS-SSIM in decibels."""
    return points["bpp"], in_decibels(points["ms-ssim-rgb"])


def leads(
    anchor: dict[str, dict], test: dict[str, dict], pick: Pick = curve
) -> list[tuple[float, str, float]]:
    """Quality at equal size minus the anchor's, at the anchor's points of every picture.

    Returns:
        (lead, picture, bits per pixel); none where the test's curve does not reach.
    """
    found = []
    for name, points in anchor.items():
        if name not in test:
            continue
        rates, qualities = (np.array(v) for v in pick(test[name]))
        at = PchipInterpolator(np.log(rates), qualities)
        for rate, quality in zip(*pick(points)):
            if rates[0] <= rate <= rates[-1]:
                found.append((float(at(np.log(rate))) - quality, name, rate))
    return found


@dataclass(frozen=True)
class Comparison:
    """hvcodec against another codec. BD-rates are in percent; negative: hvcodec needs fewer bits.

    Attributes:
        name: of the other codec.
        overall: BD-rate over the rates of interest.
        bands: BD-rate in each band of PSNR; NaN where the curves share nothing of it.
        single: BD-rates of single pictures by name; empty for published curves.
        ms_ssim: BD-rate over the rates of interest for the same MS-SSIM; None where it is not known.
        leads: see `leads`.
    """

    name: str
    overall: float
    bands: tuple[float, ...]
    single: dict[str, float]
    ms_ssim: float | None
    leads: list[tuple[float, str, float]]


def over_rates(anchor: dict[str, list[float]], test: dict[str, list[float]], pick: Pick) -> float:
    """BD-rate over the rates of interest, of curves that `pick` takes."""
    return bd_rate(pick(anchor), pick(test), band_of_rates(pick(anchor)))


def comparisons(results: dict[str, dict]) -> list[Comparison]:
    """hvcodec against each of the other results."""
    mine = results["hvcodec"]
    found = []
    for name, other in results.items():
        if name == "hvcodec":
            continue
        whole, pictures = other["results"], other.get("pictures", {})
        both = [p for p in pictures if p in mine["pictures"]]
        found.append(
            Comparison(
                other["name"],
                over_rates(whole, mine["results"], curve),
                tuple(bd_rate(curve(whole), curve(mine["results"]), band) for band in BANDS),
                {p: over_rates(pictures[p], mine["pictures"][p], curve) for p in both},
                over_rates(whole, mine["results"], similarity) if "ms-ssim-rgb" in whole else None,
                leads(pictures, mine["pictures"]),
            )
        )
    return found


def table(results: dict[str, dict]) -> str:
    """BD-rates of hvcodec as a Markdown table; negative: hvcodec needs fewer bits."""
    bands = (f"{a}-{b} dB" for a, b in BANDS)
    heads = ["against", "BD-rate", *bands, "mean of pictures", "MS-SSIM", "least lead at equal size"]
    rows = [heads, ["---"] * len(heads)]
    for found in comparisons(results):
        cells = [f"{rate:+.1f} %" for rate in (found.overall, *found.bands)]
        cells.append(f"{np.mean(list(found.single.values())):+.1f} %" if found.single else "")
        cells.append("" if found.ms_ssim is None else f"{found.ms_ssim:+.1f} %")
        lead, picture, rate = min(found.leads, default=(0.0, "", 0.0))
        cells.append(f"{lead:+.2f} dB ({Path(picture).stem}, {rate:.2f} bpp)" if picture else "")
        rows.append([found.name, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def plot(results: dict[str, dict]) -> Figure:
    """PSNR over bits per pixel, with the bands of PSNR."""
    figure, axes = plt.subplots(figsize=(8, 6))
    for name, result in results.items():
        rates, qualities = curve(result["results"])
        form = ".-" if "pictures" in result else "--"
        own: dict[str, Any] = {"color": "black", "linewidth": 2.5} if name == "hvcodec" else {}
        axes.plot(rates, qualities, form, label=result["name"], **own)
    for low, high in BANDS[::2]:
        axes.axhspan(low, high, color="black", alpha=0.05, linewidth=0)
    axes.set(xlabel="bits per pixel", ylabel="PSNR (RGB), dB", xlim=(0, 2.2), ylim=(24, 43))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def published() -> Iterable[tuple[str, dict]]:
    """Curves of the anchors, as results of `measure` without pictures."""
    for path in sorted(ANCHORS.glob("*.json")):
        found = json.loads(path.read_text())
        points = {"bpp": found["bpp"], "psnr-rgb": found["psnr"]}
        yield path.stem, {"name": f"{found['codec']} (published)", "results": points}


def measured(folder: Path) -> dict[str, dict]:
    """What lies in a folder of results, ours first."""
    paths = {name: folder / f"{name}.json" for name in ("hvcodec", *(c.name for c in CLASSICAL))}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


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
        result = measure(codecs[name], pictures, arguments.out / f"{name}.part.json")
        (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=1))
    # Codecs measured into this folder earlier stay in the table.
    results = measured(arguments.out) | dict(published())
    if "hvcodec" in results:
        (arguments.out / "bd-rate.md").write_text(table(results) + "\n")
        print(table(results))
    plot(results).savefig(arguments.out / "rd.png", dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()

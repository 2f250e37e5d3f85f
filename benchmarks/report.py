"""One HTML page of everything that was measured: what hvcodec wins, what it loses, and how it looks.

    python benchmarks/report.py RESULTS PICTURES OUT.html [--model FILE]

RESULTS holds the JSON of `rd.py`, and as far as they are there of `progressive.py`, `trading.py`,
`lossless.py` and `speed.py`; PICTURES those that were measured. The page loads nothing from anywhere.
Its pictures are chosen by the numbers (`crops.py`), and coded anew at equal bytes.
"""

import argparse
import base64
import io
import json
import math
from pathlib import Path

import crops
import jinja2
import matplotlib
import numpy as np
import progressive
import rd
import trading
from metrics import BANDS, RATES
from PIL import Image, ImageDraw
from scipy.interpolate import PchipInterpolator

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

TITLES = {
    "hvcodec": "hvcodec",
    "jpeg": "JPEG",
    "webp": "WebP",
    "jpeg2000": "JPEG 2000",
    "avif": "AVIF",
    "jpegxl": "JPEG XL",
    "bmshj2018-hyperprior_mse": "scale hyperprior (published)",
    "bpg444": "BPG 4:4:4 (published)",
    "mbt2018-mean_mse": "mean-scale hyperprior (published)",
    "qarv_base": "QARV (published)",
    "vtm18.0": "VTM 18.0 (published)",
}
SECTIONS = ("progressive", "trading", "lossless", "speed")  # that may be there or not
THUMBNAIL = 384  # pixels, the longer side


def embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def drawn(figure: Figure) -> str:
    """A plot as an embedded SVG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return embedded(buffer.getvalue(), "svg+xml")


def shown(pixels: np.ndarray) -> str:
    """Pixels as an embedded picture, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True)
    return embedded(buffer.getvalue(), "webp")


def thumbnail(pixels: np.ndarray, place: tuple[slice, slice] | None = None) -> str:
    """A small picture, with a frame around a place."""
    image = Image.fromarray(pixels)
    if place:
        rows, columns = place
        box = (columns.start, rows.start, columns.stop - 1, rows.stop - 1)
        ImageDraw.Draw(image).rectangle(box, outline="white", width=5)
        ImageDraw.Draw(image).rectangle(box, outline="red", width=3)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return shown(np.asarray(image))


def relative(results: dict[str, dict], pick: rd.Pick, label: str, ends: tuple[float, float]) -> Figure:
    """Bits that each codec needs for the same quality, over quality; those of hvcodec are 0 %."""

    def log_rates(name: str) -> tuple[np.ndarray, PchipInterpolator]:
        rates, qualities = (np.array(v) for v in pick(results[name]["results"]))
        order = np.argsort(qualities)
        return qualities[order], PchipInterpolator(qualities[order], np.log(rates[order]))

    figure, axes = plt.subplots(figsize=(8, 6))
    own, mine = log_rates("hvcodec")
    axes.axhline(0, color="black", linewidth=2.5, label="hvcodec")
    for name in results:
        if name == "hvcodec":
            continue
        known, other = log_rates(name)
        at = np.linspace(max(own[0], known[0], ends[0]), min(own[-1], known[-1], ends[1]), 200)
        style = "-" if "pictures" in results[name] else "--"
        axes.plot(at, 100 * np.expm1(other(at) - mine(at)), style, label=results[name]["name"])
    axes.axhspan(-100, 0, color="tab:red", alpha=0.06, linewidth=0)
    axes.text(ends[0], -44, " hvcodec loses here", color="tab:red", va="bottom")
    axes.set(xlabel=label, ylabel="bits for the same quality against hvcodec, %", xlim=ends)
    axes.set(ylim=(-45, 210))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    return figure


def with_bands(figure: Figure) -> Figure:
    """Lines between the bands of PSNR, on the x axis."""
    (axes,) = figure.axes
    for edge in sorted({edge for band in BANDS for edge in band}):
        axes.axvline(edge, color="black", linewidth=0.8, linestyle=":")
    return figure


def picture_by_picture(results: dict[str, dict]) -> tuple[Figure, dict[str, tuple[int, int]]]:
    """BD-rates of single pictures.

    Returns:
        The plot, and for every codec how many pictures hvcodec loses by PSNR and by MS-SSIM.
    """
    names = [n for n, r in results.items() if n != "hvcodec" and "pictures" in r]
    figure, panels = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    lost: dict[str, list[int]] = {name: [] for name in names}
    for axes, (what, pick) in zip(panels, (("PSNR", rd.curve), ("MS-SSIM", rd.similarity))):
        for row, name in enumerate(reversed(names)):
            mine, other = (results[n]["pictures"] for n in ("hvcodec", name))
            rates = np.array([rd.over_rates(other[p], mine[p], pick) for p in other if p in mine])
            lost[name].append(int((rates > 0).sum()))
            colours = np.where(rates > 0, "tab:red", "tab:green")
            axes.scatter(rates, np.full(len(rates), row), c=colours, alpha=0.6, linewidths=0)
        axes.axvline(0, color="black")
        axes.set(yticks=range(len(names)), yticklabels=[results[n]["name"] for n in reversed(names)])
        axes.set(xlabel=f"bits that hvcodec needs for the same {what}, %")
        axes.grid(alpha=0.3)
    return figure, {name: (a, b) for name, (a, b) in lost.items()}


def losses(
    results: dict[str, dict],
    compared: list[rd.Comparison],
    lost: dict[str, tuple[int, int]],
    extra: dict[str, dict | None],
) -> list[tuple[str, str, str]]:
    """Everything measured in which hvcodec is behind: (against what, in what, by how much)."""
    found = []
    for c in compared:
        worse = [f"{c.overall:+.1f} %"] if c.overall > 0 else []
        for (low, high), rate in zip(BANDS, c.bands):
            if rate > 0:
                worse.append(f"{rate:+.1f} % ({low}-{high} dB)")
        if worse:
            found.append((c.name, "bits for the same PSNR", ", ".join(worse)))
        if c.ms_ssim is not None and c.ms_ssim > 0:
            found.append((c.name, "bits for the same MS-SSIM", f"{c.ms_ssim:+.1f} %"))
        behind = [lead for lead in c.leads if lead[0] < 0]
        if behind:
            lead, picture, rate = min(behind)
            words = f"{len(behind)} of {len(c.leads)}; at most {-lead:.2f} dB ({Path(picture).stem}, "
            found.append((c.name, "PSNR at equal size, single files", f"{words}{rate:.2f} bpp)"))
    for name, (by_psnr, by_ms_ssim) in lost.items():
        total = len(results[name]["pictures"])
        for measure, count in (("PSNR", by_psnr), ("MS-SSIM", by_ms_ssim)):
            if count:
                words = f"{count} of {total}"
                found.append((results[name]["name"], f"pictures by {measure} (BD-rate)", words))
    mine = results["hvcodec"]["results"]
    for name in lost:
        times = [
            np.mean(mine[key]) / np.mean(results[name]["results"][key])
            for key in ("encoding_time", "decoding_time")
        ]
        words = " and ".join(f"{t:.1f} times" if t < 10 else f"{t:.0f} times" for t in times)
        if max(times) > 1:
            found.append((results[name]["name"], "seconds to encode and to decode", words))
    if extra["lossless"]:
        own = extra["lossless"]["hvcodec"]["sum"]["bytes"]
        for name, codec in extra["lossless"].items():
            if codec["sum"]["bytes"] < own:
                more = 100 * (own / codec["sum"]["bytes"] - 1)
                found.append((f"{name}, lossless", "bytes of lossless files", f"{more:+.1f} %"))
    if extra["progressive"]:
        for weights, entry in extra["progressive"]["weights"].items():
            words = f"{-entry['mean_behind_dB']:.2f} dB, at worst {-entry['worst_behind_dB']:.2f} dB"
            about = f"PSNR at cuts of one file ({weights})"
            found.append(("hvcodec's own file for each size", about, words))
            if (price := entry.get("price_at_full_rate_percent", 0)) > 0:
                about = f"bits of whole files ({weights})"
                found.append(("hvcodec's balanced files", about, f"{price:+.1f} %"))
    return found


def examples(results: dict[str, dict], pictures: Path, model: str | None) -> list[dict]:
    """The chosen pictures with their crops, for the template."""
    found = []
    for choice in crops.choose(results):
        original = np.asarray(Image.open(pictures / choice.picture).convert("RGB"))
        files = crops.shots(choice, original, model)
        place = crops.worst_place(choice, original, files)
        found.append(
            {
                "choice": choice,
                "rival": TITLES[choice.rival],
                "whole": thumbnail(original, place),
                "original": shown(original[place]),
                "crops": [(TITLES[name], s, shown(s.pixels[place])) for name, s in files.items()],
                "size": round(choice.bpp * original.shape[0] * original.shape[1] / 8),
            }
        )
    return found


def load(folder: Path) -> tuple[dict[str, dict], dict[str, dict | None]]:
    """Results of `rd.py` under their titles, and the others, None where there are none."""
    results = rd.measured(folder)
    missing = [name for name in ("hvcodec", *crops.SHOWN) if name not in results]
    if missing:
        raise SystemExit(f"{folder} has no results of {', '.join(missing)}: run benchmarks/rd.py")
    results |= dict(rd.published())
    results = {name: result | {"name": TITLES[name]} for name, result in results.items()}
    paths = {name: folder / f"{name}.json" for name in SECTIONS}
    return results, {n: json.loads(p.read_text()) if p.exists() else None for n, p in paths.items()}


def build(folder: Path, pictures: Path, model: str | None = None) -> str:
    """The page."""
    results, extra = load(folder)
    compared = rd.comparisons(results)
    singles, lost = picture_by_picture(results)
    measured = {n: r for n, r in results.items() if "pictures" in r}
    looked_at = examples(results, pictures, model)
    middle = np.asarray(Image.open(pictures / looked_at[2]["choice"].picture).convert("RGB"))
    strip = crops.cuts(middle, (extra["progressive"] or {"quality": 70})["quality"], model)
    figures = {
        "curves": drawn(rd.plot(results)),
        "bits": drawn(with_bands(relative(results, rd.curve, "PSNR (RGB), dB", (28, 44)))),
        "similarity": drawn(relative(measured, rd.similarity, "MS-SSIM (RGB), dB", (10, 25))),
        "singles": drawn(singles),
    }
    if extra["progressive"]:
        figures["cuts"] = drawn(progressive.plot(extra["progressive"]))
    if extra["trading"]:
        figures["trading"] = drawn(trading.plot(extra["trading"]["own_rate"]))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests["nan"] = math.isnan
    return environment.get_template("report.html.j2").render(
        results=results,
        measured=measured,
        compared=compared,
        bands=BANDS,
        rates=RATES,
        side=crops.SIDE,
        losses=losses(results, compared, lost, extra),
        examples=looked_at,
        strip=[(shot, thumbnail(shot.pixels)) for shot in strip],
        strip_of=looked_at[2]["choice"].picture,
        figures=figures,
        mean=lambda values: float(np.mean(list(values))),
        stem=lambda name: Path(name).stem,
        **extra,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", help="of the crops and the cuts; default: the shipped one")
    arguments = parser.parse_args()
    page = build(arguments.results, arguments.pictures, arguments.model)
    arguments.out.write_text(page, encoding="utf-8")
    print(f"{arguments.out}: {len(page) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

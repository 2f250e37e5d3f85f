"""Quality at every cut of a file, against the same network's own file of that size.

    python benchmarks/progressive.py PICTURES OUT [--weights NAME ...] [--quality Q] [--model FILE]

For every picture: files over a ladder of qualities (the own curve), and one file for each of the rate
weights, decoded at every cut. PSNR at a cut minus PSNR of the own curve at that size (PCHIP over log
rate; of the mean curves, and picture by picture) is what being embedded costs there. The price at full
rate is the BD-rate of whole files with these weights against balanced ones. Progressive JPEG (cut after
its scans) and JPEG 2000 (quality layers) stand beside them, and published progressive codecs where they
were measured (Kodak).
Writes progressive.json and progressive.png.
"""

import argparse
import io
import json
from pathlib import Path

import matplotlib
import numpy as np
from metrics import bd_rate, psnr
from PIL import Image, ImageFile
from scipy.interpolate import PchipInterpolator
from tqdm import tqdm

import hvcodec
from hvcodec import modelfile

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

ANCHORS = Path(__file__).parent / "anchors" / "progressive"
QUALITIES = (10, 18, 26, 34, 42, 50, 58, 66, 74, 82, 90)
WHOLE = (34, 50, 66, 82)  # for the price at full rate
LOWEST_BPP = 0.1  # cuts below it are listed but not averaged
J2K_RATES = (0.06, 0.1, 0.16, 0.25, 0.4, 0.6, 0.9, 1.3, 1.8)

Curve = list[tuple[float, float]]  # (bits per pixel, PSNR)


def decoded(data: bytes, model: str | None) -> np.ndarray:
    return np.asarray(hvcodec.decode(data, model=model))


def bpp(size: int, pixels: np.ndarray) -> float:
    return 8 * size / (pixels.shape[0] * pixels.shape[1])


def own_curve(
    pixels: np.ndarray, weights: str, model: str | None, qualities: tuple[int, ...] = QUALITIES
) -> Curve:
    """Whole files."""
    points = []
    for quality in qualities:
        data = hvcodec.encode(pixels, quality, weights, model)
        points.append((bpp(len(data), pixels), psnr(pixels, decoded(data, model))))
    return points


def cuts(pixels: np.ndarray, quality: float, weights: str, model: str | None) -> Curve:
    """One file at all its cuts."""
    data = hvcodec.encode(pixels, quality, weights, model)
    points = hvcodec.info(data)["cut_points"]
    return [(bpp(n, pixels), psnr(pixels, decoded(data[:n], model))) for n in points]


def progressive_jpeg(pixels: np.ndarray) -> Curve:
    """A JPEG of quality 90 cut after each of its scans."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, progressive=True, optimize=True)
    data = buffer.getvalue()
    starts = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    points = []
    for end in [*starts[1:], len(data)]:
        cut = data[:end] + (b"\xff\xd9" if end < len(data) else b"")
        picture = np.asarray(Image.open(io.BytesIO(cut)).convert("RGB"))
        points.append((bpp(len(cut), pixels), psnr(pixels, picture)))
    return points


def jpeg2000_layers(pixels: np.ndarray) -> Curve:
    """One JPEG 2000 codestream with quality layers; the first n of them are a file of n layers."""
    points = []
    for n in range(1, len(J2K_RATES) + 1):
        ratios = [24 / rate for rate in J2K_RATES[:n]]
        buffer = io.BytesIO()
        options = {"irreversible": True, "mct": 1, "quality_mode": "rates", "quality_layers": ratios}
        Image.fromarray(pixels).save(buffer, "JPEG2000", **options)
        data = buffer.getvalue()
        picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        points.append((bpp(len(data), pixels), psnr(pixels, picture)))
    return points


def behind(cut: Curve, own: Curve) -> list[float | None]:
    """PSNR of each cut minus the own curve's at that size; None outside of the curve."""
    rates, qualities = zip(*own)
    at = PchipInterpolator(np.log(rates), qualities)
    inside = [rates[0] <= rate <= rates[-1] for rate, _ in cut]
    return [float(q - at(np.log(r))) if ok else None for (r, q), ok in zip(cut, inside)]


def mean_curve(curves: list[Curve]) -> Curve:
    return [tuple(point) for point in np.mean(curves, axis=0).tolist()]


def split(curve: Curve) -> tuple[list[float], list[float]]:
    rates, qualities = zip(*curve)
    return list(rates), list(qualities)


def plot(result: dict) -> Figure:
    """PSNR at every cut, with the own files and the rivals."""
    figure, axes = plt.subplots(figsize=(8, 6))
    axes.plot(*split(result["own"]), "k-", linewidth=2, label="hvcodec, a file for each size")
    for weights, entry in result["weights"].items():
        axes.plot(*split(entry["cuts"]), "o-", label=f"hvcodec, cuts of one file ({weights})")
    for name, curve in result["rivals"].items():
        axes.plot(*split(curve), "--" if "published" in name else ".-", label=name)
    axes.set(xlabel="bits per pixel", ylabel="PSNR (RGB), dB", xlim=(0, 2), ylim=(18, 42))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def main() -> None:
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", nargs="+", default=["progressive", "balanced"])
    parser.add_argument("--quality", type=float, default=70)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures = [
        np.asarray(Image.open(p).convert("RGB")) for p in sorted(arguments.pictures.glob("*.png"))
    ]
    own = [own_curve(p, "balanced", arguments.model) for p in tqdm(pictures, desc="own files")]
    result: dict = {
        "model": arguments.model or modelfile.DEFAULT_NAME,
        "own": mean_curve(own),
        "quality": arguments.quality,
        "weights": {},
    }
    for weights in arguments.weights:
        found = [
            cuts(p, arguments.quality, weights, arguments.model) for p in tqdm(pictures, desc=weights)
        ]
        lags = [behind(cut, curve) for cut, curve in zip(found, own)]
        mean = mean_curve(found)
        counted = [
            lag
            for cut, lag_list in zip(found, lags)
            for (rate, _), lag in zip(cut, lag_list)
            if lag is not None and rate >= LOWEST_BPP
        ]
        curve_lag = [
            lag
            for (rate, _), lag in zip(mean, behind(mean, mean_curve(own)))
            if lag is not None and rate >= LOWEST_BPP
        ]
        rates = [rate for rate, _ in mean]
        jumps = [b / a for a, b in zip(rates, rates[1:]) if a > 0.08]
        entry = {
            "cuts": mean,
            "behind_own_dB": behind(mean, mean_curve(own)),
            "mean_behind_dB": float(np.mean(curve_lag)),
            "worst_behind_dB": float(np.min(curve_lag)),
            "mean_behind_dB_per_picture": float(np.mean(counted)),
            "worst_behind_dB_per_picture": float(np.min(counted)),
            "largest_jump_of_rate": max(jumps),
        }
        if weights != "balanced":
            whole = [
                own_curve(p, weights, arguments.model, WHOLE)
                for p in tqdm(pictures, desc="whole files")
            ]
            anchor, test = split(mean_curve(own)), split(mean_curve(whole))
            entry["price_at_full_rate_percent"] = bd_rate(anchor, test)
        result["weights"][weights] = entry
    rivals = {
        "progressive JPEG, cut after scans": progressive_jpeg,
        "JPEG 2000 layers": jpeg2000_layers,
    }
    result["rivals"] = {}
    for name, rival in rivals.items():
        curves = [rival(p) for p in pictures]
        shortest = min(len(c) for c in curves)
        result["rivals"][name] = mean_curve([c[:shortest] for c in curves])
    for path in sorted(ANCHORS.glob("*.json")):
        found = json.loads(path.read_text())
        result["rivals"][f"{found['codec']} (published)"] = list(zip(found["bpp"], found["psnr"]))
    (arguments.out / "progressive.json").write_text(json.dumps(result, indent=1))
    plot(result).savefig(arguments.out / "progressive.png", dpi=120, bbox_inches="tight")
    for weights, entry in result["weights"].items():
        print(weights)
        for (rate, quality), lag in zip(entry["cuts"], entry["behind_own_dB"]):
            print(f"  {rate:7.4f} bpp  {quality:6.2f} dB  {'' if lag is None else f'{lag:+.2f} dB'}")
        print("  " + ", ".join(f"{k} {v:.2f}" for k, v in entry.items() if isinstance(v, float)))


if __name__ == "__main__":
    main()

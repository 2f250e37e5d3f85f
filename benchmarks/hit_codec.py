"""The trade of Xiao & Bamler (ICLR 2023), put to the codec: what do files tell about classes?

    python benchmarks/hit_codec.py PICTURES.npz OUT [--pictures N] [--bytes 120,240] [--workers N]

Small pictures with labels (CIFAR-10) become real .hvc files under rate weights that favour coarse or
fine layers, at equal mean bytes: lambda is searched for each. Then classifiers see what was decoded:
the latents of the coarse layers (`hvcodec.latents`, without a picture), of all layers, and the pixels;
and PSNR says what the pixels are worth otherwise. Accuracy is by 5-fold cross-validation.
A point of the experiment is one file in OUT, and is not measured again.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import joblib
import matplotlib
import numpy as np
from metrics import psnr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import hvcodec
from hvcodec import files
from hvcodec.errors import HvcError, UsageError
from hvcodec.ladder import NAMES
from hvcodec.steps import LAMBDA_RANGE

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COARSE = 4  # layers z7 to z4: the means of 8x8 blocks, and of larger ones
TILTS = (-2, -1, 0, 1, 2)  # log2 of beta of the fine layers, and less log2 of it of the coarse ones
PROBE, TRIES = 64, 12  # pictures by which lambda is found, and how often at most
CLOSE, FAR = 0.005, 0.02  # from the mean bytes that are wanted: near enough to stop, too far to compare
KINDS: dict[str, Callable] = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)),
    "rbf-svm": lambda: make_pipeline(StandardScaler(), SVC(C=3)),
}


def weights(tilt: float) -> dict[str, float]:
    """Rate weights that make coarse layers cheap (tilt above 0) or dear."""
    return {name: 2.0 ** (-tilt if k < COARSE else tilt) for k, name in enumerate(NAMES)}


def find_lambda(pictures: np.ndarray, tilt: float, target: float) -> float:
    """lambda at which files have about this many bytes in the mean, over the first pictures.

    Raises:
        UsageError: there is none.
    """
    low, high = (math.log(v) for v in LAMBDA_RANGE)
    tried: dict[float, float] = {}
    for _ in range(TRIES):
        lam = math.exp((low + high) / 2)
        sizes = [len(hvcodec.encode(p, lam=lam, rate_weights=weights(tilt))) for p in pictures[:PROBE]]
        tried[lam] = float(np.mean(sizes))
        if abs(tried[lam] / target - 1) < CLOSE:
            break
        low, high = (low, math.log(lam)) if tried[lam] > target else (math.log(lam), high)
    # The sizes of small files jump, since their layers' steps do.
    nearest = min(tried, key=lambda lam: abs(tried[lam] - target))
    if abs(tried[nearest] / target - 1) > FAR:
        raise UsageError(
            f"at tilt {tilt:+g} files of {target:g} bytes are not found, the nearest have "
            f"{tried[nearest]:.1f}"
        )
    return nearest


def accuracies(features: np.ndarray, labels: np.ndarray) -> dict[str, list[int]]:
    """Which pictures each kind of classifier gets right, 0 or 1 each."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return {
        name: (cross_val_predict(make(), features, labels, cv=folds) == labels).astype(int).tolist()
        for name, make in KINDS.items()
    }


def point(pictures: np.ndarray, labels: np.ndarray, tilt: float, target: float, path: Path) -> None:
    """Measure one tilt at one size."""
    if path.exists():
        return
    with threadpool_limits(1):
        lam = find_lambda(pictures, tilt, target)
        rows: dict[str, list] = {name: [] for name in ("coarse", "latents", "pixels")}
        sizes, coarse_sizes, quality = [], [], []
        for picture in pictures:
            data = hvcodec.encode(picture, lam=lam, rate_weights=weights(tilt))
            z = hvcodec.latents(data)
            back = np.asarray(hvcodec.decode(data))
            # Those of the file cut there, too.
            rows["coarse"].append(np.concatenate([z[n].ravel() for n in NAMES[:COARSE]]))
            rows["latents"].append(np.concatenate([z[n].ravel() for n in NAMES]))
            rows["pixels"].append(back.ravel())
            sizes.append(len(data))
            coarse_sizes.append(hvcodec.info(data)["cut_points"][COARSE - 1])
            quality.append(psnr(picture, back))
        found = {
            "tilt": tilt,
            "lambda": lam,
            "target": target,
            "bytes": float(np.mean(sizes)),
            "coarse_bytes": float(np.mean(coarse_sizes)),
            "psnr": float(np.mean(quality)),
            "pictures": len(pictures),
            "right": {name: accuracies(np.array(f, np.float32), labels) for name, f in rows.items()},
        }
    files.write(path, json.dumps(found).encode())


def lead(a: dict, b: dict, name: str, kind: str) -> tuple[float, float]:
    """Accuracy of one point over another, and its standard error over the same pictures."""
    difference = np.subtract(a["right"][name][kind], b["right"][name][kind])
    return float(difference.mean()), float(difference.std() / math.sqrt(len(difference)))


def table(points: list[dict]) -> str:
    lines = [
        "| bytes | coarse layers' bytes | tilt | PSNR, dB | coarse layers | all layers | pixels "
        "| coarse, over no tilt |",
        "| --- " * 8 + "|",
    ]
    flat = {p["target"]: p for p in points if p["tilt"] == 0}
    for p in sorted(points, key=lambda p: (p["target"], p["tilt"])):
        cells = [" / ".join(f"{100 * np.mean(v):.1f}" for v in r.values()) for r in p["right"].values()]
        gains = [lead(p, flat[p["target"]], "coarse", kind) for kind in KINDS]
        last = " / ".join(f"{100 * m:+.1f} ({100 * e:.1f})" for m, e in gains)
        lines.append(
            f"| {p['bytes']:.1f} | {p['coarse_bytes']:.1f} | {p['tilt']:+g} | {p['psnr']:.2f} | "
            f"{' | '.join(cells)} | {last} |"
        )
    return "\n".join([*lines, f"Accuracy in percent: {', '.join(KINDS)}; standard errors in brackets."])


def plot(points: list[dict], path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5))
    for target in sorted({p["target"] for p in points}):
        row = sorted((p for p in points if p["target"] == target), key=lambda p: p["tilt"])
        tilts = [p["tilt"] for p in row]
        label = f"{np.mean([p['bytes'] for p in row]):.0f} bytes"
        axes[0].plot(tilts, [p["psnr"] for p in row], marker=".", label=label)
        for ax, name in zip(axes[1:], ("coarse", "pixels")):
            right = [100 * np.mean(p["right"][name]["rbf-svm"]) for p in row]
            ax.plot(tilts, right, marker=".", label=label)
    names = ("PSNR, dB", "accuracy from coarse latents, %", "accuracy from pixels, %")
    for ax, name in zip(axes, names):
        ax.set(xlabel="tilt: coarse layers dear (-) or cheap (+)", ylabel=name)
        ax.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--bytes", default="120,240")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    file = np.load(arguments.source)
    pictures, labels = file["x"][: arguments.pictures], file["y"][: arguments.pictures]
    arguments.out.mkdir(parents=True, exist_ok=True)
    # No tilt first: the others are compared with it.
    order = [(t, float(b)) for b in arguments.bytes.split(",") for t in sorted(TILTS, key=abs)]
    paths = [arguments.out / f"{b:g}-bytes-tilt{t:+g}-{len(pictures)}.json" for t, b in order]
    jobs = (joblib.delayed(point)(pictures, labels, t, b, path) for (t, b), path in zip(order, paths))
    work = joblib.Parallel(arguments.workers, return_as="generator_unordered")
    try:
        for _ in tqdm(work(jobs), total=len(order), desc="points"):
            pass
    except HvcError as error:
        sys.exit(str(error))
    points = [json.loads(path.read_text()) for path in paths]
    print(table(points))
    plot(points, arguments.out / "codec.png")


if __name__ == "__main__":
    main()

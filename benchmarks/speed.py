"""Speed and memory: seconds to encode and decode, symbols per second, peak memory, cost against pixels.

    python benchmarks/speed.py PICTURES OUT.json [--threads N] [--model FILE]

In process, after a warm-up, on the pictures of a folder; then on one of them scaled to several sizes up
to 100 megapixels, each in a process of its own for its peak memory; then the commands with all their
imports. Machines are noisy: medians, with the spread beside them.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import hvcodec
from hvcodec import parallel
from hvcodec.ladder import LAYERS

SIDES = ((384, 256), (768, 512), (1536, 1024), (3072, 2048), (6000, 4000), (10000, 10000))
REPEATS = 5
LARGE = 5e6  # pixels above which once is enough


def timed(
    pixels: np.ndarray, model: str | None, repeats: int, weights: str = "balanced"
) -> dict[str, list[float]]:
    """Seconds of several encodes and decodes, after a small one that loads what is needed."""
    seconds: dict[str, list[float]] = {"encode": [], "decode": []}
    hvcodec.decode(hvcodec.encode(pixels[:256, :256], model=model), model=model)
    for _ in range(repeats):
        start = time.perf_counter()
        data = hvcodec.encode(pixels, rate_weights=weights, model=model)
        middle = time.perf_counter()
        hvcodec.decode(data, model=model)
        seconds["encode"].append(middle - start)
        seconds["decode"].append(time.perf_counter() - middle)
    return seconds


def summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def symbols(width: int, height: int) -> int:
    """Latent coefficients of a picture."""
    return sum(
        la.channels * -(-width // 64) * -(-height // 64) * (64 // la.stride) ** 2 for la in LAYERS
    )


def one_size(path: Path, size: tuple[int, int], model: str | None) -> dict:
    """Time and peak memory of this process at one size."""
    width, height = size
    pixels = np.asarray(Image.open(path).convert("RGB").resize((width, height)))
    seconds = timed(pixels, model, 3 if width * height < LARGE else 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "megapixels": width * height / 1e6,
        "encode_s": summary(seconds["encode"]),
        "decode_s": summary(seconds["decode"]),
        "decode_symbols_per_s": round(symbols(width, height) / min(seconds["decode"])),
        "peak_bytes": peak,
    }


def commands(path: Path, model: str | None, threads: int) -> dict:
    """Whole commands, imports included."""
    chosen = ["--model", model] if model else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        stream, back = Path(folder) / "a.hvc", Path(folder) / "a.png"
        words = {
            "encode": ["encode", path, "-o", stream, *chosen],
            "decode": ["decode", stream, "-o", back, *chosen],
            "info": ["info", stream],
        }
        found = {}
        for name, arguments in words.items():
            values = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                command = [sys.executable, "-m", "hvcodec", *map(str, arguments)]
                subprocess.run(command, check=True, capture_output=True, env=environment)
                values.append(time.perf_counter() - start)
            found[name] = summary(values)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model")
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    parallel.WORKERS = arguments.threads
    paths = sorted(arguments.pictures.glob("*.png"))
    if arguments.size:
        print(json.dumps(one_size(paths[0], arguments.size, arguments.model)))
        return
    pictures: dict[str, dict[str, dict[str, float]]] = {}
    for weights in ("balanced", "progressive"):
        every: dict[str, list[float]] = {"encode": [], "decode": []}
        for path in paths:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            for key, values in timed(pixels, arguments.model, 2, weights).items():
                every[key].append(min(values))
        pictures[weights] = {key: summary(values) for key, values in every.items()}
    sizes = []
    for width, height in SIDES:
        command = [sys.executable, __file__, str(arguments.pictures), str(arguments.out)]
        command += ["--threads", str(arguments.threads), "--size", str(width), str(height)]
        command += ["--model", arguments.model] if arguments.model else []
        sizes.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        print(sizes[-1], file=sys.stderr)
    result = {
        "machine": f"{platform.processor() or platform.machine()}, {arguments.threads} threads",
        "numpy": np.__version__,
        "pictures": pictures,
        "sizes": sizes,
        "commands": commands(paths[0], arguments.model, arguments.threads),
    }
    arguments.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

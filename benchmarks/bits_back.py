"""What side information with bits-back saves: files with and without, same model, same pictures.

    python benchmarks/bits_back.py PICTURES OUT [--qualities 20,50,80] [--model FILE]

Both files of a picture come back through the decoder; PSNR differs a little, for signs in parities
move symbols. Also the price of cuts: what a prefix with side information takes beside one without,
for the loan that is open there. A quality of `lossless` stands for a whole lossless file. Writes
`bits_back.json` and prints a table.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
from metrics import psnr
from PIL import Image
from tqdm import tqdm

import hvcodec

KINDS = {"without": False, "with": True}


def measure(pixels: np.ndarray, quality: str, model: str | None) -> dict:
    """Bytes at every cut, PSNR, and seconds, without and with."""
    settings = {"lossless": True} if quality == "lossless" else {"quality": float(quality)}
    found: dict = {"pixels": pixels.shape[0] * pixels.shape[1]}
    for name, bits_back in KINDS.items():
        encode = partial(hvcodec.encode, pixels, model=model, bits_back=bits_back, **settings)
        start = time.perf_counter()
        data = encode()
        middle = time.perf_counter()
        picture = np.asarray(hvcodec.decode(data, model=model))
        end = time.perf_counter()
        if quality == "lossless" and not np.array_equal(picture, pixels):
            raise SystemExit("a lossless file is not")
        found[name] = {
            "psnr": psnr(picture, pixels),
            "cut_points": hvcodec.info(data)["cut_points"],
            "encoding_time": middle - start,
            "decoding_time": end - middle,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--qualities", default="20,50,80")
    parser.add_argument("--model")
    options = parser.parse_args()
    names = sorted(p for p in options.pictures.iterdir() if p.suffix in (".png", ".webp"))
    results: dict = {}
    lines = ["quality     bytes without   with   saved   dB   at cuts   encode s   decode s (medians)"]
    for quality in options.qualities.split(","):
        each = results[quality] = {}
        for path in tqdm(names, desc=quality):
            pixels = np.asarray(Image.open(path).convert("RGB"))
            each[path.stem] = measure(pixels, quality, options.model)
        cuts = {k: np.sum([p[k]["cut_points"] for p in each.values()], 0) for k in KINDS}
        saved = 100 * (cuts["with"] / cuts["without"] - 1)
        gained = np.mean([p["with"]["psnr"] - p["without"]["psnr"] for p in each.values()])
        times = [
            " / ".join(f"{np.median([p[k][t] for p in each.values()]):.2f}" for k in KINDS)
            for t in ("encoding_time", "decoding_time")
        ]
        lines.append(
            f"{quality:9} {cuts['without'][-1]:10} {cuts['with'][-1]:10} {saved[-1]:+.2f} %  "
            f"{gained:+.3f}  {', '.join(f'{s:+.1f}' for s in saved[:-1])}  {times[0]}  {times[1]}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bits_back.json").write_text(json.dumps(results, indent=1))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

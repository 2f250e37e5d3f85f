"""Lossless files of every codec side by side: bytes, and seconds to encode and decode.

    python benchmarks/lossless.py PICTURES OUT [--model FILE] [--qualities 68,...]

Every picture comes back through every decoder and must be the same, pixel by pixel. Writes
`lossless.json` and prints a table; sizes are of whole files, in bits per sample of 8 bits.
"""

import argparse
import json
import time
from pathlib import Path

import imagecodecs
import numpy as np
from contenders import Codec, lossless_contenders
from PIL import Image
from tqdm import tqdm

from hvcodec.encoder import LOSSLESS_QUALITY


def measure(codec: Codec, pictures: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Bytes, samples and seconds of every picture."""
    found = {}
    for name, pixels in tqdm(pictures.items(), desc=codec.name):
        start = time.perf_counter()
        data = codec.encode(pixels, codec.settings[0])
        middle = time.perf_counter()
        back = codec.decode(data)
        end = time.perf_counter()
        if not np.array_equal(back, pixels):
            raise SystemExit(f"{codec.name} did not give {name} back")
        found[name] = {
            "bytes": len(data),
            "samples": pixels.size,
            "encoding_time": middle - start,
            "decoding_time": end - middle,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--qualities", default=f"{LOSSLESS_QUALITY:g}", help="of the lossy part")
    options = parser.parse_args()
    names = sorted(p for p in options.pictures.iterdir() if p.suffix in (".png", ".webp"))
    pictures = {p.stem: np.asarray(Image.open(p).convert("RGB")) for p in names}
    qualities = [float(q) for q in options.qualities.split(",")]
    results: dict[str, dict] = {}
    for codec in lossless_contenders(options.model, qualities):
        each = measure(codec, pictures)
        sums = {key: sum(p[key] for p in each.values()) for key in next(iter(each.values()))}
        results[codec.name] = {"about": codec.about, "sum": sums, "pictures": each}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "lossless.json").write_text(json.dumps(results, indent=1))
    ours = results[next(iter(results))]["sum"]["bytes"]
    print(f"{len(pictures)} pictures, imagecodecs {imagecodecs.__version__}")
    print("codec            bits/sample  hvcodec is  encode s  decode s  (per picture)")
    for name, result in results.items():
        total, count = result["sum"], len(pictures)
        print(
            f"{name:16} {8 * total['bytes'] / total['samples']:11.4f} "
            f"{100 * (ours / total['bytes'] - 1):+9.2f} % "
            f"{total['encoding_time'] / count:9.2f} {total['decoding_time'] / count:9.2f}"
        )


if __name__ == "__main__":
    main()

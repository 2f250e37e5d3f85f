"""Speed of the browser page: seconds from a file's bytes to its pictures, in headless Chromium.

    bin/web dev
    python benchmarks/browser.py PICTURES OUT.json [--count N]

Opens files of a folder's first pictures from disk, one after the other, in a page that has shown its
example, so that its model is there; and one in a page that has nothing yet, as `hvcodec view` does. The
Python decoder's seconds beside them tell how busy the machine was.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

import hvcodec
from hvcodec import view

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import chromium

KINDS: dict[str, dict[str, Any]] = {
    "balanced": {"quality": 50},
    "progressive": {"quality": 70, "rate_weights": "progressive"},
    "lossless": {"lossless": True},
}
# Notes when each picture is shown, in ms after the file was chosen.
WATCH = """() => {
  const note = () => { window.chosen = performance.now(); window.times = {}; };
  document.getElementById("file").addEventListener("change", note, true);
  new MutationObserver(() => {
    const { shown } = document.body.dataset;
    if (shown) window.times[shown] ??= performance.now() - window.chosen;
  }).observe(document.body, { attributes: true });
}"""


def sizes() -> dict[str, int]:
    """Bytes that a browser fetches: the page with its runtime, and each model."""
    folder = view.folder()
    models = folder / "models"
    page = [p for p in folder.rglob("*") if p.is_file() and models not in p.parents]
    found = {"page": sum(p.stat().st_size for p in page)}
    for model in sorted(models.iterdir()):
        found[model.name] = sum(p.stat().st_size for p in model.iterdir())
    return found


def times(page: Any, path: Path) -> dict[str, float]:
    """Seconds until the first and the last picture of a file are shown, and for Python's decoder."""
    data = path.read_bytes()
    layers = len(hvcodec.info(data)["layers"])
    page.set_input_files("#file", path)
    chromium.wait_for(page, str(layers))
    shown = page.evaluate("() => window.times")
    start = time.perf_counter()
    hvcodec.decode(data)
    python = time.perf_counter() - start
    return {"preview": shown["preview 1"] / 1000, "whole": shown[str(layers)] / 1000, "python": python}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=6, help="pictures (default 6)")
    arguments = parser.parse_args()
    pictures = sorted(arguments.pictures.glob("*.png"))[: arguments.count]
    found = chromium.find()
    if found is None:
        sys.exit("no Chromium: neither the machine's nor npm's (bin/web dev)")
    result: dict[str, Any] = {"bytes": sizes()}
    with tempfile.TemporaryDirectory() as folder, chromium.launched(found) as browser:
        files = {kind: [Path(folder, f"{kind}-{p.stem}.hvc") for p in pictures] for kind in KINDS}
        for kind, options in KINDS.items():
            for picture, path in zip(pictures, files[kind]):
                path.write_bytes(hvcodec.encode(Image.open(picture), **options))
        result["chromium"] = browser.version
        start = time.perf_counter()
        with chromium.viewed(browser, files["balanced"][0].read_bytes()) as page:
            chromium.wait_for(page, "7")
            result["from nothing"] = round(time.perf_counter() - start, 2)
        with chromium.viewed(browser) as page:
            chromium.wait_for(page, "15")
            page.evaluate(WATCH)
            for kind, paths in files.items():
                every = [times(page, path) for path in paths]
                result[kind] = {
                    name: {
                        "first": round(every[0][name], 2),
                        "median": round(statistics.median(t[name] for t in every), 2),
                        "min": round(min(t[name] for t in every), 2),
                        "max": round(max(t[name] for t in every), 2),
                    }
                    for name in every[0]
                }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

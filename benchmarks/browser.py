"""Speed of the browser page: seconds from a file's bytes to its pictures, in headless Chromium.

    bin/web dev
    python benchmarks/browser.py PICTURES OUT.json [--count N]

Opens the files of a folder's first pictures from disk, one after the other, in a page that has its model;
and one more in a page that has nothing yet, as `hvcodec view` does. Prints medians.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import hvcodec
from hvcodec import view

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import chromium

KINDS = {
    "balanced": {"quality": 50},
    "progressive": {"quality": 70, "rate_weights": "progressive"},
    "lossless": {"lossless": True},
}
# Notes when each picture is shown, in ms after the file was chosen.
WATCH = """() => {
  window.times = {};
  document.getElementById("file").addEventListener("change", () => (window.chosen = performance.now()), true);
  new MutationObserver(() => {
    const { shown } = document.body.dataset;
    if (shown) window.times[shown] ??= performance.now() - window.chosen;
  }).observe(document.body, { attributes: true });
}"""


def size_of_page() -> dict[str, int]:
    """Bytes that a browser fetches: the page and its runtime, and each model."""
    folder = view.folder()
    models = folder / "models"
    sizes = {
        "page": sum(
            p.stat().st_size for p in folder.rglob("*") if p.is_file() and models not in p.parents
        )
    }
    for model in sorted(p for p in models.iterdir() if p.is_dir()):
        sizes[model.name] = sum(p.stat().st_size for p in model.iterdir())
    return sizes


def times(page, path: Path) -> dict[str, float]:
    """Seconds until each picture of a file is shown."""
    page.evaluate("() => { window.times = {}; }")
    page.set_input_files("#file", path)
    layers = len(hvcodec.info(path.read_bytes())["layers"])
    chromium.wait_for(page, str(layers))
    shown = page.evaluate("() => window.times")
    return {"preview": shown["preview 1"] / 1000, "whole": shown[str(layers)] / 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=6, help="pictures (default 6)")
    arguments = parser.parse_args()
    pictures = sorted(arguments.pictures.glob("*.png"))[: arguments.count]
    found = chromium.find()
    if found is None:
        sys.exit("no Chromium: neither the machine's nor npm's (bin/web dev)")
    result: dict = {"bytes": size_of_page()}
    with tempfile.TemporaryDirectory() as folder, chromium.launched(found) as browser:
        files = {kind: [Path(folder, f"{kind}-{p.stem}.hvc") for p in pictures] for kind in KINDS}
        for kind, options in KINDS.items():
            for picture, path in zip(pictures, files[kind]):
                path.write_bytes(
                    hvcodec.encode(hvcodec.picture.open_picture(picture.read_bytes()), **options)
                )
        start = time.perf_counter()
        with chromium.viewed(browser, files["balanced"][0].read_bytes()) as page:
            chromium.wait_for(page, "7")
            result["hvcodec view"] = {"whole": round(time.perf_counter() - start, 2)}
        start = time.perf_counter()
        with chromium.viewed(browser) as page:
            page.evaluate(WATCH)
            page.wait_for_selector("body[data-ready]")
            result["model ready"] = round(time.perf_counter() - start, 2)
            result["threads"] = page.evaluate(
                "() => crossOriginIsolated && navigator.hardwareConcurrency"
            )
            for kind, paths in files.items():
                all_times = [times(page, path) for path in paths]
                result[kind] = {
                    name: {
                        "first": round(all_times[0][name], 2),
                        "median": round(statistics.median(t[name] for t in all_times), 2),
                        "max": round(max(t[name] for t in all_times), 2),
                    }
                    for name in ("preview", "whole")
                }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

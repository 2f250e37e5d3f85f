"""The page of all that was measured, from made-up numbers and a picture that is shipped."""

import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import gradient

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import crops
import report
from contenders import Codec

RATES = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]


def points(psnr, ms_ssim, seconds):
    """Of curves through these qualities in dB at 1 bpp."""
    octaves = [math.log2(rate) for rate in RATES]
    return {
        "bpp": RATES,
        "psnr-rgb": [psnr + 3.4 * n for n in octaves],
        "ms-ssim-rgb": [1 - 10 ** -((ms_ssim + 3 * n) / 10) for n in octaves],
        "encoding_time": [seconds] * len(RATES),
        "decoding_time": [seconds] * len(RATES),
    }


# Far above the published curves; behind AVIF by MS-SSIM only; slower than JPEG only.
CODECS = {
    "hvcodec": points(42, 19, 1.0),
    "jpeg": points(36, 15, 0.01),
    "webp": points(37, 16, 2.0),
    "avif": points(39, 20, 2.0),
    "jpegxl": points(38, 17, 2.0),
}
LOSSLESS = {"hvcodec": 900, "webp": 1000, "jpegxl e7": 800}


@pytest.fixture
def results(tmp_path):
    """A folder of results; speed.json is missing."""
    for name, found in CODECS.items():
        result = {"name": name, "description": "<made up>", "settings": [1], "results": found}
        (tmp_path / f"{name}.json").write_text(json.dumps(result | {"pictures": {"photo.png": found}}))
    curve = list(zip(RATES, CODECS["hvcodec"]["psnr-rgb"]))
    lag = {"mean_behind_dB": -0.25, "worst_behind_dB": -0.5, "worst_behind_dB_per_picture": -1.0}
    cuts = {"cuts": curve, "price_at_full_rate_percent": -1.0} | lag
    one = {"own": curve, "quality": 60, "weights": {"progressive": cuts}, "rivals": {"x": curve}}
    (tmp_path / "progressive.json").write_text(json.dumps(one))
    layer = {"rate": [2, 1], "total": [3, 2], "psnr": [31, 30]}
    own = {"betas": [0.5, 2], "falls": 3, "pairs": 4, "layers": {"z7": layer, "r1": layer}}
    moved = {"moves": 2, "largest_gain_percent": 0.5, "gains": [0.1, 0.5]}
    traded = {"lambda": 0.01, "own_rate": own, "best_steps": moved}
    (tmp_path / "trading.json").write_text(json.dumps(traded))
    times = {"samples": 3000, "encoding_time": 1, "decoding_time": 1}
    lossless = {
        name: {"about": "", "sum": {"bytes": size} | times, "pictures": {"photo": {}}}
        for name, size in LOSSLESS.items()
    }
    (tmp_path / "lossless.json").write_text(json.dumps(lossless))
    return tmp_path


class Page(HTMLParser):
    """What a page loads and links to, its ids, and its tables by the id of the heading before."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.ids = [], [], []
        self.tables = {}
        self.cell = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "srcset", "data") or (name == "href" and tag != "a"):
                self.loads.append(value)
            elif name == "href":
                self.links.append(value)
            elif name == "id":
                self.ids.append(value)
        if tag == "tr":
            self.tables.setdefault(self.ids[-1] if self.ids else "", []).append([])
        self.cell = "" if tag in ("td", "th") else self.cell

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[self.ids[-1]][-1].append(self.cell.strip())
            self.cell = None


def test_the_page(results, photo, monkeypatch):
    monkeypatch.setattr(crops, "ROUNDS", 1)
    photo.crop((0, 0, 256, 192)).save(results / "photo.png")
    text = report.build(results, results)
    page = Page(text)
    # It loads nothing: all is embedded, and links stay in it.
    assert "http:" not in text and "https:" not in text and "<script" not in text
    loads = page.loads + re.findall(r"url\(\W?([^)]*)", text)
    assert len(loads) > 30 and all(load.startswith("data:image/") for load in loads)
    sections = ["losses", "pictures", "curves", "table", "progressive", "trading", "lossless", "speed"]
    assert page.links == [f"#{name}" for name in [*sections, "how"]]
    assert {*sections, "how"} < set(page.ids)
    # It says where hvcodec loses, and only there.
    assert page.tables["losses"][1:] == [
        ["AVIF", "bits for the same MS-SSIM", "+26.0 %"],  # 1 dB, at 3 dB an octave
        ["AVIF", "pictures by MS-SSIM (BD-rate)", "1 of 1"],
        ["JPEG", "seconds to encode and to decode", "100 times and 100 times"],
        ["jpegxl e7, lossless", "bytes of lossless files", "+12.5 %"],
        [
            "hvcodec's own file for each size",
            "PSNR at cuts of one file (progressive)",
            "0.25 dB, at worst 0.50 dB",
        ],
    ]
    assert len(page.tables["table"]) == 1 + len(CODECS) - 1 + 5
    assert "benchmarks/speed.py PICTURES OUT.json</code> writes it" in text
    assert "&lt;made up&gt;" in text and "<made up>" not in text


def test_results_that_are_missing(results):
    (results / "avif.json").unlink()
    with pytest.raises(SystemExit, match="no results of avif"):
        report.load(results)


def test_pictures_are_chosen_by_the_numbers():
    def codec(**pictures):
        return {"pictures": {name: points(*found, 1) for name, found in pictures.items()}}

    found = crops.choose(
        {
            "hvcodec": codec(a=(34, 15), b=(35, 16), c=(36, 17)),
            "jpeg": codec(a=(30, 12), b=(30, 12), c=(30, 12)),
            "webp": codec(a=(30, 12), b=(30, 12), c=(38, 12)),
            "avif": codec(a=(33, 12), b=(33, 18), c=(33, 12)),
            "jpegxl": codec(a=(30, 12), b=(30, 12), c=(30, 12)),
        }
    )
    assert [(c.rival, c.picture, round(c.lead, 6)) for c in found] == [
        ("avif", "b", -2),
        ("webp", "c", -2),
        ("avif", "b", 2),
        ("avif", "c", 3),
    ]
    assert all(0.15 <= c.bpp <= 2 for c in found)


@pytest.mark.parametrize(("size", "made"), [(555, 550), (5000, 990), (35, 100)])
def test_files_of_equal_bytes(size, made):
    codec = Codec("x", "", (10, 100), lambda pixels, q: bytes(10 * int(q)), lambda data: None)
    assert len(crops.fit(codec, np.zeros((8, 8, 3), np.uint8), size)) == made


def test_the_crop_shows_where_hvcodec_is_worst():
    original = gradient(640, 512)
    worse, better = original ^ 1, original ^ 1
    worse[300:400, 500:600] ^= 8
    better[0:100, 0:100] ^= 8
    choice = crops.Choice("", "avif", "", 1.0, 0.0, crops.psnr)
    found = {
        name: crops.Shot(name, pixels, 1, 1.0, 1.0, 1.0)
        for name, pixels in (("hvcodec", worse), ("avif", better))
    }
    rows, columns = crops.worst_place(choice, original, found)
    assert rows.start <= 300 and rows.stop >= 400
    assert columns.start <= 500 and columns.stop >= 600

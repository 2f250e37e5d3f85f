"""Golden files: `python tests/make_golden.py` adds those of `FILES` that are not there yet.

A golden file is never made again: it was written by an older hvcodec, and every later one must decode
it to the same symbols and pixels (`test_golden.py`). New features and new models get new files.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

import hvcodec
from hvcodec import ans, container, encoder

FOLDER = Path(__file__).parent / "golden"
INDEX = FOLDER / "golden.json"


def hashes(data: bytes) -> dict[str, str]:
    """SHA-256 of all symbols in the order of decoding, and of the picture's mode, size and pixels."""
    symbols = hashlib.sha256()
    pop = ans.Stack.pop

    def noted(self, *arguments):
        found = pop(self, *arguments)
        symbols.update(np.asarray(found, "<i4").tobytes())
        return found

    with mock.patch.object(ans.Stack, "pop", noted):
        image = hvcodec.decode(data)
    pixels = hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode() + image.tobytes())
    return {"symbols": symbols.hexdigest(), "pixels": pixels.hexdigest()}


def _photo() -> Image.Image:
    return Image.open(Path(__file__).parent / "pictures" / "parrots.png").convert("RGB")


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


def _with_metadata() -> bytes:
    grey = _photo().crop((60, 60, 125, 100)).convert("L")
    grey.putalpha(Image.linear_gradient("L").resize(grey.size))
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "parrots"
    grey.save(buffer, "PNG", exif=exif, icc_profile=b"not a real profile")
    return hvcodec.encode(Image.open(io.BytesIO(buffer.getvalue())), 40)


def _tiled(weights: str, lossless: bool = False, quality: float = 35) -> bytes:
    with mock.patch.object(container, "tile_size", lambda width, height: 64):
        return hvcodec.encode(_photo().crop((100, 50, 230, 180)), quality, weights, lossless=lossless)


def _tiled_and_restored() -> bytes:
    with (
        mock.patch.object(container, "tile_size", lambda width, height: 128),
        mock.patch.object(encoder, "WINDOW", 32),
    ):
        return hvcodec.encode(_crop(250, 180), 70)


def _crop(width: int, height: int) -> Image.Image:
    return _photo().crop((120, 40, 120 + width, 40 + height))


FILES: dict[str, Callable[[], bytes]] = {
    "plain": lambda: hvcodec.encode(_crop(200, 150), 50),
    "coarse": lambda: hvcodec.encode(_photo(), 0),
    "fine": lambda: hvcodec.encode(_crop(40, 50), 100),
    "noise": lambda: hvcodec.encode(_noise(33, 17), 100),
    "black-and-white": lambda: hvcodec.encode(Image.fromarray(np.eye(70, dtype=np.uint8) * 255), 80),
    "one-pixel": lambda: hvcodec.encode(_crop(1, 1), 50),
    "one-row": lambda: hvcodec.encode(_crop(190, 1), 60),
    "grey-alpha-metadata": _with_metadata,
    "weights": lambda: hvcodec.encode(_crop(100, 100), 50, {"z7": 0.125, "z4": 8, "z2": 0.5}),
    "layers-off": lambda: hvcodec.encode(_crop(100, 100), 60, {"z1": math.inf, "z5": math.inf}),
    "nothing": lambda: hvcodec.encode(
        _crop(70, 70), 60, dict.fromkeys(map("z{}".format, range(1, 8)), math.inf)
    ),
    "cut": lambda: hvcodec.cut(hvcodec.encode(_crop(200, 150), 60), layers=5),
    "progressive": lambda: hvcodec.encode(_crop(130, 100), 66, "progressive"),
    "progressive-cut": lambda: hvcodec.cut(
        hvcodec.encode(_crop(130, 100), 66, "progressive"), layers=10
    ),
    "tiles": lambda: _tiled("balanced"),
    "tiles-progressive": lambda: _tiled("progressive"),
    # The second model to be shipped, and the lossless layer.
    "photo4": lambda: hvcodec.encode(_crop(200, 150), 50),
    "photo4-progressive": lambda: hvcodec.encode(_crop(130, 100), 66, "progressive"),
    "photo4-tiles": lambda: _tiled("balanced"),
    "lossless": lambda: hvcodec.encode(_crop(101, 67), lossless=True),
    "lossless-noise": lambda: hvcodec.encode(_noise(33, 17), 20, lossless=True),
    "lossless-grey": lambda: hvcodec.encode(_crop(60, 51).convert("L"), lossless=True),
    "lossless-one-pixel": lambda: hvcodec.encode(_crop(1, 1), lossless=True),
    "lossless-progressive": lambda: hvcodec.encode(_crop(70, 70), 60, "progressive", lossless=True),
    "lossless-cut": lambda: hvcodec.cut(hvcodec.encode(_crop(100, 80), lossless=True), layers=7),
    "lossless-tiles": lambda: _tiled("balanced", lossless=True),
    # Side information with bits-back.
    "bits-back": lambda: hvcodec.encode(_crop(250, 180), 50),
    "bits-back-fine": lambda: hvcodec.encode(_crop(100, 130), 95),
    "bits-back-coarse": lambda: hvcodec.encode(_photo(), 12),
    "bits-back-cut": lambda: hvcodec.cut(hvcodec.encode(_crop(200, 150), 60), layers=5),
    "bits-back-refined": lambda: hvcodec.encode(_crop(250, 180), 80, {"r1": 1}),
    "bits-back-tiles": lambda: _tiled("balanced", quality=80),
    "bits-back-lossless": lambda: hvcodec.encode(_crop(101, 67), lossless=True),
    # With latents of channels.
    "channels": lambda: hvcodec.encode(_crop(250, 180), 50),
    "channels-fine": lambda: hvcodec.encode(_crop(150, 130), 95),
    "channels-coarse": lambda: hvcodec.encode(_photo(), 12),
    "channels-noise": lambda: hvcodec.encode(_noise(80, 100), 60),
    "channels-cut": lambda: hvcodec.cut(hvcodec.encode(_crop(200, 150), 60), layers=5),
    "channels-refined": lambda: hvcodec.encode(_crop(250, 180), 80, {"r1": 1}),
    "channels-tiles": lambda: _tiled("balanced", quality=80),
    "channels-lossless": lambda: hvcodec.encode(_crop(101, 67), lossless=True),
    # Ending in a filter of the picture.
    "restored": lambda: hvcodec.encode(_photo(), 70),
    "restored-fine": lambda: hvcodec.encode(_crop(173, 131), 92),
    "restored-progressive": lambda: hvcodec.encode(_crop(250, 180), 66, "progressive"),
    "restored-cut": lambda: hvcodec.cut(hvcodec.encode(_crop(250, 180), 80), layers=6),
    "restored-last-off": lambda: hvcodec.encode(_crop(250, 180), 60, {"z1": math.inf}),
    "restored-tiles": _tiled_and_restored,
    # The third model, which codes channels of z5 to z3 in groups.
    "photo5": lambda: hvcodec.encode(_crop(250, 180), 50),
    "photo5-coarse": lambda: hvcodec.encode(_photo(), 12),
    "photo5-fine": lambda: hvcodec.encode(_crop(150, 130), 95),
    "photo5-noise": lambda: hvcodec.encode(_noise(80, 100), 60),
    "photo5-progressive": lambda: hvcodec.encode(_crop(130, 100), 66, "progressive"),
    "photo5-cut": lambda: hvcodec.cut(hvcodec.encode(_crop(200, 150), 60), layers=4),
    "photo5-layers-off": lambda: hvcodec.encode(_crop(100, 100), 60, {"z4": math.inf, "z5": math.inf}),
    "photo5-tiles": lambda: _tiled("balanced", quality=80),
    "photo5-lossless": lambda: hvcodec.encode(_crop(101, 67), lossless=True),
    # Signs in syndromes.
    "signs": lambda: hvcodec.encode(_crop(250, 180), 50),
    "signs-coarse": lambda: hvcodec.encode(_photo(), 12),
    "signs-fine": lambda: hvcodec.encode(_crop(150, 130), 95),
    "signs-noise": lambda: hvcodec.encode(_noise(80, 100), 60),
    "signs-cut": lambda: hvcodec.cut(hvcodec.encode(_crop(200, 150), 60), layers=5),
    "signs-tiles": lambda: _tiled("balanced", quality=80),
    "signs-lossless": lambda: hvcodec.encode(_crop(101, 67), lossless=True),
    # The same in the last level of refinement, and a filter at the end of each.
    "levels": lambda: hvcodec.encode(_crop(250, 180), 75, "progressive"),
    "levels-fine": lambda: hvcodec.encode(_crop(100, 130), 95, {"r3": 1}),
    "levels-cut": lambda: hvcodec.cut(hvcodec.encode(_crop(250, 180), 75, "progressive"), layers=12),
    "levels-tiles": lambda: _tiled("progressive", quality=70),
    "levels-lossless": lambda: hvcodec.encode(_crop(70, 70), 60, "progressive", lossless=True),
    # The fourth model; the format is as before.
    "photo6": lambda: hvcodec.encode(_crop(250, 180), 50),
    "photo6-fine": lambda: hvcodec.encode(_crop(90, 70), 95),
    "photo6-progressive": lambda: hvcodec.encode(_crop(130, 100), 66, "progressive"),
    "photo6-lossless": lambda: hvcodec.encode(_crop(51, 67), lossless=True),
    # The fifth, without the correction at stride 4.
    "photo7": lambda: hvcodec.encode(_crop(250, 180), 50),
    "photo7-fine": lambda: hvcodec.encode(_crop(90, 70), 95),
    "photo7-progressive": lambda: hvcodec.encode(_crop(130, 100), 66, "progressive"),
    "photo7-lossless": lambda: hvcodec.encode(_crop(51, 67), lossless=True),
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    index = json.loads(INDEX.read_text()) if INDEX.exists() else {}
    for name, make in FILES.items():
        if name not in index:
            data = make()
            (FOLDER / f"{name}.hvc").write_bytes(data)
            index[name] = hashes(data)
    INDEX.write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()

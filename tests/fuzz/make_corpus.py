"""Makes the corpus: small files of all kinds. `python tests/fuzz/make_corpus.py [FOLDER]`

Run it again whenever the shipped model changes: files name the model that they need. The pictures are
synthetic, so on one machine the files of one model are the same every time. Files that once failed, in
`found`, are kept, and name the new model from then on.
"""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from mutator import FIELDS, repair
from PIL import Image

import hvcodec
from hvcodec import container, modelfile

CORPUS = Path(__file__).parent / "corpus"
PROFILE = b"not a profile, but nothing looks inside"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def picture(width: int, height: int) -> Image.Image:
    """Slopes with an edge and a texture, RGB."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x * x + 7 * y) % 64 * 3]
    rgb = np.stack(planes, -1)
    rgb[(x - width // 2) ** 2 + (y - height // 2) ** 2 < width * height // 16] += 60
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8))


def with_alpha(image: Image.Image) -> Image.Image:
    """The picture, fading out downwards."""
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def with_metadata(image: Image.Image) -> Image.Image:
    """The picture with a profile, EXIF (with a part for cameras) and XMP."""
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769)[0x8827] = 200
    image.info |= {"exif": exif.tobytes(), "icc_profile": PROFILE, "xmp": XMP}
    return image


def tiled(image: Image.Image, quality: float, lossless: bool = False) -> bytes:
    """A file of the smallest tiles that a header can name; else only large pictures have tiles."""
    with mock.patch.object(container, "tile_size", lambda width, height: container.TILE_UNIT):
        return hvcodec.encode(image, quality, lossless=lossless)


def files() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every file."""
    encode = hvcodec.encode
    for quality in (0, 20, 50, 80, 100):
        yield f"quality-{quality}", encode(picture(32, 24), quality)
    yield "pixel", encode(picture(1, 1))
    yield "row", encode(picture(96, 1), 70)
    yield "two-blocks", encode(picture(96, 64), 40)
    yield "grey", encode(picture(40, 40).convert("L"), 60)
    yield "alpha", encode(with_alpha(picture(32, 32)), 60)
    yield "grey-alpha", encode(with_alpha(picture(20, 30).convert("L")), 30)
    yield "metadata", encode(with_metadata(picture(16, 16)), 50)
    yield "all-metadata", encode(with_alpha(with_metadata(picture(16, 16).convert("L"))), 90)
    for preset in ("preview-first", "detail-first"):
        yield preset, encode(picture(32, 32), 60, preset)
    yield "no-finest", encode(picture(32, 32), 80, {"z1": math.inf})
    yield "only-finest", encode(picture(32, 32), 80, {f"z{n}": math.inf for n in range(2, 8)})
    yield "one-level", encode(picture(32, 32), 70, {"r1": 1})
    progressive = encode(picture(32, 32), 80, "progressive")
    yield "progressive", progressive
    yield "progressive-cut", hvcodec.cut(progressive, layers=10)
    yield "cut", hvcodec.cut(encode(picture(64, 64), 60), layers=4)
    yield "coarsest", hvcodec.cut(encode(picture(64, 64), 60), layers=1)
    yield "tiles", tiled(picture(96, 80), 50)
    yield "lossless", encode(picture(33, 21), lossless=True)
    yield "bits-back", encode(picture(160, 128), 40)
    yield "bits-back-cut", hvcodec.cut(encode(picture(160, 128), 60), layers=5)
    yield "lossless-grey", encode(with_alpha(picture(20, 30).convert("L")), lossless=True)
    yield "lossless-progressive", encode(picture(16, 16), 50, "progressive", lossless=True)
    yield "lossless-tiles", tiled(picture(70, 20), 50, lossless=True)
    yield "tiles-cut", hvcodec.cut(tiled(picture(70, 100), 50), layers=5)


def renamed(data: bytes, model_id: str) -> bytes:
    """A file that names another model; its checks are right if they were."""
    at, size = FIELDS["model"]
    new = data[:at] + bytes.fromhex(model_id) + data[at + size :]
    return repair(new) if repair(data) == data else new


def main(folder: Path) -> None:
    """Write all files to a folder."""
    for name, data in files():
        (folder / f"{name}.hvc").write_bytes(data)
        print(f"{len(data):6} {name}")
    model_id = next(iter(modelfile.shipped()))
    for path in sorted((folder / "found").glob("*")):
        path.write_bytes(renamed(path.read_bytes(), model_id))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CORPUS)

"""The codecs that the benchmarks run side by side, all behind one face: bytes out, pixels back."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np
from PIL import Image

import hvcodec
from hvcodec import modelfile
from hvcodec.encoder import LOSSLESS_QUALITY


@dataclass(frozen=True)
class Codec:
    """One codec at a ladder of settings.

    Attributes:
        name: as in tables and files.
        about: library, version and options.
        settings: low to high quality.
        encode: (uint8 H x W x 3, setting) -> file.
        decode: file -> uint8 H x W x 3.
    """

    name: str
    about: str
    settings: tuple[float, ...]
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]


def _save(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _load(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _openjpeg(pixels: np.ndarray, bpp: float) -> bytes:
    ratio = 24 / bpp
    options = {"irreversible": True, "mct": 1, "quality_mode": "rates", "quality_layers": [ratio]}
    return _save(pixels, "JPEG2000", **options)


def _version(codec: str) -> str:
    return getattr(imagecodecs, f"{codec}_version")()


QUALITIES = (15, 22, 29, 36, 43, 50, 57, 64, 71, 78, 85)


def ours(
    model: str | None = None,
    effort: int = 0,
    tune: str = "psnr",
    qualities: tuple[float, ...] = (),
) -> Codec:
    """hvcodec, by default without effort."""
    name = model or modelfile.DEFAULT_NAME
    own = modelfile.id_of(modelfile.locate(model))
    return Codec(
        "hvcodec",
        f"model {name} ({own}), one network for all rates, effort {effort}, tuned for {tune}",
        qualities or QUALITIES,
        lambda pixels, q: hvcodec.encode(pixels, q, model=model, effort=effort, tune=tune),
        lambda data: np.asarray(hvcodec.decode(data, model=model)),
    )


CLASSICAL = (
    Codec(
        "jpeg",
        f"{_version('jpeg8')}, 4:2:0, optimised",
        (3, 6, 10, 16, 25, 40, 55, 70, 80, 88, 93, 96),
        lambda p, q: _save(p, "JPEG", quality=int(q), optimize=True, subsampling="4:2:0"),
        _load,
    ),
    Codec(
        "webp",
        f"{_version('webp')}, method 6",
        (1, 5, 15, 30, 45, 60, 75, 85, 92, 97, 100),
        lambda p, q: _save(p, "WEBP", quality=int(q), method=6),
        _load,
    ),
    Codec(
        "jpeg2000",
        f"{_version('jpeg2k')}, irreversible 9/7, by rate",
        (0.06, 0.1, 0.16, 0.25, 0.4, 0.6, 0.9, 1.3, 1.8, 2.5, 3.5),
        _openjpeg,
        _load,
    ),
    Codec(
        "avif",
        f"{_version('avif')}, speed 6, 4:4:4",
        (5, 12, 20, 30, 40, 50, 60, 70, 80, 88, 93),
        lambda p, q: _save(p, "AVIF", quality=int(q), speed=6, subsampling="4:4:4"),
        _load,
    ),
    Codec(
        "jpegxl",
        f"{_version('jpegxl')}, effort 7",
        (14, 10, 7, 5, 3.5, 2.4, 1.6, 1.0, 0.6, 0.35),
        lambda p, d: bytes(imagecodecs.jpegxl_encode(p, distance=d, effort=7)),
        lambda data: imagecodecs.jpegxl_decode(data),
    ),
)


def lossless_contenders(model: str | None, qualities: Sequence[float]) -> list[Codec]:
    """Lossless codecs, ours first, at these qualities of its lossy part."""
    mine = [
        Codec(
            "hvcodec" if quality == LOSSLESS_QUALITY else f"hvcodec q {quality:g}",
            f"model {model or modelfile.DEFAULT_NAME}, lossy part of quality {quality:g}",
            (quality,),
            lambda p, q: hvcodec.encode(p, q, model=model, lossless=True),
            lambda data: np.asarray(hvcodec.decode(data, model=model)),
        )
        for quality in qualities
    ]
    return [
        *mine,
        Codec(
            "webp",
            "Pillow, method 6, quality 100",
            (0,),
            lambda p, _: _save(p, "WEBP", lossless=True, method=6, quality=100),
            _load,
        ),
        Codec(
            "jpegxl e7",
            _version("jpegxl"),
            (0,),
            lambda p, _: bytes(imagecodecs.jpegxl_encode(p, lossless=True, effort=7)),
            imagecodecs.jpegxl_decode,
        ),
        Codec(
            "jpeg2000",
            "OpenJPEG through Pillow, reversible",
            (0,),
            lambda p, _: _save(p, "JPEG2000", irreversible=False, mct=1),
            _load,
        ),
        Codec("png", "Pillow, optimised", (0,), lambda p, _: _save(p, "PNG", optimize=True), _load),
    ]

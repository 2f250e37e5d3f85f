"""Pillow opens and saves our files."""

import io
import subprocess
import sys

import numpy as np
import pytest
from conftest import psnr
from PIL import Image, UnidentifiedImageError

import hvcodec
import hvcodec.pillow
from hvcodec import container


def saved(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "HVC", **options)
    return buffer.getvalue()


def test_opening_is_lazy_and_decoding_the_same(stream, tmp_path, monkeypatch):
    (tmp_path / "photo.hvc").write_bytes(stream)
    with monkeypatch.context() as patch:
        patch.setattr(hvcodec.pillow.decoder, "decode", None)
        image = Image.open(tmp_path / "photo.hvc")
        assert (image.format, image.mode, image.size) == ("HVC", "RGB", (384, 256))
    assert image.convert("RGB").tobytes() == hvcodec.decode(stream).tobytes()
    with Image.open(tmp_path / "photo.hvc") as again:
        assert again.crop((5, 5, 30, 30)).tobytes() == image.crop((5, 5, 30, 30)).tobytes()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_modes_and_metadata_round_trip(photo, mode):
    picture = photo.crop((0, 0, 70, 60)).convert(mode)
    exif = Image.Exif()
    exif[0x010E] = "parrots"
    data = saved(picture, quality=80, icc_profile=b"profile", exif=exif.tobytes(), xmp=b"<x/>")
    back = Image.open(io.BytesIO(data))
    assert back.mode == mode
    assert back.info["icc_profile"] == b"profile" and back.info["xmp"] == b"<x/>"
    assert back.getexif()[0x010E] == "parrots"
    assert psnr(picture.convert("RGB"), back.convert("RGB")) > 35
    if "A" in mode:
        assert back.getchannel("A").tobytes() == picture.getchannel("A").tobytes()


def test_options_mean_what_the_api_means(photo):
    options = {"target_size": 3000, "rate_weights": "preview-first"}
    assert saved(photo, **options) == hvcodec.encode(photo, **options)


def test_exif_is_taken_as_an_object_too(photo):
    exif = Image.Exif()
    exif[0x010E] = "two parrots"
    buffer = io.BytesIO()
    photo.save(buffer, "HVC", exif=exif)
    assert Image.open(buffer).getexif()[0x010E] == "two parrots"


def test_a_thumbnail_is_made_of_the_coarsest_layers(stream, photo):
    image = Image.open(io.BytesIO(stream))
    mode, box = image.draft("RGB", (40, 30))
    assert (mode, box, image.size) == ("RGB", (0, 0, 48, 32), (48, 32))
    assert image.tobytes() == hvcodec.decode(stream, reduce=8).tobytes()
    small = Image.open(io.BytesIO(stream))
    small.thumbnail((20, 20))
    expected = photo.copy()
    expected.thumbnail((20, 20))
    assert small.size == expected.size
    assert psnr(small, expected) > 28
    assert Image.open(io.BytesIO(stream)).draft("RGB", (300, 200)) is None


@pytest.mark.parametrize(
    ("weights", "reduce"), [*(("balanced", n) for n in (8, 16, 32, 64)), ("progressive", 16)]
)
def test_reduced_pictures_are_means(photo, weights, reduce, monkeypatch):
    data = hvcodec.encode(photo.crop((0, 0, 331, 250)), 70, weights)
    small = hvcodec.decode(data, reduce=reduce)
    expected = photo.crop((0, 0, 331, 250)).reduce(reduce)
    assert small.size == expected.size
    a, b = (np.asarray(p)[: 250 // reduce, : 331 // reduce].astype(int) for p in (small, expected))
    assert np.abs(a - b).mean() < 5
    monkeypatch.setattr(container, "tile_size", lambda width, height: 128)
    tiled = hvcodec.encode(photo.crop((0, 0, 331, 250)), 70, weights)
    apart = np.asarray(hvcodec.decode(tiled, reduce=reduce)).astype(int) - np.asarray(small)
    assert np.abs(apart).mean() < 5


@pytest.mark.parametrize("wrong", [{"reduce": 3}, {"reduce": 0}, {"reduce": 8, "region": (0, 0, 9, 9)}])
def test_other_reductions_are_refused(stream, wrong):
    with pytest.raises(hvcodec.UsageError, match="reduced"):
        hvcodec.decode(stream, **wrong)


def test_bad_files_are_errors_of_pillow(stream):
    for data in (stream[:100], stream[:3]):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(data))
    damaged = bytearray(stream)
    damaged[-5] ^= 1
    with pytest.raises(OSError, match="damaged"):
        Image.open(io.BytesIO(bytes(damaged))).load()
    with pytest.raises(OSError, match="quality"):
        saved(Image.new("RGB", (9, 9)), quality=900)


def test_nothing_is_registered_unless_asked_for(tmp_path, stream):
    (tmp_path / "photo.hvc").write_bytes(stream)
    code = "import hvcodec, PIL.Image, sys; PIL.Image.open(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path / "photo.hvc")]
    assert "UnidentifiedImageError" in subprocess.run(command, capture_output=True, text=True).stderr

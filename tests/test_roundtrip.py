"""A picture goes in, a small file and a similar picture come out."""

import io

import numpy as np
import pytest
from conftest import gradient, psnr
from PIL import Image, ImageCms, ImageOps

import hvcodec
from hvcodec import picture


def through(image, quality=60.0, **options):
    return hvcodec.decode(hvcodec.encode(image, quality, **options))


def test_higher_quality_is_larger_and_better(photo):
    sizes, values = [], []
    for quality in (5, 30, 50, 70, 100):
        data = hvcodec.encode(photo, quality)
        sizes.append(len(data))
        values.append(psnr(photo, hvcodec.decode(data)))
    assert sizes == sorted(sizes)
    assert values == sorted(values)
    assert values[-1] > 42


def test_it_beats_jpeg_at_the_same_size(photo, stream):
    buffer = io.BytesIO()
    for quality in range(95, 1, -1):
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= len(stream):
            break
    assert psnr(photo, hvcodec.decode(stream)) > psnr(photo, Image.open(buffer)) + 2


def test_encoding_again_gives_the_same_bytes(photo, stream):
    assert hvcodec.encode(photo) == stream


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (63, 65), (64, 64), (129, 100), (3, 5)])
def test_any_size(size):
    image = gradient(*size)
    back = through(image, 80)
    assert back.size == size
    assert psnr(image, back) > 27


def test_arrays_and_images_are_the_same_picture(photo, stream):
    assert hvcodec.encode(np.asarray(photo)) == stream


def test_grey_stays_grey(photo):
    grey = photo.convert("L")
    back = through(grey)
    assert back.mode == "L"
    assert psnr(grey, back) > 32
    assert hvcodec.decode(hvcodec.encode(np.asarray(grey))).mode == "L"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_kept_exactly(photo, mode):
    image = photo.convert(mode)
    alpha = Image.fromarray(gradient(*photo.size)[..., 2])
    image.putalpha(alpha)
    back = through(image)
    assert back.mode == mode
    assert (np.asarray(back.getchannel("A")) == np.asarray(alpha)).all()


def test_palette_with_a_transparent_colour(photo):
    image = photo.quantize(32)
    image.info["transparency"] = 3
    back = through(image)
    expected = image.convert("RGBA").getchannel("A")
    assert back.mode == "RGBA"
    assert (np.asarray(back.getchannel("A")) == np.asarray(expected)).all()


def test_palette_of_colours_with_alpha(photo):
    image = photo.convert("RGBA")
    image.putalpha(Image.fromarray(gradient(*photo.size)[..., 2]))
    image = image.quantize(16)
    back = through(image, lossless=True)
    assert back.mode == "RGBA"
    assert (np.asarray(back) == np.asarray(image.convert("RGBA"))).all()


def test_the_limit_of_pillow_is_what_it_was(monkeypatch):
    """Whatever order threads come and go in."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    first, second = picture._reading(), picture._reading()
    for step in (first.__enter__, second.__enter__, lambda: first.__exit__(None, None, None)):
        step()
        assert Image.MAX_IMAGE_PIXELS is None
    second.__exit__(None, None, None)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_black_and_white_and_palette(photo):
    assert through(photo.convert("1")).mode == "L"
    assert through(photo.quantize(16)).mode == "RGB"


def test_cmyk_becomes_rgb(photo):
    buffer = io.BytesIO()
    photo.convert("CMYK").save(buffer, "JPEG", quality=95)
    back = through(picture.open_picture(buffer.getvalue()))
    assert back.mode == "RGB"
    assert psnr(photo, back) > 25


def test_exif_orientation_is_applied_once(photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    exif[0x010F] = "a camera"
    buffer = io.BytesIO()
    photo.save(buffer, "PNG", exif=exif)
    image = picture.open_picture(buffer.getvalue())
    back = through(image)
    assert back.size == photo.size[::-1]
    assert psnr(ImageOps.exif_transpose(image), back) > 30
    kept = Image.open(io.BytesIO(picture.save(back, ".png"))).getexif()
    assert kept[0x010F] == "a camera"
    assert 0x0112 not in kept


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".tiff"])
def test_metadata_travels(photo, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    buffer = io.BytesIO()
    photo.save(buffer, "WEBP", icc_profile=profile, xmp=xmp, exif=exif)
    image = picture.open_picture(buffer.getvalue())
    back = through(image)
    assert back.info["icc_profile"] == profile
    assert back.info["xmp"] == xmp
    again = Image.open(io.BytesIO(picture.save(back, suffix)))
    again.load()
    assert hvcodec.decode(hvcodec.encode(again)).info["xmp"] == xmp
    assert again.info["icc_profile"] == profile
    assert again.getexif()[0x010F] == "a camera"
    stripped = through(image, strip=True)
    assert not {"icc_profile", "exif", "xmp"} & set(stripped.info)


def test_jpeg_cannot_hold_alpha(photo):
    with pytest.raises(hvcodec.UnsupportedError, match="JPEG"):
        picture.save(photo.convert("RGBA"), ".jpg")


def deep_grey():
    return Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)


@pytest.mark.parametrize("image", [deep_grey(), Image.new("F", (8, 8)), Image.new("I", (8, 8))])
def test_deep_pictures_are_refused(image):
    with pytest.raises(hvcodec.UnsupportedError, match="8 bits"):
        hvcodec.encode(image)


def test_sixteen_bit_colour_png_is_refused():
    # Pillow would read it as 8 bits without a word. Written by hand: it cannot write one.
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + bytes(12)) * 2)
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(hvcodec.UnsupportedError, match="8 bits"):
        picture.open_picture(png)


@pytest.mark.parametrize("width", [720, 16, 160])
def test_bmp_of_any_width_is_eight_bits(width):
    buffer = io.BytesIO()
    Image.fromarray(gradient(width, 8)).save(buffer, "BMP")
    assert picture.from_image(picture.open_picture(buffer.getvalue())).rgb.shape == (8, width, 3)


def test_exif_that_cannot_be_parsed_travels(photo):
    buffer = io.BytesIO()
    photo.save(buffer, "PNG", exif=b"Exif\0\0MM\0junk")
    back = through(picture.open_picture(buffer.getvalue()))
    assert back.info["exif"] == b"Exif\0\0MM\0junk"


def test_the_exif_thumbnail_survives_where_nothing_is_turned(photo):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    raw = exif.tobytes() + b"what a thumbnail would be"
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=raw)
    assert through(picture.open_picture(buffer.getvalue())).info["exif"] == raw


def test_transparent_grey_png(photo):
    grey = photo.convert("L")
    grey.info["transparency"] = 10
    back = through(grey)
    assert back.mode == "LA"


def test_no_more_pixels_than_can_be_decoded(monkeypatch):
    monkeypatch.setattr(picture, "DEFAULT_MAX_PIXELS", 100)
    with pytest.raises(hvcodec.UnsupportedError, match="100 pixels"):
        hvcodec.encode(np.zeros((8, 13, 3), np.uint8))


def test_an_alpha_plane_that_is_no_png(photo):
    from hvcodec import container

    buffer = io.BytesIO()
    photo.convert("L").save(buffer, "JPEG")
    file = container.read(hvcodec.encode(photo))
    file.header.metadata[container.Chunk.ALPHA] = buffer.getvalue()
    segments = [file.segment(k, 0) for k in range(file.layers)]
    with pytest.raises(hvcodec.PictureError):
        hvcodec.decode(container.write(file.header, segments))


@pytest.mark.parametrize("wrong", ["photo.png", None, 3, b"bytes"])
def test_what_is_neither_image_nor_array(wrong):
    with pytest.raises(hvcodec.UsageError, match="wanted"):
        hvcodec.encode(wrong)


@pytest.mark.parametrize("wrong", ["photo.hvc", None, 3])
def test_what_is_not_bytes(wrong, stream):
    for function in (hvcodec.decode, hvcodec.info):
        with pytest.raises(hvcodec.UsageError, match="bytes"):
            function(wrong)
    assert hvcodec.info(memoryview(stream)) == hvcodec.info(stream)


def test_an_image_whose_file_is_truncated(photo):
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    with pytest.raises(hvcodec.PictureError):
        hvcodec.encode(Image.open(io.BytesIO(buffer.getvalue()[:5000])))


def test_animations_are_refused(photo):
    buffer = io.BytesIO()
    frames = [photo, ImageOps.mirror(photo)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(hvcodec.UnsupportedError, match="animated"):
        picture.open_picture(buffer.getvalue())


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8)])
def test_other_arrays_are_refused(array):
    with pytest.raises(hvcodec.UnsupportedError, match="uint8"):
        hvcodec.encode(array)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(hvcodec.PictureError):
        picture.open_picture(data)

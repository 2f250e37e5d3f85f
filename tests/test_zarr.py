"""Arrays in zarr stores whose chunks are files of ours, and the codec that numcodecs finds."""

import json
import subprocess
import sys

import numcodecs
import numpy as np
import pytest
from conftest import gradient, psnr

if sys.version_info < (3, 11):
    pytest.skip("zarr 3 needs Python 3.11", allow_module_level=True)

import zarr

import hvcodec
import hvcodec.numcodecs
from hvcodec import container, modelfile
from hvcodec.zarr import HvcCodec

LOSSLESS = {"name": "hvcodec", "configuration": {"lossless": True}}


@pytest.fixture
def pixels(photo):
    return np.asarray(photo.crop((0, 0, 110, 90)))


def stored(path, pixels, chunks, serializer, **options):
    array = zarr.create_array(
        path,
        shape=pixels.shape,
        chunks=chunks,
        dtype=pixels.dtype,
        serializer=serializer,
        compressors=None,
        **options,
    )
    array[...] = pixels
    return array


@pytest.mark.parametrize("chunks", [(64, 48, 3), (90, 110, 3)], ids=["tiled", "one chunk"])
def test_lossless_arrays_come_back(tmp_path, pixels, chunks):
    stored(tmp_path / "a.zarr", pixels, chunks, LOSSLESS)
    assert np.array_equal(zarr.open_array(tmp_path / "a.zarr")[...], pixels)


def test_stacks_of_grey_pictures(tmp_path, pixels):
    stack = np.moveaxis(pixels, 2, 0)[:, None]  # 3 x 1 x H x W
    stored(tmp_path / "a.zarr", stack, (1, 1, 90, 64), LOSSLESS)
    array = zarr.open_array(tmp_path / "a.zarr")
    assert np.array_equal(array[...], stack)
    assert np.array_equal(array[1, 0, 50:70, 60:], stack[1, 0, 50:70, 60:])


def test_shards(tmp_path, pixels):
    stored(tmp_path / "a.zarr", pixels, (48, 64, 3), LOSSLESS, shards=(96, 128, 3))
    assert np.array_equal(zarr.open_array(tmp_path / "a.zarr")[:50], pixels[:50])


def test_a_lossy_chunk_is_a_file(tmp_path, photo):
    pixels = np.asarray(photo)
    stored(tmp_path / "a.zarr", pixels, pixels.shape, HvcCodec(quality=63))
    data = (tmp_path / "a.zarr" / "c" / "0" / "0" / "0").read_bytes()
    assert data == hvcodec.encode(photo, quality=63)
    found = zarr.open_array(tmp_path / "a.zarr")[...]
    assert np.array_equal(found, np.asarray(hvcodec.decode(data)))
    assert psnr(found, pixels) > 33


def test_metadata_say_what_reading_needs(tmp_path, pixels):
    stored(tmp_path / "a.zarr", pixels, (90, 110, 3), {"name": "hvcodec"})
    (codec,) = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["codecs"]
    usual = {"quality": 50.0, "lossless": False, "model": modelfile.DEFAULT_NAME}
    assert codec == {"name": "hvcodec", "configuration": usual}


def test_chunks_of_another_model_are_refused(tmp_path, pixels):
    other = next(
        name for i in modelfile.shipped() if (name := modelfile.name_of(i)) != modelfile.DEFAULT_NAME
    )
    array = stored(tmp_path / "a.zarr", pixels, (90, 110, 3), HvcCodec())
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    chunk.write_bytes(hvcodec.encode(pixels, model=other))
    with pytest.raises(hvcodec.ModelError, match="needs model"):
        array[...]


@pytest.mark.parametrize("chunks", [(9, 11, 4), (2, 9, 11, 3), (3, 9, 11), (11,)], ids=str)
def test_chunks_that_are_no_picture_are_refused_when_the_array_is_made(chunks):
    with pytest.raises(hvcodec.UnsupportedError, match="H x W"):
        zarr.create_array({}, shape=chunks, chunks=chunks, dtype="uint8", serializer=HvcCodec())


@pytest.mark.parametrize("dtype", ["int8", "uint16", "float32", "bool"])
@pytest.mark.parametrize("shards", [None, (16, 16, 3)])
def test_other_types_are_refused_when_the_array_is_made(dtype, shards):
    shape, chunks = (32, 32, 3), (16, 16, 3)
    with pytest.raises(hvcodec.UnsupportedError, match=f"uint8, not {dtype}"):
        zarr.create_array(
            {}, shape=shape, chunks=chunks, shards=shards, dtype=dtype, serializer=HvcCodec()
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": 101},
        {"quality": "50"},
        {"quality": True},
        {"quality": float("nan")},
        {"lossless": 1},
        {"shape": 64},
        {"shape": [64, None, 3]},
        {"shape": [64.5, 64, 3]},
    ],
    ids=str,
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(hvcodec.UsageError):
        numcodecs.get_codec({"id": "hvcodec", **wrong})
    if "shape" not in wrong:
        with pytest.raises(hvcodec.UsageError):
            HvcCodec(**wrong)


def cuts(data):
    return hvcodec.info(data)["cut_points"]


def param(name, *values):
    return pytest.param(*values, id=name)


@pytest.mark.parametrize(
    "change, said",
    [
        param("a byte short", lambda d: d[:-1], "ends inside layer"),
        param("inside its layers", lambda d: d[: cuts(d)[2] + 1], "ends inside layer"),
        param("no lossless layer", lambda d: d[: cuts(d)[-2]], "7 of 8 layers"),
        param("three layers", lambda d: d[: cuts(d)[2]], "3 of 8 layers"),
        param("a bit", lambda d: d[:-9] + bytes([d[-9] ^ 16]) + d[-8:], "damaged"),
        param("a byte more", lambda d: d + b"\0", "after the last layer"),
        param("zeros", lambda d: b"\0" * len(d), "not a .hvc file"),
        param("nothing", lambda d: b"", "empty"),
        param("size", lambda d: hvcodec.encode(gradient(63, 48)), "48 x 63 x 3, not 48 x 64 x 3"),
        param("grey", lambda d: hvcodec.encode(gradient(64, 48)[..., 0]), "48 x 64, not 48 x 64 x 3"),
        param("lossy", lambda d: hvcodec.encode(gradient(64, 48)), "not written by this codec"),
    ],
)
def test_a_chunk_that_is_not_whole_is_an_error(tmp_path, change, said):
    array = stored(tmp_path / "a.zarr", gradient(64, 48), (48, 64, 3), LOSSLESS)
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    chunk.write_bytes(change(chunk.read_bytes()))
    with pytest.raises(hvcodec.FormatError, match=said):
        array[...]
    with pytest.raises(hvcodec.FormatError, match=said):
        array[:1, :1] = 7  # needs what is there


def test_a_chunk_that_claims_much_is_refused_undecoded(tmp_path, monkeypatch):
    array = stored(tmp_path / "a.zarr", gradient(64, 64), (64, 64, 3), HvcCodec())
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    file = container.read(chunk.read_bytes())
    file.header.width, file.header.height = 2048, 2048
    chunk.write_bytes(file.header.pack() + file.data[file.start :])
    monkeypatch.setattr(hvcodec.numcodecs.decoder, "decode", None)
    with pytest.raises(hvcodec.UnsupportedError, match="2048x2048"):
        array[...]


@pytest.mark.parametrize("lossless", [False, True])
def test_classic_codec(tmp_path, lossless):
    pixels = gradient(70, 40)
    config = {"id": "hvcodec", "quality": 80, "lossless": lossless, "shape": [1, 40, 70, 3]}
    codec = numcodecs.get_codec(config)
    assert codec.get_config() == {**config, "model": modelfile.DEFAULT_NAME}
    again = numcodecs.get_codec(json.loads(json.dumps(codec.get_config())))
    assert again == codec
    data = codec.encode(pixels[None])
    assert data == hvcodec.encode(pixels, quality=80, lossless=lossless)
    back = again.decode(data)
    assert back.shape == (1, 40, 70, 3)
    assert np.array_equal(back[0], pixels) == lossless
    assert lossless or psnr(back[0], pixels) > 35
    for out in (np.empty_like(pixels), np.empty_like(pixels, order="F"), bytearray(pixels.size)):
        codec.decode(np.frombuffer(data, np.uint8), out=out)
        assert np.array_equal(np.asarray(out).reshape(pixels.shape), back[0])
    with pytest.raises(hvcodec.FormatError, match="another size"):
        codec.decode(data, out=bytearray(pixels.size + 1))


def test_classic_codec_refuses_what_it_cannot_give_back():
    codec = numcodecs.get_codec({"id": "hvcodec"})
    for wrong in (b"bytes", np.zeros((2, 2, 4), np.uint8), np.zeros((3, 3), np.int8)):
        with pytest.raises(hvcodec.UnsupportedError, match="must be"):
            codec.encode(wrong)
    with pytest.raises(hvcodec.UnsupportedError, match="C order"):
        codec.encode(np.asfortranarray(gradient(9, 8)))
    shaped = numcodecs.get_codec({"id": "hvcodec", "shape": [8, 9]})
    with pytest.raises(hvcodec.UnsupportedError, match="8 x 9, not 9 x 8"):
        shaped.encode(np.zeros((9, 8), np.uint8))
    with pytest.raises(hvcodec.UnsupportedError, match="H x W"):
        numcodecs.get_codec({"id": "hvcodec", "shape": [4, 8, 9]})


def test_arrays_of_format_2(tmp_path, pixels):
    codec = numcodecs.get_codec({"id": "hvcodec", "lossless": True, "shape": [64, 64, 3]})
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=pixels.shape,
        chunks=(64, 64, 3),
        dtype="uint8",
        compressors=codec,
        zarr_format=2,
    )
    array[...] = pixels
    assert np.array_equal(zarr.open_array(tmp_path / "a.zarr")[...], pixels)


def test_an_installed_hvcodec_is_found_by_name(tmp_path):
    """In a process that has not imported it."""
    pixels = gradient(20, 16)
    stored(tmp_path / "three.zarr", pixels, (16, 20, 3), LOSSLESS)
    np.save(tmp_path / "pixels.npy", pixels)
    script = """
import numcodecs, numpy, sys, zarr
assert "hvcodec" not in sys.modules
pixels = numpy.load("pixels.npy")
assert (zarr.open_array("three.zarr")[...] == pixels).all()
codec = numcodecs.get_codec({"id": "hvcodec", "lossless": True})
assert (codec.decode(codec.encode(pixels)) == pixels).all()
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)

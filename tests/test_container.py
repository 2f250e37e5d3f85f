"""The file format: its size, and what damaged and hostile files do (nothing)."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hvcodec
from hvcodec import container
from hvcodec.container import Chunk, Header


def a_header(**changes):
    fields = {"width": 70, "height": 40, "model_id": "00" * 6, "steps": [10, 20, 255]} | changes
    return Header(**fields)


def a_file(**changes):
    return container.write(a_header(**changes), [b"abcd", b"", b"01234567"])


def test_the_header_is_as_small_as_promised():
    words = [b"abcd", b"", b"01234567"]
    checks = 2 * len(words)
    # One byte for a step, one for the number of words.
    assert len(a_file()) - sum(map(len, words)) - checks == 24 + 2 * len(words)


@pytest.mark.parametrize("count", [0, 1, 127, 128, 16383, 16384, (1 << 21) - 1, 1 << 21])
def test_lengths_of_any_size(count):
    data = container.write(a_header(), [bytes(4 * count), b"", b"abcd"])
    assert container.read(data).header.lengths == [4 * count + 2, 2, 6]
    assert container.read(data).start == 24 + 3 + 3 + sum(count >= 1 << bits for bits in (7, 14, 21))


def test_a_segment_beyond_all_bounds():
    header = a_header(lengths=[4 * (1 << 28) + 2, 2, 2])
    with pytest.raises(hvcodec.UnsupportedError, match="gigabyte"):
        header.pack()


def test_what_is_written_is_read():
    metadata = {Chunk.ICC: b"profile", Chunk.XMP: b""}
    data = a_file(metadata=metadata, colour=container.Colour.GREY)
    file = container.read(data)
    assert file.header == a_header(metadata=metadata, colour=container.Colour.GREY, lengths=[6, 2, 10])
    assert [file.segment(k, 0) for k in range(3)] == [b"abcd", b"", b"01234567"]
    assert file.layers == 3


def test_segments_are_layer_major():
    segments = [bytes([n] * 4) for n in range(8)]  # 2 layers x 4 tiles
    data = container.write(a_header(width=100, height=100, tile=64, steps=[1, 2]), segments)
    file = container.read(data)
    assert file.segment(1, 2) == segments[6]
    assert file.cut_points == [file.start + 4 * 6, file.start + 8 * 6]


def test_every_flipped_bit_is_found(stream):
    start = hvcodec.info(stream)["layers"][0]["offset"]
    header_bits = range(8 * start)
    some_bits = range(8 * start, 8 * len(stream), 997)
    for bit in (*header_bits, *some_bits):
        damaged = bytearray(stream)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(hvcodec.HvcError):
            container.read(bytes(damaged)).verify()


def test_every_truncation_inside_a_layer_is_found(stream):
    points = hvcodec.info(stream)["cut_points"]
    for length in range(len(stream)):
        if length in points:
            container.read(stream[:length]).verify()
        else:
            with pytest.raises(hvcodec.FormatError):
                container.read(stream[:length])
    with pytest.raises(hvcodec.FormatError, match="after the last"):
        container.read(stream + b"\0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a .hvc"),
        (b"\x89HV", "inside its header"),
        (b"hello", "not a .hvc"),
    ],
)
def test_other_files(data, message):
    with pytest.raises(hvcodec.FormatError, match=message):
        hvcodec.decode(data)


def patched(data, at, value):
    return data[:at] + value + data[at + len(value) :]


def resealed(data, start):
    """The file, whose segments start there, with its header check made right again, as an attacker
    would."""
    from binascii import crc_hqx

    size = container.FIXED.size
    zeroed = data[: size - 2] + b"\0\0"
    check = crc_hqx(data[size:start], crc_hqx(zeroed, 0))
    return data[: size - 2] + struct.pack("<H", check) + data[size:]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (4, b"\x09", "format version 9"),
        (5, b"\x09", "coder version 9"),
        (5, b"\x02", "features"),
        (6, b"\x80", "features"),
        (7, b"\x00", "no layers"),
        (7, b"\xff", "no layers"),
        (14, b"\x00\x00\x00", "empty picture"),
        (14, b"\xff\xff\x00\xff\xff\x00", "limit"),
        (14, b"\xff\xff\xff\xff\xff\xff", "limit"),
        (14, b"\x00\x20\x00\x00\x20\x00", "tile"),
        (21, b"\x07", "features"),
        (27, b"\xff\xff\xff\xff", "impossible|inside|whole"),
    ],
)
def test_hostile_headers(at, value, message):
    with pytest.raises(hvcodec.HvcError, match=message):
        container.read(resealed(patched(a_file(), at, value), container.read(a_file()).start))


def test_an_unknown_model(stream):
    with pytest.raises(hvcodec.ModelError, match="010203040506"):
        start = container.read(stream).start
        hvcodec.decode(resealed(patched(stream, 8, bytes(range(1, 7))), start))


def test_wrong_words_under_a_right_check(stream):
    """A file whose checks are right but whose coded data are noise is refused or decodes to noise."""
    file = container.read(stream)
    noise = bytes(range(1, 255)) * 200
    segments = [noise[: length - 2] for length in file.header.lengths]
    for data in (segments, [s[:4] for s in segments], [b""] * len(segments)):
        try:
            picture = hvcodec.decode(container.write(file.header, data))
        except hvcodec.FormatError:
            continue
        assert picture.size == (file.header.width, file.header.height)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_never_more_than_an_error(noise):
    for data in (noise, container.MAGIC + b"\1\1" + noise, resealed(a_file()[:27] + noise, 30)):
        try:
            container.read(data).verify()
        except hvcodec.HvcError:
            pass

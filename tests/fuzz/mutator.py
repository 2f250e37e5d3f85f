"""Damaged `.hvc` files: a seed decides the damage, so every file can be made again.

Three kinds of mutation take turns: of bytes as they lie, of fields of the header, and of the file's
parts, which are put together again with right lengths and checks. In the end about half of all files
get their checks repaired, so that damage gets past them: to the coder, the network, and the metadata.
"""

import random
import struct
import zlib
from binascii import crc_hqx
from collections.abc import Callable, Sequence

from hvcodec import HvcError, container
from hvcodec.container import CHECK, FIXED, LENGTH, LOSSLESS, METADATA, TILE_UNIT, Chunk, Header

LARGEST = 1 << 13  # bytes of a file; insertions and splices are cut there

# Offset and size of every field of fixed place (docs/format.md).
FIELDS = {
    "magic": (0, 4),
    "version": (4, 1),
    "coder": (5, 1),
    "flags": (6, 1),
    "layers": (7, 1),
    "model": (8, 6),
    "width": (14, 3),
    "height": (17, 3),
    "tile": (20, 1),
    "colour": (21, 1),
    "check": (22, 2),
}
SIDES = (0, 1, 63, 64, 65, 127, 128, 129, 192, 255, 256, 1 << 12, 1 << 16, (1 << 24) - 1)
LAYER_COUNTS = (0, 1, 6, 7, 8, 9, 11, 13, 15, 16, 17, 64, 65, 255)

# A PNG is a signature and chunks: length, kind, content, check.
PNG = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = struct.Struct(">2I5B")
PNG_KINDS = b"IHDRPLTEIDATIENDtRNSiCCPtEXtzTXtiTXteXIfacTLfcTLfdATgAMApHYssRGBcHRMabCD"

Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def some_bytes(rng: random.Random, count: int) -> bytes:
    """Noise, or one byte over and over: zeros and ones at all bits lie at the ends of most ranges."""
    return rng.choice((rng.randbytes(count), b"\0" * count, b"\xff" * count))


def some_number(rng: random.Random, size: int, now: int) -> int:
    """A number for a field of `size` bytes that holds `now`: any, near the old one, or at an end."""
    top = (1 << 8 * size) - 1
    near = now + rng.choice((-64, -4, -2, -1, 1, 2, 4, 64))
    small = rng.randrange(300)
    flipped = now ^ 1 << rng.randrange(8 * size)
    return rng.choice((rng.randint(0, top), near, small, flipped, 0, top)) & top


# Bytes as they lie.


def flip(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to eight bits flipped."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A few bytes replaced."""
    at = rng.randint(0, len(data))
    new = some_bytes(rng, min(rng.randint(1, 16), len(data) - at))
    return data[:at] + new + data[at + len(new) :]


def insert(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A few bytes more."""
    at = rng.randint(0, len(data))
    return data[:at] + some_bytes(rng, rng.choice((1, 2, 4, rng.randint(1, 64)))) + data[at:]


def delete(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A few bytes less."""
    at = rng.randint(0, len(data))
    return data[:at] + data[at + rng.choice((1, 2, 4, rng.randint(1, 64))) :]


def truncate(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A prefix."""
    return data[: rng.randint(0, len(data))]


def splice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The start of this file and the end of another."""
    other = rng.choice(seeds)
    at = rng.randint(0, len(data))
    return data[:at] + other[rng.choice((at, rng.randint(0, len(other)))) :]


# Fields.


def field(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Another number in a field of the header."""
    at, size = FIELDS[rng.choice(list(FIELDS))]
    now = int.from_bytes(data[at : at + size], "little")
    return data[:at] + some_number(rng, size, now).to_bytes(size, "little") + data[at + size :]


def length(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Another byte among the lengths of segments and metadata, or one more or less of them."""
    at = FIXED.size + (data[7] if len(data) > 7 else 0) + rng.randrange(40)
    byte = some_number(rng, 1, int.from_bytes(data[at : at + 1], "little")).to_bytes(1, "little")
    return data[:at] + rng.choice((byte, byte, b"", byte + data[at : at + 1])) + data[at + 1 :]


# Parts. A file that earlier mutations broke stays as it is.


def take_apart(data: bytes) -> tuple[Header, list[bytes]] | None:
    """Header and words of the segments that are there; None if the file is damaged."""
    try:
        file = container.read(data)
        tiles = file.header.tile_count
        words = [file.segment(layer, tile) for layer in range(file.layers) for tile in range(tiles)]
        return file.header, words
    except HvcError:
        return None


def put_together(header: Header, words: Sequence[bytes]) -> bytes:
    """The inverse of `take_apart`: lengths and checks are right. Unlike `container.write` it keeps the
    lengths of layers that were cut away, and takes fields that no encoder writes."""
    sealed = [part + CHECK.pack(crc_hqx(part, 0)) for part in words]
    header.lengths = [*map(len, sealed), *header.lengths[len(sealed) :]]
    return header.pack() + b"".join(sealed)


def of_parts(change: Callable[[random.Random, Header, list[bytes]], None]) -> Mutation:
    """A mutation of bytes from one that changes header and words in place."""

    def mutation(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
        parts = take_apart(data)
        if parts is None:
            return data
        change(rng, *parts)
        return put_together(*parts)

    mutation.__doc__ = change.__doc__
    return mutation


@of_parts
def wrong_words(rng: random.Random, header: Header, words: list[bytes]) -> None:
    """Some words of one segment replaced, added or taken away."""
    n = rng.randrange(len(words))
    at = 4 * rng.randint(0, len(words[n]) // 4)
    gone = 4 * rng.choice((0, 1, 1, 2, 1000))
    new = some_bytes(rng, 4 * rng.choice((0, 1, 1, 2, rng.randint(0, 100))))
    words[n] = words[n][:at] + new + words[n][at + gone :]


@of_parts
def swapped_words(rng: random.Random, header: Header, words: list[bytes]) -> None:
    """Two segments have changed places."""
    a, b = rng.randrange(len(words)), rng.randrange(len(words))
    words[a], words[b] = words[b], words[a]


@of_parts
def other_size(rng: random.Random, header: Header, words: list[bytes]) -> None:
    """Another width, height or tile side."""
    if rng.random() < 0.2:
        header.tile = TILE_UNIT * rng.choice((0, 1, 2, 32, 33, 255))
    side = rng.choice((rng.choice(SIDES), rng.randint(1, 200)))
    if rng.random() < 0.5:
        header.width = side
    else:
        header.height = side


@of_parts
def other_steps(rng: random.Random, header: Header, words: list[bytes]) -> None:
    """Another step in some layers, or one of them off."""
    for _ in range(rng.choice((1, 1, 3, 7))):
        step = rng.choice((rng.randrange(256), 0, 1, 2, 15, 16, 17, 254, 255))
        header.steps[rng.randrange(len(header.steps))] = step


@of_parts
def other_layers(rng: random.Random, header: Header, words: list[bytes]) -> None:
    """More or fewer layers, the new ones of refinement, with noise or nothing in them; the last one
    lossless, or not any more."""
    count, tiles = rng.choice(LAYER_COUNTS), header.tile_count
    header.lossless = count < max(LAYER_COUNTS) and header.lossless ^ (rng.random() < 0.2)
    total = (count + header.lossless) * tiles
    del header.steps[count:], header.lengths[total:], words[total:]
    header.steps += [2] * (count - len(header.steps))
    while len(header.lengths) < total:
        if len(words) == len(header.lengths):
            words += [some_bytes(rng, 4 * rng.choice((0, 1, 10))) for _ in range(tiles)]
        header.lengths += [CHECK.size] * tiles


@of_parts
def other_metadata(rng: random.Random, header: Header, words: list[bytes]) -> None:
    """One chunk of metadata replaced, damaged, or of another kind."""
    kind = rng.choice((*Chunk, *header.metadata, rng.randrange(256)))
    content = rng.choice((b"", *header.metadata.values()))
    damage = rng.choice((flip, overwrite, insert, delete, truncate, lambda rng, data, seeds: data))
    header.metadata[kind] = damage(rng, content, ())


def png_chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Kinds and contents of a sound PNG's chunks."""
    chunks, at = [], len(PNG)
    while at < len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        chunks.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + size]))
        at += 12 + size
    return chunks


def png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The inverse of `png_chunks`, with right lengths and checks."""
    number = struct.Struct(">I").pack
    return PNG + b"".join(number(len(b)) + a + b + number(zlib.crc32(a + b)) for a, b in chunks)


def plane(width: int, height: int) -> bytes:
    """A black grey PNG; its picture is missing if that were large."""
    rows = zlib.compress(bytes((width + 1) * height)) if width * height < 1 << 16 else b""
    header = PNG_HEADER.pack(width, height, 8, 0, 0, 0, 0)
    return png_of([(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")])


@of_parts
def other_alpha(rng: random.Random, header: Header, words: list[bytes]) -> None:
    """A new alpha plane; one of its PNG's chunks is damaged, doubled, gone, or beside one more."""
    chunks = png_chunks(plane(header.width, header.height))
    n = rng.randrange(len(chunks))
    kind, content = chunks[n]
    at = 4 * rng.randrange(len(PNG_KINDS) // 4)
    other = PNG_KINDS[at : at + 4], some_bytes(rng, rng.choice((0, 1, 4, 8, 13, 26)))
    damaged = kind, rng.choice((flip, overwrite, insert, delete))(rng, content, ())
    same = chunks[n]
    chunks[n : n + 1] = rng.choice(([], [same, same], [damaged], [same, other], [other, same]))
    header.metadata[Chunk.ALPHA] = png_of(chunks)


@of_parts
def other_colour(rng: random.Random, header: Header, words: list[bytes]) -> None:
    """The other colour, or one that there is not."""
    header.colour = rng.choice((0, 1, 1, 2, 255))  # type: ignore[assignment]


def fewer_layers(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Cut at a layer's end."""
    try:
        file = container.read(data)
    except HvcError:
        return data
    return container.cut(file, rng.randint(1, file.layers))


BYTES: tuple[Mutation, ...] = (flip, overwrite, insert, delete, truncate, splice)
NUMBERS: tuple[Mutation, ...] = (field, field, length)
PARTS: tuple[Mutation, ...] = (
    wrong_words,
    wrong_words,
    wrong_words,
    swapped_words,
    other_size,
    other_steps,
    other_layers,
    other_metadata,
    other_alpha,
    other_colour,
    fewer_layers,
)


def repair(data: bytes) -> bytes:
    """The file with its checks made right, as far as its header can be followed."""
    if len(data) < FIXED.size:
        return data
    _, _, _, flags, layers, _, sides, tile, _, _ = FIXED.unpack_from(data)
    width, height = int.from_bytes(sides[:3], "little"), int.from_bytes(sides[3:], "little")
    end, lengths = FIXED.size + layers - bool(flags & LOSSLESS), []
    for _ in range(layers * Header(width, height, "", [], tile * TILE_UNIT).tile_count):
        count = place = 0
        while (byte := data[end] if end < len(data) else 0) >= 0x80:
            count, place, end = count | (byte & 0x7F) << place, place + 7, end + 1
        lengths.append(4 * (count | byte << place) + CHECK.size)
        end += 1
        if end > len(data):
            return data
    if flags & METADATA:
        end += LENGTH.size + int.from_bytes(data[end : end + LENGTH.size], "little")
    fixed = bytearray(data)
    CHECK.pack_into(fixed, FIXED.size - CHECK.size, 0)
    CHECK.pack_into(fixed, FIXED.size - CHECK.size, crc_hqx(fixed[:end], 0))
    for n in lengths:
        end += n
        if end <= len(data):
            CHECK.pack_into(fixed, end - CHECK.size, crc_hqx(data[end - n : end - CHECK.size], 0))
    return bytes(fixed)


def mutate(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The file, damaged."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(rng.choice((BYTES, NUMBERS, PARTS, PARTS, PARTS)))(rng, data, seeds)[:LARGEST]
    return repair(data) if rng.random() < 0.5 else data


def damaged_file(seed: str, seeds: Sequence[bytes]) -> bytes:
    """An intact file, damaged."""
    rng = random.Random(seed)
    return mutate(rng, rng.choice(seeds), seeds)

"""The `.hvc` file: header, table of segments, metadata, segments. Bytes only.

The format page, docs/format.md, says every field and why. This module imports no numpy, so
`info` and `cut` are instant. Nothing read from a file is trusted before it is checked.
"""

import struct
from binascii import crc_hqx
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate

from .errors import FormatError, UnsupportedError, UsageError
from .ladder import LAYERS, LAYERS_PER_LEVEL

MAGIC = b"\x89HVC"
FORMAT_VERSION = 1
CODER_VERSIONS = 1, 2

FIXED = struct.Struct("<4s4B6s6sBBH")
# magic, format version, coder version, flags, layers, model id, width and height (24 bits each),
# tile size, colour, check
CHECK = struct.Struct("<H")
LENGTH = struct.Struct("<I")
CHUNK = struct.Struct("<BI")
WORD = 4  # bytes; segments are whole words and a check
COUNT_BYTES = 4  # of the number of words of a segment, at most

BITS_BACK = 0b0000_0101  # passes of the ladder have side information, which takes bits back
OF_CHANNELS = 0b0010_0000  # they have latents of channels, too
LOSSLESS = 0b0000_1000  # the last layer holds the picture's own pixels
METADATA = 0b0001_0000
RESTORED = 0b0100_0000  # layers end in a filter of the picture; not with a lossless layer
SIGNS = 0b1000_0000  # they have signs that nothing is sent for
KNOWN = BITS_BACK | OF_CHANNELS | SIGNS | LOSSLESS | METADATA | RESTORED  # flags of this version

MAX_SIDE = (1 << 24) - 1
MAX_LAYERS = 64
TILE_UNIT = 64
TILE = 1024  # side of the tiles of a picture that is not one tile
MAX_TILE = 2048  # a tile holds at most the square of this in pixels
DEFAULT_MAX_PIXELS = 1 << 28


class Colour(IntEnum):
    """What the decoded picture is; latents are always those of an RGB picture."""

    RGB = 0
    GREY = 1


class Signs(IntEnum):
    """What says signs that nothing is sent for; else the coder version that it came with."""

    NONE = 0
    PARITIES = 1  # of groups of symbols, which only older files have
    SYNDROMES = 2


class Filters(IntEnum):
    """Which layers end in a filter of the picture (`restoration.py`); else the coder version that it
    came with."""

    NONE = 0
    LAST = 1
    LEVELS = 2  # the last of every level of refinement


class Chunk(IntEnum):
    """Kinds of metadata."""

    ICC = 1
    EXIF = 2
    XMP = 3
    ALPHA = 4


def padded_pixels(width: int, height: int) -> int:
    """Pixels of a picture as the network sees it, its sides rounded up to multiples of 64."""
    return (width + -width % TILE_UNIT) * (height + -height % TILE_UNIT)


def tile_size(width: int, height: int) -> int:
    """Side of the tiles: 0 (one tile) up to 4 megapixels, counted in whole units of 64.

    Smaller tiles make less memory and smaller regions, but every border costs a few bytes, and a pixel
    there is decided in two windows."""
    return 0 if padded_pixels(width, height) <= MAX_TILE * MAX_TILE else TILE


@dataclass
class Header:
    """Everything before the segments.

    Attributes:
        width, height: of the picture, 1 .. 2^24 - 1.
        model_id: first 6 bytes of the SHA-256 of the model file, as 12 hexadecimal digits.
        steps: per layer, coarse first, a step index 0..254, or 255 where the layer is off; for layers
            of refinement the number that they divide steps by.
        tile: side of the square tiles in pixels, a multiple of 64; 0 if the picture is one tile.
        lengths: bytes of every segment with its check, layer-major: all tiles of the coarsest layer
            first.
        colour: what the decoded picture is.
        metadata: contents of the chunks.
        lossless: whether a lossless layer follows those that have steps.
        bits_back: whether passes of the ladder have side information.
        of_channels: whether that has latents of channels; only with the former.
        signs: what says signs; only with both.
        filters: which layers end in a filter of the picture.
    """

    width: int
    height: int
    model_id: str
    steps: list[int]
    tile: int = 0
    lengths: list[int] = field(default_factory=list)
    colour: Colour = Colour.RGB
    metadata: dict[Chunk, bytes] = field(default_factory=dict)
    lossless: bool = False
    bits_back: bool = False
    of_channels: bool = False
    signs: Signs = Signs.NONE
    filters: Filters = Filters.NONE

    @property
    def coder(self) -> int:
        """The coder version: the first one that has all that the file has."""
        return max(self.signs, self.filters, min(CODER_VERSIONS))

    @property
    def saying(self) -> range:
        """Layers that say signs, if any do: those of the ladder, or of the last level of refinement."""
        count = len(self.steps)
        if self.signs == Signs.SYNDROMES and count > len(LAYERS):
            return range(count - LAYERS_PER_LEVEL, count)
        return range(len(LAYERS))

    @property
    def filtered(self) -> list[int]:
        """Layers that end in a filter of the picture."""
        last = len(self.steps) - 1
        if self.filters == Filters.LEVELS:
            return [*range(len(LAYERS) + LAYERS_PER_LEVEL - 1, last + 1, LAYERS_PER_LEVEL)]
        return [last] if self.filters else []

    @property
    def tile_count(self) -> int:
        """Number of tiles."""
        if not self.tile:
            return 1
        return -(-self.height // self.tile) * -(-self.width // self.tile)

    def pack(self) -> bytes:
        """Header, table and metadata as they stand in the file."""
        counts = ((n - CHECK.size) // WORD for n in self.lengths)
        body = bytes(self.steps) + b"".join(map(_packed_count, counts))
        if self.metadata:
            chunks = b"".join(CHUNK.pack(k, len(v)) + v for k, v in sorted(self.metadata.items()))
            body += LENGTH.pack(len(chunks)) + chunks
        sides = self.width.to_bytes(3, "little") + self.height.to_bytes(3, "little")
        flags = METADATA if self.metadata else 0
        flags |= (LOSSLESS if self.lossless else 0) | (BITS_BACK if self.bits_back else 0)
        flags |= (OF_CHANNELS if self.of_channels else 0) | (SIGNS if self.signs else 0)
        flags |= RESTORED if self.filters else 0
        fields = (
            MAGIC,
            FORMAT_VERSION,
            self.coder,
            flags,
            len(self.steps) + self.lossless,
            bytes.fromhex(self.model_id),
            sides,
            self.tile // TILE_UNIT,
            self.colour,
        )
        check = crc_hqx(body, crc_hqx(FIXED.pack(*fields, 0), 0))
        return FIXED.pack(*fields, check) + body


def _packed_count(count: int) -> bytes:
    """A number in groups of 7 bits, low ones first; the high bit of a byte says that another follows.

    Raises:
        UnsupportedError: more than `COUNT_BYTES` bytes.
    """
    if count >> 7 * COUNT_BYTES:
        raise UnsupportedError("a layer takes more than a gigabyte")
    packed = bytearray()
    while count > 0x7F:
        packed.append(count & 0x7F | 0x80)
        count >>= 7
    return bytes([*packed, count])


@dataclass
class File:
    """A parsed file: its header and the layers that are whole.

    Attributes:
        header: as written, also if the file was cut since.
        data: the whole file.
        start: where the segments start.
        ends: offsets of every segment's end, in the order of the file.
        layers: how many layers, coarse first, the file holds whole.
    """

    header: Header
    data: bytes
    start: int
    ends: list[int]
    layers: int

    @property
    def cut_points(self) -> list[int]:
        """File size when cut after layer 1, 2, ... all, as far as the header knows."""
        tiles = self.header.tile_count
        return self.ends[tiles - 1 :: tiles]

    def segment(self, layer: int, tile: int) -> bytes:
        """The words of one segment, its check verified.

        Raises:
            FormatError: the check fails.
        """
        number = layer * self.header.tile_count + tile
        end = self.ends[number]
        content = self.data[end - self.header.lengths[number] : end]
        words, check = content[: -CHECK.size], content[-CHECK.size :]
        if CHECK.pack(crc_hqx(words, 0)) != check:
            raise FormatError(f"layer {layer + 1} is damaged (its check fails)")
        return words

    def verify(self) -> None:
        """Check every segment that is there.

        Raises:
            FormatError: a check fails.
        """
        for layer in range(self.layers):
            for tile in range(self.header.tile_count):
                self.segment(layer, tile)


def write(header: Header, segments: Sequence[bytes]) -> bytes:
    """A file from a header (its lengths are filled in) and the words of its segments, layer-major."""
    sealed = [words + CHECK.pack(crc_hqx(words, 0)) for words in segments]
    header.lengths = [len(s) for s in sealed]
    return header.pack() + b"".join(sealed)


class _Reader:
    """Takes bytes from the front of a buffer; never past its end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise FormatError("the file ends inside its header")
        self.at += count
        return self.data[self.at - count : self.at]

    def length(self) -> int:
        return LENGTH.unpack(self.take(LENGTH.size))[0]

    def count(self) -> int:
        """The inverse of `_packed_count`."""
        total = 0
        for place in range(COUNT_BYTES):
            (byte,) = self.take(1)
            total |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return total
        raise FormatError("the header names a segment of impossible length")


def read(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, partial: bool = False) -> File:
    """Parse a file. Segments are not checked yet (`File.segment`, `File.verify`).

    Args:
        data: the whole file, or a prefix of it that ends at a layer's end.
        max_pixels: refuse larger pictures before anything is allocated for them; sides count as
            multiples of 64, upwards, since that is what decoding costs.
        partial: take a prefix that ends anywhere after the first layer, and the layers that are whole.

    Raises:
        UsageError: not bytes.
        FormatError: not a `.hvc` file, damaged, or cut inside a layer.
        UnsupportedError: a version, kind or size that this version does not handle.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise UsageError(f"a .hvc file is wanted as bytes, not as {type(data).__name__}")
    data = bytes(data)
    if not data:
        raise FormatError("the file is empty")
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise FormatError("not a .hvc file")
    reader = _Reader(data)
    fixed = reader.take(FIXED.size)
    _, version, coder, flags, layers, model, sides, tile, colour, check = FIXED.unpack(fixed)
    if version != FORMAT_VERSION:
        raise UnsupportedError(f"format version {version}; this hvcodec reads {FORMAT_VERSION}")
    if coder not in CODER_VERSIONS:
        raise UnsupportedError(f"coder version {coder}; this hvcodec has {_listed(CODER_VERSIONS)}")
    header = Header(
        width=int.from_bytes(sides[:3], "little"),
        height=int.from_bytes(sides[3:], "little"),
        model_id=model.hex(),
        steps=[],
        tile=tile * TILE_UNIT,
    )
    least = 2 if flags & LOSSLESS else 1
    if not header.width or not header.height or not least <= layers <= MAX_LAYERS:
        raise FormatError("the header names an empty picture or no layers")
    if padded_pixels(header.width, header.height) > max_pixels:
        raise UnsupportedError(
            f"the header claims {header.width}x{header.height} pixels, the limit is {max_pixels} in all"
        )
    if header.tile > MAX_TILE or (not header.tile and tile_size(header.width, header.height)):
        raise UnsupportedError("the header names tiles of more than 4 megapixels")
    header.lossless = bool(flags & LOSSLESS)
    header.bits_back, header.of_channels = bool(flags & BITS_BACK), bool(flags & OF_CHANNELS)
    header.signs = Signs(coder) if flags & SIGNS else Signs.NONE
    header.steps = list(reader.take(layers - header.lossless))
    if flags & RESTORED:
        header.filters = Filters(coder) if len(header.steps) > len(LAYERS) else Filters.LAST
    counts = (reader.count() for _ in range(layers * header.tile_count))
    header.lengths = [n * WORD + CHECK.size for n in counts]
    chunks = reader.take(reader.length()) if flags & METADATA else b""
    body = data[FIXED.size : reader.at]
    if crc_hqx(body, crc_hqx(fixed[: -CHECK.size] + bytes(CHECK.size), 0)) != check:
        raise FormatError("the header is damaged (its check fails)")
    both = BITS_BACK | OF_CHANNELS
    known = not flags & ~KNOWN and flags & (both | SIGNS) in (0, BITS_BACK, both, both | SIGNS)
    known &= not (header.lossless and header.filters) and coder == header.coder
    if not known or colour not in Colour.__members__.values():
        raise UnsupportedError("the file uses features that this version does not know")
    header.colour = Colour(colour)
    inside = _Reader(chunks)
    while inside.at < len(chunks):
        kind, size = CHUNK.unpack(inside.take(CHUNK.size))
        content = inside.take(size)
        if kind in Chunk.__members__.values():
            header.metadata[Chunk(kind)] = content
    segment_ends = list(accumulate(header.lengths, initial=reader.at))[1:]
    file = File(header, data, reader.at, segment_ends, 0)
    ends = file.cut_points
    file.layers = whole = sum(end <= len(data) for end in ends)
    if len(data) > ends[-1]:
        raise FormatError(f"the file ends after the last layer; it is whole at {_listed(ends)} bytes")
    if len(data) not in ends:
        if not (partial and whole):
            raise FormatError(
                f"the file ends inside layer {whole + 1}; it is whole at {_listed(ends)} bytes"
            )
        file.data = data[: ends[whole - 1]]
    return file


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def cut(file: File, layers: int | None = None, max_bytes: int | None = None) -> bytes:
    """The file without its finer layers: a prefix of its bytes.

    Args:
        layers: how many layers to keep, at least 1.
        max_bytes: or keep as many layers as fit into this size.

    Raises:
        UsageError: both or neither given, no such layer, or not even one layer fits.
    """
    if (layers is None) == (max_bytes is None):
        raise UsageError("give either a number of layers or a size in bytes")
    ends = file.cut_points[: file.layers]
    if max_bytes is not None:
        layers = sum(end <= max_bytes for end in ends)
        if not layers:
            raise UsageError(f"the coarsest layer alone takes {ends[0]} bytes")
    if layers is None or not 1 <= layers <= file.layers:
        raise UsageError(f"the file holds layers 1 to {file.layers}")
    return file.data[: ends[layers - 1]]

"""A codec for numcodecs, and so for zarr's format 2: every chunk of an array is a `.hvc` file.

>>> import numcodecs
>>> codec = numcodecs.get_codec({"id": "hvcodec", "quality": 70, "shape": [256, 256, 3]})
>>> chunk = codec.decode(codec.encode(array))     # uint8, 256 x 256 x 3

An installed hvcodec is found by its id. `hvcodec.zarr` is the same for zarr's format 3.
"""

from collections.abc import Sequence
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ensure_ndarray

from . import container, decoder, encoder, modelfile
from .container import DEFAULT_MAX_PIXELS, MAX_SIDE, Chunk, Colour, padded_pixels
from .errors import FormatError, UnsupportedError, UsageError

# A chunk keeps all cores busy; more of them at a time, as zarr would have it, only take memory.
TURN = Lock()


def picture_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The picture that a chunk of this shape is: H x W x 3 or H x W, after any axes of length 1.

    Raises:
        UnsupportedError: it is none, or too large a one.
    """
    shape = tuple(shape)
    axes = 3 if len(shape) > 2 and shape[-1] == 3 else 2
    front, picture = shape[:-axes], shape[-axes:]
    if len(shape) < 2 or any(n != 1 for n in front):
        raise UnsupportedError(
            f"chunks must be H x W x 3 or H x W, behind axes of length 1, not {_listed(shape)}"
        )
    height, width = picture[:2]
    if not 1 <= height <= MAX_SIDE or not 1 <= width <= MAX_SIDE:
        raise UnsupportedError(f"sides of chunks must be 1 to {MAX_SIDE} pixels")
    if padded_pixels(width, height) > DEFAULT_MAX_PIXELS:
        raise UnsupportedError(f"a chunk of {_listed(shape)} has more than {DEFAULT_MAX_PIXELS} pixels")
    return picture


def _listed(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"


class HvcCodec(Codec):
    """See the module's docstring. The configuration says all that reading needs.

    Args:
        quality: 0..100; default 50, or 68 of the lossy part of lossless chunks.
        lossless: give back the very pixels.
        model: a shipped model's name or a model file, for writing and reading; default: the shipped
            photo model, whose name is stored.
        shape: of the chunks, for numcodecs doesn't say it when a chunk is read; if it is given, one
            that claims another size is refused before anything is allocated for it.

    Raises:
        UsageError: a quality out of range, or something of a wrong type.
        UnsupportedError: no such chunks; see `picture_shape`.
    """

    codec_id = "hvcodec"

    def __init__(
        self,
        quality: float | None = None,
        lossless: bool = False,
        model: str | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        if type(lossless) is not bool:
            raise UsageError(f"lossless is true or false, not {lossless!r}")
        if quality is None:
            quality = encoder.LOSSLESS_QUALITY if lossless else encoder.DEFAULT_QUALITY
        if type(quality) not in (int, float) or not 0 <= quality <= 100:
            raise UsageError(f"quality must lie in 0..100, not {quality!r}")
        if shape is not None:
            whole = isinstance(shape, Sequence) and all(isinstance(n, (int, np.integer)) for n in shape)
            if not whole:
                raise UsageError(f"a shape is a list of whole numbers, not {shape!r}")
            picture_shape(shape)
        self.quality = float(quality)
        self.lossless = lossless
        self.model = str(modelfile.DEFAULT_NAME if model is None else model)
        self.shape = None if shape is None else list(map(int, shape))

    def encode(self, buf: Any) -> bytes:
        """Encode a chunk, uint8 in C order.

        Raises:
            UnsupportedError: a chunk of another kind, or not of the codec's shape.
            ModelError: see `encoder.encode`.
        """
        chunk = ensure_ndarray(buf)
        if chunk.dtype != np.uint8:
            raise UnsupportedError(f"chunks must be uint8, not {chunk.dtype}")
        if self.shape and self.shape != list(chunk.shape):
            raise UnsupportedError(f"chunks must be {_listed(self.shape)}, not {_listed(chunk.shape)}")
        picture = chunk.reshape(picture_shape(chunk.shape))
        if chunk.flags.f_contiguous and not chunk.flags.c_contiguous:
            raise UnsupportedError("chunks must be in C order, since they come back in it")
        with TURN:
            return encoder.encode(picture, self.quality, model=self.model, lossless=self.lossless)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk; uint8, of the codec's shape, or H x W x 3 or H x W if it has none.

        Args:
            out: an array of the chunk's size to decode into.

        Raises:
            FormatError: damaged, not of the codec's shape, or not whole: a file that was cut at a
                layer's end is a picture, but not this chunk.
            ModelError: the model is not here, or the chunk was made by another one.
        """
        data = ensure_bytes(buf)
        picture = self.shape and picture_shape(self.shape)
        limit = padded_pixels(picture[1], picture[0]) if picture else DEFAULT_MAX_PIXELS
        file = container.read(data, limit)
        header = file.header
        found = (header.height, header.width) + ((3,) if header.colour == Colour.RGB else ())
        if picture and found != picture:
            raise FormatError(f"the chunk is {_listed(found)}, not {_listed(picture)}")
        if out is not None and ensure_ndarray(out).nbytes != prod(found):
            raise FormatError(f"the chunk is {_listed(found)}, another size than what it goes to")
        if Chunk.ALPHA in header.metadata or (self.lossless and not header.lossless):
            raise FormatError("the chunk was not written by this codec")
        if file.layers < len(file.cut_points):
            raise FormatError(
                f"the chunk is cut: {file.layers} of {len(file.cut_points)} layers are there"
            )
        with TURN:
            image = decoder.decode(data, model=self.model, max_pixels=limit)
        pixels = np.asarray(image).reshape(self.shape or found)
        if out is None:
            return pixels
        target = ensure_ndarray(out)
        np.copyto(target, pixels.reshape(target.shape))
        return out

"""A codec for zarr 3: every chunk of an array is a `.hvc` file.

>>> import zarr
>>> from hvcodec.zarr import HvcCodec
>>> array = zarr.create_array("pictures.zarr", shape=(1000, 512, 768, 3), chunks=(1, 512, 768, 3),
...                           dtype="uint8", serializer=HvcCodec(quality=70), compressors=None)

To read, hvcodec has to be installed, not imported. Lossy chunks should be written whole: writing a part
decodes and encodes the rest again.
"""

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec

from . import numcodecs
from .errors import UnsupportedError

NAME = "hvcodec"


@dataclass(frozen=True)
class HvcCodec(ArrayBytesCodec):
    """See the module's docstring. Chunks are uint8, H x W x 3 or H x W, behind axes of length 1.

    Args:
        quality, lossless, model: see `numcodecs.HvcCodec`; stored with their defaults filled in.

    Raises:
        UsageError: a quality out of range, or something of a wrong type.
    """

    is_fixed_size = False

    quality: float | None = None
    lossless: bool = False
    model: str | None = None

    def __post_init__(self) -> None:
        whole = numcodecs.HvcCodec(**asdict(self))
        for name in asdict(self):
            object.__setattr__(self, name, getattr(whole, name))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "HvcCodec":
        """The codec that an array's metadata name."""
        return cls(**data.get("configuration", {}))

    def to_dict(self) -> dict[str, Any]:
        """The codec as it stands in an array's metadata."""
        return {"name": NAME, "configuration": asdict(self)}

    def evolve_from_array_spec(self, array_spec: Any) -> "HvcCodec":
        """The codec itself. Raises UnsupportedError for another type than uint8."""
        # Inside of shards this is all that zarr asks; the shape may be that of the whole array here.
        self._check_type(array_spec.dtype)
        return self

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Raise UnsupportedError if arrays of this type and these chunks cannot be stored."""
        self._check_type(dtype)
        chunk = getattr(chunk_grid, "chunk_shape", None)
        if chunk is None:
            raise UnsupportedError("all chunks must be of one shape")
        numcodecs.picture_shape(chunk)

    def _check_type(self, dtype: Any) -> None:
        if dtype.to_native_dtype() != np.uint8:
            raise UnsupportedError(f"chunks must be uint8, not {dtype.to_native_dtype()}")

    def _codec(self, spec: Any) -> numcodecs.HvcCodec:
        return numcodecs.HvcCodec(**asdict(self), shape=spec.shape)

    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        chunk = np.ascontiguousarray(chunk_data.as_numpy_array())
        data = await asyncio.to_thread(self._codec(chunk_spec).encode, chunk)
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        chunk = await asyncio.to_thread(self._codec(chunk_spec).decode, chunk_data.to_bytes())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(chunk)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Not known beforehand."""
        raise NotImplementedError

"""hvcodec: a learned lossy image codec on a hierarchical VAE whose layers can be traded and cut.

>>> import hvcodec, PIL.Image
>>> data = hvcodec.encode(PIL.Image.open("photo.png"), quality=50)   # bytes of a .hvc file
>>> picture = hvcodec.decode(data)                                   # a PIL image
>>> preview = hvcodec.decode(hvcodec.cut(data, layers=4))            # from its first bytes
"""

from typing import TYPE_CHECKING, Any

from .errors import (
    FormatError,
    HvcError,
    ModelError,
    PictureError,
    UnsupportedError,
    UsageError,
)
from .inspect import cut, info

if TYPE_CHECKING:
    from .decoder import decode, latents
    from .encoder import encode

__all__ = [
    "FormatError",
    "HvcError",
    "ModelError",
    "PictureError",
    "UnsupportedError",
    "UsageError",
    "cut",
    "decode",
    "encode",
    "info",
    "latents",
]

if not TYPE_CHECKING:  # which would take any name for one of hvcodec's

    def __getattr__(name: str) -> Any:
        # These bring numpy and a coder; info and cut do without.
        if name == "encode":
            from .encoder import encode

            return encode
        if name in ("decode", "latents"):
            from . import decoder

            return getattr(decoder, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

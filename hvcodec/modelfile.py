"""Model files: where they lie, how they are named, read and written.

A model is one safetensors file: weights in float16, integer probability tables, and as metadata its
configuration and training card. Its id is the first 6 bytes of the SHA-256 of the file, which streams
carry; shipped models have it in their name, `NAME-ID.safetensors`, so that finding one is instant.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ModelError

if TYPE_CHECKING:
    import numpy as np

ID_DIGITS = 12
DEFAULT_NAME = "photo7"
_INSTALLED = Path(__file__).parent / "models"
_CHECKOUT = Path(__file__).parent.parent / "models"


def folder() -> Path:
    """The folder of the shipped models: inside the package, or beside it in a checkout."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def shipped() -> dict[str, Path]:
    """Shipped model files by id, the default first. No two share a name."""
    paths = sorted(
        folder().glob("*-*.safetensors"),
        key=lambda path: (not path.name.startswith(f"{DEFAULT_NAME}-"), path.name),
    )
    return {path.stem.rsplit("-", 1)[1]: path for path in paths}


def name_of(model_id: str) -> str | None:
    """Name of a shipped model, None if it is not shipped."""
    path = shipped().get(model_id)
    return path.stem.rsplit("-", 1)[0] if path else None


def locate(model: str | Path | None = None, model_id: str | None = None) -> Path:
    """The model file for a path or a shipped model's name, or for the id that a stream carries.

    Raises:
        ModelError: there is none.
    """
    if model is None and model_id is not None:
        if model_id not in shipped():
            raise ModelError(f"the stream needs model {model_id}, which is not here; name its file")
        return shipped()[model_id]
    if model is None:
        model = DEFAULT_NAME
    for found, path in shipped().items():
        if str(model) == name_of(found):
            return path
    try:
        if Path(model).is_file():
            return Path(model)
    except OSError:  # a name that no file can have
        pass
    raise ModelError(f"no model {str(model)!r}: neither shipped nor a file")


def id_of(path: Path) -> str:
    """The id of a model file; of a shipped one without reading it."""
    for found, shipped_path in shipped().items():
        if path == shipped_path:
            return found
    return identify(path.read_bytes())


def identify(content: bytes) -> str:
    """The id of a model file's content."""
    return hashlib.sha256(content).hexdigest()[:ID_DIGITS]


def card(path: Path) -> dict:
    """Configuration and training card of a model file.

    Raises:
        ModelError: not a model file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return json.loads((file.metadata() or {})["hvcodec"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path.name} is not a hvcodec model: {error}") from None


def tensors(path: Path) -> "dict[str, np.ndarray]":
    """Tensors of a model file.

    Raises:
        ModelError: not a model file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path.name} is not a hvcodec model: {error}") from None

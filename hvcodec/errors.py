"""What can go wrong, as one small hierarchy: every error a user can cause is an `HvcError`."""

from importlib.util import find_spec


class HvcError(Exception):
    """Base of all errors that hvcodec raises for bad input; its text is one clear line."""


class FormatError(HvcError):
    """The bytes are not a whole, undamaged `.hvc` file."""


class UnsupportedError(HvcError):
    """The file or picture is sound, but this version does not handle its kind."""


class ModelError(HvcError):
    """A model file is missing, damaged, or not the one that a stream names."""


class PictureError(HvcError):
    """The input is not a picture that can be read."""


class UsageError(HvcError):
    """An argument is out of range or contradicts another one."""


def need_torch(what: str) -> None:
    """Raise UsageError if PyTorch, which is not installed by default, is not here."""
    if find_spec("torch") is None:
        raise UsageError(f"{what} needs PyTorch: pip install hvcodec[torch]")


def need_onnx() -> None:
    """Raise UsageError if the package onnx, which is not installed by default, is not here."""
    if find_spec("onnx") is None:
        raise UsageError("exporting graphs needs onnx: pip install hvcodec[onnx]")


def reason(error: Exception) -> str | None:
    """One line for an error that a user can cause or meet; None for any other."""
    if isinstance(error, HvcError):
        return str(error)
    if isinstance(error, OSError):
        return ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
    # PyTorch says so with a RuntimeError.
    if isinstance(error, MemoryError) or "allocate" in str(error):
        return "out of memory"
    return None

"""What must hold for any bytes: they are read, or refused with one clear line.

Anything else is a failure: another exception, a warning (numpy's of overflow among them), a text of
several lines, a picture from damaged data.
"""

import warnings
from collections.abc import Callable
from typing import TypeVar

from PIL import Image

import hvcodec
from hvcodec import FormatError, HvcError, ModelError, PictureError, UnsupportedError, container
from hvcodec.inspect import describe
from hvcodec.picture import save

MAX_PIXELS = 1 << 16  # of a file that is decoded
FORMATS = (".png", ".webp", ".tiff", ".jpg")  # to save with the file's metadata

# How deep files get, shallow first. What is refused after the checks is told apart by its error.
REFUSALS = {
    UnsupportedError: "too large to try",
    ModelError: "model refused",
    FormatError: "decoder refused",
    PictureError: "metadata refused",
}
DEPTHS = ("header refused", "segment refused", *REFUSALS.values(), "decoded")

T = TypeVar("T")


def expect(holds: bool, what: str) -> None:
    """An assertion that no interpreter option turns off."""
    if not holds:
        raise AssertionError(f"does not hold: {what}")


def attempt(call: Callable[..., T], *arguments: object, **options: object) -> T | HvcError:
    """What a call gives, or the error that it refuses with; everything else passes."""
    try:
        return call(*arguments, **options)
    except HvcError as error:
        text = str(error)
        expect(text.strip() != "" and text.isprintable(), f"{text!r} is one clear line")
        return error


def check(data: bytes) -> str:
    """Do all that can be done with a file, and say which of `DEPTHS` it reached.

    Raises:
        Exception: whatever must not happen, warnings included.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return _check(data)


def _check(data: bytes) -> str:
    file, found = attempt(container.read, data), attempt(hvcodec.info, data)
    if isinstance(file, HvcError) or isinstance(found, HvcError):
        for call in (hvcodec.decode, lambda bad: hvcodec.cut(bad, layers=1)):
            expect(isinstance(attempt(call, data), HvcError), "a refused header is refused everywhere")
        return "header refused"
    describe(found)
    _check_cuts(data, file)
    damage = attempt(file.verify)
    picture: Image.Image | HvcError = attempt(hvcodec.decode, data, max_pixels=MAX_PIXELS)
    if isinstance(picture, UnsupportedError):
        return REFUSALS[UnsupportedError]
    if isinstance(damage, HvcError):
        expect(isinstance(picture, HvcError), "a damaged segment is not decoded")
        return "segment refused"
    if isinstance(picture, HvcError):
        return REFUSALS[type(picture)]
    expect(picture.size == (file.header.width, file.header.height), "the picture has its size")
    for suffix in FORMATS if file.header.metadata else ():
        attempt(save, picture, suffix)
    return "decoded"


def _check_cuts(data: bytes, file: container.File) -> None:
    """Every cut of a file whose header is right is a whole file of so many layers."""
    for layers, size in enumerate(file.cut_points[: file.layers], 1):
        expect(hvcodec.cut(data, layers=layers) == data[:size], "a cut is a prefix")
        expect(container.read(data[:size]).layers == layers, "a cut is a whole file")
    attempt(hvcodec.cut, data, max_bytes=len(data) // 2)

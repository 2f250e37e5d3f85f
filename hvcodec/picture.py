"""Pictures as people have them <-> what the codec works on.

In: anything Pillow opens with 8 bits a channel: grey, palette, alpha, CMYK, any EXIF orientation.
Out: H x W x 3 uint8 RGB, the colour kind to give back, and the metadata chunks (ICC, EXIF, XMP, alpha).
"""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from .container import DEFAULT_MAX_PIXELS, MAX_SIDE, Chunk, Colour, padded_pixels
from .errors import PictureError, UnsupportedError, UsageError

FORMATS = {
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
}
INFO = {Chunk.ICC: "icc_profile", Chunk.EXIF: "exif", Chunk.XMP: "xmp"}  # names in Pillow's `info`
ORIENTATION = 0x0112
PNG_LEVEL = 4  # half the time of Pillow's 6 for 3 % more bytes; a PNG from here is seldom kept
XMP_PNG = "XML:com.adobe.xmp"
XMP_TIFF = 700
# What a TIFF says of its origin; its other tags describe the file that it was in.
ORIGIN_TIFF = (270, 271, 272, 305, 306, 315, 33432)
EXIF_START = b"Exif\0\0"  # with it in some formats, without in others; here always with it
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
CONVERTED = ("CMYK", "LAB", "YCbCr", "HSV", "La", "RGBa")  # modes that RGB cannot give back exactly
# What Pillow raises for damaged files, by experience.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error)


@dataclass
class Picture:
    """A picture as the codec sees it.

    Attributes:
        rgb: uint8, H x W x 3.
        colour: what to give back.
        metadata: contents of the file's chunks.
        converted: the mode that the picture had, if its colours had to be converted to RGB.
    """

    rgb: np.ndarray
    colour: Colour
    metadata: dict[Chunk, bytes]
    converted: str | None = None


class _Unlimited:
    """Pillow's limit on pixels, which is one for the whole process, is off while any thread is in here:
    `_check` has a limit of its own."""

    def __init__(self) -> None:
        self._lock, self._threads = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                Image.MAX_IMAGE_PIXELS = self._limit


_unlimited = _Unlimited()


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what Pillow raises for bad files into errors of ours."""
    try:
        with _unlimited:
            yield
    except UnidentifiedImageError:
        raise PictureError("not a picture in a format that Pillow reads") from None
    except PILLOW_ERRORS as error:
        raise PictureError(f"the picture cannot be read: {error}") from None


def open_picture(data: bytes) -> Image.Image:
    """Open a picture file, checking that it is one still picture of a size we take.

    Raises:
        PictureError: not a picture, or a damaged one.
        UnsupportedError: animated, too deep, or too large.
    """
    with _reading():
        image = Image.open(io.BytesIO(data))
        _check(image)
        image.load()
    return image


def _check(image: Image.Image) -> None:
    # Camera files (MPO) carry previews as further frames; their first one is the picture.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise UnsupportedError("animated and multi-page pictures are not handled; give one frame")
    if image.mode.startswith(("I", "F")) or _is_deep(image):
        raise UnsupportedError(
            "pictures of more than 8 bits a channel are not handled; convert to 8 bits first"
        )
    if not 1 <= image.width <= MAX_SIDE or not 1 <= image.height <= MAX_SIDE:
        raise UnsupportedError(f"sides must be 1 to {MAX_SIDE} pixels")
    if padded_pixels(image.width, image.height) > DEFAULT_MAX_PIXELS:
        raise UnsupportedError(
            f"more than {DEFAULT_MAX_PIXELS} pixels, sides rounded up to multiples of 64"
        )


def _is_deep(image: Image.Image) -> bool:
    """Whether a file that is still to be read has 16-bit colours, which Pillow would cut to 8."""
    for tile in getattr(image, "tile", []):
        mode = tile[3] if isinstance(tile[3], str) else (tile[3] or ("",))[0]
        # "RGB;16B" and the like; "BGR;16" is 16 bits for all three.
        if isinstance(mode, str) and ";16" in mode and not mode.startswith("BGR"):
            return True
    return False


def from_image(image: Image.Image | np.ndarray, strip: bool = False) -> Picture:
    """Take a picture apart.

    Args:
        image: a PIL image, or a uint8 array H x W x 3 or H x W.
        strip: leave ICC, EXIF and XMP out (alpha stays).

    Raises:
        UsageError: neither an image nor an array.
        PictureError: the image's file turns out to be damaged.
        UnsupportedError: more than 8 bits a channel, animated, too large, or an array of another kind.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise UnsupportedError(
                f"arrays must be uint8, H x W x 3 or H x W, not {image.dtype} {image.shape}"
            )
        if not image.size:
            raise UnsupportedError("the picture is empty")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise UsageError(f"a PIL image or a uint8 array is wanted, not {type(image).__name__}")
    with _reading():
        _check(image)
        image.load()
        return _take_apart(image, strip)


def _take_apart(image: Image.Image, strip: bool) -> Picture:
    upright, exif = _upright(image)
    metadata = {} if strip else _metadata(image, upright, exif)
    image = upright
    converted = image.mode if image.mode in CONVERTED else None
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode == "CMYK":
        image = _from_cmyk(image)
        metadata.pop(Chunk.ICC, None)
    elif image.mode in CONVERTED:
        image = image.convert("RGB")
        metadata.pop(Chunk.ICC, None)
    if "transparency" in image.info:
        image = image.convert("LA" if image.mode in ("L", "1") else "RGBA")
    if image.mode == "PA" or (image.mode == "P" and image.palette and image.palette.mode == "RGBA"):
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA"):
        buffer = io.BytesIO()
        image.getchannel("A").save(buffer, "PNG", optimize=True)
        metadata[Chunk.ALPHA] = buffer.getvalue()
        image = image.convert(image.mode.removesuffix("A"))
    colour = Colour.GREY if image.mode in ("L", "1") else Colour.RGB
    return Picture(np.asarray(image.convert("RGB")), colour, metadata, converted)


def _upright(image: Image.Image) -> tuple[Image.Image, bytes]:
    """The picture turned as its EXIF says, and EXIF that no longer says so."""
    raw = image.info.get("exif", b"")
    try:
        if image.getexif().get(ORIENTATION, 1) == 1:
            return image, raw
        turned = ImageOps.exif_transpose(image)
        return turned, turned.getexif().tobytes()
    except PILLOW_ERRORS:  # EXIF that Pillow cannot parse travels as it is
        return image, raw


def _from_cmyk(image: Image.Image) -> Image.Image:
    """CMYK through its own profile to sRGB if it has one, else by Pillow's plain formula."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: the plain formula still gives a picture
    return image.convert("RGB")


def _metadata(image: Image.Image, upright: Image.Image, exif: bytes) -> dict[Chunk, bytes]:
    """ICC, EXIF and XMP of a picture."""
    xmp = upright.info.get("xmp") or upright.info.get(XMP_PNG)
    if image.format == "TIFF":
        tags = upright.getexif()
        xmp = xmp or tags.get(XMP_TIFF)
        origin = Image.Exif()
        origin.update({tag: tags[tag] for tag in ORIGIN_TIFF if tag in tags})
        for ifd in (EXIF_IFD, GPS_IFD):
            if part := tags.get_ifd(ifd):
                origin.get_ifd(ifd).update(part)
        exif = origin.tobytes() if len(origin) or origin._ifds else b""
    found = {
        Chunk.ICC: image.info.get("icc_profile"),
        Chunk.EXIF: EXIF_START + exif.removeprefix(EXIF_START) if exif else b"",
        Chunk.XMP: xmp.encode() if isinstance(xmp, str) else xmp,
    }
    return {kind: bytes(content) for kind, content in found.items() if content}


def to_image(
    picture: Picture, whole: tuple[int, int], corner: tuple[int, int] = (0, 0), reduce: int = 1
) -> Image.Image:
    """Put a decoded picture together; metadata lies in `.info`, as Pillow's savers want it.

    Args:
        picture: a region of the whole picture, or all of it; its alpha plane is always whole.
        whole: width and height of the whole picture.
        corner: x and y where the region starts.
        reduce: how many times smaller the picture is than the whole.

    Raises:
        PictureError: the alpha plane in the file is not a picture of the same size.
    """
    image = Image.fromarray(picture.rgb)
    if picture.colour == Colour.GREY:
        image = image.convert("L")
    if png := picture.metadata.get(Chunk.ALPHA):
        with _reading(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd chunks around a plane that is whole
            alpha: Image.Image = Image.open(io.BytesIO(png), formats=["PNG"])
            if alpha.size != whole or alpha.mode != "L":
                raise PictureError("the alpha plane does not fit the picture")
            if reduce > 1:
                alpha = alpha.reduce(reduce)
            x, y = corner
            image.putalpha(alpha.crop((x, y, x + image.width, y + image.height)))
    image.info.update({INFO[k]: v for k, v in picture.metadata.items() if k in INFO})
    return image


def save(image: Image.Image, suffix: str) -> bytes:
    """A decoded picture with its metadata, as a file of the format that the suffix names.

    BMP holds no metadata; everything else keeps ICC, EXIF and XMP. Of damaged EXIF a TIFF keeps what
    can be read.

    Raises:
        UnsupportedError: another suffix, or a format that cannot hold the picture.
    """
    kind = FORMATS.get(suffix.lower())
    if kind is None:
        raise UnsupportedError(f"pictures are written as {', '.join(FORMATS)}, not {suffix!r}")
    if kind in ("JPEG", "BMP") and "A" in image.mode:
        raise UnsupportedError(f"{kind} cannot hold an alpha plane; use .png, .webp or .tiff")
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF
            image.save(buffer, kind, **_options(image, kind))
    except PILLOW_ERRORS as error:
        raise UnsupportedError(f"{kind} cannot hold this picture: {error}") from None
    return buffer.getvalue()


def _options(image: Image.Image, kind: str) -> dict:
    """Pillow's options for saving a picture as it is, with its metadata."""
    options = {k: v for k, v in image.info.items() if k in ("icc_profile", "exif", "xmp")}
    if kind == "WEBP":
        return options | {"lossless": True, "exact": True}
    if kind == "JPEG":
        return options | {"quality": 95, "subsampling": 0}
    if kind == "BMP":
        return {}
    xmp = options.pop("xmp", b"")
    if kind == "PNG":
        options["compress_level"] = PNG_LEVEL
    if kind == "PNG" and xmp:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt(XMP_PNG, xmp.decode("utf-8", "replace"))
    if kind == "TIFF":
        tags = Image.Exif()
        tags.load(options.pop("exif", b""))
        if xmp:
            tags[XMP_TIFF] = xmp
        options["exif"] = tags
    return options

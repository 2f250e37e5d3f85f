"""Pictures as people have them <-> what the codec works on.

In: anything Pillow opens with 8 bits a channel: grey, palette, alpha, CMYK, any EXIF orientation.
Out: H x W x 3 uint8 RGB, the colour kind to give back, and the metadata chunks (ICC, EXIF, XMP, alpha).
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from .container import DEFAULT_MAX_PIXELS, MAX_SIDE, Chunk, Colour
from .errors import PictureError, UnsupportedError

XMP_PNG = "XML:com.adobe.xmp"
XMP_TIFF_TAG = 700


@dataclass
class Picture:
    """A picture as the codec sees it.

    Attributes:
        rgb: uint8, H x W x 3.
        colour: what to give back.
        metadata: contents of the file's chunks.
    """

    rgb: np.ndarray
    colour: Colour
    metadata: dict[Chunk, bytes]


def open_picture(source: bytes | Path) -> Image.Image:
    """Open a picture file, checking that it is one still picture of a size we take.

    Raises:
        PictureError: not a picture, or a damaged one.
        UnsupportedError: animated, or too large.
    """
    stream: Any = io.BytesIO(source) if isinstance(source, bytes) else source
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, DEFAULT_MAX_PIXELS
    try:
        image = Image.open(stream)
        _check(image)
        image.load()
    except UnidentifiedImageError:
        raise PictureError("not a picture in a format that Pillow reads") from None
    except Image.DecompressionBombError:
        raise UnsupportedError(f"the picture has more than {2 * DEFAULT_MAX_PIXELS} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PictureError(f"the picture cannot be read: {error}") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return image


def _check(image: Image.Image) -> None:
    # Camera files (MPO) carry previews as further frames; their first one is the picture.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise UnsupportedError("animated and multi-page pictures are not handled; give one frame")
    deep = image.mode.startswith(("I", "F")) or any(
        "16" in str(tile[3]) for tile in getattr(image, "tile", [])
    )
    if deep:
        raise UnsupportedError(
            "pictures of more than 8 bits a channel are not handled; convert to 8 bits first"
        )
    if not 1 <= image.width <= MAX_SIDE or not 1 <= image.height <= MAX_SIDE:
        raise UnsupportedError(f"sides must be 1 to {MAX_SIDE} pixels")


def from_image(image: Image.Image | np.ndarray, strip: bool = False) -> Picture:
    """Take a picture apart.

    Args:
        image: a PIL image, or a uint8 array H x W x 3 or H x W.
        strip: leave ICC, EXIF and XMP out (alpha stays).

    Raises:
        UnsupportedError: more than 8 bits a channel, animated, or an array of another kind.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise UnsupportedError(
                f"arrays must be uint8, H x W x 3 or H x W, not {image.dtype} {image.shape}"
            )
        image = Image.fromarray(image)
    _check(image)
    metadata = {} if strip else _metadata(image)
    image = ImageOps.exif_transpose(image)
    if image.mode == "CMYK":
        image = _from_cmyk(image)
        metadata.pop(Chunk.ICC, None)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        straight = image.convert("RGBA")
        buffer = io.BytesIO()
        straight.getchannel("A").save(buffer, "PNG", optimize=True)
        metadata[Chunk.ALPHA] = buffer.getvalue()
        image = straight.convert("L") if image.mode in ("LA", "La") else straight.convert("RGB")
    colour = Colour.GREY if image.mode in ("L", "1") else Colour.RGB
    return Picture(np.asarray(image.convert("RGB")), colour, metadata)


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


def _metadata(image: Image.Image) -> dict[Chunk, bytes]:
    """ICC, EXIF (its orientation already applied) and XMP of a picture."""
    found = {}
    if profile := image.info.get("icc_profile"):
        found[Chunk.ICC] = bytes(profile)
    turned = ImageOps.exif_transpose(image)
    exif = turned.getexif()
    exif.pop(XMP_TIFF_TAG, None)
    if image.format != "TIFF" and len(exif):
        found[Chunk.EXIF] = exif.tobytes()
    xmp = turned.info.get("xmp") or turned.info.get(XMP_PNG)
    if image.format == "TIFF":
        xmp = xmp or image.getexif().get(XMP_TIFF_TAG)
    if xmp:
        found[Chunk.XMP] = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    return found


def to_image(picture: Picture) -> Image.Image:
    """Put a decoded picture together; metadata lies in `.info`, as Pillow's savers want it.

    Raises:
        PictureError: the alpha plane in the file is not a picture of the same size.
    """
    image = Image.fromarray(picture.rgb)
    if picture.colour == Colour.GREY:
        image = image.convert("L")
    if png := picture.metadata.get(Chunk.ALPHA):
        alpha = open_picture(png)
        if alpha.size != image.size or alpha.mode != "L":
            raise PictureError("the alpha plane does not fit the picture")
        image.putalpha(alpha)
    names = {Chunk.ICC: "icc_profile", Chunk.EXIF: "exif", Chunk.XMP: "xmp"}
    image.info.update({names[k]: v for k, v in picture.metadata.items() if k in names})
    return image


def save(image: Image.Image, suffix: str) -> bytes:
    """A decoded picture with its metadata, as a file of the format that the suffix names.

    Raises:
        UnsupportedError: an unknown suffix, or a format that cannot hold the picture.
    """
    kind = Image.registered_extensions().get(suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise UnsupportedError(f"cannot write pictures ending in {suffix!r}")
    options = {k: v for k, v in image.info.items() if k in ("icc_profile", "exif", "xmp")}
    if kind == "PNG" and "xmp" in options:
        text = PngImagePlugin.PngInfo()
        text.add_itxt(XMP_PNG, options.pop("xmp").decode("utf-8", "replace"))
        options["pnginfo"] = text
    if kind == "WEBP":
        options["lossless"] = True
    if kind == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    try:
        image.save(buffer := io.BytesIO(), kind, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UnsupportedError(f"{kind} cannot hold this picture: {error}") from None
    return buffer.getvalue()

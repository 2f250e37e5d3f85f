"""A plugin for Pillow: after `import hvcodec.pillow`, it opens and saves `.hvc` files.

>>> import hvcodec.pillow
>>> from PIL import Image
>>> image = Image.open("photo.hvc")           # size and metadata at once, pixels when they are needed
>>> image.thumbnail((200, 200))               # from the coarsest layers alone
>>> Image.open("photo.png").save("photo.hvc", quality=60)   # all options of `hvcodec.encode`
"""

from inspect import signature
from typing import IO, Any

from PIL import Image, ImageFile

from . import container, decoder, encoder
from .container import Chunk, Colour
from .errors import FormatError, HvcError
from .picture import INFO
from .transform import REDUCTIONS

FORMAT = "HVC"
OPTIONS = set(signature(encoder.encode).parameters) - {"image", "progress"}


class HvcImageFile(ImageFile.ImageFile):
    """A `.hvc` file as Pillow sees it; decoded when its pixels are first asked for."""

    format = FORMAT
    format_description = "hvcodec"

    def _open(self) -> None:
        assert self.fp is not None
        self._data: bytes | None = self.fp.read()
        self._reduce = 1
        try:
            header = container.read(self._data).header
        except FormatError as error:
            raise SyntaxError(str(error)) from None  # for Pillow: not a file of this format
        except HvcError as error:
            raise OSError(str(error)) from None
        self._size = header.width, header.height
        self._mode = "L" if header.colour == Colour.GREY else "RGB"
        if Chunk.ALPHA in header.metadata:
            self._mode += "A"
        self.info.update({INFO[k]: v for k, v in header.metadata.items() if k in INFO})

    def draft(
        self, mode: str | None, size: tuple[int, int] | None
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Have a picture decoded that is smaller but at least of this size, as `thumbnail` does.

        Returns:
            The mode, and the picture's box in the smaller one; None if nothing smaller is large enough.
        """
        if size is None or self._data is None or self._reduce != 1:
            return None
        width, height = self.size
        room = min(width / max(size[0], 1), height / max(size[1], 1))
        fitting = [n for n in REDUCTIONS if n <= room]
        if not fitting:
            return None
        self._reduce = max(fitting)
        self._size = -(-width // self._reduce), -(-height // self._reduce)
        return self.mode, (0, 0, width / self._reduce, height / self._reduce)

    def load(self) -> Any:
        """Decode, if that is still to be done. Raises OSError, as Pillow's own formats do."""
        if self._data is not None:
            try:
                self.im = decoder.decode(self._data, reduce=self._reduce).im
            except HvcError as error:
                raise OSError(str(error)) from None
            self._data = None
            if self.fp and self._exclusive_fp:
                self.fp.close()
            self.fp = None
        return Image.Image.load(self)


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(container.MAGIC)


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    options = {name: value for name, value in image.encoderinfo.items() if name in OPTIONS}
    given = {name: image.encoderinfo[name] for name in INFO.values() if name in image.encoderinfo}
    if isinstance(given.get("exif"), Image.Exif):
        given["exif"] = given["exif"].tobytes()
    if given:
        image = image.copy()
        image.info.update(given)
    try:
        fp.write(encoder.encode(image, **options))
    except HvcError as error:
        raise OSError(str(error)) from None


Image.register_open(FORMAT, HvcImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".hvc")
Image.register_mime(FORMAT, "image/x-hvc")

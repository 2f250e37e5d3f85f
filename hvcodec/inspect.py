"""What can be known and done without decoding: `info` and `cut`. Imports neither numpy nor torch."""

from . import container, modelfile
from . import steps as rates
from .container import File
from .ladder import LAYERS


def info(data: bytes) -> dict:
    """What a file holds, without decoding it.

    Returns:
        width, height (pixels); bytes; bpp; model (id) and model_name (None if not shipped);
        format_version; tile (0: one tile); colour; metadata (kind -> bytes); `layers`: a list,
        coarse first, of name, stride, step (quantiser step, None if off), offset, length (bytes),
        present (False if cut away); `cut_points`: file sizes at which a cut is a whole file.

    Raises:
        FormatError, UnsupportedError: see `container.read`.
    """
    return describe(container.read(data))


def describe(file: File) -> dict:
    """`info` of a parsed file."""
    header = file.header
    ends = file.cut_points
    return {
        "width": header.width,
        "height": header.height,
        "bytes": len(file.data),
        "bpp": 8 * len(file.data) / (header.width * header.height),
        "model": header.model_id,
        "model_name": modelfile.name_of(header.model_id),
        "format_version": container.FORMAT_VERSION,
        "tile": header.tile,
        "colour": header.colour.name.lower(),
        "metadata": {kind.name.lower(): len(v) for kind, v in header.metadata.items()},
        "layers": [
            {
                "name": LAYERS[k].name if k < len(LAYERS) else f"layer {k + 1}",
                "stride": LAYERS[k].stride if k < len(LAYERS) else None,
                "step": None if step == rates.OFF else rates.step_size(step),
                "offset": begin,
                "length": end - begin,
                "present": k < file.layers,
            }
            for k, (step, begin, end) in enumerate(zip(header.steps, [file.start, *ends], ends))
        ],
        "cut_points": ends,
    }


def cut(data: bytes, layers: int | None = None, max_bytes: int | None = None) -> bytes:
    """The file without its finer layers, without decoding it; see `container.cut`."""
    return container.cut(container.read(data), layers, max_bytes)

"""What can be known and done without decoding: `info` and `cut`. Imports neither numpy nor torch."""

from typing import TypedDict

from . import container, modelfile
from . import steps as rates
from .ladder import LAYERS, LAYERS_PER_LEVEL, REFINES


class LayerInfo(TypedDict):
    """One layer in `info`; sizes in bytes. `step` is the quantiser step, None if the layer is off.
    Refinement layers have neither stride nor step: they divide the steps of all others. Nor has the
    lossless one, `exact`."""

    name: str
    stride: int | None
    holds: str
    step: float | None
    offset: int
    length: int
    present: bool


class Info(TypedDict):
    """What `info` says of a file; see there."""

    width: int
    height: int
    bytes: int
    bpp: float
    model: str
    model_name: str | None
    format_version: int
    tile: int
    colour: str
    metadata: dict[str, int]
    layers: list[LayerInfo]
    cut_points: list[int]


def info(data: bytes) -> Info:
    """What a file holds, without decoding it.

    Returns:
        width, height (pixels); bytes; bpp; model (id) and model_name (None if not shipped);
        format_version; tile (0: one tile); colour; metadata (kind -> bytes); `layers`: a list,
        coarse first, of name, stride, what it holds, step (quantiser step, None if off), offset,
        length (bytes), present (False if cut away); `cut_points`: file sizes at which a cut is a
        whole file.

    Raises:
        FormatError, UnsupportedError: see `container.read`.
    """
    file = container.read(data)
    header = file.header
    ends = file.cut_points
    layers: list[LayerInfo] = []
    for k, (begin, end) in enumerate(zip([file.start, *ends], ends)):
        name, stride, holds, step = f"r{len(header.steps) - k}", None, "", None
        if k == len(header.steps):
            name, holds = "exact", "what the decoded picture lacks of the original, without loss"
        elif k < len(LAYERS):
            name, stride, holds = LAYERS[k].name, LAYERS[k].stride, LAYERS[k].holds
            step = rates.step_size(header.steps[k]) if header.steps[k] != rates.OFF else None
        else:
            holds = REFINES[(k - len(LAYERS)) % LAYERS_PER_LEVEL]
        layers.append(
            {
                "name": name,
                "stride": stride,
                "holds": holds,
                "step": step,
                "offset": begin,
                "length": end - begin,
                "present": k < file.layers,
            }
        )
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
        "layers": layers,
        "cut_points": ends,
    }


def describe(found: Info) -> str:
    """`info` for people."""
    present = sum(layer["present"] for layer in found["layers"])
    lines = [
        f"{found['width']}x{found['height']}, {found['bytes']} bytes, {found['bpp']:.4f} bpp",
        f"model {found['model']} ({found['model_name'] or 'not shipped'}), "
        f"format {found['format_version']}",
        *(f"{kind}: {size} bytes" for kind, size in found["metadata"].items()),
        f"{present} of {len(found['layers'])} layers",
        "layer  stride    step    bytes   cut at  holds",
    ]
    for layer, point in zip(found["layers"], found["cut_points"]):
        off = "off" if layer["stride"] else ""
        step = off if layer["step"] is None else f"{layer['step']:.2f}"
        gone = "" if layer["present"] else " (cut away)"
        lines.append(
            f"{layer['name']:>5} {layer['stride'] or '':>7} {step:>7} {layer['length']:>8} "
            f"{point:>8}  {layer['holds']}{gone}"
        )
    return "\n".join(lines)


def cut(data: bytes, layers: int | None = None, max_bytes: int | None = None) -> bytes:
    """The file without its finer layers, without decoding it; see `container.cut`."""
    return container.cut(container.read(data), layers, max_bytes)

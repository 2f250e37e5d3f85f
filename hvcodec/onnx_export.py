"""A model's decoder as ONNX graphs, for decoders without this package; see `docs/onnx.md`."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, TensorProto

from . import exact, files
from .engine import Engine
from .exact import Array
from .ladder import LAYERS, STRIDES, Place, places
from .lossless import COLOURS, MEAN_UNIT, POSITIONS, SCALE_SHIFT, SHARES, SURPRISE_UNIT, Lossless
from .lossless_tables import SHAPES as LOSSLESS_SHAPES
from .lossless_tables import UNIT
from .network import COARSE_LAYERS, FINEST_COARSE, MEAN_MAX, SCALE_MAX, Network, delta
from .network import MEAN_UNIT as PRIOR_UNIT
from .onnx_graph import STEPS, Graph, Shape
from .tables import LOWEST, MAX_SHIFT, SCALES, SCALES_PER_OCTAVE, SHAPES
from .transform import BLOCK, DC_PLANES, OVERLAP, PLANES, VALUE_UNIT, frequency_bands

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
INT16, DOUBLE = TensorProto.INT16, TensorProto.DOUBLE


class Part(NamedTuple):
    """What one graph of the ladder gives a prior of.

    Attributes:
        at: the place.
        n: which of its pass.
    """

    at: Place
    n: int

    @property
    def name(self) -> str:
        """Of the graph."""
        name = f"{LAYERS[self.at.layer].name}-{self.at.p}"
        return f"{name}-{self.n}" if self.n else name


def parts_of(network: Network) -> list[Part]:
    """Everything that is coded in one go, in order."""
    passes = [(k, p) for k, la in enumerate(LAYERS) for p in range(la.passes)]
    return [Part(at, n) for k, p in passes for n, at in enumerate(places(k, p, network.grouped))]


def _told(g: Graph, network: Network, k: int, channels: list[int], steps: str) -> list[str]:
    """What decoded channels of a layer tell, from the inputs `value` and `residual`."""
    spread = network.spreads[k][channels][:, None, None]
    shape: Shape = [1, len(channels), "height", "packed"]
    value, residual = (g.input(name, FLOAT, shape) for name in ("value", "residual"))
    symbol = g.op("Div", residual, g.delta(steps, k))
    return [
        g.clip(g.op("Div", value, g.constant(spread)), -8, 8),
        g.logarithmic(value, 2, 4),
        g.logarithmic(symbol, 1, 2),
    ]


def _absorbed(g: Graph, network: Network, k: int, p: int, steps: str) -> str:
    """Inputs of what a pass turned out to be -> the trunk after it."""
    la, absorb = LAYERS[k], network.rungs[k][p].absorb
    trunk = g.input("trunk", FLOAT, [1, len(absorb.biases), "height", "width"])
    back = g.product(g.join(_told(g, network, k, [*range(la.channels)], steps)), absorb)
    return g.added(back, p, la.passes, trunk)


def _prior(g: Graph, network: Network, at: Place, found: str, steps: str) -> None:
    """The outputs of a place, from what the products over the trunk say."""
    count = len(at.channels)
    mean, scale, shape = (g.channels(found, n * count, (n + 1) * count) for n in range(3))
    spread = network.spreads[at.layer][list(at.channels)][:, None, None]
    mean = g.clip(g.op("Mul", mean, g.number(PRIOR_UNIT)), -MEAN_MAX, MEAN_MAX)
    mean = g.op("Mul", mean, g.constant(spread))
    scale = g.clip(scale, -SCALE_MAX, SCALE_MAX)
    scale = g.op("Sub", g.op("Add", scale, g.constant(exact.log2(spread))), g.number(1))
    logs = exact.log2(np.array([delta(step) for step in STEPS.tolist()]))
    scale = g.op("Sub", scale, g.delta(steps, at.layer, logs))
    level = g.op("Mul", g.op("Sub", scale, g.number(LOWEST)), g.number(SCALES_PER_OCTAVE))
    level = g.rounded(g.clip(level, 0, SCALES - 1 + MAX_SHIFT * SCALES_PER_OCTAVE))
    shape = g.clip(g.op("Add", shape, g.number(0.5)), 0, 1)
    shape = g.rounded(g.op("Mul", shape, g.number(SHAPES - 1)))
    sizes: Shape = [1, count, "height", "packed"]
    g.output("mean", mean, FLOAT, sizes)
    g.output("level", g.op("Cast", level, to=UINT8), UINT8, sizes)
    g.output("shape", g.op("Cast", shape, to=UINT8), UINT8, sizes)


def _pass(network: Network, part: Part) -> Graph:
    """The trunk before a pass, and the prior of the first place in it."""
    k, p, _ = part.at
    la, rung = LAYERS[k], network.rungs[k][p]
    g = Graph(part.name)
    steps = g.steps()
    if not k:
        start = g.constant(network.tensors["start"].astype(np.float32)[None, :, None, None])
        size = g.input("size", INT64, [2])
        h = g.op("Expand", start, g.join([g.whole(1, 1), size], 0))
    else:
        before = (k, p - 1) if p else (k - 1, LAYERS[k - 1].passes - 1)
        h = _absorbed(g, network, *before, steps)
        if la.stride < LAYERS[before[0]].stride:
            h = g.shuffled(h, network.up[STRIDES.index(la.stride) - 1], 2)
    features = g.features(steps, FINEST_COARSE if k < COARSE_LAYERS else 0)
    for block in rung.blocks:
        h = g.block(h, block, features)
    found = g.product(g.take(h, p, la.passes), rung.head[0])
    g.output("trunk_out", h, FLOAT, [1, len(rung.absorb.biases), "height", "width"])
    _prior(g, network, part.at, found, steps)
    return g


def _following(network: Network, part: Part) -> Graph:
    """The prior of a later place of a pass, given the earlier ones."""
    k, p, _ = part.at
    rung, follower = network.rungs[k][p], network.rungs[k][p].followers[part.n - 1]
    g = Graph(part.name)
    steps = g.steps()
    trunk = g.input("trunk", FLOAT, [1, len(rung.absorb.biases), "height", "width"])
    seen = g.take(trunk, p, LAYERS[k].passes)
    known = [c for at in places(k, p, network.grouped)[: part.n] for c in at.channels]
    hidden = g.product(g.join(_told(g, network, k, known, steps)), follower.from_values)
    hidden = g.op("Add", g.product(seen, follower.from_trunk), hidden)
    features = g.features(steps, FINEST_COARSE if k < COARSE_LAYERS else 0)
    hidden = g.op("Add", hidden, g.conditioned(follower.condition, features))
    more = g.product(g.op("Relu", hidden), follower.out)
    found = g.op("Add", g.product(seen, rung.head[part.n]), more)
    _prior(g, network, part.at, found, steps)
    return g


def _planes(network: Network) -> Graph:
    """All values -> coefficients, and the trunk after the last pass."""
    g = Graph("planes")
    h = _absorbed(g, network, len(LAYERS) - 1, LAYERS[-1].passes - 1, g.steps())
    layers = []
    graphs = parts_of(network)
    for k, la in enumerate(LAYERS):
        passes = []
        for p in range(la.passes):
            here = [one for one in graphs if one.at[:2] == (k, p)]
            found = []
            for one in here:
                size: Shape = [1, len(one.at.channels), f"height_{la.stride}", f"packed_{la.stride}"]
                found.append("value" if one is graphs[-1] else g.input(one.name, FLOAT, size))
            if len(here) == 1:
                passes.append(found[0])
                continue
            order = np.argsort(np.concatenate([one.at.channels for one in here])).tolist()
            passes.append(g.op("Gather", g.join(found), g.whole(*order), axis=1))
        layers.append(g.merge(passes))
    means = g.channels(layers[0], 0, DC_PLANES)
    for details in (g.channels(layers[0], DC_PLANES, 4 * DC_PLANES), *layers[1:3]):
        parts = [g.channels(details, n * DC_PLANES, (n + 1) * DC_PLANES) for n in range(3)]
        corners = []
        for ways in (
            ("Add", "Add", "Add"),
            ("Sub", "Add", "Sub"),
            ("Add", "Sub", "Sub"),
            ("Sub", "Sub", "Add"),
        ):
            total = means
            for way, part in zip(ways, parts):
                total = g.op(way, total, part)
            corners.append(g.op("Mul", total, g.number(0.5)))
        means = g.woven(corners)
    g.output("planes", g.join([means, *layers[3:]]), FLOAT, [1, PLANES, "height", "width"])
    g.output("trunk_out", h, FLOAT, [1, len(network.rungs[-1][-1].absorb.biases), "height", "width"])
    return g


def _linear(g: Graph, network: Network, planes: str) -> str:
    """Coefficients -> pixels of the inverse linear transform, in float64 and then float32."""
    transform = network.transform

    def turned(x: str, axis: int, turns: Array) -> str:
        """The 8 pixels around every inner block border, turned back."""
        end = np.iinfo(np.int64).max
        ranges = (0, OVERLAP), (OVERLAP, -OVERLAP), (-OVERLAP, end)
        first, inner, last = (
            g.op("Slice", x, g.whole(a), g.whole(b), g.whole(axis)) for a, b in ranges
        )
        shape = g.op("Shape", inner)
        if axis == 3:
            inner = g.op("Reshape", inner, g.whole(1, 3, -1, BLOCK))
            inner = g.op("MatMul", inner, g.constant(turns[None]))
        else:
            inner = g.op("Reshape", inner, g.join([g.whole(3, -1, BLOCK), g.side(x, 3)], 0))
            inner = g.op("MatMul", g.constant(turns.transpose(0, 2, 1)[:, None]), inner)
        return g.join([first, g.op("Reshape", inner, shape), last], axis)

    # By colour, so that a product is about the 64 coefficients of one.
    order = [(plane, 0, 0) for plane in range(DC_PLANES)]
    order += [c for band in frequency_bands() for c in band]
    by_colour = sorted(range(PLANES), key=lambda i: order[i][0])
    size = BLOCK**2
    basis = [
        transform.basis[by_colour[c * size : (c + 1) * size], c * size : (c + 1) * size].T
        for c in range(3)
    ]
    x = g.op("Gather", planes, g.whole(*by_colour), axis=1)
    x = g.op("Mul", g.op("Cast", x, to=DOUBLE), g.constant(np.array(1 / VALUE_UNIT)))
    x = g.rounded(x)
    sides = [g.side(planes, axis) for axis in (2, 3)]
    x = g.op("MatMul", g.constant(np.stack(basis)), g.op("Reshape", x, g.whole(3, size, -1)))
    x = g.op("Reshape", g.rounded(x), g.join([g.whole(3, BLOCK, BLOCK), *sides], 0))
    x = g.op("Transpose", x, perm=[0, 3, 1, 4, 2])
    eights = [g.op("Mul", side, g.whole(BLOCK)) for side in sides]
    full = g.join([g.whole(1, 3), *eights], 0)
    x = g.op("Reshape", x, full)
    x = g.rounded(turned(x, 3, transform.turns[3:]))
    x = g.rounded(turned(x, 2, transform.turns[:3]))
    x = g.op("MatMul", g.constant(transform.colour.T * VALUE_UNIT), g.op("Reshape", x, g.whole(3, -1)))
    return g.op("Cast", g.op("Reshape", x, full), to=FLOAT)


def _picture(network: Network) -> Graph:
    """Coefficients and trunk -> pixels."""
    g = Graph("picture")
    steps = g.steps()
    features = g.features(steps)
    planes = g.input("planes", FLOAT, [1, PLANES, "height", "width"])
    h = g.input("trunk", FLOAT, [1, network.synthesis_in.matrix.shape[0], "height", "width"])
    for block in network.closing_blocks:
        h = g.block(h, block, features)
    open_to = [
        g.op("Min", g.constant(network.spreads[k]), g.delta(steps, k)) for k in range(3, len(LAYERS))
    ]
    gain = g.op("Unsqueeze", g.join(open_to, 0), g.whole(0, 2, 3))
    offset = g.op("Mul", g.product(h, network.closing_head), gain)
    ac = g.op("Add", g.channels(planes, DC_PLANES, PLANES), offset)
    linear = _linear(g, network, g.join([g.channels(planes, 0, DC_PLANES), ac]))
    u = g.shuffled(h, network.synthesis_in, 4)
    if network.middle:
        into, blocks, out_of_middle = network.middle
        middle = g.shuffled(h, into, 2)
        for block in blocks:
            middle = g.block(middle, block, features)
        u = g.op("Add", u, g.shuffled(middle, out_of_middle, 2))
    seen = g.op("Mul", linear, g.number(1 / 64))
    u = g.op("Add", u, g.product(seen, network.synthesis_picture, 2))
    for block in network.synthesis_blocks:
        u = g.block(u, block, features)
    gain = g.op("Mul", g.conditioned(network.gain, features), g.number(8))
    details = g.op("Mul", g.product(u, network.synthesis_out), gain)
    details = g.op("DepthToSpace", details, blocksize=2, mode="DCR")
    x = g.op("Add", g.op("Add", details, linear), g.number(128))
    size: Shape = [1, 3, "8 height", "8 width"]
    for name, unit, kind in ("pixels", 1, UINT8), ("sixteenths", UNIT, INT16):
        parts = g.clip(g.op("Mul", x, g.number(unit)), 0, 255 * unit)
        g.output(name, g.op("Cast", g.rounded(parts), to=kind), kind, size)
    return g


def _lossless(layer: Lossless, number: int) -> Graph:
    """A pass of the lossless layer."""
    g = Graph(f"lossless-{number}")
    steps = g.steps()
    shown = g.input("sixteenths", INT16, [1, 3, "rows", "columns"])
    odd = [g.op("Mod", g.side(shown, axis), g.whole(2)) for axis in (2, 3)]
    shown = g.op("Cast", shown, to=FLOAT)
    shown = g.op("Pad", shown, g.join([g.whole(0, 0, 0, 0, 0, 0), *odd], 0), mode="edge")
    sixteenths = g.op("Mul", shown, g.number(1 / UNIT))
    level = g.op("Floor", g.op("Add", sixteenths, g.number(0.5)))
    fraction = g.op("Sub", sixteenths, level)
    blocks, head, _ = layer.passes[number]
    width = len(head.matrix)
    if not number:
        seen = g.op("Mul", g.op("Sub", level, g.number(128)), g.number(1 / 64))
        h = g.product(g.join([seen, fraction]), layer.into, 2)
    else:
        h = g.input("trunk", FLOAT, [1, width, "height", "width"])
        found = g.input("differences", FLOAT, [1, 3, "height", "width"])
        absorb = layer.passes[number - 1][2]
        assert absorb is not None
        eighths = g.clip(g.op("Mul", found, g.number(1 / 8)), -8, 8)
        back = g.product(g.join([eighths, g.logarithmic(found, 1, 2)]), absorb)
        h = g.op("Add", h, back)
    features = g.features(steps)
    for block in blocks:
        h = g.block(h, block, features)
    out = g.product(h, head)
    i, j = POSITIONS[number]
    colours = g.op("Gather", g.grid(fraction, i, j), g.whole(*COLOURS), axis=1)
    mean = g.op("Add", g.op("Mul", g.channels(out, 0, 3), g.number(MEAN_UNIT)), colours)
    scale = g.op("Add", g.channels(out, 3, 6), g.number(SCALE_SHIFT))
    tail = g.clip(g.op("Add", g.channels(out, 6, 9), g.number(0.5)), 0, 1)
    tail = g.rounded(g.op("Mul", tail, g.number(LOSSLESS_SHAPES - 1)))
    own = g.constant(np.array([share for _, _, share in SHARES], np.float32)[:, None, None])
    share = g.op("Add", g.channels(out, 9, 12), own)
    surprise = g.op("Mul", g.channels(out, 12, 15), g.number(SURPRISE_UNIT))
    size: Shape = [1, 3, "height", "width"]
    g.output("trunk_out", h, FLOAT, [1, width, "height", "width"])
    g.output("mean", mean, FLOAT, size)
    g.output("scale", scale, FLOAT, size)
    g.output("shape", g.op("Cast", tail, to=UINT8), UINT8, size)
    g.output("share", share, FLOAT, size)
    g.output("surprise", surprise, FLOAT, size)
    return g


def graphs(engine: Engine) -> dict[str, ModelProto]:
    """All graphs of a model, by name."""
    network = engine.network
    found = [(_following if part.n else _pass)(network, part) for part in parts_of(network)]
    found += [_planes(network), _picture(network)]
    if engine.lossless:
        found += [_lossless(engine.lossless, n) for n in range(len(POSITIONS))]
    return {g.name: g.model("docs/onnx.md of hvcodec describes it") for g in found}


def export(model: Path, folder: Path) -> str:
    """Write a model's graphs and tables to a folder; returns what was written, in words.

    Raises:
        ModelError: not a model of this version.
        HvcError: a file cannot be written.
    """
    engine = Engine(model)
    network = engine.network
    ratios, weights = network.wide_parts
    about = {
        "model": engine.id,
        "passes": [
            {
                "graph": part.name,
                "layer": part.at.layer,
                "pass": part.at.p,
                "place": part.n,
                "stride": LAYERS[part.at.layer].stride,
                "channels": list(part.at.channels),
            }
            for part in parts_of(network)
        ],
        "deltas": [float(delta(step)) for step in STEPS.tolist()],
        "ratios": ratios.tolist(),
        "weights": weights.tolist(),
        "halo": network.halo,
        "reaches": engine.tables.reaches.tolist(),
    }
    if engine.lossless:
        tables = engine.lossless.tables
        about["lossless"] = {"ratios": tables.ratios.tolist(), "weights": tables.weights.tolist()}
    contents = {f"{name}.onnx": graph.SerializeToString() for name, graph in graphs(engine).items()}
    contents["counts.bin"] = np.concatenate(engine.tables.counts).astype("<i4").tobytes()
    contents["model.json"] = json.dumps(about).encode()
    for name, content in contents.items():
        files.write(folder / name, content)
    size = sum(map(len, contents.values()))
    return f"{engine.id}: {len(contents)} files, {size / 1e6:.1f} MB"

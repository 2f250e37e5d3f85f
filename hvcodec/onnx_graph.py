"""The parts of the exact network (`network.py`) as ONNX operators, for `onnx_export.py`.

Arrays are 1 x C x H x W of float32. The sums of every product (`Conv`, `MatMul`) are exact in any
order; everything else is one IEEE operation an operator. So no choice that a runtime makes changes a
bit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from .exact import Array
from .network import KNOTS, Block, Product, conditions, delta
from .steps import OFF

OPSET, IR_VERSION = 18, 8  # of 2022: runtimes since then read them

# x q - (x q) (1 - 2^-24), q = 2^24 + 2, is the power of two next above x (S. M. Rump, "Error estimation
# of floating-point summation and dot product", 2012), twice what he calls the unit in the first place.
ABOVE, BELOW = 2.0**24 + 2, 1 - 2.0**-24

STEPS = np.arange(OFF + 1)

Shape = Sequence[int | str]  # numbers, and names of those that are free


class Graph:
    """A graph that is being built. What an operator gives is known by a name, and so are constants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list = []
        self._weights: list = []
        self._known: dict[tuple, str] = {}
        self._inputs: list = []
        self._outputs: list = []

    def input(self, name: str, kind: int, shape: Shape) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, value: str, kind: int, shape: Shape) -> None:
        """Make what an operator gives an output, under a name of its own."""
        for node in self._nodes:
            for names in (node.input, node.output):
                for n, other in enumerate(names):
                    if other == value:
                        names[n] = name
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def model(self, about: str) -> ModelProto:
        """The whole graph, checked."""
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, self._weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        model.producer_name, model.doc_string = "hvcodec", about
        checker.check_model(model, full_check=True)
        return model

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, array: Array) -> str:
        """The same name for the same array."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = name = f"constant_{len(self._weights)}"
            self._weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return self._known[key]

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def whole(self, *values: int) -> str:
        """int64 x N."""
        return self.constant(np.array(values, np.int64))

    def weight(self, array: Array) -> str:
        """A float32 constant, stored as float16 times a power of two where that is exact: rounding to
        a grid adds no digits to a model file's float16."""
        array = np.ascontiguousarray(array, np.float32)
        scale = np.float32(2.0 ** (np.frexp(np.abs(array).max())[1] - 15))
        half = (array / scale).astype(np.float16)
        if not (half.astype(np.float32) * scale == array).all():
            return self.constant(array)
        wide = self.op("Cast", self.constant(half), to=TensorProto.FLOAT)
        return self.op("Mul", wide, self.number(float(scale)))

    # Shapes.

    def channels(self, x: str, first: int, last: int) -> str:
        return self.op("Slice", x, self.whole(first), self.whole(last), self.whole(1))

    def grid(self, x: str, rows: int, columns: int) -> str:
        """Every second row and column from some on."""
        end = np.iinfo(np.int64).max
        ends, steps = self.whole(end, end), self.whole(2, 2)
        return self.op("Slice", x, self.whole(rows, columns), ends, self.whole(2, 3), steps)

    def join(self, x: list[str], axis: int = 1) -> str:
        return self.op("Concat", *x, axis=axis)

    def side(self, x: str, axis: int) -> str:
        """Of an array, int64 x 1."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def take(self, x: str, p: int, passes: int) -> str:
        """As `network.take`."""
        if passes == 1:
            return x
        rows = [self.grid(x, row, (p + row) % 2) for row in (0, 1)]
        pairs = self.join([self.op("Unsqueeze", row, self.whole(3)) for row in rows], 3)
        half = self.side(rows[0], 3)
        return self.op("Reshape", pairs, self.join([self.whole(1, -1), self.side(x, 2), half], 0))

    def _wide(self, part: str) -> str:
        """A packed pass, every number twice."""
        scales = self.constant(np.array([1, 1, 1, 2], np.float32))
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.op("Resize", part, "", scales, mode="nearest", **how)

    def _first(self, x: str) -> str:
        """Where the first of two passes has its positions; bool H x W."""
        zero, one = (self.constant(np.array(n, np.int64)) for n in (0, 1))
        rows, columns = (
            self.op("Range", zero, self.op("Squeeze", self.side(x, axis)), one) for axis in (2, 3)
        )
        place = self.op("Add", self.op("Unsqueeze", rows, self.whole(1)), columns)
        return self.op("Equal", self.op("Mod", place, self.whole(2)), self.whole(0))

    def merge(self, parts: list[str]) -> str:
        """All passes of a layer -> the layer."""
        if len(parts) == 1:
            return parts[0]
        wide = [self._wide(part) for part in parts]
        return self.op("Where", self._first(wide[0]), *wide)

    def added(self, part: str, p: int, passes: int, into: str) -> str:
        """As `network.put`, adding."""
        if passes == 2:
            here = self.op("Cast", self._first(into), to=TensorProto.FLOAT)
            here = self.op("Sub", self.number(1), here) if p else here
            part = self.op("Mul", self._wide(part), here)
        return self.op("Add", into, part)

    def woven(self, corners: list[str]) -> str:
        """Four arrays of equal shape, of every 2 x 2 positions those at the upper left, upper right,
        lower left and lower right."""
        return self.op("DepthToSpace", self.join(corners), blocksize=2)

    # Numbers.

    def rounded(self, x: str) -> str:
        return self.op("Round", x)

    def counted(self, x: str, unit: float, limit: int, least: int | None = None) -> str:
        """Numbers in whole units, clamped to -limit (or `least`) .. limit."""
        if unit != 1:
            x = self.op("Mul", x, self.number(1 / unit))
        return self.rounded(self.clip(x, -limit if least is None else least, limit))

    def clip(self, x: str, low: float, high: float) -> str:
        return self.op("Clip", x, self.number(low), self.number(high))

    def log2(self, x: str) -> str:
        """As `exact.log2`, of numbers from 2^-60 to 2^60."""
        scaled = self.op("Mul", x, self.number(ABOVE))
        power = self.op("Sub", scaled, self.op("Mul", scaled, self.number(BELOW)))
        m = self.op("Div", x, power)
        # Only the nearest whole number is asked of `Log`, and of a power of two.
        exponent = self.op("Mul", self.op("Log", power), self.number(1 / np.log(2)))
        rest = m
        for factor, term in ((1.40815007, -4.45325453), (None, 5.52538099), (None, -3.59235683)):
            rest = self.op("Mul", rest, m if factor is None else self.number(factor))
            rest = self.op("Add", rest, self.number(term))
        below = self.op("Sub", m, self.number(1))
        half = self.op("Sub", m, self.number(0.5))
        slope = self.op("Add", self.op("Mul", half, rest), self.number(2))
        return self.op("Add", self.op("Mul", below, slope), self.rounded(exponent))

    def logarithmic(self, x: str, unit: float, scale: float) -> str:
        """sign x log2(1 + |x| / unit) / scale."""
        size = self.op("Add", self.op("Mul", self.op("Abs", x), self.number(1 / unit)), self.number(1))
        # The logarithm of what is smaller than 2^-24 is 0 anyway.
        sign = self.clip(self.op("Mul", x, self.number(2.0**24)), -1, 1)
        signed = self.op("Mul", sign, self.log2(size))
        return self.op("Mul", signed, self.number(1 / scale))

    # The network.

    def steps(self) -> str:
        """The input that holds the step indices of the ladder's layers."""
        return self.input("steps", TensorProto.INT32, [7])

    def features(self, steps: str, finest: int = 0) -> str:
        """Features of step indices, none below `finest`: 56 x 1."""
        if finest:
            steps = self.op("Max", steps, self.constant(np.array([finest], np.int32)))
        table = np.stack([conditions([step]) for step in STEPS.tolist()])
        rows = self.op("Gather", self.constant(table), steps)
        return self.op("Reshape", rows, self.whole(7 * (KNOTS + 1), 1))

    def delta(self, steps: str, layer: int, of: Array | None = None) -> str:
        """The step of one of the ladder's layers, or what `of` has for every step index."""
        table = np.array([delta(step) for step in STEPS.tolist()]) if of is None else of
        index = self.op("Gather", steps, self.constant(np.array([layer], np.int32)))
        return self.op("Gather", self.constant(table), index)

    def conditioned(self, matrix: Array, features: str) -> str:
        """A product of features, 1 x outputs x 1 x 1."""
        column = self.op("MatMul", self.weight(matrix), features)
        return self.op("Unsqueeze", column, self.whole(0, 3))

    def product(self, x: str, product: Product, stride: int = 1) -> str:
        """A product over channels, or those of stride x stride positions (`network.unshuffle`)."""
        weights = product.matrix.T
        weights = weights.reshape(len(weights), -1, stride, stride)
        inputs = self._inputs_of(x, product), self.weight(weights), self.weight(product.biases)
        return self.op("Conv", *inputs, strides=[stride, stride])

    def shuffled(self, x: str, product: Product, r: int) -> str:
        """A product over channels whose outputs go to r x r positions (`network.shuffle`)."""
        # Biases differ by position, so they are the weights of a channel of ones.
        matrix = np.concatenate([product.matrix, product.biases[None]])
        ones = self.whole(0, 0, 0, 0, 0, 1, 0, 0)
        x = self.op("Pad", self._inputs_of(x, product), ones, self.number(1))
        weights = self.weight(matrix.reshape(len(matrix), r, r, -1).transpose(0, 3, 1, 2))
        return self.op("ConvTranspose", x, weights, strides=[r, r])

    def _inputs_of(self, x: str, product: Product) -> str:
        assert product.limit is not None
        return self.counted(x, product.unit, product.limit)

    def block(self, h: str, block: Block, features: str) -> str:
        """As `network.Block`."""
        limit, hidden_limit = block.limits
        assert block.limit and limit and hidden_limit
        kernel = block.kernel.transpose(2, 0, 1)[:, None]
        expand, project = (m.T[:, :, None, None] for m in (block.expand, block.project))
        x = self.counted(h, block.unit, block.limit)
        x = self.op("Conv", x, self.weight(kernel), group=len(kernel), pads=[1, 1, 1, 1])
        hidden = self.op("Conv", self.counted(x, 1, limit), self.weight(expand))
        # Not as the biases of a `Conv`: they are not whole units, so they have to come last.
        shift = self.conditioned(block.condition, features)
        shift = self.op("Add", shift, self.weight(block.shift[None, :, None, None]))
        hidden = self.counted(self.op("Add", hidden, shift), 1, hidden_limit, 0)  # ReLU
        out = self.op("Conv", hidden, self.weight(project), self.weight(block.biases))
        return self.op("Add", out, h)

"""The preprocessing as an OpenVINO graph: uint8 image of any size → the network's input.

Pillow's resizing is two products of matrices whose weights the graph computes. Of the 37.6
million values of 250 ImageNet photos at 224 × 224, 0.07 % (bilinear) and 0.01 % (bicubic) differ
from Pillow's, by 1 of 255, three by 2; none of OpenCV's. 12 megapixels take 1 to 1.5 times as
long as in Pillow and 190 MB. Compile it with `INFERENCE_PRECISION_HINT` f32: a bfloat16 product
has too few bits.

OpenVINO's own `Interpolate` in its Pillow modes is not used. For images of changing size it is
compiled anew for every size (5 s for one of 640 × 427) or runs a loop five times slower than
Pillow, and it does not round between its two passes. The CPU plugin computes whole numbers in 32
bits and float64 in float32; nothing here needs more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from densepath.errors import MissingPackageError
from densepath.exporting.graph import Body, GraphTensor, NumberKind, Operations
from densepath.exporting.preprocess_graph import Axis, preprocess_graph, resize_by_matrices
from densepath.images.preprocess import MOST_PIXELS, Preprocess

if TYPE_CHECKING:
    import openvino

DTYPES: dict[NumberKind, type] = {
    "whole": np.int32,
    "real": np.float32,
    "byte": np.uint8,
    "truth": np.bool_,
}
TYPES: dict[NumberKind, str] = {"whole": "i32", "real": "f32", "byte": "u8", "truth": "boolean"}
# ONNX's names for the operations, and OpenVINO's.
NAMES = {
    "Abs": "absolute",
    "Add": "add",
    "And": "logical_and",
    "Div": "divide",
    "Floor": "floor",
    "Greater": "greater",
    "Less": "less",
    "MatMul": "matmul",
    "Max": "maximum",
    "Min": "minimum",
    "Mul": "multiply",
    "Round": "round",
    "Sub": "subtract",
    "Where": "select",
}


def build_preprocess_openvino(preprocess: Preprocess) -> openvino.Model:
    """A graph that does what `preprocess` does.

    Input `image`: uint8 [height, width, channels], any height and width. Outputs `images`: float32
    [1, channels, *size], normalised, and `pixels`: uint8 [*size, channels], resized and cropped.

    Raises:
        MissingPackageError: openvino is not installed.
    """
    try:
        import openvino
        from openvino import opset13
    except ImportError:
        raise MissingPackageError("openvino", "openvino") from None
    image = opset13.parameter([-1, -1, preprocess.channels], openvino.Type.u8, name="image")
    outputs = preprocess_graph(GraphTensor(_OpenVinoOperations(), image, "byte"), preprocess)
    results = []
    for tensor, name in zip(outputs, ("images", "pixels"), strict=True):
        result = opset13.result(tensor.handle, name=name)
        result.output(0).set_names({name})
        results.append(result)
    image.output(0).set_names({"image"})
    return openvino.Model(results, [image], "preprocess")


class _OpenVinoOperations(Operations):
    """Operations that become nodes; a tensor's handle is its node."""

    def constant(self, value: Any, kind: NumberKind) -> Any:
        """A tensor of the numbers or array `value`."""
        from openvino import opset13

        return opset13.constant(np.asarray(value, DTYPES[kind]))

    def apply(self, name: str, *tensors: Any) -> Any:
        """The tensor that the operation `name` makes."""
        from openvino import opset13

        if name == "MatMul":
            return opset13.matmul(*tensors, False, False)
        if name == "Round":
            return opset13.round(*tensors, "half_to_even")
        return getattr(opset13, NAMES[name])(*tensors)

    def floor_divide(self, a: Any, b: Any) -> Any:
        """⌊a / b⌋ of whole numbers, b above 0; exact."""
        # The plugin divides whole numbers as floats: at most one off, which the rest tells.
        real = self.apply("Div", self.cast(a, "real"), self.cast(b, "real"))
        near = self.cast(self.apply("Floor", real), "whole")
        rest = self.apply("Sub", a, self.apply("Mul", near, b))
        zero, one = self.constant(0, "whole"), self.constant(1, "whole")
        below = self.apply("Where", self.apply("Less", rest, zero), one, zero)
        above = self.apply("Where", self.apply("Less", rest, b), zero, one)
        return self.apply("Add", self.apply("Sub", near, below), above)

    def cast(self, tensor: Any, kind: NumberKind) -> Any:
        """The tensor's values as another kind; real → whole truncates."""
        from openvino import opset13

        return opset13.convert(tensor, TYPES[kind])

    def dimension(self, tensor: Any, axis: int) -> Any:
        """The whole number of rank 0 that is the tensor's size along an axis."""
        from openvino import opset13

        shape = opset13.shape_of(tensor, "i32")
        return opset13.gather(shape, self.constant(axis, "whole"), self.constant(0, "whole"))

    def count(self, number: Any) -> Any:
        """The whole numbers 0 … number − 1."""
        from openvino import opset13

        zero, one = self.constant(0, "whole"), self.constant(1, "whole")
        return opset13.range(zero, number, one, "i32")

    def take(self, tensor: Any, places: Any, axis: int) -> Any:
        """The tensor's slices at the whole numbers `places`, of rank 1, along an axis."""
        from openvino import opset13

        return opset13.gather(tensor, places, self.constant(axis, "whole"))

    def cut(self, tensor: Any, start: Any, stop: Any, axis: int) -> Any:
        """The tensor from `start` to before `stop` along an axis."""
        from openvino import opset13

        ends = (self.reshape(number, [1]) for number in (start, stop))
        one, axes = self.constant([1], "whole"), self.constant([axis], "whole")
        return opset13.slice(tensor, *ends, one, axes)

    def reshape(self, tensor: Any, shape: Sequence[int]) -> Any:
        """The tensor in another shape; one number may be −1, and 0 keeps the size at its place."""
        from openvino import opset13

        return opset13.reshape(tensor, self.constant(shape, "whole"), special_zero=True)

    def transpose(self, tensor: Any, order: Sequence[int]) -> Any:
        """The tensor with its axes in another order."""
        from openvino import opset13

        return opset13.transpose(tensor, self.constant(order, "whole"))

    def sum(self, tensor: Any, axis: int) -> Any:
        """The sum along an axis, which stays with size 1."""
        from openvino import opset13

        return opset13.reduce_sum(tensor, self.constant([axis], "whole"), keep_dims=True)

    def either(self, condition: Any, yes: Body, no: Body, *tensors: GraphTensor) -> GraphTensor:
        """`yes(*tensors)` where the condition of rank 0 holds, else `no(*tensors)`."""
        from openvino import opset13

        branch = opset13.if_op(condition.output(0))
        bodies = [self._body(body, tensors) for body in (yes, no)]
        branch.set_then_body(bodies[0][0])
        branch.set_else_body(bodies[1][0])
        for tensor, then, other in zip(tensors, bodies[0][1], bodies[1][1], strict=True):
            branch.set_input(tensor.handle.output(0), then, other)
        output = branch.set_output(bodies[0][0].results[0], bodies[1][0].results[0])
        return GraphTensor(self, output, bodies[0][2])

    def each(self, body: Body, number: int, *tensors: GraphTensor) -> GraphTensor:
        """`body(i, *tensors)` of i = 0 … number − 1 (rank 0), stacked along a new first axis."""
        import openvino
        from openvino import opset13

        always = opset13.constant(np.array(True))
        place = opset13.parameter([1], openvino.Type.i32)
        inputs = [_input_like(tensor.handle) for tensor in tensors]
        inside = (GraphTensor(self, i, t.kind) for i, t in zip(inputs, tensors, strict=True))
        output = body(GraphTensor(self, place, "whole").reshape(), *inside)
        row = opset13.unsqueeze(output.handle, self.constant(0, "whole"))
        loop = opset13.loop(self.constant(number, "whole"), always)
        goes_on = opset13.constant(np.array(True))
        loop.set_function(openvino.Model([row, goes_on], [place, *inputs]))
        loop.set_special_body_ports([0, 1])
        for tensor, parameter in zip(tensors, inputs, strict=True):
            loop.set_invariant_input(parameter, tensor.handle.output(0))
        stacked = loop.get_concatenated_slices(row.output(0), 0, 1, 1, -1, 0)
        return GraphTensor(self, stacked, output.kind)

    def rounded_side(self, long: GraphTensor, short: GraphTensor, resize_short: int) -> GraphTensor:
        """Python's `round(long * (resize_short / short))`, to the last half."""
        times = long // short
        rest = (long - times * short) * (2 * resize_short)
        doubled = rest // short
        below, odd = times * resize_short + doubled // 2, _is_odd(doubled)
        # Only a product of k + 1/2 needs more care; k is `below`.
        step, limits = half_rule(resize_short)
        place = (short // step).least(len(limits) - 1).reshape(1)
        limit = long.constant(limits, "real").take(place, 0).reshape()
        leaves = _mantissa(below.cast("real") + 0.5) > limit.absolute()
        half = leaves.where((limit > 0.0).cast("whole"), _is_odd(below))
        return below + (rest - doubled * short > 0).where(odd, half * odd)

    def resize_like_pillow(
        self, image: GraphTensor, rows: Axis, columns: Axis, kernel: str, channels: int
    ) -> GraphTensor:
        """The crop of the byte image [height, width, channels] resized by Pillow's arithmetic."""
        return resize_by_matrices(image, rows, columns, kernel, channels)

    def _body(
        self, body: Body, tensors: Sequence[GraphTensor]
    ) -> tuple[openvino.Model, list[Any], NumberKind]:
        """The nodes that `body` makes, as a model of their own; its inputs; its output's kind."""
        import openvino

        inputs = [_input_like(tensor.handle) for tensor in tensors]
        output = body(*(GraphTensor(self, i, t.kind) for i, t in zip(inputs, tensors, strict=True)))
        return openvino.Model([output.handle], inputs), inputs, output.kind


def _input_like(node: Any) -> Any:
    """What a body takes where `node` is given to it."""
    from openvino import opset13

    return opset13.parameter(node.get_output_partial_shape(0), node.get_output_element_type(0))


def _is_odd(number: GraphTensor) -> GraphTensor:
    """1 or 0."""
    return number - number // 2 * 2


def _mantissa(number: GraphTensor) -> GraphTensor:
    """The number of rank 0, from 1 on, divided by the largest power of two in it."""
    powers = number.constant(2.0 ** np.arange(1, 31), "real")
    power = (powers > number).where(powers * 0.0, powers * 0.5).sum(0).reshape() + 1.0
    return number / power


def half_rule(resize_short: int) -> tuple[int, NDArray[np.float32]]:
    """How `round(long * (resize_short / short))` treats a product that is exactly k + 1/2.

    The quotient has been rounded to float64, so that the product may come out a step of float64
    beside the half. It does if the mantissa of k + 1/2, in 1…2, exceeds a limit that depends on
    `short` alone: 2^-53 over the quotient's relative error. If not, the half goes to the even
    number, as Python's `round` does.

    Returns `step` and the limits for short = 0, step, 2 · step, …, negative where the product
    comes out below the half. Other short sides never give a half.
    """
    step = 2 * (resize_short & -resize_short)
    shorts = range(step, math.isqrt(MOST_PIXELS) + 1, step)
    return step, np.array([np.inf, *(_limit(resize_short, short) for short in shorts)], np.float32)


def _limit(resize_short: int, short: int) -> float:
    """The limit of `half_rule` for one short side; rounded down, so that `>` stays true."""
    exact = Fraction(resize_short, short)
    error = (Fraction(resize_short / short) - exact) / exact
    if error == 0:
        return math.inf
    limit = Fraction(1, 2**53) / abs(error)
    near = np.float32(float(limit))
    if Fraction(float(near)) > limit:
        near = np.nextafter(near, np.float32(0))
    return math.copysign(float(near), error)

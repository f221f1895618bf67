"""The preprocessing as an ONNX graph: uint8 image of any size → the network's input.

Pillow's resizing is ONNX `Resize` with `antialias`, one axis after the other: ONNX Runtime's is
Pillow's own fixed-point arithmetic, but for the last bit of its weights. Of the 37.6 million
values of 250 ImageNet photos at 224 × 224, 0.05 % (bilinear) and 0.02 % (bicubic) differ from
Pillow's, all by 1 of 255; none of OpenCV's. 12 megapixels take as long as in Pillow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from densepath.errors import MissingPackageError
from densepath.exporting.graph import Body, GraphTensor, NumberKind, Operations
from densepath.exporting.preprocess_graph import (
    CUBIC_A,
    Axis,
    more_pixels,
    preprocess_graph,
    resize_by_matrices,
    vertical_first,
)
from densepath.images.preprocess import Preprocess

if TYPE_CHECKING:
    import onnx

# The oldest opset with `antialias` and `axes` (18), and the oldest IR that it goes with.
OPSET = 18
IR_VERSION = 8
DTYPES: dict[NumberKind, type] = {
    "whole": np.int64,
    "real": np.float32,
    "byte": np.uint8,
    "truth": np.bool_,
}
# A resized image of more pixels is not made whole: its crop is a small part (64 : 1 at 256).
MOST_RESIZED = 1 << 22
MODES = {"bilinear": "linear", "bicubic": "cubic"}


def build_preprocess_onnx(preprocess: Preprocess) -> onnx.ModelProto:
    """A graph that does what `preprocess` does.

    Input `image`: uint8 [height, width, channels], any height and width. Outputs `images`: float32
    [1, channels, *size], normalised, and `pixels`: uint8 [*size, channels], resized and cropped.

    Raises:
        MissingPackageError: onnx is not installed.
    """
    try:
        from onnx import TensorProto, checker, helper
    except ImportError:
        raise MissingPackageError("onnx", "onnx") from None
    operations = _OnnxOperations()
    outputs = preprocess_graph(GraphTensor(operations, "image", "byte"), preprocess)
    for tensor, name in zip(outputs, ("images", "pixels"), strict=True):
        operations.name(tensor.handle, name)
    height, width, channels = *preprocess.size, preprocess.channels
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        operations.nodes,
        "preprocess",
        [value("image", TensorProto.UINT8, ["height", "width", channels])],
        [
            value("images", TensorProto.FLOAT, [1, channels, height, width]),
            value("pixels", TensorProto.UINT8, [height, width, channels]),
        ],
        operations.initializers,
    )
    model = helper.make_model(
        graph,
        producer_name="densepath",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    checker.check_model(model, full_check=True)
    return model


class _OnnxOperations(Operations):
    """Operations that become nodes; a tensor's handle is its name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], str] = {}
        self._count = 0

    def name(self, handle: str, output: str) -> None:
        """Make the tensor an output of the graph, under this name."""
        self.nodes.append(self._node("Identity", [handle], output))

    def constant(self, value: Any, kind: NumberKind) -> str:
        """A tensor of the numbers or array `value`."""
        from onnx import numpy_helper

        array: NDArray[Any] = np.asarray(value, DTYPES[kind])
        key = (array.tobytes(), array.dtype.str, array.shape)
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self.initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def apply(self, name: str, *tensors: str, **attributes: Any) -> str:
        """The tensor that the operation `name` makes."""
        output = self._name(name.lower())
        self.nodes.append(self._node(name, list(tensors), output, **attributes))
        return output

    def floor_divide(self, a: str, b: str) -> str:
        """⌊a / b⌋ of whole numbers, b above 0; exact."""
        # Div truncates, Mod has the sign of b: a − mod(a, b) is the multiple of b below a.
        return self.apply("Div", self.apply("Sub", a, self.apply("Mod", a, b)), b)

    def cast(self, tensor: str, kind: NumberKind) -> str:
        """The tensor's values as another kind; real → whole truncates."""
        from onnx import helper

        return self.apply(
            "Cast", tensor, to=helper.np_dtype_to_tensor_dtype(np.dtype(DTYPES[kind]))
        )

    def dimension(self, tensor: str, axis: int) -> str:
        """The whole number of rank 0 that is the tensor's size along an axis."""
        shape = self.apply("Shape", tensor, start=axis, end=axis + 1)
        return self.apply("Squeeze", shape)

    def count(self, number: str) -> str:
        """The whole numbers 0 … number − 1."""
        return self.apply("Range", self.constant(0, "whole"), number, self.constant(1, "whole"))

    def take(self, tensor: str, places: str, axis: int) -> str:
        """The tensor's slices at the whole numbers `places`, of rank 1, along an axis."""
        return self.apply("Gather", tensor, places, axis=axis)

    def cut(self, tensor: str, start: str, stop: str, axis: int) -> str:
        """The tensor from `start` to before `stop` along an axis."""
        ends = [self.reshape(number, [1]) for number in (start, stop)]
        return self.apply("Slice", tensor, *ends, self.constant([axis], "whole"))

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """The tensor in another shape; one number may be −1, and 0 keeps the size at its place."""
        return self.apply("Reshape", tensor, self.constant(shape, "whole"))

    def transpose(self, tensor: str, order: Sequence[int]) -> str:
        """The tensor with its axes in another order."""
        return self.apply("Transpose", tensor, perm=list(order))

    def sum(self, tensor: str, axis: int) -> str:
        """The sum along an axis, which stays with size 1."""
        return self.apply("ReduceSum", tensor, self.constant([axis], "whole"), keepdims=1)

    def either(self, condition: str, yes: Body, no: Body, *tensors: GraphTensor) -> GraphTensor:
        """`yes(*tensors)` where the condition of rank 0 holds, else `no(*tensors)`."""
        then, other = self._branch(yes, tensors), self._branch(no, tensors)
        output = self.apply("If", condition, then_branch=then[0], else_branch=other[0])
        return GraphTensor(self, output, then[1])

    def each(self, body: Body, number: int, *tensors: GraphTensor) -> GraphTensor:
        """`body(i, *tensors)` of i = 0 … number − 1 (rank 0), stacked along a new first axis."""
        from onnx import TensorProto, helper

        place = self._name("place")
        graph, kind = self._branch(body, (GraphTensor(self, place, "whole"), *tensors))
        goes_on = self._name("goes_on")
        value = helper.make_tensor_value_info
        graph.input.append(value(place, TensorProto.INT64, []))
        graph.input.append(value(goes_on, TensorProto.BOOL, []))
        graph.node.append(self._node("Identity", [goes_on], f"{goes_on}_still"))
        graph.output.insert(0, value(f"{goes_on}_still", TensorProto.BOOL, []))
        stacked = self.apply("Loop", self.constant(number, "whole"), "", body=graph)
        return GraphTensor(self, stacked, kind)

    def rounded_side(self, long: GraphTensor, short: GraphTensor, resize_short: int) -> GraphTensor:
        """Python's `round(long * (resize_short / short))`, to the last half."""
        from onnx import TensorProto, numpy_helper

        self.initializers.append(
            numpy_helper.from_array(np.array(resize_short, np.float64), "resize_short")
        )
        exact = [self.apply("Cast", side.handle, to=TensorProto.DOUBLE) for side in (long, short)]
        side = self.apply("Mul", exact[0], self.apply("Div", "resize_short", exact[1]))
        return GraphTensor(self, self.cast(self.apply("Round", side), "whole"), "whole")

    def resize_like_pillow(
        self, image: GraphTensor, rows: Axis, columns: Axis, kernel: str, channels: int
    ) -> GraphTensor:
        """The crop of the byte image [height, width, channels] resized by Pillow's arithmetic."""

        def in_parts(image: GraphTensor) -> GraphTensor:
            return resize_by_matrices(image, rows, columns, kernel, channels)

        def whole(image: GraphTensor) -> GraphTensor:
            return self._resize(image, rows, columns, kernel)

        return more_pixels(rows, columns, MOST_RESIZED).either(in_parts, whole, image)

    def _resize(self, image: GraphTensor, rows: Axis, columns: Axis, kernel: str) -> GraphTensor:
        """One axis after the other; what the crop leaves out is dropped between the two."""
        down = vertical_first(rows, columns)
        zero = rows.old.constant(0)
        height, width = down.where(rows.target, rows.old), down.where(columns.old, columns.target)
        half = self._native(image, height, width, kernel)
        half = half.cut(down.where(rows.first, zero), down.where(rows.last, rows.old), 0)
        half = half.cut(down.where(zero, columns.first), down.where(columns.old, columns.last), 1)
        height = down.where(rows.last - rows.first, rows.target)
        width = down.where(columns.target, columns.last - columns.first)
        full = self._native(half, height, width, kernel)
        full = full.cut(down.where(zero, rows.first), down.where(height, rows.last), 0)
        return full.cut(down.where(columns.first, zero), down.where(columns.last, width), 1)

    def _native(
        self, image: GraphTensor, height: GraphTensor, width: GraphTensor, kernel: str
    ) -> GraphTensor:
        """byte [h, w, channels] → byte [height, width, channels]."""
        batch = self.apply("Unsqueeze", image.handle, self.constant([0], "whole"))
        one, channels = self.constant([1], "whole"), self.apply("Shape", image.handle, start=2)
        sides = [self.reshape(side.handle, [1]) for side in (height, width)]
        resized = self.apply(
            "Resize",
            batch,
            "",
            "",
            self.apply("Concat", one, *sides, channels, axis=0),
            mode=MODES[kernel],
            antialias=1,
            cubic_coeff_a=CUBIC_A,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        )
        return GraphTensor(
            self, self.apply("Squeeze", resized, self.constant([0], "whole")), "byte"
        )

    def _branch(
        self, body: Body, tensors: Sequence[GraphTensor]
    ) -> tuple[onnx.GraphProto, NumberKind]:
        """The nodes that `body` makes, as a graph of their own; it sees the outer tensors."""
        from onnx import helper

        outer, self.nodes = self.nodes, []
        output = body(*tensors)
        inner, self.nodes = self.nodes, outer
        value = helper.make_empty_tensor_value_info(output.handle)
        return helper.make_graph(inner, f"branch_{self._count}", [], [value]), output.kind

    def _name(self, what: str) -> str:
        """A name that no other tensor has."""
        self._count += 1
        return f"{what}_{self._count}"

    @staticmethod
    def _node(name: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        """Add a node to the graph."""
        from onnx import helper

        return helper.make_node(name, inputs, [output], name=output, **attributes)

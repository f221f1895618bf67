"""A Paddle program and its tensors → the graph that `weights/structure` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from densepath.errors import WeightsError
from densepath.weights.paddle_inference.program import Operator, Program
from densepath.weights.structure.graph import Graph, Node

# Operators that make constants, and those that change nothing of what they read.
_CONSTANT = ("fill_constant", "assign_value", "shape", "full", "full_int_array")
_NOTHING = ("assign", "cast", "share_data")
_SHAPES = (
    "flatten",
    "flatten2",
    "flatten_contiguous_range",
    "reshape",
    "reshape2",
    "squeeze",
    "squeeze2",
    "unsqueeze2",
)
_NORMS = ("batch_norm", "sync_batch_norm")
_CHANNELS = (1, -3)  # of [N, C, H, W]
Tensors = Mapping[str, np.ndarray]
Rule = Callable[["_Maker", Operator], Iterator[Node]]


def graph_of(program: Program, tensors: Tensors) -> Graph:
    """The nodes of a program.

    Raises:
        WeightsError: it has several inputs or none, or an operator does not hold together.
    """
    if len(program.feeds) != 1 or not program.fetches:
        raise WeightsError(
            f"it has {len(program.feeds)} inputs and {len(program.fetches)} results; a network "
            "here has one of each"
        )
    maker = _Maker(program, tensors)
    try:
        nodes = tuple(maker.nodes())
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise WeightsError(f"an operator of its program does not hold together: {error}") from error
    loose = tuple(name for name in tensors if name not in maker.used)
    fetches = tuple(maker.current(name) for name in program.fetches)
    return Graph(nodes, program.feeds[0], fetches, _size_of(program), loose)


def _size_of(program: Program) -> tuple[int, int] | None:
    """Height and width of the images, where the program fixes them."""
    shape = program.shapes.get(program.feeds[0], ())
    return (shape[2], shape[3]) if len(shape) == 4 and min(shape[2:]) > 0 else None


class _Maker:
    """Nodes of operators, one after the other: a name may be written more than once."""

    def __init__(self, program: Program, tensors: Tensors) -> None:
        self.program, self.tensors = program, tensors
        self.used: set[str] = set()
        self._versions: dict[str, int] = {}

    def nodes(self) -> Iterator[Node]:
        """The nodes, in the order of the operators."""
        for operator in self.program.operators:
            if operator.kind not in _CONSTANT:
                yield from _RULES.get(operator.kind, _Maker.unknown)(self, operator)

    def current(self, name: str) -> str:
        """The name of a value as it was written last."""
        version = self._versions.get(name, 0)
        return f"{name}@{version}" if version else name

    def _new(self, name: str) -> str:
        """The name of a value that is written now."""
        is_known = name in self._versions or name in self.program.feeds
        self._versions[name] = self._versions.get(name, 0) + 1 if is_known else 0
        return self.current(name)

    def tensor(self, name: str) -> np.ndarray | None:
        """A tensor of the file by its name; None where the name is a value's, or empty."""
        if name not in self.tensors:
            return None
        self.used.add(name)
        return self.tensors[name]

    def _needed(self, operator: Operator, parameter: str) -> np.ndarray:
        """The tensor that an operator must have.

        Raises:
            WeightsError: it is computed, or missing.
        """
        found = self.tensor(operator.reads(parameter))
        if found is None:
            raise WeightsError(f"an operator {operator.kind} has no tensor as {parameter}")
        return found

    def _node(
        self,
        kind: str,
        operator: Operator,
        read: str,
        written: str,
        tensors: Tensors | None = None,
        **attributes: Any,
    ) -> Node:
        """A node of one input, a value's name, and one result."""
        inputs = (self.current(read),)
        return Node(kind, inputs, (self._new(written),), tensors or {}, attributes)

    def unknown(self, operator: Operator) -> Iterator[Node]:
        """An operator of no kind of ours, under Paddle's word; with what it holds."""
        names = [name for names in operator.inputs.values() for name in names]
        held = {name: self.tensors[name] for name in names if self.tensor(name) is not None}
        inputs = tuple(self.current(name) for name in names if name not in held)
        outputs = [name for names in operator.outputs.values() for name in names]
        results = tuple(self._new(name) for name in outputs)
        yield Node(operator.kind, inputs, results or ("nothing",), held, {})

    def _plain(self, kind: str, operator: Operator) -> Node:
        """A node from `X` to `Out` without numbers."""
        return self._node(kind, operator, operator.reads("X"), operator.writes("Out"))

    def identity(self, operator: Operator) -> Iterator[Node]:
        """A value as it is."""
        yield self._plain("identity", operator)

    def flatten(self, operator: Operator) -> Iterator[Node]:
        """Another shape of the same values."""
        yield self._plain("flatten", operator)

    def activation(self, operator: Operator) -> Iterator[Node]:
        """ReLU, sigmoid or softmax."""
        yield self._plain(operator.kind, operator)

    def convolution(self, operator: Operator) -> Iterator[Node]:
        """A convolution; a fused one with its bias, what it adds, and its activation."""
        attributes = operator.attributes
        _check_layout(operator)
        tensors = {"weight": self._needed(operator, "Filter")}
        bias = self.tensor(operator.reads("Bias"))
        if bias is not None:
            tensors["bias"] = bias.reshape(-1)
        written, residual = operator.writes("Output"), operator.reads("ResidualData")
        yield self._node(
            "convolution",
            operator,
            operator.reads("Input"),
            written,
            tensors,
            stride=attributes.get("strides", 1),
            padding=_padding(operator),
            groups=attributes.get("groups", 1),
            dilation=attributes.get("dilations", 1),
        )
        if residual:
            inputs = (self.current(written), self.current(residual))
            yield Node("add", inputs, (self._new(written),))
        activation = attributes.get("activation") or attributes.get("fuse_activation") or "identity"
        if activation != "identity":
            yield self._node(str(activation), operator, written, written)

    def norm(self, operator: Operator) -> Iterator[Node]:
        """A BatchNorm with its statistics."""
        _check_layout(operator)
        parts = {"gamma": "Scale", "beta": "Bias", "mean": "Mean", "variance": "Variance"}
        tensors = {ours: self._needed(operator, theirs) for ours, theirs in parts.items()}
        epsilon = float(operator.attributes.get("epsilon", 1e-5))
        read, written = operator.reads("X"), operator.writes("Y")
        yield self._node("batch_norm", operator, read, written, tensors, epsilon=epsilon)

    def pool(self, operator: Operator) -> Iterator[Node]:
        """A pool by maximum or mean, over windows or all positions."""
        attributes = operator.attributes
        _check_layout(operator)
        read, written = operator.reads("X"), operator.writes("Out")
        is_max, kernel = attributes.get("pooling_type") == "max", attributes.get("ksize")
        adaptive = bool(attributes.get("adaptive"))
        over_all = bool(attributes.get("global_pooling")) or (
            adaptive and kernel in ([1, 1], [1], 1)
        )
        if over_all or adaptive:
            kind = "global_average" if over_all and not is_max else "adaptive pool"
            yield self._node(kind, operator, read, written)
            return
        yield self._node(
            "max_pool" if is_max else "average_pool",
            operator,
            read,
            written,
            kernel=kernel,
            stride=attributes.get("strides", 1),
            padding=_padding(operator),
            ceil_mode=bool(attributes.get("ceil_mode")),
        )

    def concat(self, operator: Operator) -> Iterator[Node]:
        """Maps behind each other."""
        _check_axis(operator, operator.attributes.get("axis", 0))
        inputs = tuple(self.current(name) for name in operator.inputs.get("X", ()))
        kind = "concat" if len(inputs) > 1 else "identity"
        yield Node(kind, inputs, (self._new(operator.writes("Out")),))

    def split(self, operator: Operator) -> Iterator[Node]:
        """A node for each part of a map."""
        _check_axis(operator, operator.attributes.get("axis", 0))
        read, outputs = self.current(operator.reads("X")), operator.outputs.get("Out", ())
        sections = operator.attributes.get("sections") or []
        if not sections:
            for part, name in enumerate(outputs):
                written = {"parts": len(outputs), "part": part}
                yield Node("slice", (read,), (self._new(name),), {}, written)
            return
        sides = self._sections(operator, [int(one) for one in sections])
        if len(sides) != len(outputs):
            raise WeightsError(f"a split into {len(sides)} parts has {len(outputs)} results")
        ends = np.cumsum(sides)
        for size, end, name in zip(sides, ends, outputs, strict=True):
            places = {"start": int(end) - size, "stop": int(end)}
            yield Node("slice", (read,), (self._new(name),), {}, places)

    def _sections(self, operator: Operator, sections: list[int]) -> list[int]:
        """The parts of a split, where −1 stands for what is left."""
        if sections.count(-1) > 1 or min(sections) < -1:
            raise WeightsError(f"a split has the parts {sections}")
        if -1 not in sections:
            return sections
        shape = self.program.shapes.get(operator.reads("X"), ())
        if len(shape) < 2 or shape[1] < 1:
            raise WeightsError(f"a split of {sections} reads a map of unknown channels")
        left = shape[1] - (sum(sections) + 1)
        return [left if one == -1 else one for one in sections]

    def slice(self, operator: Operator) -> Iterator[Node]:
        """Some channels of a map."""
        attributes = operator.attributes
        starts, ends = attributes.get("starts") or [], attributes.get("ends") or []
        axes = attributes.get("axes") or []
        if len(axes) != 1 or len(starts) != 1 or len(ends) != 1:
            raise WeightsError(f"a slice has the axes {axes}, from {starts} to {ends}")
        _check_axis(operator, axes[0])
        read, written = operator.reads("Input"), operator.writes("Out")
        places = {"start": int(starts[0]), "stop": int(ends[0])}
        yield self._node("slice", operator, read, written, None, **places)

    def add(self, operator: Operator) -> Iterator[Node]:
        """A sum of two maps, or of a map and a tensor."""
        yield self._two(operator, "add", "beta")

    def multiply(self, operator: Operator) -> Iterator[Node]:
        """A map times a tensor."""
        yield self._two(operator, "multiply", "gamma")

    def _two(self, operator: Operator, kind: str, leaf: str) -> Node:
        """A node of two maps, or the scale of one by a tensor of a value a channel."""
        left, right = operator.reads("X"), operator.reads("Y")
        written = operator.writes("Out")
        for read, name in ((left, right), (right, left)):
            if (tensor := self.tensor(name)) is not None:
                return self._node("scale", operator, read, written, {leaf: tensor.reshape(-1)})
        inputs = (self.current(left), self.current(right))
        return Node(kind, inputs, (self._new(written),))

    def scale(self, operator: Operator) -> Iterator[Node]:
        """The same factor and summand for all."""
        attributes = operator.attributes
        factor, summand = float(attributes.get("scale") or 0), float(attributes.get("bias") or 0)
        if not attributes.get("bias_after_scale", True):
            summand *= factor
        tensors = {"gamma": np.array([factor]), "beta": np.array([summand])}
        yield self._node("scale", operator, operator.reads("X"), operator.writes("Out"), tensors)

    def dropout(self, operator: Operator) -> Iterator[Node]:
        """What is left of dropout when the training is over: nothing, or a factor."""
        rate = float(operator.attributes.get("dropout_prob") or 0)
        how = operator.attributes.get("dropout_implementation", "downgrade_in_infer")
        factor = 1 - rate if how in ("downgrade_in_infer", "downscale_in_infer") else 1.0
        read, written = operator.reads("X"), operator.writes("Out")
        yield self._node("scale", operator, read, written, {"gamma": np.array([factor])})

    def product(self, operator: Operator) -> Iterator[Node]:
        """A matrix product with a tensor, which Paddle stores [inputs, outputs]."""
        is_fc = operator.kind == "fc"
        read = operator.reads("Input" if is_fc else "X")
        weight = self.tensor(operator.reads("W" if is_fc else "Y"))
        written = operator.writes("Out")
        if weight is None or weight.ndim != 2:
            inputs = (self.current(read), self.current(operator.reads("Y")))
            yield Node(operator.kind, inputs, (self._new(written),))
            return
        turned = operator.attributes.get("trans_y") or operator.attributes.get("transpose_Y")
        tensors = {"weight": weight if turned else weight.T}
        bias = self.tensor(operator.reads("Bias"))
        if bias is not None:
            tensors["bias"] = bias.reshape(-1)
        yield self._node("linear", operator, read, written, tensors)
        if activation := operator.attributes.get("activation_type"):
            yield self._node(str(activation), operator, written, written)


def _check_layout(operator: Operator) -> None:
    """Raise unless an operator's maps are [N, C, H, W].

    Raises:
        WeightsError: they are not.
    """
    layout = operator.attributes.get("data_format") or operator.attributes.get("data_layout")
    if layout not in (None, "NCHW", "AnyLayout"):
        raise WeightsError(f"its {operator.kind} has maps laid out as {layout}; NCHW is read")


def _check_axis(operator: Operator, axis: Any) -> None:
    """Raise unless an operator goes along the channels.

    Raises:
        WeightsError: it does not.
    """
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in _CHANNELS:
        raise WeightsError(f"its {operator.kind} goes along axis {axis}; channels are axis 1")


def _padding(operator: Operator) -> Any:
    """The padding, in the order top, left, bottom, right."""
    way = operator.attributes.get("padding_algorithm", "EXPLICIT")
    if way == "SAME":
        return "same"
    given = operator.attributes.get("paddings", 0)
    if way == "VALID":
        return 0
    if isinstance(given, list) and len(given) == 4:
        top, bottom, left, right = given
        return [top, left, bottom, right]
    return given


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_NOTHING, _Maker.identity),
    **dict.fromkeys(_SHAPES, _Maker.flatten),
    **dict.fromkeys(("relu", "sigmoid", "softmax"), _Maker.activation),
    **dict.fromkeys(
        ("conv2d", "depthwise_conv2d", "conv2d_fusion", "fused_conv2d", "fused_conv2d_add_act"),
        _Maker.convolution,
    ),
    **dict.fromkeys(_NORMS, _Maker.norm),
    **dict.fromkeys(("matmul_v2", "matmul", "mul", "fc"), _Maker.product),
    "pool2d": _Maker.pool,
    "concat": _Maker.concat,
    "split": _Maker.split,
    "slice": _Maker.slice,
    "elementwise_add": _Maker.add,
    "elementwise_mul": _Maker.multiply,
    "scale": _Maker.scale,
    "dropout": _Maker.dropout,
}

"""What each of Paddle's operators is among the nodes of `weights/structure`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from densepath.errors import WeightsError
from densepath.weights.paddle_inference.maker import NodeMaker
from densepath.weights.paddle_inference.program import PaddleOperator
from densepath.weights.structure.graph import Node

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
# The kind of a node that stands for dropout until it is folded away.
DROPOUT = "dropout's factor"
_CHANNELS = (1, -3)  # of [N, C, H, W]
Rule = Callable[[NodeMaker, PaddleOperator], Iterator[Node]]


def nodes_of(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """The nodes of an operator; none of one that makes a constant."""
    if operator.kind not in _CONSTANT:
        yield from _RULES.get(operator.kind, _unknown)(maker, operator)


def _unknown(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """An operator of no kind of ours, under Paddle's word; with what it holds."""
    names = [name for names in operator.inputs.values() for name in names]
    held = {name: maker.tensors[name] for name in names if maker.tensor(name) is not None}
    inputs = tuple(maker.current(name) for name in names if name not in held)
    outputs = [name for names in operator.outputs.values() for name in names]
    results = tuple(maker.new(name) for name in outputs)
    yield Node(operator.kind, inputs, results or ("nothing",), held, {})


def _plain(maker: NodeMaker, kind: str, operator: PaddleOperator) -> Node:
    """A node from `X` to `Out` without numbers."""
    return maker.node(kind, operator.reads("X"), operator.writes("Out"))


def _identity(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """A value as it is."""
    yield _plain(maker, "identity", operator)


def _flatten(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """Another shape of the same values."""
    yield _plain(maker, "flatten", operator)


def _activation(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """ReLU, sigmoid or softmax."""
    yield _plain(maker, operator.kind, operator)


def _convolution(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """A convolution; a fused one with its bias, what it adds, and its activation."""
    attributes = operator.attributes
    _check_layout(operator)
    tensors = {"weight": maker.needed(operator, "Filter")}
    bias = maker.tensor(operator.reads("Bias"))
    if bias is not None:
        tensors["bias"] = bias.reshape(-1)
    written, residual = operator.writes("Output"), operator.reads("ResidualData")
    yield maker.node(
        "convolution",
        operator.reads("Input"),
        written,
        tensors,
        stride=attributes.get("strides", 1),
        padding=_padding(operator),
        groups=attributes.get("groups", 1),
        dilation=attributes.get("dilations", 1),
    )
    if residual:
        inputs = (maker.current(written), maker.current(residual))
        yield Node("add", inputs, (maker.new(written),))
    activation = attributes.get("activation") or attributes.get("fuse_activation") or "identity"
    if activation != "identity":
        yield maker.node(str(activation), written, written)


def _norm(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """A BatchNorm with its statistics."""
    _check_layout(operator)
    parts = {"gamma": "Scale", "beta": "Bias", "mean": "Mean", "variance": "Variance"}
    tensors = {ours: maker.needed(operator, theirs) for ours, theirs in parts.items()}
    epsilon = float(operator.attributes.get("epsilon", 1e-5))
    read, written = operator.reads("X"), operator.writes("Y")
    yield maker.node("batch_norm", read, written, tensors, epsilon=epsilon)


def _pool(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """A pool by maximum or mean, over windows or all positions."""
    attributes = operator.attributes
    _check_layout(operator)
    read, written = operator.reads("X"), operator.writes("Out")
    is_max, kernel = attributes.get("pooling_type") == "max", attributes.get("ksize")
    adaptive = bool(attributes.get("adaptive"))
    over_all = bool(attributes.get("global_pooling")) or (adaptive and kernel in ([1, 1], [1], 1))
    if over_all or adaptive:
        kind = "global_average" if over_all and not is_max else "adaptive pool"
        yield maker.node(kind, read, written)
        return
    yield maker.node(
        "max_pool" if is_max else "average_pool",
        read,
        written,
        kernel=kernel,
        stride=attributes.get("strides", 1),
        padding=_padding(operator),
        ceil_mode=bool(attributes.get("ceil_mode")),
    )


def _concat(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """Maps behind each other."""
    _check_axis(operator, operator.attributes.get("axis", 0))
    inputs = tuple(maker.current(name) for name in operator.inputs.get("X", ()))
    kind = "concat" if len(inputs) > 1 else "identity"
    yield Node(kind, inputs, (maker.new(operator.writes("Out")),))


def _split(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """A node for each part of a map."""
    _check_axis(operator, operator.attributes.get("axis", 0))
    read, outputs = maker.current(operator.reads("X")), operator.outputs.get("Out", ())
    sections = operator.attributes.get("sections") or []
    if not sections:
        for part, name in enumerate(outputs):
            written = {"parts": len(outputs), "part": part}
            yield Node("slice", (read,), (maker.new(name),), {}, written)
        return
    sides = _sections(maker, operator, [int(one) for one in sections])
    if len(sides) != len(outputs):
        raise WeightsError(f"a split into {len(sides)} parts has {len(outputs)} results")
    ends = np.cumsum(sides)
    for size, end, name in zip(sides, ends, outputs, strict=True):
        places = {"start": int(end) - size, "stop": int(end)}
        yield Node("slice", (read,), (maker.new(name),), {}, places)


def _sections(maker: NodeMaker, operator: PaddleOperator, sections: list[int]) -> list[int]:
    """The parts of a split, where −1 stands for what is left."""
    if sections.count(-1) > 1 or min(sections) < -1:
        raise WeightsError(f"a split has the parts {sections}")
    if -1 not in sections:
        return sections
    shape = maker.program.shapes.get(operator.reads("X"), ())
    if len(shape) < 2 or shape[1] < 1:
        raise WeightsError(f"a split of {sections} reads a map of unknown channels")
    left = shape[1] - (sum(sections) + 1)
    return [left if one == -1 else one for one in sections]


def _slice(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """Some channels of a map."""
    attributes = operator.attributes
    starts, ends = attributes.get("starts") or [], attributes.get("ends") or []
    axes = attributes.get("axes") or []
    if len(axes) != 1 or len(starts) != 1 or len(ends) != 1:
        raise WeightsError(f"a slice has the axes {axes}, from {starts} to {ends}")
    _check_axis(operator, axes[0])
    read, written = operator.reads("Input"), operator.writes("Out")
    places = {"start": int(starts[0]), "stop": int(ends[0])}
    yield maker.node("slice", read, written, None, **places)


def _add(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """A sum of two maps, or of a map and a tensor."""
    yield _two(maker, operator, "add", "beta")


def _multiply(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """A map times a tensor."""
    yield _two(maker, operator, "multiply", "gamma")


def _two(maker: NodeMaker, operator: PaddleOperator, kind: str, leaf: str) -> Node:
    """A node of two maps, or the scale of one by a tensor of a value a channel."""
    left, right = operator.reads("X"), operator.reads("Y")
    written = operator.writes("Out")
    for read, name in ((left, right), (right, left)):
        if (tensor := maker.tensor(name)) is not None:
            return maker.node("scale", read, written, {leaf: tensor.reshape(-1)})
    inputs = (maker.current(left), maker.current(right))
    return Node(kind, inputs, (maker.new(written),))


def _scale(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """The same factor and summand for all."""
    attributes = operator.attributes
    factor, summand = float(attributes.get("scale") or 0), float(attributes.get("bias") or 0)
    if not attributes.get("bias_after_scale", True):
        summand *= factor
    tensors = {"gamma": np.array([factor]), "beta": np.array([summand])}
    yield maker.node("scale", operator.reads("X"), operator.writes("Out"), tensors)


def _dropout(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """What is left of dropout when the training is over: nothing, or a factor."""
    rate = float(operator.attributes.get("dropout_prob") or 0)
    how = operator.attributes.get("dropout_implementation", "downgrade_in_infer")
    factor = 1 - rate if how in ("downgrade_in_infer", "downscale_in_infer") else 1.0
    read, written = operator.reads("X"), operator.writes("Out")
    yield maker.node(DROPOUT, read, written, {"gamma": np.array([factor])})


def _product(maker: NodeMaker, operator: PaddleOperator) -> Iterator[Node]:
    """A matrix product with a tensor, which Paddle stores [inputs, outputs]."""
    is_fc = operator.kind == "fc"
    read = operator.reads("Input" if is_fc else "X")
    weight = maker.tensor(operator.reads("W" if is_fc else "Y"))
    written = operator.writes("Out")
    if weight is None or weight.ndim != 2:
        inputs = (maker.current(read), maker.current(operator.reads("Y")))
        yield Node(operator.kind, inputs, (maker.new(written),))
        return
    turned = operator.attributes.get("trans_y") or operator.attributes.get("transpose_Y")
    tensors = {"weight": weight if turned else weight.T}
    bias = maker.tensor(operator.reads("Bias"))
    if bias is not None:
        tensors["bias"] = bias.reshape(-1)
    yield maker.node("linear", read, written, tensors)
    if activation := operator.attributes.get("activation_type"):
        yield maker.node(str(activation), written, written)


def _check_layout(operator: PaddleOperator) -> None:
    """Raise unless an operator's maps are [N, C, H, W].

    Raises:
        WeightsError: they are not.
    """
    layout = operator.attributes.get("data_format") or operator.attributes.get("data_layout")
    if layout not in (None, "NCHW", "AnyLayout"):
        raise WeightsError(f"its {operator.kind} has maps laid out as {layout}; NCHW is read")


def _check_axis(operator: PaddleOperator, axis: Any) -> None:
    """Raise unless an operator goes along the channels.

    Raises:
        WeightsError: it does not.
    """
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in _CHANNELS:
        raise WeightsError(f"its {operator.kind} goes along axis {axis}; channels are axis 1")


def _padding(operator: PaddleOperator) -> Any:
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
    **dict.fromkeys(_NOTHING, _identity),
    **dict.fromkeys(_SHAPES, _flatten),
    **dict.fromkeys(("relu", "sigmoid", "softmax"), _activation),
    **dict.fromkeys(
        ("conv2d", "depthwise_conv2d", "conv2d_fusion", "fused_conv2d", "fused_conv2d_add_act"),
        _convolution,
    ),
    **dict.fromkeys(_NORMS, _norm),
    **dict.fromkeys(("matmul_v2", "matmul", "mul", "fc"), _product),
    "pool2d": _pool,
    "concat": _concat,
    "split": _split,
    "slice": _slice,
    "elementwise_add": _add,
    "elementwise_mul": _multiply,
    "scale": _scale,
    "dropout": _dropout,
}

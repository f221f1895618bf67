"""ONNX's operators, of every opset, as the nodes of a Graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from densepath.weights.onnx_files.arithmetic import arithmetic, gemm, matmul
from densepath.weights.onnx_files.call import CHANNELS, FOUR, Call
from densepath.weights.structure.attributes import misfit
from densepath.weights.structure.graph import Node

if TYPE_CHECKING:
    from onnx import NodeProto

TO_NCHW = [0, 3, 1, 2]
WHOLE = 1 << 31  # an end beyond every channel, as exporters write "to the end"


def rule_of(proto: NodeProto) -> Callable[[Call], Iterator[Node]]:
    """The rule for an operator."""
    if proto.domain not in ("", "ai.onnx"):
        return _foreign
    return _RULES.get(proto.op_type, _unknown)


def _unknown(call: Call) -> Iterator[Node]:
    """An operator that is no layer here: it is refused if the network takes it."""
    yield call.unknown()


def _foreign(call: Call) -> Iterator[Node]:
    """An operator of a runtime's own, which copies have that it optimised for itself."""
    raise misfit(
        call.unknown(),
        f"is an operator of {call.proto.domain} alone, as in a copy that a runtime optimised for "
        "itself; import the file that the copy was made of",
    )
    yield


def _convolution(call: Call) -> Iterator[Node]:
    """Conv."""
    weight, bias = call.constant(1), call.constant(2)
    if weight is None or weight.ndim != FOUR:
        raise misfit(call.unknown(), "has no weights of four dimensions")
    inputs, before = call.padded()
    yield call.node(
        "convolution",
        {"weight": weight, "bias": bias},
        inputs=inputs,
        stride=call.attributes.get("strides", 1),
        padding=call.padding(weight.shape[2:], before),
        groups=call.attributes.get("group", 1),
        dilation=call.attributes.get("dilations", 1),
    )


def _pool(kind: str) -> Callable[[Call], Iterator[Node]]:
    """MaxPool and AveragePool."""

    def rule(call: Call) -> Iterator[Node]:
        """One pool."""
        kernel = call.attributes["kernel_shape"]
        inputs, before = call.padded()
        yield call.node(
            kind,
            inputs=inputs,
            kernel=kernel,
            stride=call.attributes.get("strides", 1),
            padding=call.padding(kernel, before),
            ceil_mode=bool(call.attributes.get("ceil_mode", 0)),
            dilation=call.attributes.get("dilations", 1),
        )

    return rule


def _pad(call: Call) -> Iterator[Node]:
    """Pad, which the layer behind it takes over."""
    pads = call.given("pads", 1) or call.given("paddings", 1) or []
    mode = call.attributes.get("mode", b"constant")
    value = call.attributes.get("value", 0.0)
    if call.known.opset >= 11 and (given := call.constant(2)) is not None and given.size:
        value = float(given.reshape(-1)[0])
    tops, bottoms = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    if mode != b"constant" or len(pads) != 2 * FOUR or any(tops[:2] + bottoms[:2]):
        yield call.unknown()
        return
    # Behind a ReLU a padding of 0 and one of −∞ have the same maximum.
    if value not in (0.0, -np.inf) and value > float(np.finfo(np.float32).min) / 2:
        yield call.unknown()
        return
    sides = (tops[2], tops[3], bottoms[2], bottoms[3])
    call.known.pads[call.outputs[0]] = (call.proto.input[0], sides)
    yield call.node("identity") if not any(sides) else call.unknown()


def _batch_norm(call: Call) -> Iterator[Node]:
    """BatchNormalization, with its statistics."""
    if call.attributes.get("training_mode", 0):
        raise misfit(call.unknown(), "is in training mode: export the model after model.eval()")
    names = ("gamma", "beta", "mean", "variance")
    tensors = {name: call.constant(place) for place, name in enumerate(names, start=1)}
    epsilon = call.attributes.get("epsilon", 1e-5)
    yield call.node("batch_norm", tensors, inputs=call.data[:1], epsilon=epsilon)


def _simple(kind: str) -> Callable[[Call], Iterator[Node]]:
    """An operator of one input without more to say."""

    def rule(call: Call) -> Iterator[Node]:
        """One node."""
        yield call.node(kind, inputs=call.data[:1])

    return rule


def _flatten(call: Call) -> Iterator[Node]:
    """Flatten, Reshape, Squeeze: [N, C] from here on, unless a shape of four sides is given."""
    shape = None
    if call.proto.op_type == "Reshape" and len(call.data) == 1:
        shape = call.given("shape", 1)
    if call.proto.op_type == "Unsqueeze" or (shape is not None and len(shape) == FOUR):
        call.known.layouts.pop(call.outputs[0], None)
    else:
        call.flattened()
    yield call.node("flatten", inputs=call.data[:1])


def _mean(call: Call) -> Iterator[Node]:
    """ReduceMean over height and width."""
    axes = call.given("axes", 1) or []
    if sorted(axis % FOUR for axis in axes) != [2, 3]:
        yield call.unknown()
        return
    if not call.attributes.get("keepdims", 1):
        call.flattened()
    yield call.node("global_average", inputs=call.data[:1])


def _clip(call: Call) -> Iterator[Node]:
    """Clip at 0 without an upper end, which is a ReLU."""
    least, most = (
        call.attributes[name] if name in call.attributes else call.constant(place)
        for place, name in ((1, "min"), (2, "max"))
    )
    above = (
        most is None or float(np.asarray(most).reshape(-1)[0]) > float(np.finfo(np.float32).max) / 2
    )
    is_relu = least is not None and not np.any(np.asarray(least)) and above
    yield call.node("relu", inputs=call.data[:1]) if is_relu else call.unknown()


def _concat(call: Call) -> Iterator[Node]:
    """Concat along the channels."""
    axis = call.attributes.get("axis", 1)
    if axis not in (CHANNELS, CHANNELS - FOUR) or len(call.data) != len(call.proto.input):
        yield call.unknown()
        return
    yield call.node("concat" if len(call.data) > 1 else "identity")


def _slice(call: Call) -> Iterator[Node]:
    """Slice of the channels; of other axes only what keeps all."""
    starts, ends = call.given("starts", 1) or [], call.given("ends", 2) or []
    axes = call.given("axes", 3) or list(range(len(starts)))
    steps = (call.constant(4) is not None and call.given("steps", 4)) or [1] * len(starts)
    start, stop, step = 0, WHOLE, 1
    for axis, first, end, by in zip(axes, starts, ends, steps, strict=True):
        if axis % FOUR == CHANNELS:
            start, stop, step = first, end, by
        elif (first, by) != (0, 1) or end < WHOLE - 1:
            yield call.unknown()
            return
    if step == 1:
        yield call.node("slice", inputs=call.data[:1], start=start, stop=min(stop, WHOLE))
        return
    yield call.unknown()


def _gather(call: Call) -> Iterator[Node]:
    """Gather of channels by their numbers."""
    axis, indices = call.attributes.get("axis", 0), call.constant(1)
    if axis % FOUR != CHANNELS or indices is None or indices.dtype.kind not in "iu":
        yield call.unknown()
        return
    yield call.node("slice", inputs=call.data[:1], indices=indices)


def _split(call: Call) -> Iterator[Node]:
    """Split of the channels, a node for each part."""
    if call.attributes.get("axis", 0) not in (CHANNELS, CHANNELS - FOUR):
        yield call.unknown()
        return
    sizes, parts = call.given("split", 1), len(call.outputs)
    starts = np.cumsum([0, *(sizes or [])]).tolist()
    for place in range(parts):
        where: dict[str, Any] = {"part": place, "parts": parts}
        if sizes:
            where = {"start": starts[place], "stop": starts[place + 1]}
        yield call.node("slice", inputs=call.data[:1], output=place, **where)


def _transpose(call: Call) -> Iterator[Node]:
    """Transpose of the images from NHWC; no other is part of these networks."""
    perm = list(call.attributes.get("perm", []))
    if call.layout() != "NHWC" or perm != TO_NCHW:
        yield call.unknown()
        return
    call.known.layouts[call.outputs[0]] = "NCHW"
    yield call.node("identity")


_RULES: dict[str, Callable[[Call], Iterator[Node]]] = {
    "Conv": _convolution,
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("average_pool"),
    "GlobalAveragePool": _simple("global_average"),
    "ReduceMean": _mean,
    "BatchNormalization": _batch_norm,
    "Relu": _simple("relu"),
    "Clip": _clip,
    "Concat": _concat,
    "Slice": _slice,
    "Gather": _gather,
    "Split": _split,
    **dict.fromkeys(("Add", "Sum", "Sub", "Mul", "Div"), arithmetic),
    "MatMul": matmul,
    "Gemm": gemm,
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _flatten),
    "Pad": _pad,
    "Transpose": _transpose,
    "Sigmoid": _simple("sigmoid"),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _simple("softmax")),
    "Dropout": _simple("dropout"),
    **dict.fromkeys(("Identity", "Cast"), _simple("identity")),
}

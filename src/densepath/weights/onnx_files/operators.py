"""ONNX's operators, of every opset, as the nodes of a Graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from densepath.errors import KeyMismatchError, WeightsError
from densepath.weights.onnx_files.tensors import Constants
from densepath.weights.structure.attributes import SAME, misfit
from densepath.weights.structure.graph import REFUSED, Node

if TYPE_CHECKING:
    from onnx import NodeProto

Layout = Literal["NCHW", "NHWC", "NC"]
# Operators that hand on what they read, in the same layout.
_SAME_LAYOUT = ("Cast", "Identity", "Dropout", "Add", "Sub", "Mul", "Div", "BatchNormalization")
TO_NCHW, CHANNELS = [0, 3, 1, 2], 1
WHOLE = 1 << 31  # an end beyond every channel, as exporters write "to the end"
FOUR = 4


@dataclass
class Translation:
    """A graph's nodes, translated one after another.

    Attributes:
        constants: its constant values.
        opset: the version of its operators.
        nodes: so far.
        notes: what the user should know.
        layouts: of the values, where it is not NCHW.
        pads: values that are another one with padding: that one, and (top, left, bottom, right).
    """

    constants: Constants
    opset: int
    nodes: list[Node] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    layouts: dict[str, Layout] = field(default_factory=dict)
    pads: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)

    def add(self, proto: NodeProto) -> None:
        """Translate one node, or know its result where that is constant.

        Raises:
            WeightsError: it is damaged.
        """
        attributes = read_attributes(proto, self.constants)
        if not proto.output or self.constants.fold(proto, attributes):
            return
        call = Call(self, proto, attributes)
        if call.data and proto.op_type in _SAME_LAYOUT:
            self._keep_layout(call)
        try:
            nodes = list(_rule(proto)(call))
        except KeyMismatchError as error:
            # It may belong to what computes a shape, and to no layer.
            odd = call.unknown()
            nodes = [replace(odd, inputs=odd.inputs[:1], attributes={REFUSED: str(error)})]
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise WeightsError(f"{call.to_text()} is damaged: {error}") from error
        self.nodes += nodes

    def _keep_layout(self, call: Call) -> None:
        """The result has the layout of what is read."""
        if layout := self.layouts.get(call.data[0]):
            self.layouts[call.outputs[0]] = layout


@dataclass(frozen=True)
class Call:
    """A node of the file, with what its rule asks of it."""

    translation: Translation
    proto: NodeProto
    attributes: Mapping[str, Any]

    @property
    def outputs(self) -> list[str]:
        """The names of its results."""
        return list(self.proto.output)

    @property
    def data(self) -> list[str]:
        """The names of those inputs that are not constant."""
        return [name for name in self.proto.input if name and name not in self.constants]

    @property
    def constants(self) -> Constants:
        """The constant values of its graph."""
        return self.translation.constants

    def to_text(self) -> str:
        """The node in a message."""
        return f"{self.constants.path}: {self.proto.op_type} {self.proto.name or self.outputs[0]!r}"

    def constant(self, place: int) -> np.ndarray | None:
        """The constant input at a place; None where there is no input.

        Raises:
            KeyMismatchError: it is computed, not constant.
        """
        name = self.proto.input[place] if len(self.proto.input) > place else ""
        if not name:
            return None
        if name not in self.constants:
            raise misfit(self.unknown(), "computes its weights or shape of other values")
        return self.constants.get(name)

    def given(self, name: str, place: int) -> list[int] | None:
        """Whole numbers that are an attribute in old opsets and an input in new ones."""
        if name in self.attributes:
            return [int(one) for one in np.asarray(self.attributes[name]).reshape(-1)]
        value = self.constant(place)
        return None if value is None else [int(one) for one in value.reshape(-1)]

    def node(
        self,
        kind: str,
        tensors: Mapping[str, np.ndarray | None] | None = None,
        *,
        inputs: Sequence[str] | None = None,
        output: int = 0,
        **attributes: Any,
    ) -> Node:
        """A node of this kind; tensors that are None are left out, floats become float32."""
        kept = {
            name: tensor if tensor.dtype == np.float32 else tensor.astype(np.float32)
            for name, tensor in (tensors or {}).items()
            if tensor is not None
        }
        read = self.data if inputs is None else inputs
        name = self.proto.name or self.outputs[output]
        return Node(kind, tuple(read), (self.outputs[output],), kept, attributes, name)

    def unknown(self) -> Node:
        """The node under the file's own word."""
        domain = self.proto.domain
        word = self.proto.op_type if domain in ("", "ai.onnx") else f"{domain}.{self.proto.op_type}"
        return self.node(word)

    def layout(self) -> Layout:
        """The layout of what it reads."""
        return self.translation.layouts.get(self.data[0], "NCHW")

    def flattened(self) -> None:
        """Its result is [N, C] from here on."""
        self.translation.layouts[self.outputs[0]] = "NC"

    def padded(self) -> tuple[list[str], tuple[int, ...]]:
        """What it reads, before a padding that stands in front of it, and that padding."""
        source, pads = self.translation.pads.get(self.proto.input[0], ("", (0, 0, 0, 0)))
        return ([source] if source else [self.proto.input[0]]), pads

    def padding(self, kernel: Sequence[int], before: Sequence[int]) -> Any:
        """The padding (top, left, bottom, right), with that of a Pad before it."""
        auto = self.attributes.get("auto_pad", b"NOTSET")
        auto = auto.decode() if isinstance(auto, bytes) else auto
        if auto in ("NOTSET", "VALID", ""):
            own = list(self.attributes.get("pads", [0, 0, 0, 0])) if auto != "VALID" else [0] * FOUR
            return tuple(one + other for one, other in zip(own, before, strict=True))
        if any(before):
            raise misfit(self.unknown(), "pads by itself and behind a Pad")
        strides = list(self.attributes.get("strides", [1, 1]))
        if set(kernel) == {1} or (strides == [1, 1] and all(side % 2 for side in kernel)):
            half = tuple(side // 2 for side in kernel)
            return half * 2
        return SAME if auto == "SAME_UPPER" else auto


def read_attributes(proto: NodeProto, constants: Constants) -> dict[str, Any]:
    """A node's attributes by name.

    Raises:
        WeightsError: one is damaged.
    """
    from onnx import helper

    try:
        return {one.name: helper.get_attribute_value(one) for one in proto.attribute}
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"{constants.path}: an attribute of {proto.op_type} {proto.name!r} is damaged: {error}"
        ) from error


def _rule(proto: NodeProto) -> Callable[[Call], Iterator[Node]]:
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
    if call.translation.opset >= 11 and (given := call.constant(2)) is not None and given.size:
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
    call.translation.pads[call.outputs[0]] = (call.proto.input[0], sides)
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
        call.translation.layouts.pop(call.outputs[0], None)
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


def _arithmetic(call: Call) -> Iterator[Node]:
    """Add, Sub, Mul, Div: of two maps, or of a map and a constant a channel."""
    kind = call.proto.op_type
    if len(call.data) != 1:
        names = {"Add": "add", "Sum": "add", "Mul": "multiply"}
        yield call.node(names.get(kind, kind))
        return
    if len(call.proto.input) != 2:
        raise misfit(call.unknown(), f"has {len(call.proto.input)} operands")
    place = 1 if call.proto.input[0] == call.data[0] else 0
    value = call.constant(place)
    assert value is not None
    flat = _per_channel(call, value.astype(np.float64))
    minus = np.array([-1.0])
    if kind in ("Add", "Sum"):
        yield call.node("scale", {"beta": flat})
    elif kind == "Mul":
        yield call.node("scale", {"gamma": flat})
    elif kind == "Sub":
        yield call.node("scale", {"beta": -flat} if place else {"gamma": minus, "beta": flat})
    elif place:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield call.node("scale", {"gamma": 1 / flat})
    else:
        yield call.unknown()


def _per_channel(call: Call, value: np.ndarray) -> np.ndarray:
    """A constant as a value a channel, or a single one.

    Raises:
        KeyMismatchError: it differs along another axis.
    """
    if value.size == 1:
        return value.reshape(1)
    shape, layout = value.shape, call.layout()
    wide = call.attributes.get("broadcast") and call.attributes.get("axis") == CHANNELS
    if wide or layout == "NC":
        fits = shape[-1] == value.size and len(shape) <= (1 if wide else 2)
    elif layout == "NHWC":
        fits = shape[-1] == value.size and len(shape) <= FOUR
    else:
        fits = 3 <= len(shape) <= FOUR and shape[-3] == value.size
    if not fits:
        raise misfit(call.unknown(), f"has a constant of shape {list(shape)}, not one a channel")
    return value.reshape(-1)


def _matmul(call: Call) -> Iterator[Node]:
    """MatMul by a constant, which is a classifier without its bias."""
    if len(call.data) != 1 or call.proto.input[0] != call.data[0]:
        yield call.unknown()
        return
    weight = call.constant(1)
    assert weight is not None
    call.flattened()
    yield call.node("linear", {"weight": weight.T})


def _gemm(call: Call) -> Iterator[Node]:
    """Gemm by a constant: alpha · x · W + beta · bias."""
    weight, bias = call.constant(1), call.constant(2)
    if weight is None or call.attributes.get("transA", 0):
        yield call.unknown()
        return
    call.flattened()
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    weight = weight if call.attributes.get("transB", 0) else weight.T
    yield call.node(
        "linear",
        {
            "weight": weight if alpha == 1 else weight * alpha,
            "bias": bias if bias is None or beta == 1 else bias * beta,
        },
    )


def _transpose(call: Call) -> Iterator[Node]:
    """Transpose of the images from NHWC; no other is part of these networks."""
    perm = list(call.attributes.get("perm", []))
    if call.layout() != "NHWC" or perm != TO_NCHW:
        yield call.unknown()
        return
    call.translation.layouts[call.outputs[0]] = "NCHW"
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
    **dict.fromkeys(("Add", "Sum", "Sub", "Mul", "Div"), _arithmetic),
    "MatMul": _matmul,
    "Gemm": _gemm,
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _flatten),
    "Pad": _pad,
    "Transpose": _transpose,
    "Sigmoid": _simple("sigmoid"),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _simple("softmax")),
    "Dropout": _simple("dropout"),
    **dict.fromkeys(("Identity", "Cast"), _simple("identity")),
}

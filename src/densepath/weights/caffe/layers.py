"""Caffe's layers as the nodes of a Graph, a rule for each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from densepath.errors import KeyMismatchError
from densepath.weights.caffe.model import CaffeLayer, Message
from densepath.weights.structure.graph import Node


@dataclass(frozen=True)
class LayerCall:
    """A layer with the names of its values in the graph."""

    layer: CaffeLayer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def node(
        self, kind: str, tensors: dict[str, np.ndarray] | None = None, **attributes: Any
    ) -> Node:
        """A node of this kind."""
        return Node(kind, self.inputs, self.outputs[:1], tensors or {}, attributes, self.layer.name)

    def blobs(self, least: int, most: int) -> list[np.ndarray]:
        """The blobs, of which there are so many.

        Raises:
            KeyMismatchError: there are others.
        """
        blobs = list(self.layer.blobs)
        if not least <= len(blobs) <= most:
            raise KeyMismatchError(
                f"{self.layer.kind} {self.layer.name!r} has {len(blobs)} blobs, where {least} to "
                f"{most} are known; a file without weights is a .prototxt's"
            )
        return blobs


def names_rounding(layer: CaffeLayer) -> bool:
    """Whether a pool says how it rounds."""
    return layer.kind == "Pooling" and 13 in layer.parameter("pooling").values


def rule_of(layer: CaffeLayer) -> Callable[[LayerCall], Iterator[Node]]:
    """The rule for a layer."""
    return _RULES.get(layer.kind, _unknown)


def _unknown(call: LayerCall) -> Iterator[Node]:
    """A layer that no network here has."""
    yield call.node(call.layer.kind)


def _geometry(message: Message, both: int, height: int, default: int) -> tuple[int, int]:
    """A height and a width, given in one repeated field or in two of their own."""
    if height in message.values or height + 1 in message.values:
        return message.integer(height, default), message.integer(height + 1, default)
    numbers = message.integers(both) or [default]
    return numbers[0], numbers[-1]


def _convolution(call: LayerCall) -> Iterator[Node]:
    """Convolution: weight, bias."""
    settings = call.layer.parameter("convolution")
    blobs = call.blobs(1, 2)
    tensors = {"weight": blobs[0]} | ({"bias": blobs[1]} if blobs[1:] else {})
    yield call.node(
        "convolution",
        tensors,
        stride=_geometry(settings, 6, 13, 1),
        padding=_geometry(settings, 3, 9, 0),
        groups=settings.integer(5, 1),
        dilation=(settings.integers(18) or [1])[-1],
    )


def _batch_norm(call: LayerCall) -> Iterator[Node]:
    """BatchNorm: mean and variance, both times a factor, and that factor."""
    mean, variance, factor = (blob.astype(np.float64).reshape(-1) for blob in call.blobs(3, 3))
    share = 1 / factor[0] if factor.size and factor[0] else 0.0
    epsilon = call.layer.parameter("batch_norm").float(3, 1e-5)
    tensors = {"mean": mean * share, "variance": variance * share}
    yield call.node("batch_norm", tensors, epsilon=epsilon)


def _scale(call: LayerCall) -> Iterator[Node]:
    """Scale: a factor a channel, and a summand."""
    if len(call.inputs) != 1:
        yield call.node("multiply")
        return
    blobs = call.blobs(1, 2)
    yield call.node("scale", {"gamma": blobs[0]} | ({"beta": blobs[1]} if blobs[1:] else {}))


def _bias(call: LayerCall) -> Iterator[Node]:
    """Bias: a summand a channel."""
    yield call.node("scale", {"beta": call.blobs(1, 1)[0]})


def _power(call: LayerCall) -> Iterator[Node]:
    """Power, which may be a factor and summand for all."""
    settings = call.layer.parameter("power")
    if settings.float(1, 1.0) != 1:
        yield call.node("Power")
        return
    gamma, beta = (np.array([settings.float(number, one)]) for number, one in ((2, 1.0), (3, 0.0)))
    yield call.node("scale", {"gamma": gamma, "beta": beta})


def _relu(call: LayerCall) -> Iterator[Node]:
    """ReLU without a slope below 0."""
    slope = call.layer.parameter("relu").float(1, 0.0)
    yield call.node("relu" if slope == 0 else "LeakyRelu")


def _pooling(call: LayerCall) -> Iterator[Node]:
    """Pooling, which rounds up unless the layer names its rounding."""
    settings = call.layer.parameter("pooling")
    kind = settings.integer(1, 0)
    if kind not in (0, 1):
        yield call.node("StochasticPooling")
        return
    if settings.integer(12, 0):
        yield call.node("global_average" if kind else "GlobalMaxPooling")
        return
    yield call.node(
        "average_pool" if kind else "max_pool",
        kernel=_geometry(settings, 2, 5, 0),
        stride=_geometry(settings, 3, 7, 1),
        padding=_geometry(settings, 4, 9, 0),
        ceil_mode=not names_rounding(call.layer),
    )


def _concat(call: LayerCall) -> Iterator[Node]:
    """Concat along the channels."""
    settings = call.layer.parameter("concat")
    axis = settings.integer(2, settings.integer(1, 1))
    kind = "concat" if len(call.inputs) > 1 else "identity"
    yield call.node(kind if axis in (1, -3) else f"Concat along axis {axis}")


def _slice(call: LayerCall) -> Iterator[Node]:
    """Slice of the channels, a node for each part."""
    settings = call.layer.parameter("slice")
    axis, points = settings.integer(3, settings.integer(1, 1)), settings.integers(2)
    parts = len(call.outputs)
    if axis not in (1, -3) or (points and len(points) != parts - 1):
        yield call.node(f"Slice along axis {axis} at {points}")
        return
    for place, output in enumerate(call.outputs):
        where: dict[str, Any] = {"part": place, "parts": parts}
        if points:
            where = {"start": [0, *points][place]}
            where |= {"stop": points[place]} if place < len(points) else {}
        yield Node("slice", call.inputs, (output,), {}, where, call.layer.name)


def _eltwise(call: LayerCall) -> Iterator[Node]:
    """Eltwise: a sum without factors."""
    settings = call.layer.parameter("eltwise")
    is_sum = settings.integer(1, 1) == 1 and set(settings.floats(2)) <= {1.0}
    yield call.node("add" if is_sum else "multiply")


def _inner_product(call: LayerCall) -> Iterator[Node]:
    """InnerProduct: weight [outputs, inputs], of old files with two sides more; bias."""
    blobs = call.blobs(1, 2)
    weight = blobs[0].reshape(blobs[0].shape[-2:]) if blobs[0].ndim == 4 else blobs[0]
    if call.layer.parameter("inner_product").integer(6, 0):
        weight = weight.T
    yield call.node("linear", {"weight": weight} | ({"bias": blobs[1]} if blobs[1:] else {}))


def _split(call: LayerCall) -> Iterator[Node]:
    """Split: the same for several readers."""
    for output in call.outputs:
        yield Node("identity", call.inputs, (output,), name=call.layer.name)


def _simple(kind: str) -> Callable[[LayerCall], Iterator[Node]]:
    """A layer without weights or settings that matter."""

    def rule(call: LayerCall) -> Iterator[Node]:
        """One node."""
        yield call.node(kind)

    return rule


_RULES: dict[str, Callable[[LayerCall], Iterator[Node]]] = {
    "Convolution": _convolution,
    "BatchNorm": _batch_norm,
    "Scale": _scale,
    "Bias": _bias,
    "Power": _power,
    "ReLU": _relu,
    "Pooling": _pooling,
    "Concat": _concat,
    "Slice": _slice,
    "Eltwise": _eltwise,
    "InnerProduct": _inner_product,
    "Split": _split,
    "Flatten": _simple("flatten"),
    "Reshape": _simple("flatten"),
    "Softmax": _simple("softmax"),
    "Sigmoid": _simple("sigmoid"),
    "Dropout": _simple("dropout"),
}

"""Caffe's layers as the nodes of a Graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from densepath.errors import KeyMismatchError, WeightsError
from densepath.weights.caffe.model import CaffeLayer, CaffeModel, Message
from densepath.weights.structure.graph import REFUSED, Graph, Node

DATA = ("Data", "ImageData", "HDF5Data", "MemoryData", "DummyData", "WindowData", "Input")
# What training has beside the network.
ASIDE = ("SoftmaxWithLoss", "Accuracy", "Silence", "SigmoidCrossEntropyLoss", *DATA)
LOSS = "the loss"
ROUNDING_NOTE = (
    "its pools name a rounding (ceil_mode or round_mode), which is taken for down, as nobody names "
    "the default"
)


@dataclass
class _Names:
    """The values of a graph: layers of Caffe may write where they read."""

    now: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def read(self, name: str) -> str:
        """What is called so at this place."""
        return self.now.get(name, name)

    def write(self, name: str) -> str:
        """A value of its own for what is called so from here on."""
        self.count += 1
        self.now[name] = f"{name}#{self.count}"
        return self.now[name]


@dataclass(frozen=True)
class _Call:
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


def graph_of(model: CaffeModel) -> Graph:
    """The graph of a network's layers.

    Raises:
        WeightsError: it has no images, or nothing reads them.
    """
    images, size = _images(model)
    names = _Names()
    nodes: list[Node] = []
    read = set[str]()
    for layer in model.layers:
        if layer.kind in ASIDE:
            continue
        if not layer.tops:
            raise WeightsError(f"the layer {layer.name!r} writes nothing")
        inputs = tuple(names.read(bottom) for bottom in layer.bottoms)
        call = _Call(layer, inputs, tuple(names.write(top) for top in layer.tops))
        read.update(inputs)
        try:
            nodes += _RULES.get(layer.kind, _unknown)(call)
        except KeyMismatchError as error:
            nodes.append(Node(layer.kind, inputs, call.outputs[:1], {}, {REFUSED: str(error)}))
    made = [output for node in nodes for output in node.outputs]
    outputs = tuple(name for name in made if name not in read)
    if (logits := _sigmoid_loss(model, names)) in outputs:
        nodes.append(Node("sigmoid", (logits,), (LOSS,), name=LOSS))
        outputs = (*(name for name in outputs if name != logits), LOSS)
    notes = (ROUNDING_NOTE,) if any(_names_rounding(layer) for layer in model.layers) else ()
    return Graph(tuple(nodes), images, outputs, size, notes=notes)


def _sigmoid_loss(model: CaffeModel, names: _Names) -> str:
    """The logits that a network was trained on with a sigmoid in the loss; else nothing."""
    for layer in model.layers:
        if layer.kind == "SigmoidCrossEntropyLoss" and layer.bottoms:
            return names.read(layer.bottoms[0])
    return ""


def _images(model: CaffeModel) -> tuple[str, tuple[int, int] | None]:
    """The name of the images, and their height and width where the file says them.

    Raises:
        WeightsError: the file has no input.
    """
    shape = list(model.shape)
    if model.inputs:
        return model.inputs[0], _sides(shape)
    for layer in model.layers:
        if layer.kind not in DATA or not layer.tops:
            continue
        shapes = layer.parameter("input").messages(1)
        crop = layer.parameter("transform").integer(3, 0)
        shape = shapes[0].integers(1) if shapes else [1, 3, crop, crop]
        return layer.tops[0], _sides(shape)
    made = {top for layer in model.layers for top in layer.tops}
    for layer in model.layers:
        for bottom in layer.bottoms:
            if bottom not in made:
                return bottom, None
    raise WeightsError("it has no input")


def _sides(shape: list[int]) -> tuple[int, int] | None:
    """Height and width of a shape of four sides."""
    if len(shape) < 4 or min(shape[2:4]) < 1:
        return None
    return shape[2], shape[3]


def _names_rounding(layer: CaffeLayer) -> bool:
    """Whether a pool says how it rounds."""
    return layer.kind == "Pooling" and 13 in layer.parameter("pooling").values


def _unknown(call: _Call) -> Iterator[Node]:
    """A layer that no network here has."""
    yield call.node(call.layer.kind)


def _geometry(message: Message, both: int, height: int, default: int) -> tuple[int, int]:
    """A height and a width, given in one repeated field or in two of their own."""
    if height in message.values or height + 1 in message.values:
        return message.integer(height, default), message.integer(height + 1, default)
    numbers = message.integers(both) or [default]
    return numbers[0], numbers[-1]


def _convolution(call: _Call) -> Iterator[Node]:
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


def _batch_norm(call: _Call) -> Iterator[Node]:
    """BatchNorm: mean and variance, both times a factor, and that factor."""
    mean, variance, factor = (blob.astype(np.float64).reshape(-1) for blob in call.blobs(3, 3))
    share = 1 / factor[0] if factor.size and factor[0] else 0.0
    epsilon = call.layer.parameter("batch_norm").float(3, 1e-5)
    tensors = {"mean": mean * share, "variance": variance * share}
    yield call.node("batch_norm", tensors, epsilon=epsilon)


def _scale(call: _Call) -> Iterator[Node]:
    """Scale: a factor a channel, and a summand."""
    if len(call.inputs) != 1:
        yield call.node("multiply")
        return
    blobs = call.blobs(1, 2)
    yield call.node("scale", {"gamma": blobs[0]} | ({"beta": blobs[1]} if blobs[1:] else {}))


def _bias(call: _Call) -> Iterator[Node]:
    """Bias: a summand a channel."""
    yield call.node("scale", {"beta": call.blobs(1, 1)[0]})


def _power(call: _Call) -> Iterator[Node]:
    """Power, which may be a factor and summand for all."""
    settings = call.layer.parameter("power")
    if settings.float(1, 1.0) != 1:
        yield call.node("Power")
        return
    gamma, beta = (np.array([settings.float(number, one)]) for number, one in ((2, 1.0), (3, 0.0)))
    yield call.node("scale", {"gamma": gamma, "beta": beta})


def _relu(call: _Call) -> Iterator[Node]:
    """ReLU without a slope below 0."""
    slope = call.layer.parameter("relu").float(1, 0.0)
    yield call.node("relu" if slope == 0 else "LeakyRelu")


def _pooling(call: _Call) -> Iterator[Node]:
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
        ceil_mode=not _names_rounding(call.layer),
    )


def _concat(call: _Call) -> Iterator[Node]:
    """Concat along the channels."""
    settings = call.layer.parameter("concat")
    axis = settings.integer(2, settings.integer(1, 1))
    kind = "concat" if len(call.inputs) > 1 else "identity"
    yield call.node(kind if axis in (1, -3) else f"Concat along axis {axis}")


def _slice(call: _Call) -> Iterator[Node]:
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


def _eltwise(call: _Call) -> Iterator[Node]:
    """Eltwise: a sum without factors."""
    settings = call.layer.parameter("eltwise")
    is_sum = settings.integer(1, 1) == 1 and set(settings.floats(2)) <= {1.0}
    yield call.node("add" if is_sum else "multiply")


def _inner_product(call: _Call) -> Iterator[Node]:
    """InnerProduct: weight [outputs, inputs], of old files with two sides more; bias."""
    blobs = call.blobs(1, 2)
    weight = blobs[0].reshape(blobs[0].shape[-2:]) if blobs[0].ndim == 4 else blobs[0]
    if call.layer.parameter("inner_product").integer(6, 0):
        weight = weight.T
    yield call.node("linear", {"weight": weight} | ({"bias": blobs[1]} if blobs[1:] else {}))


def _split(call: _Call) -> Iterator[Node]:
    """Split: the same for several readers."""
    for output in call.outputs:
        yield Node("identity", call.inputs, (output,), name=call.layer.name)


def _simple(kind: str) -> Callable[[_Call], Iterator[Node]]:
    """A layer without weights or settings that matter."""

    def rule(call: _Call) -> Iterator[Node]:
        """One node."""
        yield call.node(kind)

    return rule


_RULES: dict[str, Callable[[_Call], Iterator[Node]]] = {
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

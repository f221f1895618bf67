"""A graph → its sources and what each of them reads, node by node from the images to a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from densepath.errors import KeyMismatchError
from densepath.weights.structure.attributes import (
    count_of,
    epsilon_of,
    misfit,
    pair,
    per_channel,
    sides,
    weight_of,
)
from densepath.weights.structure.graph import KINDS, REFUSED, Graph, Node
from densepath.weights.structure.order import image_channels, in_order
from densepath.weights.structure.values import Affine, Floats, Ids, Source, Value

# These networks have a million at most; a damaged file could ask for any number.
MOST_CHANNELS = 1 << 23
# Sources of one value a channel.
_FLAT = ("mean", "average", "linear", "sigmoid", "softmax")
# Other networks' marks, which say more than the operation's name.
_FOREIGN = {
    "elu": "some DPNs of other systems end in one, and none here does",
    "multiply": "it multiplies two maps, as squeeze-and-excitation does",
    "layernormalization": "ConvNeXt and transformers have them",
    "matmul": "it multiplies two computed values, as attention does",
    "pad": "a layer pads by itself here",
    "resize": "segmentation networks have them",
}


class Trace:
    """The sources between the images and one result of a graph.

    Attributes:
        sources: in an order in which they can run.
        result: the value of the result.
        reached: the nodes that it takes.

    Raises:
        KeyMismatchError: an operation that no network here has, or one that does not hold together.
    """

    def __init__(self, graph: Graph, result: str) -> None:
        self.sources: list[Source] = []
        self._owners: list[Source] = []
        self._values: dict[str, Value] = {}
        self._budget = MOST_CHANNELS
        self._activated: dict[int, tuple[Value, Value]] = {}
        self.reached = in_order(graph, result)
        width = image_channels(self.reached)
        self.images = self._new("images", Node("identity", (), (graph.images,)), (), width)
        self._values[graph.images] = Value(self.images.channels)
        for node in self.reached:
            value = self._evaluate(node)
            self._spend(node, len(value.channels))
            self._values[node.outputs[0]] = value
        self.result = self._values[result]

    def owners(self, channels: Ids) -> list[Source]:
        """The sources of these channels, each once, in the order of the channels."""
        return list(dict.fromkeys(self._owners[channel] for channel in channels))

    def _spend(self, node: Node, width: int) -> None:
        """Count channels, of which there must not be too many."""
        self._budget -= width
        if self._budget < 0:
            raise misfit(node, "makes more channels than any network here has")

    def _new(
        self,
        kind: str,
        node: Node,
        inputs: tuple[Value, ...],
        width: int,
        window: tuple[int, int] | None = None,
    ) -> Source:
        """A further source, with numbers for its channels."""
        self._spend(node, width)
        start = len(self._owners)
        source = Source(kind, node, np.arange(start, start + width), inputs, window)
        self._owners += [source] * width
        self.sources.append(source)
        return source

    def _evaluate(self, node: Node) -> Value:
        """The result of a node whose inputs are known."""
        if REFUSED in node.attributes:
            raise KeyMismatchError(str(node.attributes[REFUSED]))
        if node.kind not in _RULES:
            why = _FOREIGN.get(node.kind.lower(), "no DenseNet or DPN has one")
            raise misfit(node, f"is no layer of these networks: {why}")
        inputs = [self._values[name] for name in node.inputs]
        least = 2 if node.kind in ("concat", "add") else 1
        if len(inputs) < least or (least == 1 and len(inputs) > 1):
            raise misfit(node, f"reads {len(inputs)} values")
        return _RULES[node.kind](self, node, inputs)

    def _convolution(self, node: Node, inputs: Sequence[Value]) -> Value:
        """A convolution; one of 1 × 1 and a group a channel is a factor and summand a channel."""
        value, weight = inputs[0], weight_of(node, 4)
        groups = count_of(node, "groups", 1)
        outputs, each, *kernel = weight.shape
        if outputs % groups or each * groups != len(value.channels):
            raise misfit(
                node,
                f"has weights for {each * groups} channels in {groups} groups and reads "
                f"{len(value.channels)}",
            )
        if pair(node, "dilation", 1) != (1, 1):
            raise misfit(node, "is dilated")
        bias = per_channel(node, "bias", outputs, 0.0)
        still = pair(node, "stride", 1) == (1, 1) and sides(node) == (0, 0, 0, 0)
        if groups == outputs == len(value.channels) and kernel == [1, 1] and still:
            return self._scaled(node, value, weight.reshape(-1).astype(np.float64), bias)
        return _shifted(self._new("convolution", node, (value,), outputs), bias)

    def _linear(self, node: Node, inputs: Sequence[Value]) -> Value:
        """A matrix product with the channels."""
        weight = weight_of(node, 2)
        if weight.shape[1] != len(inputs[0].channels):
            raise misfit(
                node, f"has weights for {weight.shape[1]} and reads {len(inputs[0].channels)}"
            )
        outputs = weight.shape[0]
        source = self._new("linear", node, (inputs[0],), outputs)
        return _shifted(source, per_channel(node, "bias", outputs, 0.0))

    def _batch_norm(self, node: Node, inputs: Sequence[Value]) -> Value:
        """A BatchNorm with its statistics."""
        value = self._raw(node, inputs[0])
        width = len(value.channels)
        parts = [
            per_channel(node, name, width, default)
            for name, default in (("gamma", 1.0), ("beta", 0.0), ("mean", None), ("variance", None))
        ]
        epsilon = epsilon_of(node)
        if np.any(parts[-1] + epsilon <= 0):
            raise misfit(node, "has a variance below 0")
        gamma, beta, mean, variance = parts
        norm = Affine(gamma, beta, mean, variance, epsilon)
        affine = norm if value.affine is None else value.affine.normalised(norm)
        return Value(value.channels, affine)

    def _scale(self, node: Node, inputs: Sequence[Value]) -> Value:
        """A factor and a summand a channel."""
        width = len(inputs[0].channels)
        gamma, beta = (
            per_channel(node, name, width, default)
            for name, default in (("gamma", 1.0), ("beta", 0.0))
        )
        return self._scaled(node, inputs[0], gamma, beta)

    def _scaled(self, node: Node, value: Value, gamma: Floats, beta: Floats) -> Value:
        """The value times gamma plus beta."""
        value = self._raw(node, value)
        affine = Affine.of(gamma, beta)
        if value.affine is not None:
            affine = value.affine.scaled(gamma, beta)
        return Value(value.channels, affine)

    def _raw(self, node: Node, value: Value) -> Value:
        """The value; behind a ReLU one of its own, for what follows is no layer."""
        if not value.active:
            return value
        # Once for each value, which several may read.
        if id(value) not in self._activated:
            source = self._new("relu", node, (value,), len(value.channels))
            self._activated[id(value)] = value, Value(source.channels)
        return self._activated[id(value)][1]

    def _relu(self, node: Node, inputs: Sequence[Value]) -> Value:
        """max(x, 0)."""
        return Value(inputs[0].channels, inputs[0].affine, active=True)

    def _max_pool(self, node: Node, inputs: Sequence[Value]) -> Value:
        """The largest of each window."""
        return self._plain("max_pool", node, inputs)

    def _plain(self, kind: str, node: Node, inputs: Sequence[Value]) -> Value:
        """A source with a channel for each that it reads."""
        return Value(self._new(kind, node, tuple(inputs), len(inputs[0].channels)).channels)

    def _average_pool(self, node: Node, inputs: Sequence[Value]) -> Value:
        """The mean of each window, which must not reach beyond the map."""
        kernel = pair(node, "kernel", None)
        if sides(node) != (0, 0, 0, 0):
            raise misfit(node, "averages with padding")
        if kernel == (2, 2) and pair(node, "stride", 1) == (2, 2):
            return self._averaged("average", node, inputs[0], None)
        return self._averaged("mean", node, inputs[0], kernel)

    def _global_average(self, node: Node, inputs: Sequence[Value]) -> Value:
        """The mean over all positions."""
        return self._averaged("mean", node, inputs[0], None)

    def _averaged(
        self, kind: str, node: Node, value: Value, window: tuple[int, int] | None
    ) -> Value:
        """A mean, with which a factor and a summand commute."""
        width = len(value.channels)
        if value.active:
            return Value(self._new(kind, node, (value,), width, window).channels)
        source = self._new(kind, node, (Value(value.channels),), width, window)
        return Value(source.channels, value.affine)

    def _concat(self, node: Node, inputs: Sequence[Value]) -> Value:
        """Values behind one another."""
        if len({value.active for value in inputs}) > 1:
            inputs = [self._raw(node, value) for value in inputs]
        affine = None
        if any(value.affine is not None for value in inputs):
            affine = Affine.join([value.affine_or_none() for value in inputs])
        channels = np.concatenate([value.channels for value in inputs])
        return Value(channels, affine, inputs[0].active)

    def _slice(self, node: Node, inputs: Sequence[Value]) -> Value:
        """Some of the channels."""
        width = len(inputs[0].channels)
        if "indices" in node.attributes:
            indices = np.asarray(node.attributes["indices"], np.int64).reshape(-1)
            if not indices.size or not np.all((indices >= -width) & (indices < width)):
                raise misfit(node, f"takes channels that are not among its {width}")
            return inputs[0].take(indices)
        if "parts" in node.attributes:
            parts, part = count_of(node, "parts", 1), count_of(node, "part", 0, least=0)
            if width % parts or part >= parts:
                raise misfit(node, f"takes part {part} of {parts} of {width} channels")
            start, stop = part * (width // parts), (part + 1) * (width // parts)
        else:
            start, stop = (
                int(node.attributes.get(name, default))
                for name, default in (("start", 0), ("stop", width))
            )
        places = np.arange(width)[start:stop]
        if not len(places):
            raise misfit(node, f"takes channels {start} to {stop} of {width}")
        return inputs[0].take(places)

    def _add(self, node: Node, inputs: Sequence[Value]) -> Value:
        """A sum; what its terms had added is taken along behind it."""
        if len({len(value.channels) for value in inputs}) > 1:
            widths = ", ".join(str(len(value.channels)) for value in inputs)
            raise misfit(node, f"adds maps of {widths} channels")
        values = [self._raw(node, value) for value in inputs]
        affines = [value.affine for value in values if value.affine is not None]
        if not affines or not all(affine.is_shift() for affine in affines):
            return self._plain("add", node, values)
        source = self._plain("add", node, [Value(value.channels) for value in values])
        shifts = [affine.factors()[1] for affine in affines]
        return _added(source.channels, np.sum(shifts, axis=0))

    def _flatten(self, node: Node, inputs: Sequence[Value]) -> Value:
        """The same values in another shape: of a map of one position only."""
        for source in self.owners(inputs[0].channels):
            at_end = source.kind == "convolution" and all(
                owner.kind in ("mean", "average")
                for owner in self.owners(source.inputs[0].channels)
            )
            if (
                source.kind not in ("mean", "average", "linear", "sigmoid", "softmax")
                and not at_end
            ):
                raise misfit(node, "flattens a map that is not averaged over all positions")
        return inputs[0]

    def _sigmoid(self, node: Node, inputs: Sequence[Value]) -> Value:
        """The end of a network whose classes are each a yes or no."""
        return self._plain("sigmoid", node, inputs)

    def _softmax(self, node: Node, inputs: Sequence[Value]) -> Value:
        """Probabilities of logits."""
        return self._plain("softmax", node, inputs)

    def _identity(self, node: Node, inputs: Sequence[Value]) -> Value:
        """Nothing."""
        return inputs[0]


_RULES: Mapping[str, Callable[[Trace, Node, Sequence[Value]], Value]] = {
    **{kind: getattr(Trace, f"_{kind}") for kind in KINDS if kind != "dropout"},
    "dropout": Trace._identity,
}


def _shifted(source: Source, bias: Floats) -> Value:
    """The channels of a source, and what is added to them."""
    return _added(source.channels, bias) if np.any(bias) else Value(source.channels)


def _added(channels: Ids, shift: Floats) -> Value:
    """Channels, and what is added to them."""
    return Value(channels, Affine.of(np.ones(len(channels)), shift))

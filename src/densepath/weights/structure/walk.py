"""What the walks along a DenseNet and a DPN share: readers of a map, layers found, stem, head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densepath.weights.structure.attributes import misfit, sides
from densepath.weights.structure.graph import Node
from densepath.weights.structure.trace import Trace
from densepath.weights.structure.values import Affine, Ids, Source, Value, same_channels


@dataclass(frozen=True, eq=False)
class Found:
    """A layer with weights, in the order of the plan; what its plan's row is compared with.

    Attributes:
        node: of the graph; the first, where the file keeps the layer in several.
        weight: OIHW, inputs and outputs in our order; of the classifier [outputs, inputs].
        before: what its input goes through before the ReLU; None where that is nothing.
        behind: the same of its outputs.
        bias: of the classifier.
    """

    node: Node
    weight: np.ndarray
    before: Affine | None = None
    behind: Affine | None = None
    bias: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Head:
    """The end of the network: the last map, the mean, and the classifier.

    Attributes:
        features: what is averaged.
        mean: the source that averages.
        classifier: a linear source, or a 1 × 1 convolution.
        result: what the classifier's outputs go through.
        ending: `sigmoid`, `softmax`, or empty.
    """

    features: Value
    mean: Source
    classifier: Source
    result: Value
    ending: str = ""


class Walk:
    """A way along a traced network, on which each source is taken once.

    Attributes:
        trace: of the graph.
        head: its end.
        found: the layers so far.
        pool: the pool of the stem, if it has one.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace, self.found = trace, list[Found]()
        self.pool: Source | None = None
        self.averages: list[Source] = []
        self._readers: dict[bytes, list[Source]] = defaultdict(list)
        for source in trace.sources:
            for value in source.inputs:
                self._readers[_key(value.channels)].append(source)
        self._used: dict[Source, int] = defaultdict(int)
        self.head = self._find_head()

    def readers(self, channels: Ids) -> list[Source]:
        """The sources that read exactly these channels, in whatever order."""
        return self._readers[_key(channels)]

    def some_reader(self, channels: Ids) -> Source | None:
        """The first source that reads any of these channels, for a message."""
        wanted = set(channels.tolist())
        for source in self.trace.sources:
            if any(not wanted.isdisjoint(value.channels.tolist()) for value in source.inputs):
                return source
        return None

    def stem(self) -> Source:
        """The first convolution, which alone reads the images."""
        readers = self.readers(self.trace.images.channels)
        if len(readers) != 1 or readers[0].kind != "convolution":
            odd = next((one for one in readers if one.kind != "convolution"), None)
            reader = odd or self.some_reader(self.trace.images.channels)
            assert reader is not None
            raise misfit(
                reader.node,
                f"reads the images, of which {len(readers)} operations read every channel; a "
                "DenseNet or DPN begins with one convolution",
            )
        if readers[0].inputs[0].active:
            raise misfit(readers[0].node, "reads the images through a ReLU")
        return readers[0]

    def behind_stem(self, stem: Source) -> tuple[Ids, Affine | None, str]:
        """The state behind the stem: its channels, what they went through, and how it ends.

        That is `pool`, `relu`, or `raw` where the convolution's outputs are the state.
        """
        for source in self.readers(stem.channels):
            if source.kind not in ("max_pool", "relu"):
                continue
            value = source.inputs[0].ordered(stem.channels)
            if not value.active:
                raise misfit(source.node, "pools a map that did not go through a ReLU")
            # Its outputs are numbered in the order of its inputs.
            state = source.channels[_places(source.inputs[0].channels, stem.channels)]
            if source.kind == "relu":
                pools = [one for one in self.readers(source.channels) if one.kind == "max_pool"]
                if not pools:
                    return state, value.affine, "relu"
                source = pools[0]
                state = source.channels[_places(source.inputs[0].channels, state)]
            self.pool = source
            return state, value.affine, "pool"
        return stem.channels, None, "raw"

    def take(self, channels: Ids, inputs: Ids | None = None) -> np.ndarray:
        """The weights [O, I, H, W] of these outputs, of one convolution or several side by side.

        `inputs` is the order of the inputs; by default as the first convolution has them.

        Raises:
            KeyMismatchError: they are no outputs of convolutions that read the same.
        """
        owners = self.trace.owners(channels)
        first = owners[0]
        if inputs is None:
            inputs = first.inputs[0].channels if first.inputs else None
        rows: np.ndarray | None = None
        for owner in owners:
            if owner.kind != "convolution" or inputs is None:
                raise misfit(owner.node, "stands where a convolution is expected")
            if not same_channels(owner.inputs[0].channels, inputs):
                raise misfit(owner.node, f"reads another map than {first.node.to_text()} beside it")
            mine = (channels >= owner.channels[0]) & (channels <= owner.channels[-1])
            weight = self._weight(owner, inputs)[channels[mine] - owner.channels[0]]
            if rows is None:
                rows = np.empty((len(channels), *weight.shape[1:]), weight.dtype)
            if rows.shape[1:] != weight.shape[1:]:
                raise misfit(owner.node, f"has another kernel than {first.node.to_text()}")
            rows[mine] = weight
            self._used[owner] += int(mine.sum())
        assert rows is not None
        return rows

    def _weight(self, source: Source, inputs: Ids) -> np.ndarray:
        """A convolution's weight with its inputs in this order."""
        weight = source.node.tensors["weight"]
        own = source.inputs[0].channels
        if np.array_equal(own, inputs):
            return weight
        if weight.shape[1] != len(own):
            raise misfit(source.node, "reads its groups' channels in another order")
        return weight[:, _places(own, inputs)]

    def read_through(self, source: Source, channels: Ids) -> Affine | None:
        """What a layer reads these channels through: a BatchNorm and a ReLU.

        Raises:
            KeyMismatchError: there is no ReLU.
        """
        value = source.inputs[0]
        if not value.active:
            what = "a BatchNorm but no ReLU" if value.affine else "neither BatchNorm nor ReLU"
            raise misfit(
                source.node,
                f"has {what} in front of it; every layer of these networks behind the first reads "
                "through both",
            )
        return value.ordered(channels).affine

    def finish(self, state: Ids) -> None:
        """Take the classifier, which reads the mean of the state.

        Raises:
            KeyMismatchError: it does not, or there are layers that nothing led to.
        """
        head = self.head
        if not same_channels(head.features.channels, state):
            raise misfit(head.mean.node, "averages another map than the last block's")
        if not head.features.active:
            raise misfit(head.mean.node, "averages a map without a ReLU in front of it")
        read = head.classifier.inputs[0]
        means = head.mean.channels[_places(head.features.channels, state)]
        weight = head.classifier.node.tensors["weight"].astype(np.float64)
        weight = weight.reshape(weight.shape[0], -1)[:, _places(read.channels, means)]
        bias = np.zeros(len(weight))
        if affine := read.ordered(means).affine:
            scale, shift = affine.factors()
            bias = weight @ shift
            weight = weight * scale
        result = head.result.ordered(head.classifier.channels)
        if result.affine:
            scale, shift = result.affine.factors()
            weight, bias = weight * scale[:, None], bias * scale + shift
        # The result may list the classes in another order than the classifier computes them.
        order = head.result.channels - head.classifier.channels[0]
        self._used[head.classifier] = len(weight)
        before = head.features.ordered(state).affine
        self.found.append(Found(head.classifier.node, weight[order], before, bias=bias[order]))
        self._check_all_used()

    def _check_all_used(self) -> None:
        """Raise unless every weight of the graph was taken, and taken once."""
        for source in self.trace.sources:
            if source.kind not in ("convolution", "linear"):
                continue
            taken = self._used[source]
            if taken != len(source.channels):
                raise misfit(
                    source.node,
                    f"has {len(source.channels)} outputs, of which the network takes {taken}",
                )

    def _find_head(self) -> Head:
        """The classifier and what it reads, from the result backwards."""
        result, ending = self.trace.result, ""
        owners = self.trace.owners(result.channels)
        if owners[0].kind in ("sigmoid", "softmax") and len(owners) == 1 and result.is_plain():
            ending, result = owners[0].kind, owners[0].inputs[0]
            owners = self.trace.owners(result.channels)
        last = owners[0]
        if (
            len(owners) > 1
            or last.kind not in ("linear", "convolution")
            or not same_channels(result.channels, last.channels)
            or result.active
        ):
            raise misfit(last.node, "gives the result, which should be a classifier's")
        read = last.inputs[0]
        means = self.trace.owners(read.channels)
        kernel = last.node.tensors["weight"].shape[2:]
        if (
            len(means) > 1
            or means[0].kind not in ("mean", "average")
            or not same_channels(read.channels, means[0].channels)
            or read.active
            or any(side != 1 for side in kernel)
            or any(sides(last.node))
        ):
            raise misfit(
                last.node, "is the last layer, and should read the mean of each channel alone"
            )
        return Head(means[0].inputs[0], means[0], last, result, ending)


def _key(channels: Ids) -> bytes:
    """The same bytes for the same channels in any order."""
    return np.sort(channels).tobytes()


def _places(own: Ids, wanted: Ids) -> Ids:
    """For each wanted channel its place among the own ones, which are the same."""
    order = np.argsort(own)
    return order[np.searchsorted(own[order], wanted)]


def only(sources: Sequence[Source], state: Ids, walk: Walk, expected: str) -> Source:
    """The one source among these.

    Raises:
        KeyMismatchError: there is none, or several; `expected` says what of.
    """
    if len(sources) == 1:
        return sources[0]
    if sources:
        first = sources[0].node.to_text()
        raise misfit(sources[1].node, f"reads the same map as {first}; {expected}")
    reader = walk.some_reader(state)
    if reader is None:
        raise misfit(walk.trace.owners(state[-1:])[0].node, f"is read by nothing; {expected}")
    raise misfit(reader.node, f"does not read all of the map before it; {expected}")

"""A network's graph as its file tells it, whoever wrote it: what readers make, `network_of` reads.

On the line: a Paddle program, an ONNX file and a Caffe model become a Graph; the network in it is
found by structure (`weights/structure/network.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# What a node of each kind reads and has. Tensors are [C] but `weight`; attributes with their
# defaults. Any other kind is kept under the file's own word, and refused by that word.
KINDS = {
    "convolution": (
        "weight OIHW [outputs, inputs / groups, height, width], bias; stride 1, padding 0, groups "
        "1, dilation 1"
    ),
    "batch_norm": "gamma, beta, mean, variance; epsilon; a missing gamma is 1, a missing beta 0",
    "scale": "gamma, beta: x · gamma + beta, [C] or a single value; either may be missing",
    "relu": "",
    "max_pool": "kernel, stride, padding 0, ceil_mode False",
    "average_pool": "kernel, stride, padding 0, ceil_mode False",
    "global_average": "the mean over all positions",
    "concat": "two or more inputs, along the channels, in their order",
    "slice": "channels `start` to `stop`, those of `indices`, or part `part` of `parts` equal ones",
    "add": "two or more inputs of one shape",
    "linear": "weight [outputs, inputs], bias",
    "flatten": "any change of shape that keeps all values in their order",
    "sigmoid": "",
    "softmax": "",
    "dropout": "does nothing when the training is over",
    "identity": "does nothing",
}

# The attribute by which a reader says why a node cannot be a layer: raised if the network takes it.
REFUSED = "refused"


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        kind: one of `KINDS`, or the file's own word for another.
        inputs: the names of the values that it reads, without its tensors.
        outputs: the names of its results; of those that have one, the first.
        tensors: its weights: float arrays by the names in `KINDS`.
        attributes: numbers by the names in `KINDS`. `kernel`, `stride`, `dilation` are a number or
            (height, width); `padding` a number, (height, width), or (top, left, bottom, right).
        name: what to call it in a message; by default its first output.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def to_text(self) -> str:
        """The node in a message: `convolution 'conv1/7x7_s2'`."""
        return f"{self.kind.replace('_', ' ')} {self.name or self.outputs[0]!r}"


@dataclass(frozen=True)
class Graph:
    """Nodes between images and logits.

    Attributes:
        nodes: in any order.
        images: the name of the value that is the images, [N, channels, height, width].
        outputs: the names of the results; the network's logits are looked for among them.
        size: height and width of the images, where the file fixes them.
        loose: names of tensors that hold weights and belong to no node.
        notes: what the reader did that the user should know.
    """

    nodes: tuple[Node, ...]
    images: str
    outputs: tuple[str, ...]
    size: tuple[int, int] | None = None
    loose: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

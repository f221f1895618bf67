"""Which tensors of a network a deployed INT8 graph holds as integers.

- the input of every convolution, behind its BatchNorm and ReLU, and that of the classifier;
- what a dense block concatenates, or a DPN stage adds and concatenates: one grid for all of it,
  as runtimes without requantisation give it (XNNPACK, LiteRT, Ethos-U);
- a DPN's stem, the last map, and the logits.

A convolution whose BatchNorm follows is not quantised between the two: they become one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from densepath.models.build import Model
from densepath.models.densenet import BottleneckLayer, DenseBlock, DenseNet
from densepath.models.dpn import DualPathBlock

LAST_MAP = "features"


@dataclass(frozen=True)
class Point:
    """A quantised tensor: the input or output of a module, on a grid that others may share."""

    module: str
    side: Literal["input", "output"]
    grid: str


def find_points(network: Model) -> list[Point]:
    """The quantised tensors, but for the last map, which belongs to no module."""
    state = _densenet_state(network) if isinstance(network, DenseNet) else _dpn_state(network)
    return [*_inputs(network), *state, Point("classifier", "output", "logits")]


def quantised_weights(network: Model) -> list[str]:
    """The names of the weights of every convolution and of the classifier."""
    kinds = (nn.Conv2d, nn.Linear)
    return [f"{name}.weight" for name, m in network.named_modules() if isinstance(m, kinds)]


def _inputs(network: Model) -> Iterator[Point]:
    """What enters the convolutions and the classifier, each on a grid of its own."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield Point(name, "input", f"{name} input")


def _densenet_state(network: Model) -> Iterator[Point]:
    """What enters a dense block, and what each of its layers appends."""
    for name, block in network.features.named_children():
        if isinstance(block, DenseBlock):
            path = f"features.{name}"
            yield Point(path, "input", path)
            for number, layer in block.named_children():
                last = "conv2" if isinstance(layer, BottleneckLayer) else "conv1"
                yield Point(f"{path}.{number}.{last}", "output", path)


def _dpn_state(network: Model) -> Iterator[Point]:
    """The stem; and of each stage what its blocks add and append, and the sums."""
    for name, block in network.features.named_children():
        path = f"features.{name}"
        if name == "conv1_1":
            yield Point(path, "output", path)
        if not isinstance(block, DualPathBlock):
            continue
        grid = path.partition("_")[0]
        for conv in ("c1x1_w", "c1x1_c") if block.first else ("c1x1_c",):
            yield Point(f"{path}.{conv}.conv", "output", grid)
        yield Point(path, "output", grid)

"""Which tensors of a network a deployed INT8 graph holds as integers.

- the input of every convolution, behind its BatchNorm and ReLU, and that of the classifier;
- what a dense block concatenates, or a DPN stage adds and concatenates: one grid for all of it,
  as runtimes without requantisation give it (XNNPACK, LiteRT, Ethos-U);
- a DPN's stem, the last map, and the logits.

A convolution whose BatchNorm follows is not quantised between the two: they become one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from densepath.models.build import Model
from densepath.models.plan import Layer, plan

LAST_MAP = "features"


@dataclass(frozen=True)
class Point:
    """A quantised tensor: the input or output of a module, on a grid that others may share."""

    module: str
    side: Literal["input", "output"]
    grid: str


def find_points(network: Model) -> list[Point]:
    """The quantised tensors, but for the last map, which belongs to no module."""
    layers = plan(network.spec)
    inputs = [Point(layer.name, "input", f"{layer.name} input") for layer in layers]
    return [*inputs, *_state(layers), Point("classifier", "output", "logits")]


def quantised_weights(network: Model) -> list[str]:
    """The names of the weights of every convolution and of the classifier."""
    return [f"{layer.name}.weight" for layer in plan(network.spec)]


def _state(layers: Sequence[Layer]) -> Iterator[Point]:
    """What makes up the state, on one grid a dense block or DPN stage.

    Of a dense block what enters it and what its layers append; of a DPN the stem, what blocks add
    and append, and the sums.
    """
    adds = any(layer.writes == "adds" for layer in layers)
    grid = ""
    for layer in layers:
        if layer.writes == "appends":
            block = layer.part.rpartition(".")[0]
            if block != grid:
                grid = block
                yield Point(block, "input", grid)
            yield Point(layer.name, "output", grid)
        elif adds and layer.reads == "images":
            yield Point(layer.part, "output", layer.part)
        elif adds and layer.writes != "nothing":
            grid = layer.part.partition("_")[0]
            yield Point(layer.name, "output", grid)
            if layer.writes == "adds":
                yield Point(layer.part, "output", grid)

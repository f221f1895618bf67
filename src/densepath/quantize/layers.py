"""The layers that a user may name, and what became of each in a network that is converted.

On the line: users name layers of `models/plan.py`; quantisers work on the graphs of rewritten
networks, where a DPN's last convolution of a block and its first one's projection are two
(`exporting/rewrite.py`). This knows both.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from densepath.errors import UnknownNameError
from densepath.models.plan import Layer, convolutions, plan
from densepath.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn


def choose_layers(spec: ModelSpec, names: Collection[str]) -> list[Layer]:
    """The layers of the plan that have these names, or lie in the modules that have them.

    Raises:
        UnknownNameError: there is no such layer.
    """
    layers = plan(spec)
    for name in names:
        if not any(lies_in(layer.name, name) for layer in layers):
            raise UnknownNameError("layer", name, [layer.name for layer in layers])
    return [layer for layer in layers if any(lies_in(layer.name, name) for name in names)]


def lies_in(layer: str, name: str) -> bool:
    """Whether the layer has the name, or its module lies in the one that has."""
    return layer == name or layer.startswith(f"{name}.")


def rewritten_paths(spec: ModelSpec, network: nn.Module) -> dict[str, list[str]]:
    """The modules that each layer of the plan became in the rewritten `network`.

    A rewritten network has the convolutions of the plan, in the same order; one may have become
    several, of the same outputs together. A BatchNorm that has become a depthwise convolution is
    none of them.
    """
    from torch import nn

    from densepath.exporting.rewrite import DepthwiseNorm

    left = [
        (path, one.out_channels)
        for path, one in network.named_modules()
        if isinstance(one, nn.Conv2d) and not isinstance(one, DepthwiseNorm)
    ]
    became: dict[str, list[str]] = {}
    for layer in convolutions(spec):
        became[layer.name], outputs = [], 0
        while outputs < layer.outputs:
            path, width = left.pop(0)
            became[layer.name].append(path)
            outputs += width
        assert outputs == layer.outputs, layer.name
    assert not left, left
    return became | {plan(spec)[-1].name: ["classifier"]}

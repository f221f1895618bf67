"""The convolutions of a network, by the names that its modules and its exported graphs have.

On the line: quantisers work on graphs, users name modules; this knows both. In a graph a DPN's last
convolution of a block, and its first one's projection, are two (`exporting/rewrite.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from densepath.errors import UnknownNameError
from densepath.exporting.rewrite import STEPS, Step, rewrite
from densepath.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Layer:
    """A convolution of the exported graph.

    Attributes:
        name: of the module in `build_model`'s network.
        path: of the module in the rewritten network, as graphs name its weights.
        index: its place among the graph's convolutions.
    """

    name: str
    path: str
    index: int


def list_layers(checkpoint: Checkpoint, steps: Collection[Step] = STEPS) -> list[Layer]:
    """The convolutions that a quantiser may turn to INT8, in the order of the graph.

    A BatchNorm that has become a depthwise convolution is none of them.
    """
    model = checkpoint.to_model()
    originals = _convolutions(model)
    norms = {id(module.weight) for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms
    layers: list[Layer] = []
    left, outputs = iter(originals), 0
    name = ""
    for index, (path, conv) in enumerate(_convolutions(rewrite(model, steps))):
        if _was_norm(conv):
            continue
        if not outputs:
            name, original = next(left)
            outputs = original.out_channels
        outputs -= conv.out_channels
        layers.append(Layer(name, path, index))
    return layers


def choose_layers(layers: Sequence[Layer], names: Collection[str]) -> list[Layer]:
    """The layers whose modules have these names, or lie in them.

    Raises:
        UnknownNameError: there is no such layer.
    """
    for name in names:
        if not any(lies_in(layer.name, name) for layer in layers):
            known = list(dict.fromkeys(layer.name for layer in layers))
            raise UnknownNameError("layer", name, known)
    return [layer for layer in layers if any(lies_in(layer.name, name) for name in names)]


def lies_in(layer: str, name: str) -> bool:
    """Whether the layer has the name, or its module lies in the one that has."""
    return layer == name or layer.startswith(f"{name}.")


def _convolutions(network: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """Its convolutions with their paths, in the order they were made, which is that they run in."""
    return [(path, one) for path, one in network.named_modules() if isinstance(one, nn.Conv2d)]


def _was_norm(conv: nn.Conv2d) -> bool:
    """Whether it is a BatchNorm in another form: one weight a channel."""
    return conv.kernel_size == (1, 1) and conv.groups == conv.in_channels == conv.out_channels

"""What a network costs, counted on the module itself: nothing here is typed in.

The network is run on PyTorch's `meta` device, where tensors have shapes and no memory, so the
largest model answers in a second.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from densepath.models.build import Model

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """The cost of one image.

    Attributes:
        parameters: trainable numbers; BatchNorm's running statistics are not among them.
        macs: multiply-accumulates of convolutions and classifier. FLOPs are twice that.
        activations: numbers written by convolutions and classifier (arXiv:2003.13678, 2).
        training_bytes_per_image: what autograd keeps for the backward pass, in float32.
        training_bytes_fixed: weights, gradients and one momentum buffer, in float32.
    """

    parameters: int
    macs: int
    activations: int
    training_bytes_per_image: int
    training_bytes_fixed: int

    def training_bytes(self, batch_size: int) -> int:
        """An estimate of the memory of one training step of SGD with momentum, in bytes.

        Workspaces of convolutions, fragmentation and the framework itself come on top.
        """
        return self.training_bytes_fixed + batch_size * self.training_bytes_per_image


def measure_cost(model: Model, input_size: int | tuple[int, int]) -> Cost:
    """The cost of `model` on images of `input_size` pixels (side, or height and width).

    Raises:
        UsageError: the size is below what the network can take.
    """
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    shadow = copy.deepcopy(model).to("meta").train()
    # Two images, for BatchNorm cannot train on a single value a channel.
    images = torch.empty(2, model.in_channels, height, width, device="meta")
    operations = _Operations()
    with _hooks(shadow, (nn.Conv2d, nn.Linear), operations.count):
        kept = _count_saved_bytes(shadow, images)
    parameters = sum(p.numel() for p in shadow.parameters())
    return Cost(
        parameters,
        operations.macs // 2,
        operations.activations // 2,
        kept // 2,
        3 * FLOAT_BYTES * parameters,
    )


@dataclass
class _Operations:
    """Multiply-accumulates and activations of the convolutions and classifiers seen so far."""

    macs: int = 0
    activations: int = 0

    def count(self, module: nn.Module, _: Any, output: Tensor) -> None:
        """Adds one call of a module whose weight holds a filter an output channel."""
        weight = module.weight
        assert isinstance(weight, Tensor)
        self.macs += output.numel() * weight[0].numel()
        self.activations += output.numel()


@contextmanager
def _hooks(
    model: nn.Module, kinds: tuple[type, ...], hook: Callable[[nn.Module, Any, Tensor], None]
) -> Iterator[None]:
    """While inside, `hook` sees the output of every module of these kinds."""
    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _count_saved_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes of distinct storages that autograd keeps, without the parameters."""
    own = {p.untyped_storage()._cdata for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in own:
            kept[key] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # The graph must live until the storages are counted: a freed address may be reused.
        loss = model(images).sum()
        size_bytes = sum(t.untyped_storage().nbytes() for t in kept.values())
    del loss
    return size_bytes

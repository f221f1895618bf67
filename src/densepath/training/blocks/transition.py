"""A transition as one autograd operation: it averages before its product, a quarter of the work.

A 1×1 convolution commutes with the average of pixels. Kept for the backward pass is what was read,
which is the dense block's own buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from densepath.models.densenet import Transition
from densepath.training.blocks.maps import as_images, to_map
from densepath.training.blocks.norms import NormOfStep
from densepath.training.blocks.obstacles import Kind, Shape
from densepath.training.blocks.operations import Gradient, Operations
from densepath.training.blocks.precision import without_autocast


def transition(module: Transition, x: Tensor, operations: Operations) -> Tensor:
    """What `module` computes of `x` [N, C, H, W], channels last in memory."""
    parameters = (module.norm.weight, module.norm.bias, module.conv.weight)
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled() and any(one.requires_grad for one in (x, *parameters)):
            out: Tensor = FusedTransition.apply(x, module, operations, *parameters)
            return out
        return _forward(module, x, operations)[0]


def _forward(
    module: Transition, x: Tensor, operations: Operations
) -> tuple[Tensor, Tensor, NormOfStep]:
    """The output [N, θC, ⌊H/2⌋, ⌊W/2⌋], the map that was read, and the BatchNorm of this pass."""
    weight = module.conv.weight
    grid = to_map(x, operations, dtype=weight.dtype)
    images, height, width, _ = grid.shape
    moments = operations.moments(grid) if module.norm.training else None
    norm = NormOfStep(module.norm, moments, read=grid, operations=operations)
    out = operations.new_map(images, height // 2, width // 2, len(weight))
    operations.pointwise(grid, norm.norm, weight, out, reading="average")
    return as_images(out), grid, norm


class FusedTransition(torch.autograd.Function):
    """x, module, operations, its parameters → the transition's output."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, module: Transition, operations: Operations, *parameters: Tensor
    ) -> Tensor:
        """The output; the map that is kept is the memory of `x`, if that is one."""
        out, grid, ctx.norm = _forward(module, x, operations)
        ctx.save_for_backward(grid, module.conv.weight)
        ctx.operations, ctx.kind = operations, x.dtype
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """The gradients of x and of the parameters."""
        grid, weight = ctx.saved_tensors
        operations = ctx.operations
        into = operations.new_map(*grid.shape)
        outputs = Gradient(to_map(gradient, operations, dtype=grid.dtype))
        sums = operations.pointwise_backward(
            grid, ctx.norm.norm, weight, outputs, into, reading="average"
        )
        of_x, _, _, *needed = ctx.needs_input_grad
        correction = ctx.norm.correction(sums)
        if of_x and correction is not None:
            operations.correct(into, correction, grid)
        found = (*ctx.norm.gradients(sums), sums.weight)
        given = [part if need else None for part, need in zip(found, needed, strict=True)]
        return as_images(into).to(ctx.kind) if of_x else None, None, None, *given


def shapes(module: Transition, width: int) -> Iterator[tuple[str, nn.Conv2d, Shape]]:
    """The convolution, and what the operation takes it to be."""
    yield "conv", module.conv, Shape(width, 1)


TRANSITION = Kind("transition", transition, frozenset(), shapes, least_side=2)

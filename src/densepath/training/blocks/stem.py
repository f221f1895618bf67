"""The BatchNorm, ReLU and max-pool of a stem as one autograd operation.

Kept for the backward pass are the convolution's outputs, which are there anyway, and a byte a
result: no normalised map of a quarter of a million pixels, and no index of eight bytes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from densepath.models.dpn import ConvNormRelu
from densepath.models.layers import StemMaxPool
from densepath.models.spec import StemPool
from densepath.models.stages import StemStage
from densepath.training.blocks.maps import as_images, to_map
from densepath.training.blocks.norms import NormOfStep
from densepath.training.blocks.obstacles import Kind
from densepath.training.blocks.operations import Operations
from densepath.training.blocks.precision import without_autocast

Start = tuple[int, int]


def norm_relu_pool(
    norm: _BatchNorm, x: Tensor, padding: StemPool, operations: Operations
) -> Tensor:
    """`StemMaxPool(padding)` of the normalised x [N, C, H, W], channels last in memory."""
    height, width = x.shape[2:]
    start = (-1, -1) if padding == "pad1" else (-(height % 2), -(width % 2))
    parameters = (norm.weight, norm.bias)
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled() and any(one.requires_grad for one in (x, *parameters)):
            out: Tensor = FusedPool.apply(x, norm, start, operations, *parameters)
            return out
        return _forward(norm, x, start, operations)[0]


def _forward(
    module: _BatchNorm, x: Tensor, start: Start, operations: Operations
) -> tuple[Tensor, Tensor, Tensor, NormOfStep]:
    """The output [N, C, ⌈H/2⌉, ⌈W/2⌉], what was read, what each window took, the BatchNorm."""
    kind = operations.middle_dtype if x.dtype == operations.middle_dtype else module.weight.dtype
    grid = to_map(x, operations, dtype=kind)
    images, height, width, channels = grid.shape
    moments = operations.moments(grid) if module.training else None
    norm = NormOfStep(module, moments, read=grid, operations=operations)
    out = operations.new_map(images, (height + 1) // 2, (width + 1) // 2, channels)
    taken = operations.pool(grid, norm.norm, out, start=start)
    return as_images(out), grid, taken, norm


class FusedPool(torch.autograd.Function):
    """x, the BatchNorm, where windows start, operations, its parameters → the pooled map."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        module: _BatchNorm,
        start: Start,
        operations: Operations,
        *parameters: Tensor,
    ) -> Tensor:
        """The output; the map that is kept is the memory of `x`, if that is one."""
        out, grid, taken, ctx.norm = _forward(module, x, start, operations)
        ctx.save_for_backward(grid, taken)
        ctx.operations, ctx.start, ctx.kind = operations, start, x.dtype
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """The gradients of x and of the parameters."""
        grid, taken = ctx.saved_tensors
        operations = ctx.operations
        into = operations.new_map(*grid.shape, dtype=grid.dtype)
        outputs = to_map(gradient, operations, dtype=gradient.dtype)
        sums = operations.pool_backward(grid, ctx.norm.norm, taken, outputs, into, start=ctx.start)
        of_x, _, _, _, *needed = ctx.needs_input_grad
        correction = ctx.norm.correction(sums)
        if of_x and correction is not None:
            operations.correct(into, correction, grid)
        found = ctx.norm.gradients(sums)
        given = [part if need else None for part, need in zip(found, needed, strict=True)]
        return as_images(into).to(ctx.kind) if of_x else None, None, None, None, *given


def _compute(stage: StemStage, x: Tensor, operations: Operations) -> Tensor:
    """The pooled map; a DPN's first convolution is computed by its module."""
    first, pool = stage[0], stage[-1]
    assert isinstance(pool, StemMaxPool)
    if isinstance(first, ConvNormRelu):
        return norm_relu_pool(first.bn, first.conv(x), pool.padding, operations)
    assert isinstance(first, _BatchNorm)
    return norm_relu_pool(first, x, pool.padding, operations)


STEM = Kind(
    "stem", _compute, frozenset({ConvNormRelu, nn.ReLU, StemMaxPool}), lambda stage, width: iter(())
)

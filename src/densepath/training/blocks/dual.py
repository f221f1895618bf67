"""A stage of a Dual Path Network as one autograd operation, in memory linear in its blocks.

The state is [residual path | dense path], as `DualPathBlock` has it. The dense path is one buffer
that every block appends to; the residual path that the last block leaves stands in front of it, so
that the buffer is the stage's output. Kept for the backward pass are besides the residual path
before each block, of whose values the ReLU's mask is made, and the outputs of `c1x1_a` and
`c3x3_b`; with `recomputes` one of the three a block, which gives the others
(`dual_parts.py:StageLayout.keeping`). Nothing that is normalised or concatenated is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from densepath.models.dpn import DualPathBlock, NormReluConv
from densepath.training.blocks.dual_backward import Backward
from densepath.training.blocks.dual_forward import Forward
from densepath.training.blocks.dual_parts import Maps, StageLayout, StepOfStage
from densepath.training.blocks.maps import as_images, as_map, to_map
from densepath.training.blocks.obstacles import Kind, Shape
from densepath.training.blocks.operations import Operations
from densepath.training.blocks.precision import without_autocast


def dual_stage(blocks: Sequence[DualPathBlock], x: Tensor, operations: Operations) -> Tensor:
    """What the `blocks` of a stage compute of `x` [N, C, H, W], channels last in memory."""
    stage = StageLayout(blocks)
    parameters = stage.parameters()
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled() and any(one.requires_grad for one in (x, *parameters)):
            out: Tensor = FusedDualStage.apply(x, stage, operations, *parameters)
            return out
        grid = to_map(x, operations, dtype=parameters[0].dtype)
        step = Forward(stage, grid, parameters[2::3], operations)
        step.run(keeps=False)
        return as_images(step.maps.state)


class FusedDualStage(torch.autograd.Function):
    """x, the stage, operations, its parameters → the state behind the stage."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, stage: StageLayout, operations: Operations, *parameters: Tensor
    ) -> Tensor:
        """The output [N, width, ⌈H/stride⌉, ⌈W/stride⌉], which is also what is kept."""
        weights = parameters[2::3]
        step = Forward(stage, to_map(x, operations, dtype=parameters[0].dtype), weights, operations)
        step.run(keeps=True)
        ctx.save_for_backward(*step.maps.to_list(), *weights)
        ctx.stage, ctx.operations, ctx.norms, ctx.kind = stage, operations, step.norms, x.dtype
        return as_images(step.maps.state)

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """The gradients of x and of the parameters."""
        stage, kept = ctx.stage, ctx.saved_tensors
        num_weights = len(stage.units)
        maps = Maps.from_list(kept[:-num_weights], len(stage.blocks))
        weights = kept[-num_weights:]
        step = Backward(StepOfStage(stage, maps, weights, ctx.norms, ctx.operations))
        of_x, _, _, *needs = ctx.needs_input_grad
        units = [any(needs[start : start + 3]) for start in range(0, len(needs), 3)]
        step.run(as_map(gradient), of_x=of_x, of_units=units)
        found: list[Tensor | None] = [None] * len(needs)
        for unit, sums in step.sums.items():
            start = 3 * unit
            found[start : start + 3] = (*ctx.norms[unit].gradients(sums), sums.weight)
        given = [part if need else None for part, need in zip(found, needs, strict=True)]
        of_input = as_images(step.of_x).to(ctx.kind) if step.of_x is not None else None
        return of_input, None, None, *given


def shapes(blocks: Iterable[DualPathBlock], width: int) -> Iterator[tuple[str, nn.Conv2d, Shape]]:
    """The convolutions of a stage of that many input channels, and what the operation takes them
    to be.
    """
    for number, block in enumerate(blocks, start=1):
        units = {
            name: unit.conv
            for name, unit in block.named_children()
            if isinstance(unit, NormReluConv)
        }
        spatial = units["c3x3_b"]
        stride = spatial.stride[0] if number == 1 else 1
        expected = {
            "c1x1_w": Shape(width, 1, stride),
            "c1x1_a": Shape(width, 1),
            "c3x3_b": Shape(units["c1x1_a"].out_channels, 3, stride, spatial.groups),
            "c1x1_c": Shape(spatial.out_channels, 1),
        }
        for name, conv in units.items():
            yield f"block {number}, {name}.conv", conv, expected[name]
        increment = units["c1x1_c"].out_channels - block.base
        width = block.base + 3 * increment if number == 1 else width + increment


DUAL_STAGE = Kind(
    "stage",
    lambda stage, x, operations: dual_stage(list(stage), x, operations),
    frozenset({DualPathBlock, NormReluConv}),
    shapes,
)

"""Which blocks of a network are computed as one operation, and on what.

`assemble.py` calls `fuse_blocks` once; from then on each block asks at every forward pass whether
it can be computed so (`obstacles.py`), and its modules compute it where it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from densepath.models.densenet import DenseBlock, Transition
from densepath.models.dpn import DualPathBlock
from densepath.training.blocks.dense import dense_block
from densepath.training.blocks.dual import dual_stage
from densepath.training.blocks.dual_parts import Stage
from densepath.training.blocks.obstacles import find_obstacle, is_degenerate, is_recorded
from densepath.training.blocks.operations import Operations
from densepath.training.blocks.portable import PortableOperations
from densepath.training.blocks.transition import transition
from densepath.training.recipe import Recipe

Say = Callable[[str], None]
Compute = Callable[[Any, Tensor, Operations], Tensor]

# What is computed as one operation, by which function, and what it is called.
_COMPUTED: dict[type[nn.Module], tuple[Compute, str]] = {
    DenseBlock: (dense_block, "dense block"),
    Transition: (transition, "transition"),
    DualPathBlock: (
        lambda first, x, operations: dual_stage(first.stage, x, operations),
        "stage of dual-path blocks",
    ),
}


@dataclass(frozen=True)
class Arithmetic:
    """The operations of a device, and those within autocast to bfloat16.

    `text` says what was taken, and why where that is not plain.
    """

    operations: Operations
    lower: Operations
    dtype: torch.dtype
    text: str


@dataclass
class Fused:
    """What computes the blocks of a network in their modules' place: their attribute `fused`.

    It holds nothing of the network, so a copy of a block shares it with the block.
    """

    arithmetic: Arithmetic
    say: Say
    said: set[str] = field(default_factory=set)

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor | None:
        """The module's output for `x`; None: its own modules have to compute it."""
        if isinstance(module, DualPathBlock) and not module.first:
            # The first block has decided for its whole stage, and the width of `x` tells how.
            return x if x.dim() == 4 and x.shape[1] == Stage(module.stage).width else None
        if is_recorded() or is_degenerate(module, x):
            return None
        reason = find_obstacle(module, x, self.arithmetic.dtype) or self._of_autocast(x)
        compute, kind = _COMPUTED[type(module)]
        if reason is None:
            return compute(module, x, self._operations(x))
        if reason not in self.said:
            self.said.add(reason)
            self.say(f"compute.block: a {kind} is computed by the plain modules, because {reason}.")
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Fused:
        """The same object."""
        return self

    def _operations(self, x: Tensor) -> Operations:
        """Those of the precision that is asked for."""
        lower = torch.is_autocast_enabled(x.device.type)
        return self.arithmetic.lower if lower else self.arithmetic.operations

    def _of_autocast(self, x: Tensor) -> str | None:
        """Why the precision that is asked for cannot be had."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) != torch.bfloat16:
            return f"autocast asks for {torch.get_autocast_dtype(kind)}"
        return None


def fuse_blocks(
    networks: Iterable[nn.Module], recipe: Recipe, device: torch.device, say: Say
) -> None:
    """Let the blocks of `networks` be computed as `recipe.compute.block` asks.

    Args:
        networks: of float32, on their `device`.
        recipe: a resolved one.
        device: where the networks are.
        say: what is told which arithmetic was taken, and later which blocks do without.
    """
    if recipe.compute.block == "plain":
        return
    reason = recipe.why_plain_blocks()
    if reason is not None:
        say(f"compute.block auto: blocks are computed by the plain modules, because {reason}.")
        return
    arithmetic = choose_arithmetic(device, torch.float32)
    say(f"compute.block {recipe.compute.block}: {arithmetic.text}.")
    fused = Fused(arithmetic, say)
    for network in networks:
        fuse(network, fused)


def fuse(network: nn.Module, fused: Fused) -> None:
    """Set `fused` on every block that can have it."""
    stage: list[DualPathBlock] = []
    for module in network.modules():
        if type(module) in _COMPUTED:
            module.fused = fused  # type: ignore[assignment]
        if isinstance(module, DualPathBlock):
            stage = [] if module.first else stage
            stage.append(module)
            module.stage = stage


def choose_arithmetic(device: torch.device, dtype: torch.dtype) -> Arithmetic:
    """The fastest operations that there are for a device."""
    plain = PortableOperations(device, dtype)
    lower = PortableOperations(device, dtype, torch.bfloat16)
    return Arithmetic(plain, lower, dtype, "blocks are computed as one operation each, in PyTorch")

"""Which blocks of a network are computed as one operation, and on what.

`assemble.py` calls `fuse_blocks` once; from then on each block asks at every forward pass whether
it can be computed so (`obstacles.py`), and its modules compute it where it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from densepath.errors import EngineError, OutputError
from densepath.models.densenet import DenseBlock, Transition
from densepath.models.dpn import DualPathStage
from densepath.models.stages import Stages, StemStage
from densepath.training.blocks.dense import DENSE_BLOCK
from densepath.training.blocks.dual import DUAL_STAGE
from densepath.training.blocks.obstacles import Kind, find_obstacle, is_degenerate, is_recorded
from densepath.training.blocks.operations import Operations
from densepath.training.blocks.portable import PortableOperations
from densepath.training.blocks.stem import STEM
from densepath.training.blocks.transition import TRANSITION
from densepath.training.blocks.worth import why_not_worth

if TYPE_CHECKING:
    from densepath.models.build import Model
    from densepath.training.recipe import Recipe

Say = Callable[[str], None]

# What can be computed as one operation: modules that have the attribute `fused`.
KINDS: dict[type[nn.Module], Kind] = {
    DenseBlock: DENSE_BLOCK,
    Transition: TRANSITION,
    DualPathStage: DUAL_STAGE,
    StemStage: STEM,
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
        kind = KINDS[type(module)]
        if is_recorded() or is_degenerate(kind, x):
            return None
        reason = find_obstacle(kind, module, x, self.arithmetic.dtype)
        if reason is None:
            return kind.compute(module, x, self._operations(x))
        if reason not in self.said:
            self.said.add(reason)
            self.say(f"compute.block: a {kind.word} is left to its modules, because {reason}.")
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Fused:
        """The same object."""
        return self

    def _operations(self, x: Tensor) -> Operations:
        """Those of the precision that is asked for."""
        lower = torch.is_autocast_enabled(x.device.type)
        return self.arithmetic.lower if lower else self.arithmetic.operations


def fuse_blocks(
    networks: Iterable[Model], recipe: Recipe, device: torch.device, say: Say, *, num_images: int
) -> None:
    """Let the blocks of `networks` be computed as `recipe.compute.block` asks.

    Args:
        networks: of float32, on their `device`.
        recipe: a resolved one.
        device: where the networks are.
        say: what is told which arithmetic was taken, and later which blocks do without. Why `auto`
            takes modules is told those alone who asked for it: it is the default.
        num_images: that an epoch has.
    """
    if recipe.compute.block == "plain":
        return
    networks = list(networks)
    if recipe.compute.block == "auto":
        reason = why_not_worth(networks[0].spec, recipe, device, num_images)
        if reason is not None:
            if "block" in recipe.compute.model_fields_set:
                say(f"compute.block auto: blocks are computed by the modules, because {reason}.")
            return
    arithmetic = choose_arithmetic(device, torch.float32)
    say(f"compute.block {recipe.compute.block}: {arithmetic.text}.")
    if recipe.compute.precision != "float32" and arithmetic.lower is arithmetic.operations:
        say(f"compute.precision {recipe.compute.precision}: not in blocks, which are in float32.")
    fused = Fused(arithmetic, say)
    for network in networks:
        fuse(network, fused)


def fuse(network: nn.Module, fused: Fused) -> None:
    """Set `fused` on every block that can have it."""
    stages = (
        stage
        for module in network.modules()
        if isinstance(module, Stages)
        for stage in module.stages.values()
    )
    for module in (*network.modules(), *stages):
        if type(module) in KINDS:
            module.fused = fused  # type: ignore[assignment]


def choose_arithmetic(device: torch.device, dtype: torch.dtype) -> Arithmetic:
    """The fastest operations that there are for a device.

    On a CPU in float32 the library is compiled, if the cache has none.
    """
    text = "blocks are one operation each, "
    if device.type == "cpu" and dtype == torch.float32:
        from densepath.training.blocks.native import NativeOperations

        try:
            native = NativeOperations()
        except (EngineError, OutputError) as error:
            text += f"without densepath's own kernels ({str(error).rstrip('.')}), "
        else:
            return Arithmetic(native, native, dtype, f"{text}on densepath's own kernels")
    operations = PortableOperations(device, dtype)
    lower = PortableOperations(device, dtype, torch.bfloat16)
    return Arithmetic(operations, lower, dtype, f"{text}on PyTorch's")

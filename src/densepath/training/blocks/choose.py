"""Which blocks of a network are computed as one operation, and on what.

`assemble.py` calls `wants_fused` and `fuse_blocks` once; from then on each block asks at every
forward pass whether it can be computed so (`obstacles.py`), and its modules compute it where it
cannot.
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
from densepath.training.distributed import ALONE, Ranks

if TYPE_CHECKING:
    from densepath.models.build import Model
    from densepath.models.spec import ModelSpec
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

    `text` says what was taken, and why where that is not plain; `of_lower` what of a block is not
    computed as autocast computes it.
    """

    operations: Operations
    lower: Operations
    dtype: torch.dtype
    text: str
    of_lower: str = ""

    @property
    def synced(self) -> bool:
        """Whether BatchNorms count the images of several processes together."""
        return self.operations.ranks.world_size > 1


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
        kind, dtype, synced = KINDS[type(module)], self.arithmetic.dtype, self.arithmetic.synced
        if is_recorded() or is_degenerate(kind, x, synced=synced):
            return None
        device = self.arithmetic.operations.device
        reason = find_obstacle(kind, module, x, dtype, device, synced=synced)
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


def wants_fused(
    spec: ModelSpec,
    recipe: Recipe,
    device: torch.device,
    say: Say,
    *,
    num_images: int,
    ranks: Ranks = ALONE,
) -> bool:
    """Whether `recipe.compute.block` asks for blocks as one operation each.

    All processes do as the leader, whatever machine they are on: modules and blocks exchange
    other things where BatchNorms count the images of all.

    Args:
        spec: of the network.
        recipe: a resolved one.
        device: where the network is.
        say: what is told why `auto` takes modules, if somebody asked for `auto`: it is the default.
        num_images: that an epoch has.
        ranks: the processes of the training.

    Raises:
        PeerError: the leader could not say it.
    """
    if recipe.compute.block != "auto" or recipe.compute.recompute:
        return recipe.compute.block != "plain"
    with ranks.together(device) as exchange:
        reason = why_not_worth(spec, recipe, device, num_images)
        if reason is not None and "block" in recipe.compute.model_fields_set:
            say(f"compute.block auto: blocks are computed by the modules, because {reason}.")
        exchange.value = reason is None
    return bool(exchange.values[0])


def fuse_blocks(
    networks: Iterable[Model], recipe: Recipe, device: torch.device, say: Say, *, ranks: Ranks
) -> None:
    """Let the blocks of `networks` be computed as one operation each.

    Args:
        networks: of float32, on their `device`.
        recipe: a resolved one.
        device: where the networks are.
        say: what is told which arithmetic was taken, and later which blocks do without.
        ranks: the processes whose images BatchNorms count together.
    """
    arithmetic = choose_arithmetic(
        device, torch.float32, ranks, recomputes=recipe.compute.recompute
    )
    again = ", and keep as little as they can" if recipe.compute.recompute else ""
    say(f"compute.block {recipe.compute.block}: {arithmetic.text}{again}.")
    if recipe.compute.precision != "float32" and arithmetic.of_lower:
        say(f"compute.precision {recipe.compute.precision}: {arithmetic.of_lower}.")
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


def choose_arithmetic(
    device: torch.device, dtype: torch.dtype, ranks: Ranks = ALONE, *, recomputes: bool = False
) -> Arithmetic:
    """The fastest operations that there are for a device.

    On a CPU in float32 the library is compiled, if the cache has none. BatchNorms count the images
    of all `ranks` together. `recomputes`: see `Operations`.
    """
    text = "blocks are one operation each, "
    if device.type == "cpu" and dtype == torch.float32:
        from densepath.training.blocks.native import NativeOperations

        try:
            native = NativeOperations(ranks=ranks, recomputes=recomputes)
        except (EngineError, OutputError) as error:
            text += f"without densepath's own kernels ({str(error).rstrip('.')}), "
        else:
            text += "on densepath's own kernels"
            if not native.has_bfloat16:
                return Arithmetic(
                    native, native, dtype, text, "not in blocks, which are in float32"
                )
            rounding = NativeOperations(
                ranks=ranks, bfloat16=True, recomputes=recomputes, memory=native.memory
            )
            rounded = (
                "convolutions" if native.has_amx else "1×1 convolutions and groups of even width"
            )
            of_lower = f"in blocks the {rounded}; all else is in float32"
            return Arithmetic(native, rounding, dtype, text, of_lower)
    operations = PortableOperations(device, dtype, ranks=ranks, recomputes=recomputes)
    lower = PortableOperations(device, dtype, torch.bfloat16, ranks, recomputes=recomputes)
    return Arithmetic(operations, lower, dtype, f"{text}on PyTorch's")

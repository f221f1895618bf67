"""Our network with its blocks as one operation each, for the benchmarks; never plain in silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

Mode = Literal["fused", "recompute", "portable"]
MODULE = "densepath.training.blocks.choose"


class PlainBlockError(Exception):
    """A block that its own modules compute, or in another precision than was asked for."""


def fuse_network(
    network: nn.Module,
    mode: Mode,
    precision: str,
    wrap: Callable[[Any], Any] = lambda operations: operations,
) -> Callable[[], None]:
    """Let the network compute its blocks as one operation each; a check, for after a step.

    Args:
        network: of float32 or float64, on its device.
        mode: `fused`: by the best operations that there are for the device; `recompute`: by those,
            with `compute.recompute`; `portable`: by those in PyTorch alone.
        precision: of the step: that of the network, or `bfloat16` for autocast.
        wrap: what is put around the operations.

    Raises:
        PlainBlockError: blocks are computed in float32 whatever is asked for; or, in a step, a
            block falls back; or, from the check, none was computed so.
    """
    from densepath.training.blocks.choose import Arithmetic, Fused, choose_arithmetic, fuse
    from densepath.training.blocks.portable import PortableOperations

    @dataclass
    class StrictlyFused(Fused):
        """As `Fused`, but a block that is left to its modules is an error."""

        num_blocks: int = 0

        def __call__(self, *words: Any) -> Any:
            found = super().__call__(*words)
            if found is None:
                raise PlainBlockError("a block is left to its modules")
            self.num_blocks += 1
            return found

    weight = next(network.parameters())
    device, dtype = weight.device, weight.dtype
    chosen = choose_arithmetic(device, dtype, recomputes=mode == "recompute")
    if mode == "portable":
        plain = PortableOperations(device, dtype)
        lower = PortableOperations(device, dtype, torch.bfloat16)
        chosen = Arithmetic(plain, lower, dtype, "on PyTorch's")
    if precision == "bfloat16" and chosen.lower is chosen.operations:
        raise PlainBlockError("blocks are computed in float32 here, whatever is asked for")
    wrapped = replace(chosen, operations=wrap(chosen.operations), lower=wrap(chosen.lower))
    fused = StrictlyFused(wrapped, _refuse)
    fuse(network, fused)

    def check() -> None:
        if not fused.num_blocks:
            raise PlainBlockError("no block of this network is computed as one operation")

    return check


def _refuse(text: str) -> None:
    """Raise with what a block says when its modules have to compute it."""
    raise PlainBlockError(text)

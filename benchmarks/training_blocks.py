"""Our network with its blocks as one operation each, for the benchmarks; never plain in silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

Mode = Literal["fused", "portable"]
MODULE = "densepath.training.blocks.choose"


class PlainBlockError(Exception):
    """A block that its own modules would compute."""


def fuse_network(
    network: nn.Module, mode: Mode, wrap: Callable[[Any], Any] = lambda operations: operations
) -> None:
    """Let the network compute its blocks as one operation each.

    Args:
        network: of float32, on its device.
        mode: `fused`: by the best operations that there are for the device; `portable`: by those
            in PyTorch alone.
        wrap: what is put around the operations.

    Raises:
        PlainBlockError: the network has no block of that kind; or, in a step, a block falls back.
    """
    from densepath.training.blocks.choose import Arithmetic, Fused, choose_arithmetic, fuse
    from densepath.training.blocks.portable import PortableOperations

    device = next(network.parameters()).device
    if mode == "fused":
        chosen = choose_arithmetic(device, torch.float32)
    else:
        chosen = Arithmetic(
            PortableOperations(device, torch.float32),
            PortableOperations(device, torch.float32, torch.bfloat16),
            torch.float32,
            "in PyTorch",
        )
    wrapped = replace(chosen, operations=wrap(chosen.operations), lower=wrap(chosen.lower))
    fuse(network, Fused(wrapped, _refuse))
    if not any(isinstance(getattr(one, "fused", None), Fused) for one in network.modules()):
        raise PlainBlockError("no block of this network can be computed as one operation")


def _refuse(text: str) -> None:
    """Raise with what a block says when its modules have to compute it."""
    raise PlainBlockError(text)

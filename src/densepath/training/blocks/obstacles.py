"""Why modules compute a block themselves: what one operation could not do as they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

from densepath.models.layers import DropPath
from densepath.training.blocks.operations import Operations

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = [f"_global{kind}" for kind in _HOOKS]
# What layers are made of; another class, as of a parametrised module, may compute anything.
_PARTS = {nn.BatchNorm2d, nn.Conv2d, nn.Dropout, DropPath}


class Kind(NamedTuple):
    """One kind of block, and how it is computed as one operation.

    Attributes:
        word: what it is called.
        compute: (block, x, operations) → its output.
        parts: the classes of its modules, besides convolutions, BatchNorms and what drops.
        shapes: (block, channels of x) → each convolution's name, the convolution, and the shape
            that the operation takes it to have.
        least_side: of the smallest map that it gives an output for.
    """

    word: str
    compute: Callable[[Any, Tensor, Operations], Tensor]
    parts: frozenset[type[nn.Module]]
    shapes: Callable[[Any, int], Iterator[tuple[str, nn.Conv2d, Shape]]]
    least_side: int = 1


class Shape(NamedTuple):
    """A convolution's, which is padded by half its kernel."""

    inputs: int
    kernel: int
    stride: int = 1
    groups: int = 1


def is_recorded() -> bool:
    """Whether modules are traced, compiled or transformed, which wants to see their own steps."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
    )


def is_degenerate(kind: Kind, x: Tensor) -> bool:
    """Whether there is nothing to compute, or what the modules refuse in words of their own."""
    if x.dim() != 4 or not x.numel() or min(x.shape[2:]) < kind.least_side:
        return True
    # One value a channel, here or behind a stride of 2: a BatchNorm that trains refuses that.
    return x.shape[0] == 1 and max(x.shape[2:]) <= 2


def find_obstacle(kind: Kind, module: nn.Module, x: Tensor, dtype: torch.dtype) -> str | None:
    """Why the modules of a block have to compute it, as a half-sentence; None: no reason.

    Args:
        kind: what block it is.
        module: the block.
        x: its input.
        dtype: what the operations compute in.
    """
    if any(getattr(module_hooks, hooks) for hooks in _GLOBAL_HOOKS):
        return "there are hooks on all modules"
    for name, part in module.named_modules():
        if part is not module and (said := _of_part(part, kind)):
            return f"{name} {said}"
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype != dtype:
            return f"{name} is {tensor.dtype}, and it is computed in {dtype}"
        if tensor.device != x.device:
            return f"{name} is on {tensor.device}, its input on {x.device}"
    for name, conv, shape in kind.shapes(module, x.shape[1]):
        if _shape_of(conv) != (shape, (shape.kernel // 2,) * 2):
            return f"{name} has another shape than densepath's"
    return _of_precision(x, dtype)


def _of_part(part: nn.Module, kind: Kind) -> str | None:
    """What is unusual about a module inside a block."""
    if type(part) not in _PARTS | kind.parts or "forward" in vars(part):
        return f"is another {type(part).__name__} than densepath's"
    if any(getattr(part, kind) for kind in _HOOKS):
        return "has hooks"
    if isinstance(part, nn.BatchNorm2d) and (part.running_mean is None or not part.affine):
        return "has no running statistics or no parameters"
    if isinstance(part, nn.Conv2d) and (
        part.bias is not None or part.padding_mode != "zeros" or part.dilation != (1, 1)
    ):
        return "has a bias, a dilation or a padding other than zeros"
    return None


def _shape_of(conv: nn.Conv2d) -> tuple[Shape, tuple[int, ...]] | None:
    """A convolution's shape and padding; None if it is not the same in both directions."""
    (kernel, other), (stride, across) = conv.kernel_size, conv.stride
    if kernel != other or stride != across or isinstance(conv.padding, str):
        return None
    return Shape(conv.in_channels, kernel, stride, conv.groups), conv.padding


def _of_precision(x: Tensor, dtype: torch.dtype) -> str | None:
    """Why the precision that is asked for cannot be had."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return None if x.dtype == dtype else f"its input is {x.dtype}, and it computes in {dtype}"
    asked = torch.get_autocast_dtype(device)
    return None if asked == torch.bfloat16 else f"autocast asks for {asked}"

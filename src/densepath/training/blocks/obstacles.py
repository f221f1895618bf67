"""Why modules compute a block themselves: what one operation could not do as they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.nn.modules.batchnorm import _BatchNorm

from densepath.models.layers import DropPath
from densepath.training.blocks.operations import Operations
from densepath.training.sync_bn import SYNCED_NORMS

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = [f"_global{kind}" for kind in _HOOKS]
# What layers are made of; another class, as of a parametrised module, may compute anything.
_PARTS = frozenset({nn.Conv2d, nn.Dropout, DropPath})
_NORMS = frozenset({nn.BatchNorm2d})


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


def is_degenerate(kind: Kind, x: Tensor, *, synced: bool) -> bool:
    """Whether there is nothing to compute, or what the modules refuse in words of their own.

    Where processes are `synced` all have to come to the same answer, however few images each has.
    """
    if x.dim() != 4 or not x.shape[1] or min(x.shape[2:]) < kind.least_side:
        return True
    # One value a channel, here or behind a stride of 2: a BatchNorm that trains refuses that.
    few = not len(x) or (len(x) == 1 and max(x.shape[2:]) <= 2)
    return few and not synced


def find_obstacle(
    kind: Kind,
    module: nn.Module,
    x: Tensor,
    dtype: torch.dtype,
    device: torch.device,
    *,
    synced: bool,
) -> str | None:
    """Why the modules of a block have to compute it, as a half-sentence; None: no reason.

    Args:
        kind: what block it is.
        module: the block.
        x: its input.
        dtype, device: what the operations compute in, and where.
        synced: whether they count the images of several processes together.
    """
    if any(getattr(module_hooks, hooks) for hooks in _GLOBAL_HOOKS):
        return "there are hooks on all modules"
    if x.device.type != device.type or device.index not in (None, x.device.index):
        return f"its input is on {x.device}, and blocks are computed on {device}"
    classes, width = _PARTS | kind.parts | (SYNCED_NORMS if synced else _NORMS), None
    for name, part in module.named_modules():
        said = None if part is module else _of_part(part, classes) or _of_tensors(part, x, dtype)
        if said is not None:
            return f"{name} {said}"
        if isinstance(part, _BatchNorm):
            width = part.num_features
        if isinstance(part, nn.Conv2d) and width not in (None, part.in_channels):
            return f"{name} has other channels than the BatchNorm before it"
    for name, conv, shape in kind.shapes(module, x.shape[1]):
        if _shape_of(conv) != (shape, (shape.kernel // 2,) * 2):
            return f"{name} has another shape than densepath's"
    return _of_precision(x, dtype)


def _of_part(part: nn.Module, classes: frozenset[type[nn.Module]]) -> str | None:
    """What is unusual about a module inside a block, whose modules are of these classes."""
    if type(part) not in classes or "forward" in vars(part):
        return f"is another {type(part).__name__} than densepath's"
    if any(getattr(part, hooks) for hooks in _HOOKS):
        return "has hooks"
    if isinstance(part, _BatchNorm):
        held = (part.running_mean, part.running_var, part.num_batches_tracked)
        if not part.track_running_stats or not part.affine or any(one is None for one in held):
            return "has no running statistics or no parameters"
    if isinstance(part, nn.Conv2d) and (
        part.bias is not None or part.padding_mode != "zeros" or part.dilation != (1, 1)
    ):
        return "has a bias, a dilation or a padding other than zeros"
    return None


def _of_tensors(part: nn.Module, x: Tensor, dtype: torch.dtype) -> str | None:
    """What is unusual about the parameters and statistics of a module."""
    for tensor in (*part._parameters.values(), *part._buffers.values()):
        if tensor is None:
            continue
        if tensor.device != x.device:
            return f"is on {tensor.device}, and what it reads on {x.device}"
        if not tensor.is_floating_point():
            continue
        if tensor.dtype != dtype:
            return f"is in {tensor.dtype}, and blocks are computed in {dtype}"
        if isinstance(part, _BatchNorm) and tensor.shape != (part.num_features,):
            return "has values of another number than it says"
    return None


def _shape_of(conv: nn.Conv2d) -> tuple[Shape, tuple[int, ...]] | None:
    """A convolution's shape and padding; None if it is not the same in both directions."""
    outputs, inputs, kernel, other = conv.weight.shape
    stride, across = conv.stride
    if kernel != other or stride != across or isinstance(conv.padding, str):
        return None
    if (outputs, inputs * conv.groups) != (conv.out_channels, conv.in_channels):
        return None  # somebody has given it other weights
    return Shape(conv.in_channels, kernel, stride, conv.groups), conv.padding


def _of_precision(x: Tensor, dtype: torch.dtype) -> str | None:
    """Why the precision that is asked for cannot be had."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return None if x.dtype == dtype else f"its input is {x.dtype}, and it computes in {dtype}"
    asked = torch.get_autocast_dtype(device)
    return None if asked == torch.bfloat16 else f"autocast asks for {asked}"

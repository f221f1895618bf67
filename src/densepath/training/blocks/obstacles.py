"""Why modules compute a block themselves: what one operation could not do as they do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

from densepath.models.densenet import BottleneckLayer, DenseBlock, PlainLayer, Transition
from densepath.models.dpn import DualPathBlock, NormReluConv
from densepath.models.layers import DropPath

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = [f"_global{kind}" for kind in _HOOKS]
# What a block is made of; another class, as of a parametrised module, may compute anything.
_PARTS = {
    *(BottleneckLayer, PlainLayer, DualPathBlock, NormReluConv),
    *(nn.BatchNorm2d, nn.Conv2d, nn.Dropout, DropPath),
}


def is_recorded() -> bool:
    """Whether modules are traced, compiled or transformed, which wants to see their own steps."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
    )


def is_degenerate(module: nn.Module, x: Tensor) -> bool:
    """Whether there is nothing to compute, or what the modules refuse in words of their own."""
    if x.dim() != 4 or not x.numel():
        return True
    if isinstance(module, Transition) and min(x.shape[2:]) < 2:
        return True
    if isinstance(module, DualPathBlock):
        # One value a channel behind a stride of 2: a BatchNorm that trains refuses that.
        return x.shape[0] == 1 and max(x.shape[2:]) <= module.c3x3_b.conv.stride[0]
    return module.training and x.numel() == x.shape[1]


def find_obstacle(module: nn.Module, x: Tensor, dtype: torch.dtype) -> str | None:
    """Why the modules of a block have to compute it, as the end of a sentence; None: no reason.

    Args:
        module: the block.
        x: its input.
        dtype: what the operations compute in.
    """
    if any(getattr(module_hooks, kind) for kind in _GLOBAL_HOOKS):
        return "there are hooks on all modules"
    if isinstance(module, DualPathBlock):
        if module.stage[0] is not module:
            return "it is a copy without its stage"
        module = nn.Sequential(*module.stage)
    for name, part in module.named_modules():
        if part is not module and (said := _of_part(part)):
            return f"{name} {said}"
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype != dtype:
            return f"{name} is {tensor.dtype}, and it is computed in {dtype}"
        if tensor.device != x.device:
            return f"{name} is on {tensor.device}, its input on {x.device}"
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        return f"its input is {x.dtype}, and it is computed in {dtype}"
    return _of_shapes(module, x)


def _of_part(part: nn.Module) -> str | None:
    """What is unusual about a module inside a block."""
    if type(part) not in _PARTS or "forward" in vars(part):
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


def _of_shapes(module: nn.Module, x: Tensor) -> str | None:
    """Which of the convolutions has another shape than the operations know."""
    width = x.shape[1]
    if isinstance(module, Transition):
        return None if _is(module.conv, width, 1) else "conv has another shape"
    if isinstance(module, nn.Sequential):
        return _of_stage(module, width)
    assert isinstance(module, DenseBlock)
    for name, layer in module.named_children():
        if isinstance(layer, BottleneckLayer):
            middle = layer.conv1.out_channels
            fits = _is(layer.conv1, width, 1) and _is(layer.conv2, middle, 3)
            width += layer.conv2.out_channels
        else:
            assert isinstance(layer, PlainLayer)
            fits = _is(layer.conv1, width, 3)
            width += layer.conv1.out_channels
        if not fits:
            return f"{name} has convolutions of another shape"
    return None


def _of_stage(blocks: nn.Sequential, width: int) -> str | None:
    """Which of the convolutions of a stage has another shape than the operation knows."""
    for number, block in enumerate(cast(Iterable[DualPathBlock], blocks), start=1):
        a, b, c = block.c1x1_a.conv, block.c3x3_b.conv, block.c1x1_c.conv
        stride, increment = b.stride[0] if block.first else 1, c.out_channels - block.base
        fits = _is(a, width, 1) and _is(c, b.out_channels, 1)
        fits = fits and _is(b, a.out_channels, 3, stride, b.groups)
        if block.first:
            fits = fits and _is(block.c1x1_w.conv, width, 1, stride)
            width = block.base + 2 * increment
        width += increment
        if not fits:
            return f"block {number} has convolutions of another shape"
    return None


def _is(conv: nn.Conv2d, inputs: int, kernel: int, stride: int = 1, groups: int = 1) -> bool:
    """Whether it is a convolution of this shape, padded by half its kernel."""
    return (conv.in_channels, conv.kernel_size, conv.stride, conv.groups, conv.padding) == (
        inputs,
        (kernel, kernel),
        (stride, stride),
        groups,
        (kernel // 2, kernel // 2),
    )

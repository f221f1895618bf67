"""The networks rewritten for inference: the same function in fewer passes over memory.

Three exact rewritings (up to float32 rounding; held to 1e-4 by tests):

1. A BatchNorm right after a convolution goes into its weights; one before a convolution, with
   a ReLU between, cannot, and becomes one multiply-add.
2. A block's features stand in one buffer, channels last, into which every layer writes its
   slice: no Concat copies all earlier features once more.
3. A transition averages 2×2 before its 1×1 convolution, not after: a quarter of the work.

Buffers are kept from call to call, each thread's own, so that threads can share a network.
"""

from __future__ import annotations

import threading
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from densepath.models.build import Model
from densepath.models.densenet import BottleneckLayer, DenseNet, PlainLayer, Transition
from densepath.models.dpn import DualPathBlock
from densepath.models.layers import check_images, norm_factors, pool_and_classify


class Scratch(threading.local):
    """Memory that is taken again and again under a name, in place of fresh allocations.

    Each thread has its own.
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, like: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        """[N, C, H, W], channels last, not initialised; the last taker of `name` loses it."""
        batch, channels, height, width = shape
        size = batch * channels * height * width
        held = self._held.get(name)
        if held is None or held.numel() < size:
            held = self._held[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return held[:size].view(batch, height, width, channels).permute(0, 3, 1, 2)


class NormRelu(nn.Module):
    """max(x · scale + shift, 0), a BatchNorm in evaluation mode and its ReLU."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d, scratch: Scratch | None) -> None:
        super().__init__()
        scale, shift = norm_factors(norm)
        self.register_buffer("scale", scale.float()[None, :, None, None])
        self.register_buffer("shift", shift.float()[None, :, None, None])
        self._scratch = scratch

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same shape, in scratch memory if the module was given some."""
        if self._scratch is None:
            return torch.addcmul(self.shift, x, self.scale).relu_()
        out = self._scratch.take("normed", x, (x.shape[0], x.shape[1], x.shape[2], x.shape[3]))
        return torch.addcmul(self.shift, x, self.scale, out=out).relu_()


class FusedDenseLayer(nn.Module):
    """BN-ReLU-1×1-BN-ReLU-3×3 with the second BN in the 1×1's weights; or BN-ReLU-3×3."""

    def __init__(self, layer: BottleneckLayer | PlainLayer, scratch: Scratch) -> None:
        super().__init__()
        self.norm = NormRelu(layer.norm1, scratch)
        if isinstance(layer, BottleneckLayer):
            self.squeeze: nn.Conv2d | None = fuse_conv_bn_eval(layer.conv1, layer.norm2)
            self.conv = layer.conv2
        else:
            self.squeeze, self.conv = None, layer.conv1

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the new features [N, k, H, W]."""
        x = self.norm(x)
        if self.squeeze is not None:
            x = self.squeeze(x).relu_()
        return self.conv(x)


class FusedDenseBlock(nn.Module):
    """A dense block over one buffer."""

    def __init__(self, block: nn.Module, scratch: Scratch) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            FusedDenseLayer(cast(BottleneckLayer, layer), scratch) for layer in block.children()
        )
        self.added = sum(cast(FusedDenseLayer, layer).conv.out_channels for layer in self.layers)
        self._scratch = scratch

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C + layers · k, H, W] in scratch memory."""
        batch, width, height, across = x.shape
        features = self._scratch.take("block", x, (batch, width + self.added, height, across))
        features[:, :width] = x
        for layer in self.layers:
            new = layer(features[:, :width])
            features[:, width : width + new.shape[1]] = new
            width += new.shape[1]
        return features


class FusedTransition(nn.Module):
    """BN-ReLU, 2×2 average, 1×1: averaging and a 1×1 convolution commute."""

    def __init__(self, transition: Transition, scratch: Scratch) -> None:
        super().__init__()
        self.norm = NormRelu(transition.norm, scratch)
        self.conv = transition.conv

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, θC, ⌊H/2⌋, ⌊W/2⌋]."""
        return self.conv(F.avg_pool2d(self.norm(x), 2))


class FusedDualPathBlock(nn.Module):
    """A DPN block over one buffer: the residual path in front, the dense path growing behind.

    Inside, the second and third BN go into the convolutions before them.
    """

    def __init__(self, block: DualPathBlock, scratch: Scratch, room: int) -> None:
        super().__init__()
        self.first, self.base, self.room, self._scratch = block.first, block.base, room, scratch
        if block.first:
            self.project_norm = NormRelu(block.c1x1_w.bn, scratch)
            self.project = block.c1x1_w.conv
        self.norm = NormRelu(block.c1x1_a.bn, scratch)
        self.a = fuse_conv_bn_eval(block.c1x1_a.conv, block.c3x3_b.bn)
        self.b = fuse_conv_bn_eval(block.c3x3_b.conv, block.c1x1_c.bn)
        self.c = block.c1x1_c.conv

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the state [N, C', H', W'], a slice of the stage's buffer."""
        base = self.base
        old = self.project(self.project_norm(x)) if self.first else x
        new = self.c(self.b(self.a(self.norm(x)).relu_()).relu_())
        batch, width, height, across = old.shape
        # A first block takes the buffer anew, which `x` may stand in; `old` and `new` do not.
        state = self._scratch.take("block", x, (batch, self.room, height, across))
        if self.first:
            state[:, :width] = old
        state[:, :base] += new[:, :base]
        end = width + new.shape[1] - base
        state[:, width:end] = new[:, base:]
        return state[:, :end]


class FusedNetwork(nn.Module):
    """A fused DenseNet or DPN; images [N, in_channels, H, W] → logits [N, num_classes]."""

    def __init__(self, model: Model, body: nn.Sequential) -> None:
        super().__init__()
        self.spec, self.in_channels = model.spec, model.in_channels
        self.num_classes, self.test_pooling = model.num_classes, model.test_pooling
        self.body, self.classifier = body, model.classifier

    def forward_features(self, x: Tensor) -> Tensor:
        """Images → [N, num_features, H', W'], after the last BN and ReLU."""
        check_images(x, self.in_channels, self.spec.least_side)
        return self.body(x)

    def forward_head(self, features: Tensor) -> Tensor:
        """Features → logits."""
        window = self.spec.last_map_side
        return pool_and_classify(features, self.classifier, self.test_pooling, window)

    def forward(self, x: Tensor) -> Tensor:
        """Images → logits."""
        return self.forward_head(self.forward_features(x))


def fuse(model: Model) -> FusedNetwork:
    """The network as fused modules, channels last; `model` must be in evaluation mode.

    Weights that fusion does not change are shared with `model`.
    """
    assert not model.training
    body = _fuse_densenet(model) if isinstance(model, DenseNet) else _fuse_dpn(model)
    fused = FusedNetwork(model, body).requires_grad_(False)
    return fused.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _fuse_densenet(model: DenseNet) -> nn.Sequential:
    """Stem, blocks and transitions, last BN."""
    scratch, parts = Scratch(), list(model.features.named_children())
    body = nn.Sequential()
    names = [name for name, _ in parts]
    for name, module in parts:
        if name == "conv0" and "norm0" in names:
            norm = cast(nn.BatchNorm2d, model.features.norm0)
            body.append(fuse_conv_bn_eval(cast(nn.Conv2d, module), norm))
        elif name.startswith("denseblock"):
            body.append(FusedDenseBlock(module, scratch))
        elif isinstance(module, Transition):
            body.append(FusedTransition(module, scratch))
        elif name == "norm5":
            body.append(NormRelu(cast(nn.BatchNorm2d, module), None))
        elif name != "norm0":
            body.append(module)
    return body


def _fuse_dpn(model: Model) -> nn.Sequential:
    """Stem, blocks of all stages, last BN."""
    scratch, features = Scratch(), model.features
    stem = cast(nn.Module, features.conv1_1)
    conv = fuse_conv_bn_eval(cast(nn.Conv2d, stem.conv), cast(nn.BatchNorm2d, stem.bn))
    body = nn.Sequential(conv, nn.ReLU(inplace=True))
    room = 0
    blocks = [m for m in features.children() if isinstance(m, DualPathBlock)]
    for module in features.children():
        if isinstance(module, DualPathBlock):
            room = _stage_width(blocks, module) if module.first else room
            body.append(FusedDualPathBlock(module, scratch, room))
        elif module is not stem and not hasattr(module, "bn"):
            body.append(module)
    last = cast(nn.Module, features.conv5_bn_ac)
    return body.append(NormRelu(cast(nn.BatchNorm2d, last.bn), None))


def _stage_width(blocks: list[DualPathBlock], first: DualPathBlock) -> int:
    """The channels after the last block of the stage that `first` opens."""
    stage = [block for block in blocks if block.base == first.base]
    increment = first.c1x1_c.conv.out_channels - first.base
    return first.base + (2 + len(stage)) * increment

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
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densepath.models.build import Model
from densepath.models.layers import (
    StemMaxPool,
    check_images,
    convolution_at,
    folded_convolution,
    norm_at,
    norm_factors,
    pool_and_classify,
)
from densepath.models.plan import Layer, parts


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

    def __init__(self, model: Model, layers: Sequence[Layer], scratch: Scratch) -> None:
        super().__init__()
        *squeeze, last = layers
        self.norm = NormRelu(norm_at(model, layers[0].before), scratch)
        self.squeeze = folded_convolution(model, squeeze[0]) if squeeze else None
        self.conv = convolution_at(model, last)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the new features [N, k, H, W]."""
        x = self.norm(x)
        if self.squeeze is not None:
            x = self.squeeze(x).relu_()
        return self.conv(x)


class FusedDenseBlock(nn.Module):
    """A dense block over one buffer."""

    def __init__(self, model: Model, parts: Sequence[Sequence[Layer]], scratch: Scratch) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusedDenseLayer(model, layers, scratch) for layers in parts)
        self.added = sum(layers[-1].outputs for layers in parts)
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

    def __init__(self, model: Model, layer: Layer, scratch: Scratch) -> None:
        super().__init__()
        self.norm = NormRelu(norm_at(model, layer.before), scratch)
        self.conv = convolution_at(model, layer)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, θC, ⌊H/2⌋, ⌊W/2⌋]."""
        return self.conv(F.avg_pool2d(self.norm(x), 2))


class FusedDualPathBlock(nn.Module):
    """A DPN block over one buffer: the residual path in front, the dense path growing behind.

    Inside, the second and third BN go into the convolutions before them.
    """

    def __init__(self, model: Model, layers: Sequence[Layer], scratch: Scratch, room: int) -> None:
        super().__init__()
        *opening, a, b, c = layers
        self.first, self.base, self.room, self._scratch = bool(opening), c.base, room, scratch
        if opening:
            self.project_norm = NormRelu(norm_at(model, opening[0].before), scratch)
            self.project = convolution_at(model, opening[0])
        self.norm = NormRelu(norm_at(model, a.before), scratch)
        self.a, self.b = folded_convolution(model, a), folded_convolution(model, b)
        self.c = convolution_at(model, c)

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
    body, scratch = nn.Sequential(), Scratch()
    for _, stage in groupby(parts(model.spec), key=lambda layers: layers[-1].stage):
        body.extend(_fuse_stage(model, list(stage), scratch))
    fused = FusedNetwork(model, body).requires_grad_(False)
    return fused.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _fuse_stage(
    model: Model, stage: Sequence[Sequence[Layer]], scratch: Scratch
) -> Iterator[nn.Module]:
    """The modules of the parts of a stage: the stem, blocks and their transition, the last BN."""
    first, last = stage[0], stage[-1][-1]
    if last.reads == "images":
        yield folded_convolution(model, last)
        if last.behind:
            yield nn.ReLU(inplace=True)
        if last.pool:
            yield StemMaxPool(last.pool)
    elif last.kind == "classifier":
        yield NormRelu(norm_at(model, last.before), None)
    elif last.writes == "adds":
        room = first[0].outputs + sum(block[-1].outputs - block[-1].base for block in stage)
        for block in stage:
            yield FusedDualPathBlock(model, block, scratch, room)
    else:
        dense = [layers for layers in stage if layers[-1].writes == "appends"]
        yield FusedDenseBlock(model, dense, scratch)
        if last.averaged:
            yield FusedTransition(model, last, scratch)

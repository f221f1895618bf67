"""Dual Path Network: a residual path of fixed width beside a dense path that grows.

Source: Chen et al., arXiv:1707.01629; block order and names as in timm 1.0 `models/dpn.py`
and the authors' MXNet code; PaddleClas 2.6 and MindCV 0.3 compute the same function.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densepath.models.intermediates import Backbone
from densepath.models.layers import (
    DropPath,
    StemMaxPool,
    TestPooling,
    check_images,
    drop_path_rates,
    init_weights,
    pool_and_classify,
)
from densepath.models.spec import DPNArch, ModelSpec
from densepath.models.stages import Stage, Stages, StemStage

# MindCV and PaddleClas draw the classifier of every DPN from U(±0.01).
CLASSIFIER_BOUND = 0.01


class NormReluConv(nn.Module):
    """BN-ReLU-convolution, the unit of a DPN block."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, bn_eps: float
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs, eps=bn_eps)
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] → [N, outputs, ⌈H/stride⌉, ⌈W/stride⌉]."""
        return self.conv(F.relu(self.bn(x), inplace=True))


class LastNormRelu(nn.Module):
    """BN-ReLU, after the last block."""

    def __init__(self, width: int, bn_eps: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(width, eps=bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same shape."""
        return F.relu(self.bn(x))


class ConvNormRelu(nn.Module):
    """The first convolution of the network, with its BN and ReLU."""

    def __init__(self, in_channels: int, arch: DPNArch) -> None:
        super().__init__()
        small = arch.stem == "small"
        kernel, stride = (3, 1) if small else (arch.stem_kernel, 2)
        self.conv = nn.Conv2d(
            in_channels, arch.stem_width, kernel, stride, padding=kernel // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(arch.stem_width, eps=arch.bn_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Images → [N, stem_width, ⌈H/2⌉, ⌈W/2⌉], or the full size with the small stem."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class DualPathBlock(nn.Module):
    """One block: its output adds to the residual path and appends to the dense path.

    The state is one tensor: the first `base` channels are the residual path, the rest the
    dense path (section 4.1, figure 2e). The first block of a stage also projects the state to
    `base + 2 · increment` channels.
    """

    def __init__(
        self,
        arch: DPNArch,
        stage: int,
        inputs: int,
        first: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        middle = arch.k_r * 2**stage
        increment = arch.dense_increment[stage]
        stride = 2 if first and stage > 0 else 1
        self.base = 64 * arch.base_factor * 2**stage
        eps = arch.bn_eps
        if first:
            outputs = self.base + 2 * increment
            self.c1x1_w = NormReluConv(inputs, outputs, 1, stride, 1, eps)
        self.first = first
        self.c1x1_a = NormReluConv(inputs, middle, 1, 1, 1, eps)
        self.c3x3_b = NormReluConv(middle, middle, 3, stride, arch.groups, eps)
        self.c1x1_c = NormReluConv(middle, self.base + increment, 1, 1, 1, eps)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C + increment, H, W]; a first block: base + 3 · increment."""
        state = self.c1x1_w(x) if self.first else x
        new = self.drop_path(self.c1x1_c(self.c3x3_b(self.c1x1_a(x))))
        base = self.base
        residual = state[:, :base] + new[:, :base]
        return torch.cat([residual, state[:, base:], new[:, base:]], 1)


class DualPathStage(Stage):
    """The blocks of a stage: the first projects the state and may halve its sides."""


class DPN(Backbone):
    """A DPN of `spec.arch`; images [N, in_channels, H, W] → logits [N, num_classes].

    `drop_rate` is the dropout before the classifier, as in timm; `drop_path_rate` drops whole
    blocks and grows with depth.
    """

    def __init__(
        self,
        spec: ModelSpec,
        num_classes: int,
        in_channels: int,
        drop_rate: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        arch = spec.arch
        assert isinstance(arch, DPNArch)
        self.spec, self.num_classes, self.in_channels = spec, num_classes, in_channels
        self.test_pooling: TestPooling = "mean"
        modules: OrderedDict[str, nn.Module] = OrderedDict(conv1_1=ConvNormRelu(in_channels, arch))
        if arch.stem == "imagenet":
            modules["conv1_pool"] = StemMaxPool(arch.stem_pool)
        rates = iter(drop_path_rates(drop_path_rate, sum(arch.blocks)))
        width = arch.stem_width
        for stage, (num_blocks, increment) in enumerate(
            zip(arch.blocks, arch.dense_increment, strict=True)
        ):
            for b in range(num_blocks):
                block = DualPathBlock(arch, stage, width, b == 0, next(rates))
                modules[f"conv{stage + 2}_{b + 1}"] = block
                width = block.base + 3 * increment if b == 0 else width + increment
        modules["conv5_bn_ac"] = LastNormRelu(width, arch.bn_eps)
        self.features = Stages(modules)
        if arch.stem == "imagenet":
            stem = OrderedDict((name, modules[name]) for name in ("conv1_1", "conv1_pool"))
            self.features.stages["conv1_1"] = StemStage(stem)
        for stage, num_blocks in enumerate(arch.blocks):
            names = [f"conv{stage + 2}_{b + 1}" for b in range(num_blocks)]
            blocks = OrderedDict((name, modules[name]) for name in names)
            self.features.stages[names[0]] = DualPathStage(blocks)
        self.num_features = width
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(width, num_classes)
        init_weights(self, classifier_bound=CLASSIFIER_BOUND)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images → [N, num_features, H', W'], after the last BN and ReLU."""
        check_images(x, self.in_channels, self.spec.least_side)
        return self.features(x)

    def forward_head(self, features: Tensor) -> Tensor:
        """Features → logits."""
        pooling = "mean" if self.training else self.test_pooling
        features = self.dropout(features)
        return pool_and_classify(features, self.classifier, pooling, self.spec.last_map_side)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, in_channels, H, W] → logits [N, num_classes]."""
        return self.forward_head(self.forward_features(x))

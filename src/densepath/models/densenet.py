"""DenseNet: every layer reads all earlier features of its block and appends k channels.

Source: Huang et al., arXiv:1608.06993; parameter names as in torchvision 0.28
`models/densenet.py`, which timm shares.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densepath.models.intermediates import Backbone
from densepath.models.layers import (
    DropPath,
    Fused,
    StemMaxPool,
    TestPooling,
    check_images,
    drop_path_rates,
    init_weights,
    pool_and_classify,
)
from densepath.models.spec import DenseNetArch, ModelSpec
from densepath.models.stages import Stages, StemStage


class BottleneckLayer(nn.Module):
    """BN-ReLU-1×1-BN-ReLU-3×3: a dense layer of DenseNet-B (section 3, "Bottleneck layers")."""

    def __init__(self, arch: DenseNetArch, width: int, drop_rate: float, drop_path: float) -> None:
        super().__init__()
        middle = arch.bottleneck * arch.growth_rate
        self.norm1 = nn.BatchNorm2d(width, eps=arch.bn_eps)
        self.conv1 = nn.Conv2d(width, middle, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(middle, eps=arch.bn_eps)
        self.conv2 = nn.Conv2d(middle, arch.growth_rate, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the new features [N, k, H, W]."""
        middle = self.conv1(F.relu(self.norm1(x), inplace=True))
        new = self.conv2(F.relu(self.norm2(middle), inplace=True))
        return self.drop_path(self.dropout(new))


class PlainLayer(nn.Module):
    """BN-ReLU-3×3: a dense layer without the bottleneck (section 3, "Composite function")."""

    def __init__(self, arch: DenseNetArch, width: int, drop_rate: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width, eps=arch.bn_eps)
        self.conv1 = nn.Conv2d(width, arch.growth_rate, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the new features [N, k, H, W]."""
        new = self.conv1(F.relu(self.norm1(x), inplace=True))
        return self.drop_path(self.dropout(new))


class DenseBlock(nn.Module):
    """Layers that each append their features to all features before (section 3)."""

    def __init__(
        self, arch: DenseNetArch, width: int, drop_rate: float, drop_paths: list[float]
    ) -> None:
        super().__init__()
        layer = BottleneckLayer if arch.bottleneck else PlainLayer
        for j, drop_path in enumerate(drop_paths):
            inputs = width + j * arch.growth_rate
            self.add_module(f"denselayer{j + 1}", layer(arch, inputs, drop_rate, drop_path))
        self.fused: Fused | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C + layers · k, H, W]."""
        if self.fused is not None and (out := self.fused(self, x)) is not None:
            return out
        for layer in self.children():
            x = torch.cat([x, layer(x)], 1)
        return x


class Transition(nn.Module):
    """BN-ReLU-1×1 that keeps a share θ of the channels, then a 2×2 average (section 3)."""

    def __init__(self, width: int, outputs: int, bn_eps: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, eps=bn_eps)
        self.conv = nn.Conv2d(width, outputs, 1, bias=False)
        self.fused: Fused | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, θC, ⌊H/2⌋, ⌊W/2⌋]."""
        if self.fused is not None and (out := self.fused(self, x)) is not None:
            return out
        return F.avg_pool2d(self.conv(F.relu(self.norm(x), inplace=True)), 2)


class DenseNet(Backbone):
    """A DenseNet of `spec.arch`; images [N, in_channels, H, W] → logits [N, num_classes].

    `drop_rate` is the dropout after each dense layer's last convolution (section 4.2 uses 0.2
    on small data without augmentation); `drop_path_rate` grows with depth.
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
        assert isinstance(arch, DenseNetArch)
        self.spec, self.num_classes, self.in_channels = spec, num_classes, in_channels
        self.test_pooling: TestPooling = "mean"
        self.features = Stages(_stem(arch, in_channels))
        if "pool0" in self.features._modules:
            behind_conv0 = list(self.features.named_children())[1:]
            self.features.stages["norm0"] = StemStage(OrderedDict(behind_conv0))
        rates = drop_path_rates(drop_path_rate, sum(arch.blocks))
        width = arch.stem_width
        for i, num_layers in enumerate(arch.blocks, start=1):
            block = DenseBlock(arch, width, drop_rate, rates[:num_layers])
            rates = rates[num_layers:]
            self.features.add_module(f"denseblock{i}", block)
            width += num_layers * arch.growth_rate
            if i < len(arch.blocks):
                outputs = int(width * arch.compression)
                self.features.add_module(f"transition{i}", Transition(width, outputs, arch.bn_eps))
                width = outputs
        # "norm5" is torchvision's name for four blocks; it is kept for any number of them.
        self.features.add_module("norm5", nn.BatchNorm2d(width, eps=arch.bn_eps))
        self.num_features = width
        self.classifier = nn.Linear(width, num_classes)
        init_weights(self, classifier_bound=None)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images → [N, num_features, H', W'], after the last BN and ReLU."""
        check_images(x, self.in_channels, self.spec.least_side)
        return F.relu(self.features(x))

    def forward_head(self, features: Tensor) -> Tensor:
        """Features → logits."""
        pooling = "mean" if self.training else self.test_pooling
        return pool_and_classify(features, self.classifier, pooling, self.spec.last_map_side)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, in_channels, H, W] → logits [N, num_classes]."""
        return self.forward_head(self.forward_features(x))


def _stem(arch: DenseNetArch, in_channels: int) -> OrderedDict[str, nn.Module]:
    """The modules before the first block (table 1; section 4.2 for small images)."""
    if arch.stem == "small":
        conv = nn.Conv2d(in_channels, arch.stem_width, 3, padding=1, bias=False)
        return OrderedDict(conv0=conv)
    return OrderedDict(
        conv0=nn.Conv2d(in_channels, arch.stem_width, 7, stride=2, padding=3, bias=False),
        norm0=nn.BatchNorm2d(arch.stem_width, eps=arch.bn_eps),
        relu0=nn.ReLU(inplace=True),
        pool0=StemMaxPool(arch.stem_pool),
    )

"""The network in the form that compilers for small machines take in integers.

On the line: a Checkpoint's network enters, `litert.py` and `executorch.py` convert what leaves.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densepath.exporting.rewrite import ALL_STEPS, DepthwiseNorm, Rewritten, rewrite
from densepath.images.preprocess import Preprocess
from densepath.models.build import Model
from densepath.models.layers import StemMaxPool, pool_and_classify

# The least weight of a depthwise channel, as a share of its bias. A channel that training has
# switched off has weight 0, whose bias no 32-bit integer could hold at the scale of the weight.
LEAST_WEIGHT = 2.0**-16


class PositiveMaxPool(nn.Module):
    """`StemMaxPool` of a map without negative values: what pads it is 0, which integers have."""

    def __init__(self, pool: StemMaxPool) -> None:
        super().__init__()
        self.padding = pool.padding

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C, ⌈H/2⌉, ⌈W/2⌉]."""
        if self.padding == "pad1":
            return F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=2)
        return F.max_pool2d(F.pad(x, (x.shape[3] % 2, 1, x.shape[2] % 2, 1)), 3, stride=2)


class UnpaddedMaxPool(nn.Module):
    """`StemMaxPool` without a pad of its own before it, which XNNPACK has not in integers."""

    def __init__(self, pool: StemMaxPool) -> None:
        super().__init__()
        self.padding = pool.padding

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C, ⌈H/2⌉, ⌈W/2⌉]."""
        if self.padding == "pad1":
            return F.max_pool2d(x, 3, stride=2, padding=1)
        odd = (x.shape[2] % 2, x.shape[3] % 2)
        return F.max_pool2d(x, 3, stride=2, padding=odd, ceil_mode=True)


class PoolingHead(nn.Module):
    """A rewritten network whose mean over positions is a pool, which compilers know in integers."""

    def __init__(self, network: Rewritten) -> None:
        super().__init__()
        self.body, self.classifier = network.body, network.classifier
        self.pooling, self.window = network.test_pooling, network.spec.last_map_side

    def forward(self, images: Tensor) -> Tensor:
        """[N, in_channels, H, W] → logits [N, num_classes]."""
        features = self.body(images)
        if self.pooling == "mean" or min(features.shape[2:]) <= self.window:
            return self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return pool_and_classify(features, self.classifier, self.pooling, self.window)


class PixelNetwork(nn.Module):
    """A network that takes pixels as they are, 0 to 255: a depthwise convolution normalises."""

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        scale, offset = preprocess.scale_and_offset()
        channels = preprocess.channels
        self.normalise = nn.Conv2d(channels, channels, 1, groups=channels)
        self.normalise.weight = nn.Parameter(torch.from_numpy(scale).reshape(channels, 1, 1, 1))
        self.normalise.bias = nn.Parameter(torch.from_numpy(offset))
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 [N, C, H, W], 0 to 255 → logits."""
        return self.network(self.normalise(pixels))


def build_edge_network(
    model: Model, pool: type[PositiveMaxPool | UnpaddedMaxPool] = PositiveMaxPool
) -> nn.Module:
    """The same function as `model`: of convolutions, ReLU, pools, concatenations and sums.

    `pool` is the form of the stem's max-pool.
    """
    network = PoolingHead(cast(Rewritten, rewrite(model, ALL_STEPS)))
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, StemMaxPool):  # both families have a ReLU before it
                setattr(module, name, pool(child))
            elif isinstance(child, DepthwiseNorm):
                setattr(module, name, _without_zeros(child))
    return network.eval()


def _without_zeros(norm: DepthwiseNorm) -> DepthwiseNorm:
    """The depthwise convolution, no weight less than a small share of its bias."""
    assert norm.bias is not None
    weight, bias = norm.weight.detach().flatten(), norm.bias.detach()
    least = (bias.abs() * LEAST_WEIGHT).clamp_min(torch.finfo(torch.float32).tiny * 2**64)
    sign = torch.where(weight < 0, -1.0, 1.0)
    return DepthwiseNorm(sign * weight.abs().maximum(least), bias)

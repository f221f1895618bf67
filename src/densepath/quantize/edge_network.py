"""The network in the form that compilers for small machines take in integers.

On the line: a Checkpoint's network enters, `litert.py` and `executorch.py` convert what leaves.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densepath.errors import UnknownNameError, UsageError
from densepath.exporting.rewrite import ALL_STEPS, Rewritten, rewrite
from densepath.images.preprocess import Preprocess
from densepath.models.build import Model
from densepath.models.layers import StemMaxPool, pool_and_classify
from densepath.weights.checkpoint import Checkpoint

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
            elif isinstance(child, nn.Conv2d) and is_depthwise_norm(child):
                setattr(module, name, _without_zeros(child))
    return network.eval()


def is_depthwise_norm(conv: nn.Conv2d) -> bool:
    """Whether the convolution was a BatchNorm."""
    return conv.kernel_size == (1, 1) and conv.groups == conv.in_channels > 1


def find_rewritten(checkpoint: Checkpoint, names: Collection[str]) -> dict[str, list[str]]:
    """Of each of these layers of the checkpoint's network: what it became in the edge network.

    A convolution may have become two. Both networks run their convolutions in the same order.

    Args:
        checkpoint: whose network.
        names: convolutions, or the classifier, as `to_model().named_modules()` calls them.

    Raises:
        UnknownNameError: the network has no such layer.
        UsageError: it is not one that has weights of its own in the edge network.
    """
    model = checkpoint.to_model()
    weighty = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    every = dict(model.named_modules())
    for name in names:
        if name not in every:
            raise UnknownNameError("layer", name, weighty)
        if name not in weighty:
            raise UsageError(
                f"the layer {name} is a {type(every[name]).__name__}; only convolutions and the "
                f"classifier can stay in floating point, as {next(iter(weighty))}."
            )
    if not names:
        return {}
    images = torch.zeros(1, checkpoint.in_channels, *checkpoint.preprocess.size)
    made = _in_order(build_edge_network(model), images)
    became: dict[str, list[str]] = {}
    for name, outputs in _in_order(model, images):
        parts: list[tuple[str, int]] = []
        while sum(width for _, width in parts) < outputs:
            parts.append(made.pop(0))
        assert sum(width for _, width in parts) == outputs, (name, parts)
        became[name] = [part for part, _ in parts]
    return {name: became[name] for name in names}


def _in_order(network: nn.Module, images: Tensor) -> list[tuple[str, int]]:
    """Name and output channels of the layers with weights, in the order they are run in."""
    found: list[tuple[str, int]] = []
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and not is_depthwise_norm(module):
            outputs = module.out_channels
        elif isinstance(module, nn.Linear):
            outputs = module.out_features
        else:
            continue
        entry = (name, outputs)
        hooks.append(module.register_forward_hook(lambda *_, entry=entry: found.append(entry)))
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return found


def _without_zeros(conv: nn.Conv2d) -> nn.Conv2d:
    """The depthwise convolution, no weight less than a small share of its bias."""
    assert conv.bias is not None
    weight, least = conv.weight.detach(), conv.bias.detach().abs() * LEAST_WEIGHT
    least = least.clamp_min(torch.finfo(torch.float32).tiny * 2**64).reshape(weight.shape)
    sign = torch.where(weight < 0, -1.0, 1.0)
    made = nn.Conv2d(conv.in_channels, conv.out_channels, 1, groups=conv.groups)
    made.weight, made.bias = nn.Parameter(sign * weight.abs().maximum(least)), conv.bias
    return made

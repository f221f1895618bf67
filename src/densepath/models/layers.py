"""The pieces that both families are built of: stems, drop-path, heads, first weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from densepath.choices import TestPooling
from densepath.errors import UsageError
from densepath.models.fold import scale_and_shift
from densepath.models.plan import Layer
from densepath.models.spec import StemPool

# What a training may give a block: its output computed as one operation, or None where the modules
# have to compute it (`training/blocks/choose.py`).
Fused: TypeAlias = Callable[[nn.Module, Tensor], Tensor | None]


class StemMaxPool(nn.Module):
    """The 3×3 stride-2 max-pool of the ImageNet stem.

    `pad1` pads one pixel on every side (PaddleClas, timm, torchvision). `same` gives ⌈n/2⌉
    pixels and, on even sides, pads only at the bottom and on the right with −∞ (MindCV's DPN:
    `pad_mode="same"`).
    """

    def __init__(self, padding: StemPool) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C, ⌈H/2⌉, ⌈W/2⌉]."""
        if self.padding == "pad1":
            return F.max_pool2d(x, 3, stride=2, padding=1)
        # Not n % 2, for which OpenVINO's converter of torch programs has no rule.
        odd_height, odd_width = (n - n // 2 * 2 for n in x.shape[2:])
        pads = (odd_width, 1, odd_height, 1)
        return F.max_pool2d(F.pad(x, pads, value=-math.inf), 3, stride=2)

    def extra_repr(self) -> str:
        """The padding, for `print(model)`."""
        return self.padding


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): a sample's whole branch is zeroed with `rate`.

    In training the kept samples are divided by 1 − rate; in evaluation it does nothing.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = torch.rand((x.shape[0], 1, 1, 1), device=x.device) < keep
        return x * (mask.to(x.dtype) / keep)

    def extra_repr(self) -> str:
        """The rate, for `print(model)`."""
        return f"{self.rate:g}"


def drop_path_rates(rate: float, num_layers: int) -> list[float]:
    """Rates that grow linearly with depth from 0 to `rate` (arXiv:1603.09382, section 3)."""
    return [rate * i / max(num_layers - 1, 1) for i in range(num_layers)]


def pool_and_classify(
    features: Tensor, classifier: nn.Linear, pooling: TestPooling, window: int
) -> Tensor:
    """[N, C, H, W] features → [N, classes] logits.

    `mean` averages over all positions. `mean_max` classifies each position of a `window` ×
    `window` stride-1 average and takes 0.5 · (mean + max) of the logits: the DPN authors' test
    at sizes above the training size (https://github.com/cypw/DPNs, section "Mean-Max
    Pooling"). A map no larger than the window has one position: `mean` again.
    """
    if pooling == "mean" or min(features.shape[2:]) <= window:
        return classifier(features.mean((2, 3)))
    windows = F.avg_pool2d(features, window, stride=1).flatten(2).transpose(1, 2)
    logits = classifier(windows)
    return 0.5 * (logits.mean(1) + logits.amax(1))


def norm_factors(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A BatchNorm in evaluation mode as x · scale + shift, float64 [C] both."""
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, bias, mean, variance = (cast(Tensor, part).detach().double() for part in parts)
    return scale_and_shift(weight, bias, mean, variance, norm.eps)


def norm_at(model: nn.Module, name: str) -> nn.BatchNorm2d:
    """The BatchNorm of that name."""
    return cast(nn.BatchNorm2d, model.get_submodule(name))


def convolution_at(model: nn.Module, layer: Layer) -> nn.Conv2d:
    """The convolution of a layer of the plan."""
    return cast(nn.Conv2d, model.get_submodule(layer.name))


def folded_convolution(model: nn.Module, layer: Layer) -> nn.Conv2d:
    """The convolution with the BatchNorm behind it, if there is one, in its weights and bias."""
    conv = convolution_at(model, layer)
    return fuse_conv_bn_eval(conv, norm_at(model, layer.behind)) if layer.behind else conv


def check_images(x: Tensor, in_channels: int, least_side: int) -> None:
    """Raise unless `x` can enter the network.

    Raises:
        UsageError: not [N, in_channels, H, W], or a side below `least_side` pixels.
    """
    if x.dim() != 4 or x.shape[1] != in_channels:
        raise UsageError(
            f"the images have shape {tuple(x.shape)}; this network takes "
            f"[N, {in_channels}, H, W]. Build it with in_channels= for other channel counts."
        )
    if min(x.shape[2:]) < least_side:
        raise UsageError(
            f"the images are {x.shape[2]} × {x.shape[3]} pixels; this network needs at least "
            f"{least_side} × {least_side}. For small images use a `densenet_bc_*` model or "
            "stem='small'."
        )


def init_weights(model: nn.Module, classifier_bound: float | None) -> None:
    """Draw first weights as upstream does.

    Convolutions N(0, √(2 / (k² · C_in))) where C_in counts all input channels, of a grouped
    convolution too; BatchNorm 1 and 0; classifier U(±`classifier_bound`), by default
    ±1/√n; biases 0.

    Source: torchvision 0.28 `models/densenet.py` (Kaiming normal, fan in) and PaddleClas 2.6
    `model_zoo/densenet.py`, `dpn.py` agree on the first; classifier ±1/√n in DenseNet, ±0.01
    in PaddleClas's DPN.
    """
    if next(model.parameters()).is_meta:
        # Nothing to draw; and PyTorch would import its compiler, seconds, to draw nothing.
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_in))
        elif isinstance(module, nn.Linear):
            bound = classifier_bound or 1.0 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)

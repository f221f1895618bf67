"""The arithmetic of an INT8 file in NumPy and PyTorch: what `kernels/int8*.hpp` computes.

The living definition of the numbers, to test the kernels by. Integers are held in float64, where
they are exact; what the kernels do in float32 is rounded to float32 at the same places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densepath.models.layers import StemMaxPool
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec


def _tensor(values: NDArray[Any]) -> Tensor:
    """One number a channel."""
    return torch.from_numpy(np.asarray(values, np.float32))[None, :, None, None]


def _fused(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x · scale + shift, rounded once, as the CPU's fused instruction does."""
    return (x.double() * scale.double() + shift.double()).float()


class Emulation:
    """A network of an INT8 file's tensors; some layers may be float."""

    def __init__(self, spec: ModelSpec, tensors: Mapping[str, NDArray[Any]]) -> None:
        """The spec and the tensors of the file (`engines.native.read_tensors`)."""
        self.spec, self.tensors = spec, tensors

    def has(self, name: str) -> bool:
        """Whether the layer is INT8."""
        return self.tensors[f"{name}.weight"].dtype == np.int8

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [N, C, H, W], normalised → logits [N, classes]."""
        with torch.inference_mode():
            return self._classify(self._features(torch.from_numpy(images))).numpy()

    def _norm(self, x: Tensor, name: str) -> Tensor:
        """BatchNorm and ReLU."""
        weight, bias, mean, variance = (
            self.tensors[f"{name}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(variance + self.spec.arch.bn_eps)
        return _fused(x, _tensor(scale), _tensor(bias - mean * scale)).relu()

    def _levels(self, x: Tensor, name: str) -> Tensor:
        """Of a layer's input."""
        scale = _tensor(self.tensors[f"{name}.input_scale"])
        shift = _tensor(self.tensors[f"{name}.input_shift"])
        return _fused(x, scale, shift).clamp(0, 255).round()

    def _sums(self, levels: Tensor, name: str, **options: Any) -> Tensor:
        """The convolution of whole numbers."""
        weight = torch.from_numpy(self.tensors[f"{name}.weight"]).double()
        return F.conv2d(levels.double(), weight, **options).float()

    def _layer(
        self,
        x: Tensor,
        before: str | None,
        name: str,
        behind: str | None = None,
        after: str | None = None,
        **options: Any,
    ) -> Tensor:
        """`x`, floats or levels, through BN-ReLU-convolution; `after` reads the result.

        The result is levels if `after` is INT8, else floats.
        """
        if not self.has(name):
            x = self._norm(x, before) if before else x
            weight = torch.from_numpy(self.tensors[f"{name}.weight"])
            x = F.conv2d(x, weight, **options)
            return self._norm(x, behind) if behind else x  # `after` makes levels of it
        if before or x.dtype != torch.float64:
            x = self._levels(x, name).double()
        scale, bias = (self.tensors[f"{name}.{part}"] for part in ("scale", "bias"))
        if after and self.has(after):
            factor = self.tensors[f"{after}.input_scale"]
            scale, bias = scale * factor, bias * factor
        x = _fused(self._sums(x, name, **options), _tensor(scale), _tensor(bias))
        if not after:
            return x
        return x.clamp(0, 255).round().double() if self.has(after) else x.relu()

    def _stem(self, images: Tensor, name: str, behind: str | None, **options: Any) -> Tensor:
        """The first convolution, its BatchNorm and ReLU; the border is 0 as a level."""
        if not self.has(name):
            weight = torch.from_numpy(self.tensors[f"{name}.weight"])
            x = F.conv2d(images, weight, padding=weight.shape[2] // 2, **options)
            return self._norm(x, behind) if behind else x
        levels = self._levels(images, name)
        pad = self.tensors[f"{name}.weight"].shape[2] // 2
        zero = np.rint(self.tensors[f"{name}.input_shift"])
        padded = _tensor(zero).expand(len(images), -1, *(n + 2 * pad for n in images.shape[2:]))
        padded = padded.clone()
        padded[:, :, pad : -pad or None, pad : -pad or None] = levels
        scale, bias = (_tensor(self.tensors[f"{name}.{part}"]) for part in ("scale", "bias"))
        x = _fused(self._sums(padded, name, **options), scale, bias)
        return x.relu() if behind else x

    def _features(self, images: Tensor) -> Tensor:
        """Images → the last map, after BatchNorm and ReLU."""
        arch = self.spec.arch
        stride = 2 if arch.stem == "imagenet" else 1
        dense = isinstance(arch, DenseNetArch)
        name = "features.conv0" if dense else "features.conv1_1.conv"
        behind: str | None = "features.norm0" if dense else "features.conv1_1.bn"
        if dense and arch.stem != "imagenet":
            behind = None
        x = self._stem(images, name, behind, stride=stride)
        if arch.stem == "imagenet":
            x = StemMaxPool(arch.stem_pool)(x)
        return self._dense(x) if dense else self._dual(x)

    def _dense(self, x: Tensor) -> Tensor:
        """The blocks of a DenseNet."""
        arch = self.spec.arch
        assert isinstance(arch, DenseNetArch)
        for i, layers in enumerate(arch.blocks, start=1):
            for j in range(1, layers + 1):
                name = f"features.denseblock{i}.denselayer{j}"
                new = x
                if arch.bottleneck:
                    last = f"{name}.conv2"
                    new = self._layer(x, f"{name}.norm1", f"{name}.conv1", f"{name}.norm2", last)
                    new = self._layer(new, None, last, padding=1)
                else:
                    new = self._layer(x, f"{name}.norm1", f"{name}.conv1", padding=1)
                x = torch.cat([x, new], 1)
            if i < len(arch.blocks):
                x = self._transition(x, f"features.transition{i}")
        return self._norm(x, "features.norm5")

    def _transition(self, x: Tensor, name: str) -> Tensor:
        """It averages first: the levels are those of averages."""
        conv = f"{name}.conv"
        if not self.has(conv):
            return F.avg_pool2d(self._layer(x, f"{name}.norm", conv), 2)
        scale = _tensor(self.tensors[f"{conv}.input_scale"])
        shift = _tensor(self.tensors[f"{conv}.input_shift"])
        each = _fused(x, scale, shift).relu()
        height, width = (n // 2 * 2 for n in x.shape[2:])
        a, b, d, e = (each[:, :, y:height:2, z:width:2] for y in (0, 1) for z in (0, 1))
        levels = ((a + b + d + e) * 0.25).clamp(0, 255).round()
        scale, bias = (_tensor(self.tensors[f"{conv}.{part}"]) for part in ("scale", "bias"))
        return _fused(self._sums(levels, conv), scale, bias)

    def _dual(self, x: Tensor) -> Tensor:
        """The blocks of a DPN."""
        arch = self.spec.arch
        assert isinstance(arch, DPNArch)
        for i, blocks in enumerate(arch.blocks):
            base = 64 * arch.base_factor << i
            for j in range(1, blocks + 1):
                stride = 2 if i and j == 1 else 1
                x = self._block(x, f"features.conv{i + 2}_{j}", j == 1, base, stride)
        return self._norm(x, "features.conv5_bn_ac.bn")

    def _block(self, x: Tensor, name: str, first: bool, base: int, stride: int) -> Tensor:
        """One block of a DPN, onto both paths."""
        arch = self.spec.arch
        assert isinstance(arch, DPNArch)
        a, b, c = (f"{name}.{part}.conv" for part in ("c1x1_a", "c3x3_b", "c1x1_c"))
        new = self._layer(x, f"{name}.c1x1_a.bn", a, f"{name}.c3x3_b.bn", b)
        options = {"stride": stride, "padding": 1, "groups": arch.groups}
        new = self._layer(new, None, b, f"{name}.c1x1_c.bn", c, **options)
        new = self._layer(new, None, c)
        if first:
            w = f"{name}.c1x1_w"
            x = self._layer(x, f"{w}.bn", f"{w}.conv", stride=stride)
        return torch.cat([x[:, :base] + new[:, :base], x[:, base:], new[:, base:]], 1)

    def _classify(self, features: Tensor) -> Tensor:
        """The means of the map in 16 bits, times the weights."""
        x = features.mean((2, 3))
        weight, bias = self.tensors["classifier.weight"], self.tensors["classifier.bias"]
        logits = x.double()
        if weight.dtype == np.int8:
            step = x.amax(1, keepdim=True).double() / 65535
            logits = (x.double() / step).round() * step
        logits = logits @ torch.from_numpy(weight).double().T
        if weight.dtype == np.int8:
            logits = logits * torch.from_numpy(self.tensors["classifier.scale"]).double()
        return (logits + torch.from_numpy(bias).double()).float()

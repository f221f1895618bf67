"""The arithmetic of an INT8 file in NumPy and PyTorch: what `kernels/int8*.hpp` computes.

The living definition of the numbers, to test the kernels by. Integers are held in float64, where
they are exact; what the kernels do in float32 is rounded to float32 at the same places.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densepath.models.fold import scale_and_shift
from densepath.models.layers import StemMaxPool
from densepath.models.plan import Layer, plan
from densepath.models.spec import ModelSpec


def _tensor(values: NDArray[Any]) -> Tensor:
    """One number a channel."""
    return torch.from_numpy(np.asarray(values, np.float32))[None, :, None, None]


def _fused(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x · scale + shift, rounded once, as the CPU's fused instruction does."""
    return (x.double() * scale.double() + shift.double()).float()


class Emulation:
    """A network of an INT8 file's tensors; some layers may be float."""

    def __init__(self, spec: ModelSpec, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take the spec and the tensors of the file (`engines.native.read_tensors`)."""
        # Copies, for those of a file cannot be written, which PyTorch asks for.
        self.spec = spec
        self.tensors = {name: np.array(tensor) for name, tensor in tensors.items()}

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
        scale, shift = scale_and_shift(weight, bias, mean, variance, self.spec.arch.bn_eps)
        return _fused(x, _tensor(scale), _tensor(shift)).relu()

    def _levels(self, x: Tensor, name: str) -> Tensor:
        """The levels of a layer's input."""
        scale = _tensor(self.tensors[f"{name}.input_scale"])
        shift = _tensor(self.tensors[f"{name}.input_shift"])
        return _fused(x, scale, shift).clamp(0, 255).round()

    def _sums(self, levels: Tensor, name: str, **options: Any) -> Tensor:
        """The sums of the convolution, in whole numbers."""
        weight = torch.from_numpy(self.tensors[f"{name}.weight"]).double()
        return F.conv2d(levels.double(), weight, **options).float()

    def _convolve(self, x: Tensor, layer: Layer, after: Layer) -> Tensor:
        """`x`, floats or levels, through BN-ReLU-convolution; `after` may read the result.

        The result is levels if it is INT8 and `after` reads it so, else floats.
        """
        name, follows = layer.name, after.reads == "layer"
        options: dict[str, Any] = {
            "stride": layer.stride,
            "padding": layer.kernel // 2,
            "groups": layer.groups,
        }
        if not self.has(name):
            x = self._norm(x, layer.before) if layer.before else x
            x = F.conv2d(x, torch.from_numpy(self.tensors[f"{name}.weight"]), **options)
            return self._norm(x, layer.behind) if layer.behind else x
        if layer.before or x.dtype != torch.float64:
            x = self._levels(x, name).double()
        scale, bias = (self.tensors[f"{name}.{part}"] for part in ("scale", "bias"))
        if follows and self.has(after.name):
            factor = self.tensors[f"{after.name}.input_scale"]
            scale, bias = scale * factor, bias * factor
        x = _fused(self._sums(x, name, **options), _tensor(scale), _tensor(bias))
        if not follows:
            return x
        return x.clamp(0, 255).round().double() if self.has(after.name) else x.relu()

    def _stem(self, images: Tensor, layer: Layer) -> Tensor:
        """The first convolution, its BatchNorm, ReLU and pool; the border is 0 as a level."""
        name, pad = layer.name, layer.kernel // 2
        if not self.has(name):
            weight = torch.from_numpy(self.tensors[f"{name}.weight"])
            x = F.conv2d(images, weight, stride=layer.stride, padding=pad)
            x = self._norm(x, layer.behind) if layer.behind else x
        else:
            zero = np.rint(self.tensors[f"{name}.input_shift"])
            sides = (n + 2 * pad for n in images.shape[2:])
            padded = _tensor(zero).expand(len(images), -1, *sides).clone()
            padded[:, :, pad : -pad or None, pad : -pad or None] = self._levels(images, name)
            scale, bias = (_tensor(self.tensors[f"{name}.{part}"]) for part in ("scale", "bias"))
            x = _fused(self._sums(padded, name, stride=layer.stride), scale, bias)
            x = x.relu() if layer.behind else x
        return x if layer.pool is None else StemMaxPool(layer.pool)(x)

    def _features(self, images: Tensor) -> Tensor:
        """Images → the last map, after BatchNorm and ReLU."""
        layers, part = plan(self.spec), ""
        state = entered = last = images
        for layer, after in pairwise(layers):
            if layer.part != part:
                part, entered = layer.part, state
            read = entered if layer.reads == "state" else last
            if layer.reads == "images":
                last = self._stem(images, layer)
            elif layer.averaged:
                last = self._transition(read, layer)
            else:
                last = self._convolve(read, layer, after)
            state = _written(state, last, layer)
        return self._norm(state, layers[-1].before)

    def _transition(self, x: Tensor, layer: Layer) -> Tensor:
        """The transition's outputs; it averages first: the levels are those of averages."""
        name = layer.name
        if not self.has(name):
            return F.avg_pool2d(self._convolve(x, layer, layer), 2)
        scale = _tensor(self.tensors[f"{name}.input_scale"])
        shift = _tensor(self.tensors[f"{name}.input_shift"])
        each = _fused(x, scale, shift).relu()
        height, width = (n // 2 * 2 for n in x.shape[2:])
        a, b, d, e = (each[:, :, y:height:2, z:width:2] for y in (0, 1) for z in (0, 1))
        levels = ((a + b + d + e) * 0.25).clamp(0, 255).round()
        scale, bias = (_tensor(self.tensors[f"{name}.{part}"]) for part in ("scale", "bias"))
        return _fused(self._sums(levels, name), scale, bias)

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


def _written(state: Tensor, new: Tensor, layer: Layer) -> Tensor:
    """The state after a layer has written its outputs."""
    if layer.writes == "nothing":
        return state
    if layer.writes == "opens":
        return new
    base = layer.base
    return torch.cat([state[:, :base] + new[:, :base], state[:, base:], new[:, base:]], 1)

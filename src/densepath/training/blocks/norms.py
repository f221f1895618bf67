"""BatchNorm of a map whose statistics are known, and what its backward pass asks of sums alone.

With g_j the gradient behind the ReLU of consumer j, and the batch's mean μ and variance σ² of a
channel shared by all of them, dx = Σ scale_j · g_j + constant + slope · x, where

    slope    = − Σ scale_j · Σ(g_j · (x − μ)) / (m · σ²)
    constant = − Σ scale_j · Σ g_j / m − slope · μ

over m pixels. So consumers only add up, and the correction is applied once, where the channel was
made. A BatchNorm in evaluation mode has none.

Source: the backward formulas of arXiv:1502.03167, section 3, summed over consumers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densepath.training.blocks.operations import (
    Correction,
    Moments,
    Norm,
    NormSums,
    Sums,
)


class NormOfStep:
    """One BatchNorm in one step: its factors, and its gradients of the backward sums."""

    def __init__(
        self, module: nn.BatchNorm2d, moments: Moments | None, *, pixels: int, like: Tensor
    ) -> None:
        """Move the running statistics once, if the module trains.

        `moments` of the map's `pixels`, which a module that trains needs; `like` has the type that
        the factors are given in.
        """
        self._pixels, self._trains = pixels, module.training
        if self._trains:
            assert moments is not None
            mean, variance = moments
            with torch.no_grad():
                _follow(module, mean, variance * (pixels / max(pixels - 1, 1)))
        else:
            assert module.running_mean is not None
            assert module.running_var is not None
            mean, variance = module.running_mean.double(), module.running_var.double()
        self._inverse = (variance + module.eps).rsqrt()
        self._mean = mean
        self._scale = module.weight.detach().double() * self._inverse
        shift = module.bias.detach().double() - mean * self._scale
        self.norm = Norm(*(part.to(like.dtype) for part in (self._scale, shift, mean)))

    def gradients(self, sums: Sums | NormSums) -> tuple[Tensor, Tensor]:
        """The gradients of weight and bias [C], in the factors' type."""
        kind = self.norm.scale.dtype
        return (sums.product * self._inverse).to(kind), sums.gradient.to(kind)

    def correction(self, sums: Sums | NormSums) -> Correction | None:
        """This consumer's summand of the correction, float64 [C]; None without batch statistics."""
        if not self._trains:
            return None
        slope = -self._scale * sums.product * self._inverse.square() / self._pixels
        return Correction(-self._scale * sums.gradient / self._pixels - slope * self._mean, slope)


def _follow(module: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics towards these, float64 [C], as torch does."""
    if module.running_mean is None or module.running_var is None:
        return
    assert module.num_batches_tracked is not None
    module.num_batches_tracked += 1
    momentum = module.momentum
    share = 1.0 / float(module.num_batches_tracked) if momentum is None else momentum
    module.running_mean.lerp_(mean.to(module.running_mean.dtype), share)
    module.running_var.lerp_(variance.to(module.running_var.dtype), share)

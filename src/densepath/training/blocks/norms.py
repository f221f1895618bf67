"""BatchNorm of a map whose statistics are known, and what its backward pass asks of sums alone.

With g_j the gradient behind the ReLU of consumer j, and the batch's mean μ and variance σ² of a
channel shared by all of them, dx = Σ scale_j · g_j + constant + slope · x, where

    slope    = − Σ scale_j · Σ(g_j · (x − μ)) / (m · σ²)
    constant = − Σ scale_j · Σ g_j / m − slope · μ

over m pixels. So consumers only add up, and the correction is applied once, where the channel was
made. A BatchNorm in evaluation mode has none.

Over several processes a BatchNorm exchanges twice a step: forwards the statistics of each process's
pixels, backwards the two sums. Weight and bias keep the sums of this process's own pixels, as those
of every other parameter, which DistributedDataParallel then averages.

Source: the backward formulas of arXiv:1502.03167, section 3, summed over consumers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from densepath.training.blocks.operations import (
    Correction,
    Moments,
    Norm,
    NormSums,
    Sums,
)
from densepath.training.distributed import Ranks


class NormOfStep:
    """One BatchNorm in one step: its factors, and its gradients of the backward sums."""

    def __init__(
        self, module: _BatchNorm, moments: Moments | None, *, read: Tensor, ranks: Ranks
    ) -> None:
        """Move the running statistics once, if the module trains.

        `moments` of the map that is `read`, which a module that trains needs; they are joined with
        those of all `ranks`.
        """
        self._ranks, self._trains = ranks, module.training
        if self._trains:
            assert moments is not None
            (mean, variance), self._pixels = _join(moments, read[..., 0].numel(), ranks)
            with torch.no_grad():
                unbiased = variance * (self._pixels / (self._pixels - 1).clamp(min=1))
                _follow(module, mean, unbiased)
        else:
            assert module.running_mean is not None
            assert module.running_var is not None
            mean, variance = module.running_mean.double(), module.running_var.double()
        self._inverse = (variance + module.eps).rsqrt()
        self._mean = mean
        self._scale = module.weight.detach().double() * self._inverse
        shift = module.bias.detach().double() - mean * self._scale
        self.norm = Norm(*(part.to(module.weight.dtype) for part in (self._scale, shift, mean)))

    def gradients(self, sums: Sums | NormSums) -> tuple[Tensor, Tensor]:
        """The gradients of weight and bias [C], in the factors' type."""
        kind = self.norm.scale.dtype
        return (sums.product * self._inverse).to(kind), sums.gradient.to(kind)

    def correction(self, sums: Sums | NormSums) -> Correction | None:
        """This consumer's summand of the correction, float64 [C]; None without batch statistics."""
        if not self._trains:
            return None
        gradient, product = self._ranks.sum(torch.stack([sums.gradient, sums.product]))
        slope = -self._scale * product * self._inverse.square() / self._pixels
        return Correction(-self._scale * gradient / self._pixels - slope * self._mean, slope)


def _join(moments: Moments, pixels: int, ranks: Ranks) -> tuple[Moments, Tensor]:
    """The statistics of the maps of all processes together, and how many pixels these have.

    Every process adds up in the order of ranks, so that all have the same bits. One without pixels
    weighs nothing.

    Source: Chan, Golub and LeVeque, 1983, formula 2.1, of any number of parts.
    """
    count = moments.mean.new_full((1,), pixels)
    if ranks.world_size == 1:
        return moments, count
    each = ranks.stack(torch.cat([*moments, count]))
    counts, total = each[:, -1:], each[:, -1:].sum(0)
    means, variances = each[:, :-1].chunk(2, 1)
    mean = (counts * means).sum(0) / total
    apart = means - mean
    return Moments(mean, (counts * (variances + apart * apart)).sum(0) / total), total


def _follow(module: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics towards these, float64 [C], as torch does."""
    if module.running_mean is None or module.running_var is None:
        return
    assert module.num_batches_tracked is not None
    module.num_batches_tracked += 1
    momentum = module.momentum
    share = 1.0 / float(module.num_batches_tracked) if momentum is None else momentum
    module.running_mean.lerp_(mean.to(module.running_mean.dtype), share)
    module.running_var.lerp_(variance.to(module.running_var.dtype), share)

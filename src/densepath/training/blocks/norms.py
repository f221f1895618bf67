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

import math

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from densepath.training.blocks.operations import (
    Correction,
    Moments,
    NormSums,
    Operations,
    Pixels,
    Sums,
)
from densepath.training.distributed import Ranks


class NormOfStep:
    """One BatchNorm in one step: its factors, and its gradients of the backward sums."""

    def __init__(
        self, module: _BatchNorm, moments: Moments | None, *, read: Tensor, operations: Operations
    ) -> None:
        """Move the running statistics once, if the module trains.

        `moments` of the map that is `read`, which a module that trains needs; they are joined with
        those of all ranks.
        """
        self._operations, self._trains = operations, module.training
        if self._trains:
            assert moments is not None
            pixels = math.prod(read.shape[:3])
            moments, self._pixels = _join(moments, pixels, operations.ranks)
            _follow(module, moments, self._pixels, operations)
        else:
            assert module.running_mean is not None
            assert module.running_var is not None
            moments = Moments(module.running_mean.double(), module.running_var.double())
        weight, bias = module.weight.detach(), module.bias.detach()
        self._factors = operations.factors(moments, weight, bias, module.eps)
        self.norm = self._factors.norm

    def gradients(self, sums: Sums | NormSums) -> tuple[Tensor, Tensor]:
        """The gradients of weight and bias [C], in the factors' type."""
        return self._operations.norm_gradients(self._factors, sums)

    def correction(
        self, sums: Sums | NormSums, into: Correction | None = None
    ) -> Correction | None:
        """This consumer's summand of the correction, float64 [C]; None without batch statistics.

        It is added to `into`, if that is given.
        """
        if not self._trains:
            return None
        ranks = self._operations.ranks
        if ranks.world_size > 1:
            sums = NormSums(*ranks.sum(torch.stack([sums.gradient, sums.product])))
        return self._operations.correction(self._factors, sums, self._pixels, into)


def _join(moments: Moments, pixels: int, ranks: Ranks) -> tuple[Moments, Pixels]:
    """The statistics of the maps of all processes together, and how many pixels these have.

    Every process adds up in the order of ranks, so that all have the same bits. One without pixels
    weighs nothing.

    Source: Chan, Golub and LeVeque, 1983, formula 2.1, of any number of parts.
    """
    if ranks.world_size == 1:
        return moments, float(pixels)
    count = moments.mean.new_full((1,), pixels)
    each = ranks.stack(torch.cat([*moments, count]))
    counts, total = each[:, -1:], each[:, -1:].sum(0)
    means, variances = each[:, :-1].chunk(2, 1)
    mean = (counts * means).sum(0) / total
    apart = means - mean
    return Moments(mean, (counts * (variances + apart * apart)).sum(0) / total), total


def _follow(module: _BatchNorm, found: Moments, pixels: Pixels, operations: Operations) -> None:
    """Move the running statistics towards what was found, as torch does."""
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        return
    seen = module.num_batches_tracked
    assert seen is not None
    seen.add_(1)
    share = 1.0 / float(seen) if module.momentum is None else module.momentum
    operations.follow(Moments(mean, variance), found, share, pixels)

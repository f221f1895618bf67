"""BatchNorm over the images of all processes, on the CPU too.

torch.nn.SyncBatchNorm has kernels for accelerators only; this one is made of two differentiable
all-reduces, so that two processes compute what one process with both their images would.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """The sum over all processes, of the same shape."""
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The sum of all processes' gradients."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of all processes' images together."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same shape; N may differ between processes."""
        if not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype.itemsize < 4 else x
        own = wide.new_tensor([x.numel() // x.shape[1]])
        sums = _SumOverRanks.apply(torch.cat([wide.sum((0, 2, 3)), own]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean[:, None, None]
        # The variance from centred values: a difference of squares would lose half the digits.
        variance = _SumOverRanks.apply(centred.square().sum((0, 2, 3))) / count
        self._update_statistics(mean.detach(), variance.detach(), count)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics; the variance as an unbiased one, as in torch."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


# What BatchNorms are behind `synchronise`.
SYNCED_NORMS: frozenset[type[nn.Module]] = frozenset({SyncBatchNorm, nn.SyncBatchNorm})


def synchronise(model: nn.Module, device: torch.device) -> None:
    """Let every BatchNorm2d of `model` take its statistics over all processes.

    The modules change their class and keep their parameters, so names and state do not change.
    On a GPU torch's own SyncBatchNorm, with its fused kernels, takes their place.
    """
    kind: type = SyncBatchNorm if device.type == "cpu" else nn.SyncBatchNorm
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = kind
            module.process_group = None  # type: ignore[assignment]

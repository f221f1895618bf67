"""The arithmetic of INT8 in float32: grids of weights, ranges and grids of activations.

A quantised number is q · scale with an integer q. Fake quantisation rounds a float32 to the
nearest such number, and its gradient is that of the identity within the range (the
straight-through estimator, arXiv:1308.3432; as a training, arXiv:1712.05877, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATION_LEVELS = 255
# A range moves by the mean of the first batches, later by this share of each batch.
MOVING_SHARE = 0.01
LEAST_SCALE = 1e-8
# Percentiles are of so many values of a tensor.
MOST_SAMPLED = 1 << 16


def fake_quantize_weight(weight: Tensor, bits: int) -> Tensor:
    """A weight on the symmetric grid of each output channel, its first axis; same shape.

    The grid of 8 bits is −127 … 127 times max |w| / 127. It scales with the channel, so a
    BatchNorm that is folded into the convolution afterwards finds the same integers.
    """
    largest = 2 ** (bits - 1) - 1
    with torch.no_grad():
        bound = weight.abs().flatten(1).amax(1)
        scale = (bound / largest).clamp(min=LEAST_SCALE)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        rounded = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -largest, largest)
    return _StraightThrough.apply(weight, rounded)


class _StraightThrough(torch.autograd.Function):
    """The second tensor, whose gradient goes to the first, in the first's layout in memory.

    No weight lies outside its grid, so nothing is masked; torch's own gradient would have other
    strides for 1×1 weights, which DistributedDataParallel warns of.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rounded: Tensor) -> Tensor:
        """The rounded one."""
        ctx.size, ctx.strides = tensor.size(), tensor.stride()
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient of the first, as it came."""
        laid_out = gradient.new_empty_strided(ctx.size, ctx.strides)
        return laid_out.copy_(gradient), None


class Ranges(nn.Module):
    """The lowest and highest value of each quantised tensor, and the grids made of them.

    Tensors that are concatenated share a grid, which covers all of them. All is in buffers, so
    that it is saved with the state and the same in all processes.

    Attributes:
        lows, highs: float32 [tensors]; 0 before the first batch.
        num_batches: the batches that were seen.
    """

    lows: Tensor
    highs: Tensor
    num_batches: Tensor
    members: Tensor

    def __init__(self, grids: Sequence[int], percentile: float | None = None) -> None:
        super().__init__()
        self.num_grids, self.percentile = max(grids) + 1, percentile
        self.register_buffer("lows", torch.zeros(len(grids)))
        self.register_buffer("highs", torch.zeros(len(grids)))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("members", torch.tensor(grids), persistent=False)

    def measure(self, tensor: Tensor) -> Tensor:
        """The range of one tensor, float32 [2]: its extremes, or the percentile at both ends."""
        values = tensor.detach()
        if self.percentile is None:
            return torch.stack(torch.aminmax(values)).float()
        flat = values.flatten()
        stride = math.ceil(flat.numel() / MOST_SAMPLED)
        # Coprime to every dimension, or the samples would miss channels.
        while math.gcd(stride, flat.numel()) > 1:
            stride += 1
        share = self.percentile / 100
        ends = torch.tensor([1 - share, share], device=values.device)
        return torch.quantile(flat[::stride].float(), ends)

    @torch.no_grad()
    def update(self, measured: Sequence[Tensor]) -> None:
        """Move the ranges towards those of a batch, float32 [2] of each tensor in order."""
        low, high = torch.stack(list(measured)).unbind(1)
        self.num_batches += 1
        share = (1 / self.num_batches).clamp(min=MOVING_SHARE)
        self.lows += share * (low - self.lows)
        self.highs += share * (high - self.highs)

    @torch.no_grad()
    def grids(self) -> tuple[Tensor, Tensor]:
        """Of each grid the scale, float32, and the zero point, int32 in 0 … 255; both [grids].

        Every grid has an exact 0, which padding and ReLU need.
        """
        zeros = self.lows.new_zeros(self.num_grids)
        low = zeros.scatter_reduce(0, self.members, self.lows, "amin")
        high = zeros.scatter_reduce(0, self.members, self.highs, "amax")
        scale = ((high - low) / ACTIVATION_LEVELS).clamp(min=LEAST_SCALE)
        zero_point = (-low / scale).round().clamp(0, ACTIVATION_LEVELS)
        return scale, zero_point.to(torch.int32)


def fake_quantize(tensor: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """An activation on its grid of 256 numbers; scale and zero point are of one element."""
    return torch.fake_quantize_per_tensor_affine(tensor, scale, zero_point, 0, ACTIVATION_LEVELS)

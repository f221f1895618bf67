"""What a block's autograd operation is made of: BN-ReLU-convolutions on maps, both ways.

A map is [N, H, W, C] whose channels lie side by side in memory: a whole one, or some columns of a
wider one. Statistics are float64 [C]; the sums over pixels are the only thing a BatchNorm needs
besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from densepath.training.distributed import Ranks

# Of the map a 1×1 reads: every pixel, every second one of both directions (⌈H/2⌉ × ⌈W/2⌉), or the
# averages of 2×2 pixels behind the ReLU (⌊H/2⌋ × ⌊W/2⌋).
Reading = Literal["all", "second", "average"]
# How many pixels statistics are of: those of all processes are counted in a tensor.
Pixels = float | Tensor


class Moments(NamedTuple):
    """The mean and the biased variance of each channel: float64 [C]."""

    mean: Tensor
    variance: Tensor


class Norm(NamedTuple):
    """A BatchNorm with the ReLU behind it: relu(x · scale + shift), [C] each, in the map's type.

    `centre` [C] is the mean that was subtracted, about which the backward sums are taken.
    """

    scale: Tensor
    shift: Tensor
    centre: Tensor


class Correction(NamedTuple):
    """What a gradient lacks of a BatchNorm's backward pass: constant + slope · x, [C] each."""

    constant: Tensor
    slope: Tensor


class Factors(NamedTuple):
    """A BatchNorm in one step, whose statistics are known.

    Attributes:
        norm: what it multiplies by and adds, in the map's type.
        mean: of each channel, float64 [C] as the others.
        inverse: 1 / √(variance + ε).
        scale: weight · inverse.
    """

    norm: Norm
    mean: Tensor
    inverse: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Gradient:
    """The gradient of a convolution's outputs: data, plus a correction of what they are.

    With a correction it is data + constant + slope · outputs, which are then needed. The last
    outputs of a 1×1 may stand elsewhere, in `more`, where the gradient has no correction.
    """

    data: Tensor
    correction: Correction | None = None
    outputs: Tensor | None = None
    more: Tensor | None = None


class Sums(NamedTuple):
    """Of a backward pass, over all pixels, with g the gradient behind the ReLU's mask.

    Attributes:
        weight: the gradient of the convolution's weight, of its shape.
        gradient: Σ g, float64 [C].
        product: Σ g · (x − centre), float64 [C].
    """

    weight: Tensor
    gradient: Tensor
    product: Tensor


class NormSums(NamedTuple):
    """`gradient` and `product` of `Sums`, where there is no convolution."""

    gradient: Tensor
    product: Tensor


class Operations(Protocol):
    """The arithmetic of blocks on one kind of device.

    Every `x`, `out` and `into` comes from `new_map` or is a part of such a map's channels. A map
    without images has statistics and sums of zero.

    Attributes:
        device: where its maps are.
        ranks: the processes whose images BatchNorms count together; `norms.py` asks for them.
        recomputes: whether a block keeps as little as it can for the backward pass, which computes
            the rest again (`compute.recompute`).
    """

    device: torch.device
    ranks: Ranks
    recomputes: bool

    @property
    def middle_dtype(self) -> torch.dtype:
        """The type of the maps that only one BatchNorm reads, in which rounding does not pile up.

        Those between the convolutions of a dense layer or of a DPN's block, what a stem pools, and
        the gradients of all these but of what a DPN's 3×3 makes; and the copies of a DPN's residual
        path, which the backward pass alone reads. All other maps are of the networks' type, and so
        are norms and weights. Statistics and sums are those of the rounded values, but where they
        were taken of the path itself.
        """
        ...

    def new_map(
        self,
        images: int,
        height: int,
        width: int,
        channels: int,
        *,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """An unwritten map, of the network's type if none is given."""
        ...

    def moments(self, x: Tensor) -> Moments:
        """The statistics of a map."""
        ...

    def pointwise(
        self,
        x: Tensor,
        norm: Norm,
        weight: Tensor,
        out: Tensor,
        *,
        reading: Reading = "all",
        add: bool = False,
        statistics: bool = False,
    ) -> Moments | None:
        """BN-ReLU-1×1 of `x` with `weight` [O, C, 1, 1] into `out`, or added to it.

        With `statistics` the moments of what then stands in `out`.
        """
        ...

    def pointwise_backward(
        self,
        x: Tensor,
        norm: Norm,
        weight: Tensor,
        gradient: Gradient,
        into: Tensor,
        *,
        reading: Reading = "all",
        add: bool = False,
    ) -> Sums:
        """Of `pointwise`: scale · g into `into`, of the shape of `x`, or added to it.

        Pixels that `reading` leaves out have the gradient zero.
        """
        ...

    def convolve(
        self,
        x: Tensor,
        norm: Norm,
        weight: Tensor,
        out: Tensor,
        *,
        stride: int = 1,
        groups: int = 1,
        statistics: bool = False,
    ) -> Moments | None:
        """BN-ReLU-3×3 of `x`, one pixel of zeros around it behind the ReLU, into `out`.

        `weight` is [O, C / groups, 3, 3], `out` [N, ⌈H/stride⌉, ⌈W/stride⌉, O].
        """
        ...

    def convolve_backward(
        self,
        x: Tensor,
        norm: Norm,
        weight: Tensor,
        gradient: Gradient,
        into: Tensor,
        *,
        stride: int = 1,
        groups: int = 1,
        add: bool = False,
    ) -> Sums:
        """Of `convolve`: scale · g into `into`, of the shape of `x`, or added to it."""
        ...

    def pool(self, x: Tensor, norm: Norm, out: Tensor, *, start: tuple[int, int]) -> Tensor:
        """BN-ReLU and the largest of 3×3 pixels at stride 2, into `out` [N, ⌈H/2⌉, ⌈W/2⌉, C].

        `start` is where the first window begins: −1 or 0, down and across. What is outside the map
        counts for nothing. Given back is which of its nine pixels each window took, uint8 in the
        shape of `out`: the first of equals.
        """
        ...

    def pool_backward(
        self,
        x: Tensor,
        norm: Norm,
        taken: Tensor,
        gradient: Tensor,
        into: Tensor,
        *,
        start: tuple[int, int],
    ) -> NormSums:
        """Of `pool`: scale · g into `into`, of the shape of `x`."""
        ...

    def correct(self, data: Tensor, correction: Correction, x: Tensor) -> None:
        """Add constant + slope · x to `data`, in place."""
        ...

    def factors(self, moments: Moments, weight: Tensor, bias: Tensor, eps: float) -> Factors:
        """Those of a BatchNorm with these statistics; weight and bias are [C]."""
        ...

    def follow(self, running: Moments, found: Moments, share: float, pixels: Pixels) -> None:
        """Move running statistics, in place, by a share towards what was found in so many pixels.

        Those of a running variance are unbiased.
        """
        ...

    def norm_gradients(self, factors: Factors, sums: Sums | NormSums) -> tuple[Tensor, Tensor]:
        """The gradients of a BatchNorm's weight and bias [C], in the factors' type."""
        ...

    def correction(
        self,
        factors: Factors,
        sums: Sums | NormSums,
        pixels: Pixels,
        into: Correction | None = None,
    ) -> Correction:
        """What one reader's BatchNorm adds to the correction of what it has read, float64 [C].

        With `into` that is added to it, in place. `norms.py` has the formula.
        """
        ...

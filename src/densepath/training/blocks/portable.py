"""The operations of blocks in PyTorch alone: any device and type, and what others are held to.

BN and ReLU are computed anew wherever a convolution reads a map, forwards and backwards, so that no
normalised copy outlives the call that needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from densepath.training.blocks.maps import as_images, as_map, new_map
from densepath.training.blocks.operations import (
    Correction,
    Factors,
    Gradient,
    Moments,
    Norm,
    NormSums,
    Pixels,
    Reading,
    Sums,
)
from densepath.training.distributed import ALONE, Ranks

_PIXELS = (0, 1, 2)
# Elements of a map that a CPU computes at a time: 4 MB in float32.
_PART = 2**20


class PortableOperations:
    """`Operations` on tensors of one device and type.

    Args:
        device: where maps are made.
        dtype: of maps, weights and gradients.
        product_dtype: what the operands of convolutions are rounded to; statistics and sums over
            pixels stay in `dtype`. None: they are not rounded.
        ranks: the processes whose images BatchNorms count together.
        recomputes: see `Operations`.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        product_dtype: torch.dtype | None = None,
        ranks: Ranks = ALONE,
        *,
        recomputes: bool = False,
    ) -> None:
        self.device, self.dtype, self.ranks = device, dtype, ranks
        self.recomputes = recomputes
        self._product_dtype = product_dtype or dtype

    @property
    def middle_dtype(self) -> torch.dtype:
        """That of all maps."""
        return self.dtype

    def new_map(
        self,
        images: int,
        height: int,
        width: int,
        channels: int,
        *,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """An unwritten map."""
        empty = partial(torch.empty, device=self.device)
        return new_map((images, height, width, channels), dtype or self.dtype, empty)

    def moments(self, x: Tensor) -> Moments:
        """The statistics of a map; the variance from centred values, lest it lose digits."""
        if not x.numel():
            return Moments(*torch.zeros((2, x.shape[3]), dtype=torch.float64, device=x.device))
        mean = x.mean(_PIXELS)
        return Moments(mean.double(), (x - mean).square_().mean(_PIXELS).double())

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
        """BN-ReLU-1×1 of `x` into `out`, or added to it."""
        columns = self._rounded(weight.flatten(1)).T
        for part in self._parts(x):
            active = _activated(_read(x[part], reading), norm)
            product = self._rounded(_averaged(active, reading)) @ columns
            if add:
                out[part].add_(product)
            else:
                out[part].copy_(product)
        return self.moments(out) if statistics else None

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
        """Of `pointwise`: scale · g into `into`, or added to it."""
        if not add and reading != "all":
            into.zero_()
        rows, add = self._rounded(weight.flatten(1)), add or reading != "all"
        found: list[Sums] = []
        for part in self._parts(x):
            seen = _read(x[part], reading)
            active = _activated(seen, norm)
            outputs = self._rounded(_corrected(gradient, part))
            operand = self._rounded(_averaged(active, reading))
            of_weight = outputs.flatten(0, 2).T @ operand.flatten(0, 2)
            of_operand = (outputs @ rows).to(self.dtype)
            if reading == "average":
                of_operand = of_operand.mul_(0.25).repeat_interleave(2, 1).repeat_interleave(2, 2)
            within = _read(into[part], reading)
            sums = _through_norm(seen, active, norm, of_operand, within, add=add)
            found.append(Sums(of_weight.view_as(weight).to(self.dtype), *sums))
        return _sum(found)

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
        """BN-ReLU-3×3 of `x` into `out`."""
        kernel = self._rounded(weight)
        for part in self._parts(x):
            operand = as_images(self._rounded(_activated(x[part], norm)))
            convolved = F.conv2d(operand, kernel, stride=stride, padding=1, groups=groups)
            out[part].copy_(as_map(convolved))
        return self.moments(out) if statistics else None

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
        """Of `convolve`: scale · g into `into`, or added to it."""
        kernel = self._rounded(weight)
        found: list[Sums] = []
        for part in self._parts(x):
            active = _activated(x[part], norm)
            of_operand, of_weight, _ = torch.ops.aten.convolution_backward(
                as_images(self._rounded(_corrected(gradient, part))),
                as_images(self._rounded(active)),
                kernel,
                None,
                [stride, stride],
                [1, 1],
                [1, 1],
                False,
                [0, 0],
                groups,
                [True, True, False],
            )
            of_map = as_map(of_operand.to(self.dtype))
            sums = _through_norm(x[part], active, norm, of_map, into[part], add=add)
            found.append(Sums(of_weight.to(self.dtype), *sums))
        return _sum(found)

    def pool(self, x: Tensor, norm: Norm, out: Tensor, *, start: tuple[int, int]) -> Tensor:
        """BN-ReLU and the largest of 3×3 pixels at stride 2, into `out`; which each took."""
        pooled, places = _pool(as_images(_activated(x, norm)), start, out.shape)
        out.copy_(as_map(pooled))
        width = x.shape[2] + 2
        rows, columns = places.div(width, rounding_mode="floor"), places % width
        rows -= 2 * torch.arange(out.shape[1], device=x.device)[:, None] + start[0] + 1
        columns -= 2 * torch.arange(out.shape[2], device=x.device) + start[1] + 1
        return as_map(3 * rows + columns).to(torch.uint8)

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
        """Of `pool`: scale · g into `into`."""
        images, height, width, channels = x.shape
        steps = (torch.arange(side, device=x.device) * 2 for side in taken.shape[1:3])
        first_row, first_column = next(steps)[:, None, None], next(steps)[:, None]
        rows = first_row + start[0] + taken.long() // 3
        places = (rows * width + first_column + start[1] + taken.long() % 3).flatten(1, 2)
        spread = torch.zeros(
            (images, height * width, channels), dtype=gradient.dtype, device=x.device
        ).scatter_add_(1, places, gradient.flatten(1, 2))
        of_map = spread.view(x.shape)
        return NormSums(*_through_norm(x, _activated(x, norm), norm, of_map, into, add=False))

    def correct(self, data: Tensor, correction: Correction, x: Tensor) -> None:
        """Add constant + slope · x to `data`, in place."""
        constant, slope = (part.to(self.dtype) for part in correction)
        data.addcmul_(x, slope).add_(constant)

    def factors(self, moments: Moments, weight: Tensor, bias: Tensor, eps: float) -> Factors:
        """Those of a BatchNorm with these statistics."""
        mean, variance = moments
        inverse = (variance + eps).rsqrt()
        scale = weight.double() * inverse
        shift = bias.double() - mean * scale
        norm = Norm(*(part.to(weight.dtype) for part in (scale, shift, mean)))
        return Factors(norm, mean, inverse, scale)

    def follow(self, running: Moments, found: Moments, share: float, pixels: Pixels) -> None:
        """Move running statistics, in place, by a share towards what was found."""
        number = torch.as_tensor(pixels, dtype=torch.float64, device=found.mean.device)
        unbiased = found.variance * (number / (number - 1).clamp(min=1))
        for moved, towards in zip(running, (found.mean, unbiased), strict=True):
            moved.lerp_(towards.to(moved.dtype), share)

    def norm_gradients(self, factors: Factors, sums: Sums | NormSums) -> tuple[Tensor, Tensor]:
        """The gradients of a BatchNorm's weight and bias, in the factors' type."""
        kind = factors.norm.scale.dtype
        return (sums.product * factors.inverse).to(kind), sums.gradient.to(kind)

    def correction(
        self,
        factors: Factors,
        sums: Sums | NormSums,
        pixels: Pixels,
        into: Correction | None = None,
    ) -> Correction:
        """What one reader's BatchNorm adds to the correction of what it has read."""
        slope = -factors.scale * sums.product * factors.inverse.square() / pixels
        constant = -factors.scale * sums.gradient / pixels - slope * factors.mean
        if into is None:
            return Correction(constant, slope)
        into.constant.add_(constant)
        into.slope.add_(slope)
        return into

    def _parts(self, x: Tensor) -> Iterator[slice]:
        """Images whose maps stay in a CPU's caches from one pass over them to the next."""
        images = max(1, len(x))  # of none, one part without images
        step = max(1, _PART * images // max(1, x.numel())) if self.device.type == "cpu" else images
        return (slice(start, start + step) for start in range(0, images, step))

    def _rounded(self, operand: Tensor) -> Tensor:
        """An operand of a product, in the type that products are computed in."""
        return operand.to(self._product_dtype)


def _read(x: Tensor, reading: Reading) -> Tensor:
    """The pixels that a 1×1 reads."""
    if reading == "second":
        return x[:, ::2, ::2]
    if reading == "average":
        return x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return x


def _activated(x: Tensor, norm: Norm) -> Tensor:
    """A new map: relu(x · scale + shift)."""
    return torch.addcmul(norm.shift, x, norm.scale).relu_()


def _pool(active: Tensor, start: tuple[int, int], shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The largest of each window, and its place in the map with a border of one pixel.

    The border counts for nothing behind a ReLU, of which no value is below zero: a window always
    has a pixel of the map, and that comes first among equals only if no border is before it. So
    the border is −∞.
    """
    bordered = F.pad(active, (1, 1, 1, 1), value=-torch.inf)
    windows = bordered[:, :, 1 + start[0] :, 1 + start[1] :]
    pooled, places = F.max_pool2d(windows, 3, stride=2, return_indices=True)
    pooled, places = (part[:, :, : shape[1], : shape[2]] for part in (pooled, places))
    width = windows.shape[3]
    rows, columns = places.div(width, rounding_mode="floor"), places % width
    rows, columns = rows + 1 + start[0], columns + 1 + start[1]
    return pooled, rows * bordered.shape[3] + columns


def _averaged(active: Tensor, reading: Reading) -> Tensor:
    """The averages of 2×2 pixels, where these are read."""
    return as_map(F.avg_pool2d(as_images(active), 2)) if reading == "average" else active


def _corrected(gradient: Gradient, part: slice) -> Tensor:
    """The gradient of some images with its correction; its own data where there is none."""
    data = gradient.data[part]
    if gradient.more is not None:
        assert gradient.correction is None
        return torch.cat([data, gradient.more[part]], 3)
    if gradient.correction is None:
        return data
    assert gradient.outputs is not None
    constant, slope = (values.to(data.dtype) for values in gradient.correction)
    return torch.addcmul(data, gradient.outputs[part], slope).add_(constant)


def _sum(found: list[Sums]) -> Sums:
    """The sums over all images."""
    return Sums(*(torch.stack(parts).sum(0) for parts in zip(*found, strict=True)))


def _through_norm(
    x: Tensor, active: Tensor, norm: Norm, gradient: Tensor, into: Tensor, *, add: bool
) -> tuple[Tensor, Tensor]:
    """Pass `gradient`, that of the activated map, on to `x`; the two sums of the BatchNorm."""
    behind = torch.ops.aten.threshold_backward(gradient, active, 0)
    sums = behind.sum(_PIXELS).double()
    # The activated map has done its duty: its memory takes the products.
    products = torch.mul(torch.sub(x, norm.centre, out=active), behind, out=active)
    if add:
        into.addcmul_(behind, norm.scale)
    else:
        torch.mul(behind, norm.scale, out=into)
    return sums, products.sum(_PIXELS).double()

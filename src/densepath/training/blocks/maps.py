"""Maps [N, H, W, C] and images [N, C, H, W]: the same memory, seen in two ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from densepath.training.blocks.operations import Operations

# Elements behind the last one of a map, which vectors may read beyond its end: `maps.hpp:SPARE`.
SPARE = 16


def new_map(
    shape: tuple[int, int, int, int], dtype: torch.dtype, empty: Callable[..., Tensor]
) -> Tensor:
    """An unwritten map [N, H, W, C], with spare elements behind it.

    `empty` makes a tensor of so many elements of a `dtype`.
    """
    size = math.prod(shape)
    return empty(size + SPARE, dtype=dtype)[:size].view(shape)


def as_images(grid: Tensor) -> Tensor:
    """A map as [N, C, H, W], channels last in memory."""
    return grid.permute(0, 3, 1, 2)


def as_map(images: Tensor) -> Tensor:
    """[N, C, H, W] as [N, H, W, C]; a map only if the memory is that of one."""
    return images.permute(0, 2, 3, 1)


def is_map(grid: Tensor) -> bool:
    """Whether [N, H, W, C] is a map: all or some columns of rows.

    Behind it there are spare elements, where a row does not end with a whole vector.
    """
    _, height, width, channels = grid.shape
    row = grid.stride(2)
    strides = (height * width * row, width * row, row, 1)
    if grid.stride() != strides or row < channels or not grid.numel():
        return False
    if channels % SPARE == 0:
        return True  # whole vectors end with the row
    end = grid.storage_offset() + grid.numel() // channels * row - row + channels
    return grid.untyped_storage().nbytes() >= (end + SPARE) * grid.element_size()


def to_map(images: Tensor, operations: Operations, *, dtype: torch.dtype) -> Tensor:
    """[N, C, H, W] as a map of `dtype`: the same memory if it is one already, else a copy."""
    seen = as_map(images)
    if seen.dtype == dtype and is_map(seen):
        return seen
    return operations.new_map(*seen.shape, dtype=dtype).copy_(seen)

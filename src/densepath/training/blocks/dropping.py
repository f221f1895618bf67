"""Dropout and drop-path of new features: the masks that the modules would draw, kept as bits.

They are drawn as the modules draw them and in their order, so a block takes as much from the
generator as its modules do, and of the same seed the same elements are dropped.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densepath.models.layers import DropPath
from densepath.training.blocks.maps import as_map


class Dropped(NamedTuple):
    """What is left of a map: the elements of `mask`, bool, that spreads over it, times `scale`."""

    mask: Tensor
    scale: float

    def apply(self, data: Tensor) -> None:
        """Multiply features or their gradient, in place."""
        data.mul_(self.mask.to(data.dtype).mul_(self.scale))


def draw(dropout: nn.Dropout, drop_path: DropPath, weight: Tensor, new: Tensor) -> Dropped | None:
    """What becomes of the features `new` [N, H, W, k] of a convolution; None: nothing.

    The module's dropout draws in the order of memory, which is that of the convolution's `weight`.
    """
    masks: list[Tensor] = []
    keep = 1.0
    if dropout.training and dropout.p:
        last = not weight.is_contiguous()
        layout = torch.channels_last if last else torch.contiguous_format
        images, height, width, channels = new.shape
        ones = new.new_ones(1).expand(images, channels, height, width)
        masks.append(as_map(F.dropout(ones.contiguous(memory_format=layout), dropout.p) != 0))
        keep *= 1.0 - dropout.p
    if drop_path.training and drop_path.rate:
        kept = 1.0 - drop_path.rate
        masks.append(torch.rand((new.shape[0], 1, 1, 1), device=new.device) < kept)
        keep *= kept
    if not masks:
        return None
    mask = masks[0] if len(masks) == 1 else masks[0] & masks[1]
    return Dropped(mask, 1.0 / keep if keep else 0.0)

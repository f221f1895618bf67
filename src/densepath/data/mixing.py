"""Mixup and CutMix: each image of a batch is mixed with another, and so are their targets.

The draws come from (seed, epoch, step). In a distributed run every process mixes within its own
part of the batch, with the same share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899); with both, each half of the time.

    Attributes:
        num_classes: the width of the soft targets.
        mixup, cutmix: α of the Beta(α, α) distribution of the share; 0 is off.
    """

    num_classes: int
    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(
        self, images: Tensor, targets: Tensor, *, seed: int, epoch: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """Mixed images [N, C, H, W] and soft targets [N, classes]; both as given when off.

        Targets are int64 [N] or float [N, classes]. Image i is mixed with image N − 1 − i, as
        in timm.
        """
        if not (self.mixup or self.cutmix) or len(images) < 2:
            return images, targets
        # The 1 keeps these draws apart from those of the samples.
        rng = np.random.default_rng([seed, epoch, step, 1])
        cut = bool(self.cutmix) and (not self.mixup or rng.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = float(rng.beta(alpha, alpha))
        mix = _cut if cut else _blend
        mixed, share = mix(images, share, rng)
        soft = targets if targets.dim() == 2 else F.one_hot(targets, self.num_classes)
        soft = soft.to(images.dtype)
        return mixed, soft * share + soft.flip(0) * (1 - share)


def _blend(images: Tensor, share: float, _: np.random.Generator) -> tuple[Tensor, float]:
    """share · image + (1 − share) · partner."""
    return images * share + images.flip(0) * (1 - share), share


def _cut(images: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """A box of about 1 − share of the area comes from the partner; the exact share is returned."""
    height, width = images.shape[2:]
    side = math.sqrt(1 - share)
    tops = [int(rng.integers(n)) - int(n * side) // 2 for n in (height, width)]
    ends = [t + int(n * side) for t, n in zip(tops, (height, width), strict=True)]
    top, left = (max(t, 0) for t in tops)
    bottom, right = min(ends[0], height), min(ends[1], width)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    cut = max(bottom - top, 0) * max(right - left, 0)
    return mixed, 1 - cut / (height * width)

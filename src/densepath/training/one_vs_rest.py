"""The loss of one class an image, as a yes or no of each class."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from densepath.training.loss import Loss


class OneVsRest(Loss):
    """The mean binary cross-entropy of the classes, of images that have one class each.

    A mixed image has shares of two. Source: Wightman et al., arXiv:2110.00476, section 3.2; the
    mean over classes is timm's.
    """

    def __init__(self, **options: Any) -> None:
        """`options` are `Loss`'s, but for `multi_label`."""
        super().__init__(multi_label=False, **options)
        self._decisions = Loss(multi_label=True, **options)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over images: logits float32 [N, C]; targets int64 [N] or float32 [N, C]."""
        if not targets.is_floating_point():
            targets = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
        return self._decisions(logits, targets)

    def chance_level(self, num_classes: int) -> float:
        """The loss of a network that gives every decision the same probability."""
        return self._decisions.chance_level(num_classes)

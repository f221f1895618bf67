"""The loss of a batch, summed over its images."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


class Loss:
    """Cross-entropy; with `multi_label` the mean binary cross-entropy of the classes.

    Label smoothing ε gives ε / classes to every class (arXiv:1512.00567, section 7); of a
    multi-label image it moves 0 and 1 to ε / 2 and 1 − ε / 2.
    """

    def __init__(self, *, multi_label: bool, label_smoothing: float) -> None:
        self.multi_label, self.label_smoothing = multi_label, label_smoothing

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over images: logits float32 [N, C]; targets int64 [N] or float32 [N, C]."""
        if self.multi_label:
            smooth = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
            return (
                F.binary_cross_entropy_with_logits(logits, smooth, reduction="none").mean(1).sum()
            )
        return F.cross_entropy(
            logits, targets, reduction="sum", label_smoothing=self.label_smoothing
        )

    def count_right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The images whose class has the highest logit; of a mixed image its larger part.

        Multi-label: the share of right decisions of each image, summed over images.
        """
        if self.multi_label:
            return ((logits > 0) == (targets > 0.5)).float().mean(1).sum()
        classes = targets.argmax(1) if targets.is_floating_point() else targets
        return (logits.argmax(1) == classes).sum()

    def chance_level(self, num_classes: int) -> float:
        """The loss of a network that gives every class the same probability."""
        return math.log(2) if self.multi_label else math.log(max(num_classes, 2))

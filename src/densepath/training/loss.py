"""The loss of a batch, summed over its images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from densepath.choices import LossKind


class Loss:
    """Cross-entropy; with `multi_label` the mean binary cross-entropy of the classes.

    Label smoothing ε gives ε / classes to every class (arXiv:1512.00567, section 7); of a
    multi-label image it moves 0 and 1 to ε / 2 and 1 − ε / 2. The focal loss takes each term times
    |target − probability|^γ, which of hard targets is (1 − p_t)^γ (arXiv:1708.02002, equation 4).
    Labels that are not known (NaN) give nothing, and no gradient.
    """

    def __init__(
        self,
        *,
        multi_label: bool,
        label_smoothing: float,
        class_weights: Tensor | None = None,
        pos_weight: Tensor | None = None,
        kind: LossKind = "cross_entropy",
        gamma: float = 2.0,
    ) -> None:
        """
        Args:
            multi_label: whether an image can have several classes.
            label_smoothing: ε.
            class_weights: float32 [C], the factor of each class's terms.
            pos_weight: float32 [C], of a multi-label image that of each class's yes.
            kind, gamma: the focal loss, and its γ.
        """
        self.multi_label, self.label_smoothing = multi_label, label_smoothing
        self.class_weights, self.pos_weight = class_weights, pos_weight
        self.kind, self.gamma = kind, gamma

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over images: logits float32 [N, C]; targets int64 [N] or float32 [N, C]."""
        if self.multi_label:
            return self._of_decisions(logits, targets)
        if self.kind == "focal":
            return self._focal(logits, targets)
        return F.cross_entropy(
            logits,
            targets,
            weight=self.class_weights,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def _of_decisions(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The binary cross-entropies, over all classes; those that are not known count 0."""
        known = targets.isfinite()
        smooth = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        smooth = smooth.where(known, 0.5)
        terms = F.binary_cross_entropy_with_logits(
            logits, smooth, reduction="none", pos_weight=self.pos_weight
        )
        if self.kind == "focal":
            terms = terms * _distance(smooth, logits.sigmoid()) ** self.gamma
        if self.class_weights is not None:
            terms = terms * self.class_weights
        return terms.where(known, 0.0).mean(1).sum()

    def _focal(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The focal loss of one class an image."""
        classes = logits.shape[1]
        soft = targets if targets.is_floating_point() else F.one_hot(targets, classes)
        soft = soft * (1 - self.label_smoothing) + self.label_smoothing / classes
        logs = logits.log_softmax(1)
        terms = -soft * logs * _distance(soft, logs.exp()) ** self.gamma
        if self.class_weights is not None:
            terms = terms * self.class_weights
        return terms.sum()

    def count_right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The images whose class has the highest logit; of a mixed image its larger part.

        Multi-label: the right decisions of each image as a share of its classes, summed over images
        (of a label that is not known there is none; `count_known` is what to divide by).
        """
        if self.multi_label:
            right = ((logits > 0) == (targets > 0.5)) & targets.isfinite()
            return right.float().mean(1).sum()
        classes = targets.argmax(1) if targets.is_floating_point() else targets
        return (logits.argmax(1) == classes).sum()

    def chance_level(self, num_classes: int) -> float:
        """The loss of a network that gives every class the same probability, or a bound of it."""
        heaviest = [1.0]
        for weights in (self.class_weights, self.pos_weight):
            heaviest.append(1.0 if weights is None else float(weights.max()))
        plain = math.log(2) if self.multi_label else math.log(max(num_classes, 2))
        return plain * math.prod(max(one, 1.0) for one in heaviest)


def _distance(targets: Tensor, probabilities: Tensor) -> Tensor:
    """|target − probability|, above 0: the gradient of a power below 1 has no end there."""
    return (targets - probabilities).abs().clamp_min(1e-6)


def count_known(targets: Tensor) -> Tensor:
    """How many images' worth of labels are known, float64 []: of all, the number of images."""
    if not targets.is_floating_point() or targets.dim() < 2:
        return torch.tensor(float(len(targets)), dtype=torch.float64)
    return targets.isfinite().sum(dtype=torch.float64) / targets.shape[1]

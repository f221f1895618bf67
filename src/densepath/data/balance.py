"""How many images the classes of a training have, as weights: for the loss, and for drawing.

On the line: between a Dataset's targets and the loss (`training/loss.py`) or the order of an epoch
(`loader.py`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Dataset, gather_targets
from densepath.data.randomness import draws

Weights = NDArray[np.float64]


def class_weights(dataset: Dataset) -> Weights:
    """float64 [classes], the inverse of each class's images, so that the mean over images is 1.

    Of one class an image that is N / (classes · count), as in scikit-learn; a class without images
    has 1.
    """
    counts = _count(dataset)
    present = counts > 0
    weights = np.ones(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def positive_weights(dataset: Dataset) -> Weights:
    """float64 [classes] of a multi-label set: noes over yeses that are known; 1 without either."""
    targets = gather_targets(dataset)
    yes, no = (targets == 1).sum(0), (targets == 0).sum(0)
    return np.where((yes > 0) & (no > 0), no / np.maximum(yes, 1), 1.0)


def image_weights(dataset: Dataset) -> Weights:
    """float64 [N], how often each image is to be drawn: the sum is 1.

    Every class is as likely. An image of several has the weight of its rarest; those without any
    are a class of their own.
    """
    targets = gather_targets(dataset)
    if not dataset.multi_label:
        counts = np.bincount(targets.astype(np.int64), minlength=len(dataset.class_names))
        weights = 1 / counts[targets.astype(np.int64)]
        return weights / weights.sum()
    yes = np.column_stack([targets == 1, ~(targets == 1).any(1)])
    inverse = 1 / np.maximum(yes.sum(0), 1)
    weights = (yes * inverse).max(1)
    return weights / weights.sum()


def draw_balanced(weights: Weights, seed: int, epoch: int) -> NDArray[np.int64]:
    """As many draws as there are images, int64 [N], by (seed, epoch) alone.

    A draw is `index + N · k` for the k-th time, from 0, that the image comes in the epoch: its
    augmentation is then another one each time.
    """
    count = len(weights)
    cumulative = np.cumsum(weights)
    places = draws(count, seed, epoch) * cumulative[-1]
    indices = np.minimum(np.searchsorted(cumulative, places, side="right"), count - 1)
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    starts = np.searchsorted(ordered, ordered, side="left")
    repeats = np.empty(count, np.int64)
    repeats[order] = np.arange(count) - starts
    return indices + count * repeats


def _count(dataset: Dataset) -> NDArray[np.float64]:
    """The images of each class, those of several in each of them."""
    targets = gather_targets(dataset)
    if dataset.multi_label:
        return (targets == 1).sum(0).astype(np.float64)
    counts = np.bincount(targets.astype(np.int64), minlength=len(dataset.class_names))
    return counts.astype(np.float64)

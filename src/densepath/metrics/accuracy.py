"""Top-1, top-5 and loss of a network over batches: what training asks for after each epoch.

Counts are summed over the ranks of a distributed run, so that the answer is that of one
process, however the images were shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densepath.errors import DatasetError

if TYPE_CHECKING:
    from densepath.data.batch import Batch

THRESHOLD = 0.5
TOP = 5


@dataclass(frozen=True)
class Counts:
    """Sums over evaluated images.

    Attributes:
        skipped: the images that could not be read.
        images: those that were answered.
        loss: of those.
        top1, top5: those whose class has the highest logit, or one of the five highest.
        multi_label: those that can have several classes.
        hits, predicted, actual: of their decisions, the positive ones that are right, that were
            made, and that should have been; where a label is not known there is none.
        labels: the images' worth of labels that are known, over which the loss is.
    """

    skipped: float | Tensor = 0
    images: float | Tensor = 0
    loss: float | Tensor = 0
    top1: float | Tensor = 0
    top5: float | Tensor = 0
    multi_label: float | Tensor = 0
    hits: float | Tensor = 0
    predicted: float | Tensor = 0
    actual: float | Tensor = 0
    labels: float | Tensor = 0

    def to_tensor(self, device: torch.device) -> Tensor:
        """The fields in their order, float64 [10]: what ranks add up in one exchange."""
        values = [getattr(self, field.name) for field in fields(self)]
        sums = torch.zeros(len(values), dtype=torch.float64, device=device)
        for place, value in enumerate(values):
            if isinstance(value, Tensor) or value:
                sums[place] = value
        return sums


@dataclass(frozen=True)
class Summary:
    """How well a network does on a data set; shares are between 0 and 1.

    Attributes:
        top1: share of images whose class has the highest logit; of a multi-label data set the
            F1 over all decisions at a probability of 0.5 (micro average).
        top5: share of images whose class is among the five highest logits; multi-label: None.
        loss: mean cross-entropy without label smoothing, or mean binary cross-entropy over the
            labels that are known.
        count: the images that were counted.
        skipped: the images that could not be read.
        macro_auroc, mean_average_precision: of a multi-label set, where all scores were kept.
    """

    top1: float
    top5: float | None
    loss: float
    count: int
    skipped: int
    macro_auroc: float | None = None
    mean_average_precision: float | None = None


def count_batches(
    model: nn.Module,
    loader: Iterable[Batch],
    device: torch.device | str = "cpu",
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
    see: Callable[[Tensor, Batch], None] | None = None,
) -> Tensor:
    """The `Counts` over the batches of this rank as a tensor, float64 [10].

    Added up over all ranks it is what `summarise` takes. The model's mode is put back.

    Args:
        model: images float32 [N, C, H, W] → logits [N, classes].
        loader: batches; targets int64 [N], or float32 [N, classes] of a multi-label data set.
        device: where the model is.
        memory_format: the layout of the images.
        see: is told the float32 logits of each batch.
    """
    place = torch.device(device)
    was_training = model.training
    model.eval()
    sums = Counts().to_tensor(place)
    try:
        with torch.inference_mode():
            for batch in loader:
                sums += Counts(skipped=len(batch.errors)).to_tensor(place)
                if not len(batch.images):
                    continue
                images = batch.images.to(place, memory_format=memory_format, non_blocking=True)
                logits = model(images).float()
                sums += count(logits, batch.targets.to(place)).to_tensor(place)
                if see is not None:
                    see(logits, batch)
    finally:
        model.train(was_training)
    return sums


def count(logits: Tensor, targets: Tensor) -> Counts:
    """The counts of a batch that was read: logits [N, classes], targets as in a `Batch`."""
    images, each = len(logits), losses(logits, targets)
    if targets.is_floating_point():
        known, share = targets.isfinite(), known_shares(targets)
        predicted = (logits.sigmoid() > THRESHOLD) & known
        actual = targets > THRESHOLD
        return Counts(
            images=images,
            loss=(each * share).sum(dtype=torch.float64),
            labels=share.sum(dtype=torch.float64),
            multi_label=images,
            hits=(predicted & actual).sum(),
            predicted=predicted.sum(),
            actual=actual.sum(),
        )
    ranks = target_ranks(logits, targets)
    loss = each.sum(dtype=torch.float64)
    top1, top5 = (ranks < 1).sum(), (ranks < TOP).sum()
    return Counts(images=images, loss=loss, top1=top1, top5=top5, labels=images)


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each image, float32 [N]: cross-entropy, or the mean binary cross-entropy.

    The mean is over the labels that are known; of an image without any it is 0.
    """
    if targets.is_floating_point():
        known = targets.isfinite()
        terms = F.binary_cross_entropy_with_logits(
            logits, targets.where(known, 0.0), reduction="none"
        )
        share = known_shares(targets)
        return terms.where(known, 0.0).mean(1) / share.where(share > 0, 1.0)
    return F.cross_entropy(logits, targets, reduction="none")


def known_shares(targets: Tensor) -> Tensor:
    """Of each image the share of its labels that is known: float32 [N] of targets [N, classes]."""
    return targets.isfinite().float().mean(1)


def target_ranks(logits: Tensor, targets: Tensor) -> Tensor:
    """How many classes come before the true one, int64 [N]: 0 when the answer is right.

    Of equal logits the lower class comes first, so that a constant answer is not right for
    every image. Logits with a NaN are never right.
    """
    mine = logits.gather(1, targets[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > mine) | ((logits == mine) & (classes < targets[:, None]))
    ranks = before.sum(1)
    return ranks.masked_fill(logits.isnan().any(1), logits.shape[1] + TOP)


def summarise(sums: Tensor) -> Summary:
    """The counts of all ranks, added up, as shares.

    Raises:
        DatasetError: not one image.
    """
    skipped, images, loss, top1, top5, multi_label, hits, predicted, actual, labels = sums.tolist()
    if not images:
        raise DatasetError(f"no image could be evaluated; {skipped:.0f} could not be read.")
    return Summary(
        top1=2 * hits / max(predicted + actual, 1) if multi_label else top1 / images,
        top5=None if multi_label else top5 / images,
        loss=loss / max(labels, 1e-300),
        count=round(images),
        skipped=round(skipped),
    )

"""Top-1, top-5 and loss of a network over batches: what training asks for after each epoch.

Counts are summed over the ranks of a distributed run, so that the answer is that of one
process, however the images were shared out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from densepath.errors import DatasetError

if TYPE_CHECKING:
    from densepath.data.loader import Batch

THRESHOLD = 0.5
NUM_SUMS = 8


@dataclass(frozen=True)
class Summary:
    """How well a network does on a data set; shares are between 0 and 1.

    Attributes:
        top1: share of images whose class has the highest logit; of a multi-label data set the
            F1 over all decisions at a probability of 0.5 (micro average).
        top5: share of images whose class is among the five highest logits; multi-label: None.
        loss: mean cross-entropy without label smoothing, or mean binary cross-entropy.
        count: the images that were counted.
        skipped: the images that could not be read.
    """

    top1: float
    top5: float | None
    loss: float
    count: int
    skipped: int


def evaluate_batches(
    model: nn.Module,
    loader: Iterable[Batch],
    device: torch.device | str = "cpu",
    *,
    autocast: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Summary:
    """The summary of `model` over all batches of all ranks; the model's mode is put back.

    Args:
        model: images [N, C, H, W] → logits [N, classes]. A DistributedDataParallel wrapper is
            taken off: ranks may have different numbers of batches.
        loader: batches; targets int64 [N], or float32 [N, classes] of a multi-label data set.
        device: where the model is.
        autocast: compute in this type (bfloat16) where autocast allows; None: in float32.
        memory_format: the layout of the images.

    Raises:
        DatasetError: not one image could be read, on any rank.
    """
    sums = count_batches(model, loader, device, autocast=autocast, memory_format=memory_format)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    return summarise(sums)


def count_batches(
    model: nn.Module,
    loader: Iterable[Batch],
    device: torch.device | str = "cpu",
    *,
    autocast: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """As `evaluate_batches`, the sums over the batches of this rank: float64, for `summarise`
    once those of all ranks are added up.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    place = torch.device(device)
    was_training = model.training
    model.eval()
    sums = torch.zeros(1 + NUM_SUMS, dtype=torch.float64, device=place)
    try:
        with torch.inference_mode():
            for batch in loader:
                sums[0] += len(batch.errors)
                if not len(batch.images):
                    continue
                images = batch.images.to(place, memory_format=memory_format, non_blocking=True)
                with torch.autocast(place.type, autocast, enabled=autocast is not None):
                    logits = model(images)
                sums[1:] += count_batch(logits.float(), batch.targets.to(place))
    finally:
        model.train(was_training)
    return sums


def count_batch(logits: Tensor, targets: Tensor) -> Tensor:
    """Sums over a batch, float64 [NUM_SUMS]: images, loss, top-1, top-5; and of multi-label
    targets the images again, then true, predicted and actual positives of all decisions.
    """
    sums = torch.zeros(NUM_SUMS, dtype=torch.float64, device=logits.device)
    sums[0] = len(logits)
    sums[1] = losses(logits, targets).sum(dtype=torch.float64)
    if targets.is_floating_point():
        positive = logits.sigmoid() > THRESHOLD
        actual = targets > THRESHOLD
        sums[4], sums[5] = len(logits), (positive & actual).sum()
        sums[6], sums[7] = positive.sum(), actual.sum()
        return sums
    ranks = target_ranks(logits, targets)
    sums[2], sums[3] = (ranks < 1).sum(), (ranks < 5).sum()
    return sums


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each image, float32 [N]: cross-entropy, or the mean binary cross-entropy."""
    if targets.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return F.cross_entropy(logits, targets, reduction="none")


def target_ranks(logits: Tensor, targets: Tensor) -> Tensor:
    """How many classes come before the true one, int64 [N]: 0 when the answer is right.

    Of equal logits the lower class comes first, so that a constant answer is not right for
    every image. Logits with a NaN are never right.
    """
    mine = logits.gather(1, targets[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > mine) | ((logits == mine) & (classes < targets[:, None]))
    ranks = before.sum(1)
    return ranks.masked_fill(logits.isnan().any(1), logits.shape[1] + 5)


def summarise(sums: Tensor) -> Summary:
    """The sums of all ranks as shares.

    Raises:
        DatasetError: not one image.
    """
    skipped, count, loss, top1, top5, multi_label, hits, predicted, actual = sums.tolist()
    if not count:
        raise DatasetError(f"no image could be evaluated; {skipped:.0f} could not be read.")
    mean_loss, images, unread = loss / count, round(count), round(skipped)
    if multi_label:
        f1 = 2 * hits / max(predicted + actual, 1)
        return Summary(f1, None, mean_loss, images, unread)
    return Summary(top1 / count, top5 / count, mean_loss, images, unread)

"""The evaluation of an epoch over all processes, and the first one of a training that calibrates.

Computed in float32, so that `densepath evaluate` of the checkpoint gives the same numbers; a signal
ends it between two batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from densepath.data.batch import Batch
from densepath.data.dataset import gather_targets
from densepath.errors import DatasetError, DensepathError
from densepath.metrics.accuracy import Summary, count_batches, summarise
from densepath.metrics.ranking import macro_figures
from densepath.training.agreed import agreed_batches
from densepath.training.parts import Training
from densepath.training.state import StartScores


@dataclass(frozen=True)
class Judgement:
    """How well the kept weights do.

    Attributes:
        summary: of the network that the step judges by.
        as_float: of the same weights in the plain network, where the step judges by another.
    """

    summary: Summary
    as_float: Summary | None


def calibrate(training: Training) -> bool:
    """Show the step the batches that it calibrates on, and judge what it then gives.

    The leading process's images count, so that all processes calibrate alike. False when a signal
    came before the end.

    Raises:
        DatasetError: no image that calibrates could be read.
    """
    step, num_batches = training.step, training.step.batches_to_calibrate
    if not num_batches:
        return True
    batches = agreed_batches(training, training.train_loader.epoch(0))
    for batch, _ in islice(batches, num_batches):
        if len(batch.images):
            images = batch.images.to(training.device)
            step.calibrate(images.contiguous(memory_format=training.memory_format))
    with training.ranks.together(training.device):
        if training.ranks.leads and step.batches_to_calibrate:
            raise DatasetError(
                f"{training.recipe.data.source}: no image that calibrates could be read."
            )
    training.ranks.take_leaders(list(step.calibrated))
    judgement = judge(training)
    if judgement is None:
        return False
    assert judgement.as_float is not None
    start = StartScores(judgement.summary.top1, judgement.as_float.top1)
    training.position.start = start
    if training.ranks.leads:
        scores = f"top-1 {start.top1:.4f}, as float32 {start.float_top1:.4f}"
        training.folder.log(f"rounded at the start: {scores}")
    return True


def judge(training: Training) -> Judgement | None:
    """How well the kept weights do on the evaluation images; None: a signal came.

    Raises:
        ImageError: an image cannot be read, and the recipe says `data.on_error: fail`.
        DatasetError: not one image could be read.
    """
    judged = training.step.judged(training.kept)
    summary = _evaluate(training, judged)
    if summary is None or judged is training.kept:
        return None if summary is None else Judgement(summary, None)
    as_float = _evaluate(training, training.kept)
    return None if as_float is None else Judgement(summary, as_float)


def _evaluate(training: Training, model: nn.Module) -> Summary | None:
    """The summary of `model` over the evaluation images of all ranks; None: a signal came."""
    ranks, device = training.ranks, training.device
    # Without SyncBN each process has its own running statistics; the leader's are kept.
    ranks.take_leaders(list(model.buffers()))
    training.stop.waits_for = "this batch"
    training.progress.start_evaluation(len(training.eval_loader))
    batches = _DeferringBatches(training)
    with ranks.together(device) as exchange:
        scores = _Scores(training) if training.loss.multi_label else None
        see = None if scores is None else scores.see
        layout = training.memory_format
        sums = count_batches(model, batches, device, memory_format=layout, see=see)
        if batches.error is not None:
            raise batches.error
        exchange.value = batches.stopped
    if any(exchange.values):
        training.stop.heed_others()
        return None
    sums = ranks.sum(sums)
    with ranks.together(device):
        summary = summarise(sums)
    return summary if scores is None else scores.complete(summary)


class _Scores:
    """The scores of all processes' evaluation images, for the figures that rank them."""

    def __init__(self, training: Training) -> None:
        self.training, dataset = training, training.folder.images.judged
        self.targets = gather_targets(dataset)
        shape = (len(dataset), self.targets.shape[1] + 1)
        self.table = torch.zeros(shape, dtype=torch.float64, device=training.device)

    def see(self, logits: Tensor, batch: Batch) -> None:
        """Keep the scores of a batch, and that its images were answered."""
        rows = batch.indices.to(self.table.device)
        self.table[rows, :-1] = logits.sigmoid().to(self.table)
        self.table[rows, -1] = 1.0

    def complete(self, summary: Summary) -> Summary:
        """The summary with the mean AUROC and average precision over all processes' images."""
        table = self.training.ranks.sum(self.table).cpu().numpy()
        known = np.isfinite(self.targets) & (table[:, -1:] > 0)
        area, average = macro_figures(table[:, :-1], self.targets == 1, known)
        return replace(summary, macro_auroc=area, mean_average_precision=average)


class _DeferringBatches:
    """The evaluation's batches until a signal comes; an error is kept for later, so that no
    process misses an exchange.
    """

    def __init__(self, training: Training) -> None:
        self.training, self.stopped = training, False
        self.error: DensepathError | None = None

    def __iter__(self) -> Iterator[Batch]:
        """The batches; afterwards `stopped` and `error` say why they ended."""
        try:
            for batch in self.training.eval_loader:
                if self.training.stop.signal is not None:
                    self.stopped = True
                    return
                self.training.unread += map(str, batch.errors)
                yield batch
                self.training.progress.evaluated(len(batch.images))
        except DensepathError as error:
            self.error = error

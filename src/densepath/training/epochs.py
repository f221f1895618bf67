"""An epoch in numbers: the sums of its steps while it runs, and its row when it is over.

On the line: `step.py` adds to the sums and `loop.py` makes the row; the state, `metrics.csv`,
progress, curves and README are made of both.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from densepath.training.distributed import Ranks


@dataclass(frozen=True)
class EpochSums:
    """Sums over the images of an epoch's steps, of all processes.

    Attributes:
        loss: of the images that were trained on.
        right: those that were answered rightly; of a multi-label set each counts as its share of
            right decisions.
        images: the number that was trained on.
        skipped: those that could not be read, or were too few for a step.
        labels: the images' worth of labels that are known: their number where all are.
    """

    loss: float = 0.0
    right: float = 0.0
    images: float = 0.0
    skipped: float = 0.0
    labels: float = 0.0

    def __add__(self, more: EpochSums) -> EpochSums:
        """The sums over the images of both."""
        pairs = zip(astuple(self), astuple(more), strict=True)
        return EpochSums(*(a + b for a, b in pairs))

    @property
    def mean_loss(self) -> float:
        """The loss of an image; NaN without labels."""
        return self.loss / self.labels if self.labels else math.nan

    @property
    def accuracy(self) -> float:
        """The share of right answers; NaN without labels."""
        return self.right / self.labels if self.labels else math.nan


class RunningSums:
    """The `EpochSums` of this process since the processes exchanged theirs.

    One float64 tensor on the training's device, where adding to it waits for nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(len(fields(EpochSums)), dtype=torch.float64, device=device)
        self._loss, self._right, self._images, self._skipped, self._labels = self._sums.unbind()

    def add(
        self, loss: Tensor, right: Tensor, images: int, labels: float | Tensor | None = None
    ) -> None:
        """Add those of a pass: loss and right answers summed over so many images.

        `labels` is how many images' worth of labels are known; None: all of them.
        """
        self._loss += loss
        self._right += right
        self._images += images
        self._labels += images if labels is None else labels

    def add_skipped(self, images: int) -> None:
        """Add images that are not trained on."""
        self._skipped += images

    def exchange(self, ranks: Ranks, *flags: bool) -> tuple[EpochSums, list[bool]]:
        """Start anew; give the sums of all processes, and whether any of them has set each flag.

        All travel in one tensor.
        """
        held = torch.cat([self._sums, self._sums.new_tensor([float(flag) for flag in flags])])
        values = ranks.sum(held).tolist()
        self._sums.zero_()
        count = len(self._sums)
        return EpochSums(*values[:count]), [bool(value) for value in values[count:]]


@dataclass(frozen=True)
class EpochRow:
    """A row of `metrics.csv`: an epoch that is over.

    Attributes:
        epoch: its number, from 1.
        lr: the learning rate of its last step.
        train_loss, train_accuracy: means over its training images, augmented and while the
            weights moved; NaN without images.
        loss, top1, top5: of the evaluation, as in `Summary`.
        train_skipped: the training images left out.
        count, skipped: the evaluation images that were counted and that could not be read.
        seconds: since the start of the training, over all starts.
        float_top1: `top1` of the same weights in float32, where epochs are judged otherwise.
        macro_auroc, mean_average_precision: of a multi-label set, as in an evaluation's report.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    loss: float
    top1: float
    top5: float | None
    train_skipped: int
    count: int
    skipped: int
    seconds: float
    float_top1: float | None = None
    macro_auroc: float | None = None
    mean_average_precision: float | None = None

    @property
    def multi_label(self) -> bool:
        """Whether the scores are those of a multi-label set, whose `top1` is micro-F1."""
        return self.top5 is None

    @property
    def all_skipped(self) -> int:
        """The images left out, of training and evaluation together."""
        return self.train_skipped + self.skipped

    def to_dict(self) -> dict[str, Any]:
        """Plain values by column; the last three only where the epoch has them.

        `macro_auroc` may be undefined in one epoch (None), and stays where there is the other.
        """
        values = asdict(self)
        if self.float_top1 is None:
            del values["float_top1"]
        if self.macro_auroc is None and self.mean_average_precision is None:
            del values["macro_auroc"], values["mean_average_precision"]
        return values


def to_csv(rows: Sequence[EpochRow]) -> str:
    """Rows as CSV with a heading; six significant digits; what does not exist stays empty."""
    text = io.StringIO()
    values = [row.to_dict() for row in rows]
    columns = dict.fromkeys(name for row in values for name in row)
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    for row in values:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()

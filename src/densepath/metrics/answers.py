"""A network's answers to a data set: a few numbers an image, gathered over batches.

Everything that a report says is computed from these, sorted by the images' numbers: batch size
and order cannot change it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from densepath.errors import CheckpointError, DatasetError
from densepath.metrics.accuracy import losses, target_ranks

if TYPE_CHECKING:
    from densepath.data.batch import Batch

# A batch's images, as its loader makes them → float32 logits [N, classes], whoever computes them.
Predict: TypeAlias = Callable[[NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True)
class Answers:
    """Arrays of one row an image, sorted by the images' numbers in the data set.

    Attributes:
        indices: int64 [N], the images' numbers.
        losses: float32 [N].
        targets: int64 [N], the true class; of a multi-label set bool [N, classes].
        scores: float32 [N, 2], the probabilities of the predicted and of the true class; of a
            multi-label set [N, classes], the probability of each class.
        predicted: int64 [N], the likeliest class; multi-label: empty.
        ranks: int64 [N], how many classes come before the true one; multi-label: empty.
        errors: (path, reason) of the images that could not be read.
        known: bool [N, classes] of a multi-label set, which targets are known; None: all.
        logits: float32 [N, classes], where they were to be kept.
    """

    indices: NDArray[np.int64]
    losses: NDArray[np.float32]
    targets: NDArray[np.int64] | NDArray[np.bool_]
    scores: NDArray[np.float32]
    predicted: NDArray[np.int64]
    ranks: NDArray[np.int64]
    errors: list[tuple[str, str]]
    known: NDArray[np.bool_] | None = None
    logits: NDArray[np.float32] | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an image can have several classes."""
        return self.targets.ndim == 2

    @property
    def known_labels(self) -> NDArray[np.bool_]:
        """Bool [N, classes] of a multi-label set: which targets are known."""
        return np.ones(self.targets.shape, np.bool_) if self.known is None else self.known

    def __len__(self) -> int:
        """The number of images that were answered."""
        return len(self.indices)


def collect_answers(
    predict: Predict,
    batches: Iterable[Batch],
    *,
    to_logits: NDArray[np.int64] | None = None,
    keep_logits: bool = False,
) -> Answers:
    """The answers to all batches.

    Args:
        predict: images → logits.
        batches: of the data set.
        to_logits: for each class of the data set its position among the logits; None: the same.
        keep_logits: keep them all, for curves and for what is fitted to them.

    Raises:
        DatasetError: no image could be read; or an image came twice.
        CheckpointError: the network's answers are not numbers.
    """
    place = None if to_logits is None else torch.from_numpy(np.asarray(to_logits))
    parts = list(_answer_each(predict, batches, place, keep_logits=keep_logits))
    errors = sorted(error for part in parts for error in part.errors)
    filled = [part for part in parts if len(part)]
    if not filled:
        raise DatasetError(f"no image could be evaluated; {len(errors)} could not be read.")
    return _join(filled, errors)


def _answer_each(
    predict: Predict, batches: Iterable[Batch], place: torch.Tensor | None, *, keep_logits: bool
) -> Iterator[Answers]:
    """The answers to each batch."""
    for batch in batches:
        errors = [(error.path, error.reason) for error in batch.errors]
        if len(batch.images):
            logits = torch.from_numpy(predict(batch.images.numpy())).float()
            _check_finite(logits)
            targets = _place(batch.targets, place, logits.shape[1])
            made = answer_logits(logits, targets, batch.indices, errors)
            yield dataclasses.replace(made, logits=logits.numpy()) if keep_logits else made
        elif errors:
            yield dataclasses.replace(_NOTHING, errors=errors)


def _check_finite(logits: torch.Tensor) -> None:
    """Raise unless every logit is a number.

    Raises:
        CheckpointError: some are not.
    """
    bad = int((~logits.isfinite()).any(1).sum())
    if bad:
        raise CheckpointError(
            f"the network's answer is not a number for {bad} of {len(logits)} images of a batch: "
            "its weights are damaged, or its training diverged."
        )


def _place(targets: torch.Tensor, place: torch.Tensor | None, classes: int) -> torch.Tensor:
    """Targets in the data set's classes → in the network's."""
    if place is None:
        return targets
    if not targets.is_floating_point():
        return place[targets]
    placed = torch.zeros(len(targets), classes)
    placed[:, place] = targets
    return placed


def answer_logits(
    logits: torch.Tensor, targets: torch.Tensor, indices: torch.Tensor, errors: list
) -> Answers:
    """The numbers of one batch."""
    if targets.is_floating_point():
        none = np.zeros(0, np.int64)
        seen, scores = (targets > 0.5).numpy(), logits.sigmoid().numpy()
        loss, known = losses(logits, targets).numpy(), targets.isfinite().numpy()
        return Answers(indices.numpy(), loss, seen, scores, none, none, errors, known)
    shares = logits.double().softmax(1)
    predicted = logits.argmax(1)
    pair = torch.stack([predicted, targets], 1)
    return Answers(
        indices.numpy(),
        losses(logits, targets).numpy(),
        targets.numpy(),
        shares.gather(1, pair).float().numpy(),
        predicted.numpy(),
        target_ranks(logits, targets).numpy(),
        errors,
    )


def _join(parts: list[Answers], errors: list[tuple[str, str]]) -> Answers:
    """All parts as one, sorted by the images' numbers.

    Raises:
        DatasetError: an image came twice.
    """
    names = [field.name for field in dataclasses.fields(Answers) if field.name != "errors"]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in names
        if getattr(parts[0], name) is not None
    }
    order = np.argsort(joined["indices"], kind="stable")
    if (np.diff(joined["indices"][order]) == 0).any():
        raise DatasetError("an image was evaluated twice: the ranks' shares overlap.")
    ordered = {name: rows[order] if len(rows) else rows for name, rows in joined.items()}
    return Answers(**ordered, errors=errors)


_NONE = np.zeros(0, np.int64)
_NOTHING = Answers(
    _NONE, np.zeros(0, np.float32), _NONE, np.zeros((0, 2), np.float32), _NONE, _NONE, []
)

"""Answers → figures: accuracy, per-class figures, confusion, calibration; multi-label too.

A share that has no denominator (the recall of a class without images, the precision of a class
that was never answered) is None in the class's row. Macro averages are over the classes that have
images: there a precision or F1 without denominator counts as 0, as in scikit-learn with
`zero_division=0`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.drawing.picture import quiet_matplotlib
from densepath.metrics.accuracy import TOP
from densepath.metrics.answers import Answers

CALIBRATION_BINS = 15
Share = float | None
# Columns that are shares of decisions; others are made of scores.
DECIDED = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence lies in (`low`, `high`]."""

    low: float
    high: float
    count: int
    confidence: Share
    accuracy: Share


def overall(answers: Answers) -> dict[str, Share]:
    """Top-1, top-5 and mean loss of single-label answers."""
    return {
        "top1": float((answers.ranks < 1).mean()),
        "top5": float((answers.ranks < TOP).mean()),
        "loss": mean_loss(answers),
    }


def mean_loss(answers: Answers) -> float:
    """The mean loss of the images; of a multi-label set of all labels that are known."""
    if not answers.multi_label:
        return float(answers.losses.mean(dtype=np.float64))
    shares = answers.known_labels.mean(1)
    return float((answers.losses * shares).sum(dtype=np.float64) / max(shares.sum(), 1e-300))


def top5_tells(num_classes: int) -> bool:
    """Whether top-5 says anything: among five classes the true one always is."""
    return num_classes > TOP


def largest_confusions(matrix: NDArray[np.int64], count: int) -> list[tuple[int, int, int]]:
    """(true class, answered class, images) of the most frequent mistakes, at most `count`."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    found = [(int(row), int(column), int(wrong[row, column])) for row, column in places]
    return [pair for pair in found if pair[2]]


def confusion_matrix(answers: Answers, num_classes: int) -> NDArray[np.int64]:
    """int64 [classes, classes]: how many images of class (row) were answered as class (column)."""
    assert not answers.multi_label
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (answers.targets, answers.predicted), 1)
    return matrix


def per_class(matrix: NDArray[np.int64], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class, from the confusion matrix."""
    hits, actual, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return [
        _class_row(label, *counts)
        for label, *counts in zip(
            labels, hits.tolist(), predicted.tolist(), actual.tolist(), strict=True
        )
    ]


def with_images(rows: Sequence[dict[str, Any]]) -> int:
    """The number of classes that have images, which macro averages are over."""
    return sum(row["support"] > 0 for row in rows)


def macro(rows: Sequence[dict[str, Any]], name: str) -> Share:
    """The mean of a column over the classes that have images; None when none has.

    Of `precision`, `recall` and `f1` it is scikit-learn's `average="macro"` with
    `zero_division=0` and those classes as `labels`. Of scores (`auroc`, `average_precision`)
    a class without a value is left out.
    """
    values = [row[name] for row in rows if row["support"]]
    if name in DECIDED:
        values = [0.0 if value is None else value for value in values]
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def reliability(answers: Answers, num_bins: int = CALIBRATION_BINS) -> list[Bin]:
    """Confidence against accuracy in bins of equal width (Guo et al., arXiv:1706.04599).

    Of a multi-label set the score of each class against the share of yeses, over all labels that
    are known.
    """
    if answers.multi_label:
        known = answers.known_labels
        confidence = answers.scores[known].astype(np.float64)
        right = answers.targets[known].astype(bool)
    else:
        confidence = answers.scores[:, 0].astype(np.float64)
        right = answers.ranks < 1
    edges = np.linspace(0, 1, num_bins + 1)
    slots = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    bins = []
    for i in range(num_bins):
        inside = slots == i
        count = int(inside.sum())
        shares = (confidence[inside].mean(), right[inside].mean()) if count else (None, None)
        mean, accuracy = (None if share is None else float(share) for share in shares)
        bins.append(Bin(float(edges[i]), float(edges[i + 1]), count, mean, accuracy))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """The mean of |accuracy − confidence| over the bins, weighted by their counts (ECE)."""
    total = sum(part.count for part in bins)
    gaps = (
        part.count * abs(part.accuracy - part.confidence)
        for part in bins
        if part.accuracy is not None and part.confidence is not None
    )
    return sum(gaps) / total


def worst_mistakes(answers: Answers, count: int) -> NDArray[np.int64]:
    """Rows of the wrong answers with the highest losses, the worst first; at most `count`."""
    wrong = np.flatnonzero(answers.ranks >= 1)
    return wrong[np.argsort(-answers.losses[wrong], kind="stable")[:count]]


def per_label(
    answers: Answers, labels: Sequence[str], thresholds: float | Sequence[float]
) -> tuple[dict[str, Share], list[dict[str, Any]]]:
    """Of multi-label answers the overall figures, and a row a class.

    AUROC and average precision read the scores; precision, recall and F1 the decisions score above
    its class's threshold. All are over the labels that are known: a row says their number (`known`)
    where it is not that of the images.
    """
    import torch

    with quiet_matplotlib():  # which torchmetrics imports
        from torchmetrics.functional import classification

    known = answers.known_labels
    limits = np.broadcast_to(np.asarray(thresholds, np.float64), (len(labels),))
    truth, decided = answers.targets.astype(bool), (answers.scores > limits) & known
    counts = ((truth & decided).sum(0), decided.sum(0), truth.sum(0), known.sum(0))
    rows = []
    for i, label in enumerate(labels):
        hits, answered, support, seen = (int(count[i]) for count in counts)
        row = _class_row(label, hits, answered, support)
        scores, actual = (
            torch.from_numpy(answers.scores[known[:, i], i].copy()),
            torch.from_numpy(truth[known[:, i], i]),
        )
        has_both = 0 < support < seen
        row["auroc"] = float(classification.binary_auroc(scores, actual)) if has_both else None
        row["average_precision"] = (
            float(classification.binary_average_precision(scores, actual)) if support else None
        )
        if not isinstance(thresholds, float | int):
            row["threshold"] = float(limits[i])
        if not known.all():
            row["known"] = seen
        rows.append(row)
    hits, predicted, actual_count = (int(count.sum()) for count in counts[:3])
    micro = _class_row("all", hits, predicted, actual_count)
    figures: dict[str, Share] = {
        "loss": mean_loss(answers),
        "exact_match": float((truth == decided).all(1).mean()),
        # Without a true or answered label it is 0, as in training (accuracy.py).
        "micro_f1": micro["f1"] or 0.0,
        "macro_f1": macro(rows, "f1"),
        "macro_auroc": macro(rows, "auroc"),
        "mean_average_precision": macro(rows, "average_precision"),
    }
    if isinstance(thresholds, float | int):
        figures["threshold"] = float(thresholds)
    return figures, rows


def _class_row(label: str, hits: int, predicted: int, actual: int) -> dict[str, Any]:
    """One class's shares from its counts."""
    return {
        "label": label,
        "precision": hits / predicted if predicted else None,
        "recall": hits / actual if actual else None,
        "f1": 2 * hits / (predicted + actual) if predicted + actual else None,
        "support": actual,
    }

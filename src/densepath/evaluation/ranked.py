"""The figures of a report that read the order of scores: AUROC, average precision, their curves.

Of a multi-label set for each class; of one class an image for each class against all others, where
the classes are few enough to keep all scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Dataset
from densepath.metrics.answers import Answers
from densepath.metrics.metrics import Bin, Share
from densepath.metrics.ranking import Bootstrap, Curve, Interval, Ranking, bootstrap
from densepath.wording import counted

# Of one class an image, more classes than this are not ranked one by one.
MOST_CLASSES = 100
MOST_SCORES = 20_000_000
SEED = 0


@dataclass(frozen=True)
class Ranked:
    """What the order of scores says.

    Attributes:
        figures: the overall ones, with the ends of their intervals.
        columns: for each class those of its row.
        settings: how the intervals were drawn.
        curves: of the classes that have a yes and a no.
    """

    figures: dict[str, Share] = field(default_factory=dict)
    columns: list[dict[str, Share]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)

    def put_into(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with these columns; as they are where nothing was ranked."""
        if not self.columns:
            return rows
        return [{**row, **columns} for row, columns in zip(rows, self.columns, strict=True)]


def keeps_logits(dataset: Dataset, labels: Sequence[str]) -> bool:
    """Whether one class an image is ranked class by class: all scores are needed then."""
    few = 1 < len(labels) <= MOST_CLASSES and len(labels) * len(dataset) <= MOST_SCORES
    return few and not dataset.multi_label


def bins_tell(bins: Sequence[Bin]) -> bool:
    """Whether any label is in them."""
    return any(part.count for part in bins)


def rank_classes(
    answers: Answers, groups: NDArray[np.int64] | None, labels: Sequence[str]
) -> Ranked:
    """The figures; none of answers without the scores of all classes."""
    if not answers.multi_label and answers.logits is None:
        return Ranked()
    scores, truth, known = _tables(answers, len(labels))
    own_groups = None if groups is None else groups[answers.indices]
    drawn = bootstrap(scores, truth, known, groups=own_groups, seed=SEED)
    rankings = [Ranking(scores[seen, c], truth[seen, c]) for c, seen in enumerate(known.T)]
    found = [ranking.figures(np.ones((1, len(ranking.sorted)))) for ranking in rankings]
    columns, curves = [], []
    for number, (area, average) in enumerate(found):
        values = _share(area[0]), _share(average[0])
        columns.append(_columns(*values, drawn.auroc[number], drawn.average_precision[number]))
        if values[0] is not None:
            curves.append(rankings[number].curve(labels[number]))
    return Ranked(_overall(columns, drawn), columns, _settings(drawn), curves)


def _tables(
    answers: Answers, classes: int
) -> tuple[NDArray[np.floating], NDArray[np.bool_], NDArray[np.bool_]]:
    """(scores, truth, known), each [N, classes]."""
    if answers.multi_label:
        return answers.scores, answers.targets.astype(bool), answers.known_labels
    assert answers.logits is not None
    values = answers.logits.astype(np.float64)
    powers = np.exp(values - values.max(1, keepdims=True))
    truth = np.arange(classes) == answers.targets[:, None]
    return powers / powers.sum(1, keepdims=True), truth, np.ones_like(truth)


def _columns(
    area: Share, average: Share, of_area: Interval, of_average: Interval
) -> dict[str, Share]:
    """A class's columns."""
    return {
        "auroc": area,
        "auroc_low": of_area.low,
        "auroc_high": of_area.high,
        "average_precision": average,
        "average_precision_low": of_average.low,
        "average_precision_high": of_average.high,
    }


def _overall(columns: list[dict[str, Share]], drawn: Bootstrap) -> dict[str, Share]:
    """The means over the classes that have the figure, with their intervals."""
    figures: dict[str, Share] = {}
    for name, column, interval in (
        ("macro_auroc", "auroc", drawn.macro_auroc),
        ("mean_average_precision", "average_precision", drawn.mean_average_precision),
    ):
        values = [value for row in columns if (value := row[column]) is not None]
        figures[name] = sum(values) / len(values) if values else None
        figures[f"{name}_low"], figures[f"{name}_high"] = interval.low, interval.high
    return figures


def _settings(drawn: Bootstrap) -> dict[str, str]:
    """How the intervals were drawn."""
    said = f"{counted(drawn.resamples, 'resample')} of {drawn.unit}, seed {SEED}, 95 %"
    return {"intervals": said}


def _share(value: float) -> Share:
    """The number; None where it is undefined."""
    return float(value) if np.isfinite(value) else None

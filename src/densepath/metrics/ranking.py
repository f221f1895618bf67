"""Figures of a ranking: AUROC, average precision, their curves, and intervals by the bootstrap.

Ours where ties matter and a thousand resamples of the same ranking are wanted: it is sorted once,
and a resample is a weight an image. Equal scores are one step of a curve, as in scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES, LEVEL = 1000, 0.95
# Resamples are fewer where they would be more than so many weighted scores; and so many at a time.
MOST_WEIGHED, AT_ONCE = 500_000_000, 4_000_000
CURVE_POINTS = 400


@dataclass(frozen=True)
class Interval:
    """Where a figure lies in 95 of 100 resamples of the images; None where it is undefined."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Curve:
    """The steps of a class's ranking, from the highest score on.

    Attributes:
        label: the class.
        thresholds: each step's score.
        recall: of its yeses the share at or above it (the true positive rate).
        fallout: of its noes likewise (the false positive rate).
        precision: the share of yeses among those at or above.
    """

    label: str
    thresholds: Floats
    recall: Floats
    fallout: Floats
    precision: Floats


class Ranking:
    """One class's images by their score, the highest first."""

    def __init__(self, scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> None:
        """Scores [n] and whether each is a yes; all of them known."""
        self._order = np.argsort(-scores, kind="stable")
        self._yes = truth[self._order].astype(np.float64)
        self.sorted = scores[self._order].astype(np.float64)
        ends = np.flatnonzero(np.diff(self.sorted)) if len(scores) else np.zeros(0, np.int64)
        self._ends = np.append(ends, len(scores) - 1) if len(scores) else ends

    @property
    def steps(self) -> Floats:
        """The distinct scores, the highest first."""
        return self.sorted[self._ends]

    def counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """(yeses, noes) at or above each step, [B, steps] of weights [B, n] by image."""
        ordered = weights[:, self._order]
        yes = np.cumsum(ordered * self._yes, axis=1)[:, self._ends]
        return yes, np.cumsum(ordered, axis=1)[:, self._ends] - yes

    def figures(self, weights: Floats) -> tuple[Floats, Floats]:
        """(AUROC, average precision) [B] of weights [B, n]; NaN where there is no yes, or no no."""
        if not len(self._order):
            return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
        yes, no = self.counts(weights)
        all_yes, all_no = yes[:, -1:], no[:, -1:]
        gained = np.diff(yes, axis=1, prepend=0.0)
        passed = np.diff(no, axis=1, prepend=0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            area = (passed * (yes - gained / 2)).sum(1) / (all_yes * all_no)[:, 0]
            precision = np.where(yes + no > 0, yes / (yes + no), 0.0)
            average = (gained * precision).sum(1) / all_yes[:, 0]
        return area, average

    def curve(self, label: str) -> Curve:
        """The curve of all images; of many steps some, evenly by rank, the ends among them."""
        yes, no = (each[0] for each in self.counts(np.ones((1, len(self._order)))))
        places = np.arange(len(yes))
        if len(yes) > CURVE_POINTS:
            places = np.unique(np.linspace(0, len(yes) - 1, CURVE_POINTS).round().astype(np.int64))
        yes, no = yes[places], no[places]
        shares = yes / max(self._yes.sum(), 1), no / max((1 - self._yes).sum(), 1)
        return Curve(label, self.steps[places], *shares, yes / np.maximum(yes + no, 1))


@dataclass(frozen=True)
class Bootstrap:
    """Intervals of each class's figures, and of their means.

    Attributes:
        resamples: how many, of `unit`.
        unit: `images`, or `groups` of a set that has some: a group is drawn whole.
        auroc, average_precision: an interval a class.
        macro_auroc, mean_average_precision: of the means over the classes that have both.
    """

    resamples: int
    unit: str
    auroc: list[Interval]
    average_precision: list[Interval]
    macro_auroc: Interval
    mean_average_precision: Interval


def macro_figures(
    scores: NDArray[np.floating], truth: NDArray[np.bool_], known: NDArray[np.bool_]
) -> tuple[float | None, float | None]:
    """(mean AUROC, mean average precision) of the classes that have them, all [N, classes]."""
    found = []
    for column in range(truth.shape[1]):
        seen = known[:, column]
        ranking = Ranking(scores[seen, column], truth[seen, column])
        found.append([one[0] for one in ranking.figures(np.ones((1, int(seen.sum()))))])
    means = [
        float(np.nanmean(column)) if np.isfinite(column).any() else None
        for column in np.array(found, np.float64).T
    ]
    return means[0], means[1]


def bootstrap(
    scores: NDArray[np.floating],
    truth: NDArray[np.bool_],
    known: NDArray[np.bool_],
    *,
    groups: NDArray[np.int64] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Percentile intervals (Efron and Tibshirani 1993, chapter 13), all arrays [N, classes].

    Each resample draws as many images as there are, or groups, the same for all classes.
    """
    count, classes = truth.shape
    resamples = min(resamples, max(100, MOST_WEIGHED // max(count * classes, 1)))
    units = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    rankings = [Ranking(scores[k, c], truth[k, c]) for c, k in enumerate(known.T)]
    random = np.random.default_rng(seed)
    areas, averages = np.empty((2, resamples, classes))
    step = max(AT_ONCE // max(count, 1), 1)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        weights = _draw(random, size, int(units.max()) + 1)[:, units]
        for c, ranking in enumerate(rankings):
            found = ranking.figures(weights[:, known[:, c]])
            areas[start : start + size, c], averages[start : start + size, c] = found
    return Bootstrap(
        resamples,
        "images" if groups is None else "groups",
        [_interval(column) for column in areas.T],
        [_interval(column) for column in averages.T],
        _interval(_row_means(areas)),
        _interval(_row_means(averages)),
    )


def _draw(random: np.random.Generator, resamples: int, count: int) -> Floats:
    """How often each of `count` units is in each resample, float64 [resamples, count]."""
    drawn = random.integers(0, count, (resamples, count))
    drawn += count * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * count)
    return counts.reshape(resamples, count).astype(np.float64)


def _row_means(values: Floats) -> Floats:
    """The mean of each row's numbers; NaN of a row without any."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0.0).sum(1) / there.sum(1)


def _interval(values: Floats) -> Interval:
    """The middle 95 of 100 of the resamples that have the figure."""
    there = values[np.isfinite(values)]
    if not len(there):
        return Interval(None, None)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(there, [tail, 1 - tail])
    return Interval(float(low), float(high))

"""A threshold for each class, chosen on the scores of labelled images.

A class is a yes where its score is above its threshold. Thresholds lie halfway between two scores
that there are, so that no image stands on one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densepath.choices import THRESHOLD
from densepath.errors import UsageError
from densepath.metrics.ranking import Floats, Ranking

RULES = ("youden", "f1", "precision=SHARE", "recall=SHARE")
_WANTED = re.compile(r"(precision|recall)=(0?\.\d+|1(?:\.0*)?)")


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
        name: `youden`: the highest true less false positive rate (Youden 1950); `f1`: the highest
            F1; `precision`: the most yeses found at this precision or more; `recall`: the highest
            threshold that finds this share of the yeses.
        share: of the last two.
    """

    name: str
    share: float = 0.0

    def __str__(self) -> str:
        """As it is written on the command line."""
        return f"{self.name}={self.share:g}" if self.share else self.name

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule of `youden`, `f1`, `precision=0.9` or `recall=0.9`.

        Raises:
            UsageError: it is none of these.
        """
        if text in ("youden", "f1"):
            return cls(text)
        match = _WANTED.fullmatch(text)
        if match is None or not float(match[2]):
            raise UsageError(
                f"{text!r} is no way to choose thresholds; choices: {', '.join(RULES)} (such as "
                "recall=0.9)."
            )
        return cls(match[1], float(match[2]))


@dataclass(frozen=True)
class Chosen:
    """Thresholds, and the classes for which there was nothing to choose by.

    Attributes:
        thresholds: one a class, 0 to 1.
        undecided: classes without a yes or without a no among the images, which have 0.5.
        unreached: classes in which no threshold gives the wanted precision; theirs is the one
            with the highest.
    """

    thresholds: tuple[float, ...]
    undecided: tuple[int, ...]
    unreached: tuple[int, ...]


def choose_thresholds(
    scores: NDArray[np.floating],
    truth: NDArray[np.bool_],
    known: NDArray[np.bool_],
    rule: Rule,
) -> Chosen:
    """The thresholds of all classes; arrays [N, classes]."""
    thresholds, undecided, unreached = [], [], []
    for column in range(truth.shape[1]):
        seen = known[:, column]
        own_scores, own_truth = scores[seen, column], truth[seen, column]
        if not own_truth.any() or own_truth.all():
            undecided.append(column)
            thresholds.append(THRESHOLD)
            continue
        threshold, reached = _choose(Ranking(own_scores, own_truth), rule)
        thresholds.append(threshold)
        unreached += [] if reached else [column]
    return Chosen(tuple(thresholds), tuple(undecided), tuple(unreached))


def _choose(ranking: Ranking, rule: Rule) -> tuple[float, bool]:
    """(a threshold, whether it gives what is wanted) for a class with yeses and noes."""
    yes, no = (each[0] for each in ranking.counts(np.ones((1, len(ranking.sorted)))))
    all_yes, all_no = yes[-1], no[-1]
    precision, recall = yes / (yes + no), yes / all_yes
    reached = True
    if rule.name == "youden":
        best = int(np.argmax(recall - no / all_no))
    elif rule.name == "f1":
        best = int(np.argmax(2 * yes / (yes + no + all_yes)))
    elif rule.name == "recall":
        best = int(np.argmax(recall >= rule.share))
    else:
        enough = np.flatnonzero(precision >= rule.share)
        reached = len(enough) > 0
        best = int(enough[-1]) if reached else int(np.argmax(precision))
    return _below(ranking.steps, best), reached


def _below(steps: Floats, place: int) -> float:
    """Halfway between a step's score and the next lower one, or 0 below the lowest."""
    lower = steps[place + 1] if place + 1 < len(steps) else 0.0
    return float((steps[place] + lower) / 2)

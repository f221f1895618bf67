"""Thresholds of each rule against all that there could be; a temperature against a grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from densepath.errors import UsageError
from densepath.metrics import metrics
from densepath.metrics.answers import Answers, answer_logits
from densepath.metrics.temperature import at_temperature, fit_temperature
from densepath.metrics.thresholds import Rule, choose_thresholds

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.random((300, 1)).astype(np.float32).round(2)
TRUTH = RANDOM.random((300, 1)) < SCORES**2
KNOWN = np.ones_like(TRUTH)


def counts(threshold):
    """(precision, recall, false positive rate, F1) of score > threshold."""
    said = threshold < SCORES
    hits = (said & TRUTH).sum()
    precision, recall = hits / max(said.sum(), 1), hits / TRUTH.sum()
    return (
        precision,
        recall,
        (said & ~TRUTH).sum() / (~TRUTH).sum(),
        (2 * hits / (said.sum() + TRUTH.sum())),
    )


ALL = [counts(t) for t in np.append(np.unique(SCORES) - 1e-6, 1.0)]


def chosen_by(rule):
    return choose_thresholds(SCORES, TRUTH, KNOWN, Rule.parse(rule))


def test_youden_and_f1_are_the_best_of_all():
    _, recall, fallout, f1 = counts(chosen_by("youden").thresholds[0])
    assert recall - fallout == pytest.approx(max(r - f for _, r, f, _ in ALL))
    *_, f1 = counts(chosen_by("f1").thresholds[0])
    assert f1 == pytest.approx(max(one[3] for one in ALL))


def test_a_wanted_recall_is_reached_with_as_few_answers_as_can_be():
    _, recall, fallout, _ = counts(chosen_by("recall=0.8").thresholds[0])
    assert recall >= 0.8
    assert fallout == pytest.approx(min(f for _, r, f, _ in ALL if r >= 0.8))


def test_a_wanted_precision_is_reached_with_as_many_yeses_as_can_be():
    made = chosen_by("precision=0.75")
    precision, recall, *_ = counts(made.thresholds[0])
    assert precision >= 0.75
    assert recall == pytest.approx(max(r for p, r, *_ in ALL if p >= 0.75))
    assert made.unreached == ()


def test_a_precision_out_of_reach_gives_the_highest_there_is_and_is_said():
    scores = np.array([[0.9], [0.6], [0.3]])
    truth = np.array([[False], [True], [False]])
    made = choose_thresholds(scores, truth, np.ones_like(truth), Rule.parse("precision=0.9"))
    assert made.unreached == (0,)
    assert made.thresholds == (pytest.approx(0.45),)


def test_thresholds_lie_between_scores_and_only_known_labels_count():
    known = KNOWN.copy()
    known[::2] = False
    (threshold,) = choose_thresholds(SCORES, TRUTH, known, Rule.parse("youden")).thresholds
    (alone,) = choose_thresholds(
        SCORES[1::2], TRUTH[1::2], KNOWN[1::2], Rule.parse("youden")
    ).thresholds
    assert threshold == alone
    assert not np.isclose(SCORES[1::2], threshold).any()


def test_a_class_without_a_yes_or_without_a_no_keeps_a_half():
    made = choose_thresholds(SCORES, np.zeros_like(TRUTH), KNOWN, Rule.parse("f1"))
    assert (made.thresholds, made.undecided) == ((0.5,), (0,))


@pytest.mark.parametrize("text", ["best", "recall", "recall=0", "precision=1.5", "recall=a"])
def test_a_rule_that_there_is_not_is_refused_with_the_choices(text):
    with pytest.raises(UsageError, match="choices: youden, f1, precision=SHARE, recall=SHARE"):
        Rule.parse(text)


def answered(logits, targets) -> Answers:
    made = answer_logits(logits, targets, torch.arange(len(logits)), [])
    from dataclasses import replace

    return replace(made, logits=logits.numpy())


@pytest.mark.parametrize("several", [True, False])
def test_the_temperature_is_that_of_the_least_loss_and_calibrates(several):
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(4000, 3, generator=generator)
    if several:
        targets = torch.bernoulli(true.sigmoid(), generator=generator)
        targets[::3, 0] = torch.nan
    else:
        targets = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    answers = answered(true * 2.5, targets)
    found = fit_temperature(answers)
    assert found == pytest.approx(2.5, rel=0.1)
    losses = [metrics.mean_loss(at_temperature(answers, found * f)) for f in (0.9, 1.0, 1.1)]
    assert min(losses) == losses[1]
    before, after = (
        metrics.calibration_error(metrics.reliability(one))
        for one in (answers, at_temperature(answers, found))
    )
    assert after < 0.03 < before


def test_figures_are_over_the_labels_that_are_known():
    logits = torch.tensor([[3.0, -1.0], [-2.0, 2.0], [1.0, 1.0]])
    nan = float("nan")
    answers = answered(logits, torch.tensor([[1.0, nan], [0.0, 1.0], [nan, nan]]))
    figures, rows = metrics.per_label(answers, ["a", "b"], 0.5)
    assert [row["known"] for row in rows] == [2, 1]
    assert [row["support"] for row in rows] == [1, 1]
    assert figures["micro_f1"] == 1.0
    expected = torch.nn.functional.softplus(torch.tensor([-3.0, -2.0, -2.0])).mean().item()
    assert figures["loss"] == pytest.approx(expected, rel=1e-6)
    assert rows[1]["auroc"] is None

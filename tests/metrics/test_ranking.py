"""metrics/ranking.py against scikit-learn and against a slow reference."""

from __future__ import annotations

import numpy as np
import pytest

from densepath.metrics.ranking import Ranking, bootstrap, macro_figures


def by_pairs(scores, truth):
    """AUROC as the share of (yes, no) pairs in the right order, half of those that are equal."""
    yes, no = scores[truth][:, None], scores[~truth][None]
    return ((yes > no) + 0.5 * (yes == no)).mean()


def noise(count=200, digits=None, seed=0):
    random = np.random.default_rng(seed)
    scores = random.random(count).astype(np.float32)
    scores = scores if digits is None else scores.round(digits)
    return scores, random.random(count) < scores * 0.7


@pytest.mark.parametrize("digits", [None, 1])
def test_auroc_is_the_share_of_pairs_in_the_right_order(digits):
    scores, truth = noise(digits=digits)
    area, _ = Ranking(scores, truth).figures(np.ones((1, 200)))
    assert area[0] == pytest.approx(by_pairs(scores, truth), abs=1e-12)


@pytest.mark.parametrize("digits", [None, 1])
def test_figures_are_those_of_scikit_learn_of_any_weights(digits):
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, truth = noise(digits=digits)
    weights = np.random.default_rng(1).integers(0, 3, (4, 200)).astype(float)
    areas, averages = Ranking(scores, truth).figures(weights)
    for row, area, average in zip(weights, areas, averages, strict=True):
        known = {"sample_weight": row}
        assert area == pytest.approx(sklearn.roc_auc_score(truth, scores, **known), abs=1e-12)
        expected = sklearn.average_precision_score(truth, scores, **known)
        assert average == pytest.approx(expected, abs=1e-12)


def test_a_figure_without_a_yes_or_without_a_no_is_undefined():
    scores = np.array([0.2, 0.7])
    assert np.isnan(Ranking(scores, np.array([True, True])).figures(np.ones((1, 2)))[0])
    assert np.isnan(Ranking(scores, np.array([False, False])).figures(np.ones((1, 2)))).all()
    assert np.isnan(Ranking(scores[:0], np.zeros(0, bool)).figures(np.ones((1, 0)))).all()


def test_means_are_over_the_labels_that_are_known():
    scores, truth = noise(100)
    table = np.stack([scores, scores, scores], 1)
    known = np.ones((100, 3), bool)
    known[50:, 1] = False
    known[:, 2] = False
    area, _ = macro_figures(table, np.stack([truth] * 3, 1), known)
    expected = (by_pairs(scores, truth) + by_pairs(scores[:50], truth[:50])) / 2
    assert area == pytest.approx(expected)
    assert macro_figures(table, np.stack([truth] * 3, 1), ~known & known) == (None, None)


def test_intervals_hold_the_figure_are_seeded_and_say_how_many_resamples_there_were():
    scores, truth = noise(300)
    tables = scores[:, None], truth[:, None], np.ones((300, 1), bool)
    one, other = bootstrap(*tables, resamples=300), bootstrap(*tables, resamples=300)
    assert one == other
    assert one != bootstrap(*tables, resamples=300, seed=1)
    assert (one.resamples, one.unit) == (300, "images")
    area = by_pairs(scores, truth)
    assert one.auroc[0].low < area < one.auroc[0].high
    # Hanley and McNeil 1982, equation 1.
    yes, no = truth.sum(), (~truth).sum()
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (yes - 1) * (q1 - area**2) + (no - 1) * (q2 - area**2)
    width = 2 * 1.96 * np.sqrt(spread / (yes * no))
    assert one.auroc[0].high - one.auroc[0].low == pytest.approx(width, rel=0.25)
    assert one.macro_auroc == one.auroc[0]


def test_groups_are_drawn_whole():
    """Each image ten times is as few images as before, not ten times as many."""
    scores, truth = noise(60)
    tables = [np.repeat(one, 10)[:, None] for one in (scores, truth)]
    known, groups = np.ones((600, 1), bool), np.repeat(np.arange(60), 10)
    alone = bootstrap(scores[:, None], truth[:, None], known[:60], resamples=400)
    together = bootstrap(*tables, known, groups=groups, resamples=400)
    assert together.unit == "groups"
    assert together.auroc[0].low == pytest.approx(alone.auroc[0].low, abs=0.02)
    assert bootstrap(*tables, known, resamples=400).auroc[0].low > alone.auroc[0].low + 0.02


def test_a_curve_begins_and_ends_where_it_should_and_is_thinned():
    scores, truth = noise(2000)
    curve = Ranking(scores, truth).curve("cat")
    assert len(curve.recall) == 400
    assert (curve.recall[-1], curve.fallout[-1]) == (1.0, 1.0)
    assert (np.diff(curve.thresholds) < 0).all()
    assert curve.precision[-1] == pytest.approx(truth.mean())

"""metrics/answers.py and metrics.py: against arithmetic, scikit-learn and torchmetrics."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from densepath.errors import CheckpointError, DatasetError, ImageError
from densepath.metrics import metrics
from densepath.metrics.answers import collect_answers

LABELS = ["ant", "bee", "cat", "dog"]


def batch(logits, targets, first, errors=()):
    """A batch whose images are the logits that `flat` will answer."""
    logits = np.asarray(logits, np.float32)
    return SimpleNamespace(
        images=torch.from_numpy(logits[:, :, None, None]),
        targets=torch.as_tensor(targets),
        indices=torch.arange(first, first + len(logits)),
        errors=list(errors),
    )


def flat(images):
    return images[:, :, 0, 0]


def random_answers(count=200, batch_size=32, seed=0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (count, 4)).astype(np.float32)
    targets = generator.integers(0, 4, count)
    logits[np.arange(count), targets] += 1.5
    starts = range(0, count, batch_size)
    batches = [batch(logits[i:][:batch_size], targets[i:][:batch_size], i) for i in starts]
    return logits, targets, collect_answers(flat, batches)


def test_per_class_figures_are_those_of_scikit_learn():
    _, targets, answers = random_answers()
    rows = metrics.per_class(metrics.confusion_matrix(answers, 4), LABELS)
    wanted = sklearn_metrics.precision_recall_fscore_support(targets, answers.predicted)
    for name, values in zip(("precision", "recall", "f1", "support"), wanted, strict=True):
        assert [row[name] for row in rows] == pytest.approx(list(values))
    matrix = sklearn_metrics.confusion_matrix(targets, answers.predicted)
    np.testing.assert_array_equal(metrics.confusion_matrix(answers, 4), matrix)


def test_top1_and_the_loss_are_those_of_scikit_learn():
    logits, targets, answers = random_answers()
    figures = metrics.overall(answers)
    shares = torch.from_numpy(logits).double().softmax(1).numpy()
    assert figures["top1"] == sklearn_metrics.accuracy_score(targets, shares.argmax(1))
    assert figures["loss"] == pytest.approx(sklearn_metrics.log_loss(targets, shares), rel=1e-6)
    assert figures["top5"] == 1.0


def test_the_calibration_error_is_that_of_torchmetrics():
    logits, targets, answers = random_answers()
    shares = torch.from_numpy(logits).softmax(1)
    wanted = multiclass_calibration_error(shares, torch.from_numpy(targets), 4, n_bins=15)
    found = metrics.calibration_error(metrics.reliability(answers))
    assert found == pytest.approx(float(wanted), abs=1e-6)


def test_the_bins_hold_every_answer_once():
    _, _, answers = random_answers()
    assert sum(part.count for part in metrics.reliability(answers)) == len(answers)


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_figures_do_not_depend_on_the_batches(batch_size):
    _, _, one = random_answers()
    _, _, other = random_answers(batch_size=batch_size)
    for name in ("indices", "losses", "targets", "scores", "predicted", "ranks"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_batches_in_another_order_give_the_same_answers():
    first, second = batch(np.eye(4), [0, 1, 2, 0], 0), batch(np.eye(4), [3, 1, 2, 3], 4)
    one, other = (collect_answers(flat, order) for order in ([first, second], [second, first]))
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.targets, other.targets)


def test_classes_in_another_order_are_put_into_the_networks_order():
    # The data set's classes 0, 1 are the network's 2, 0.
    answers = collect_answers(
        flat, [batch([[0, 0, 9], [9, 0, 0]], [0, 1], 0)], to_logits=np.array([2, 0])
    )
    assert answers.targets.tolist() == [2, 0]
    assert metrics.overall(answers)["top1"] == 1.0


def test_a_class_without_images_has_no_recall_and_does_not_count_in_the_mean():
    answers = collect_answers(flat, [batch([[9, 0, 0], [0, 9, 0]], [0, 0], 0)])
    rows = metrics.per_class(metrics.confusion_matrix(answers, 3), LABELS[:3])
    assert [row["recall"] for row in rows] == [0.5, None, None]
    assert rows[2]["f1"] is None
    assert metrics.macro(rows, "recall") == 0.5


def answers_of(matrix):
    """Single-label answers that have this confusion matrix."""
    truth, answered = (
        axis.repeat(matrix.ravel()) for axis in np.indices(matrix.shape).reshape(2, -1)
    )
    return collect_answers(flat, [batch(np.eye(len(matrix))[answered], truth, 0)])


confusions = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.integers(0, 3) | st.just(0), min_size=n * n, max_size=n * n).map(
        lambda counts: np.array(counts).reshape(n, n)
    )
)


@settings(deadline=None)  # the first figures of scikit-learn take longer
@given(confusions.filter(lambda matrix: matrix.sum() > 0))
@example(np.array([[5, 0], [5, 0]]))
@example(np.array([[0, 3, 0], [0, 0, 0], [0, 2, 0]]))
@example(np.array([[0, 0, 0], [0, 0, 0], [0, 0, 4]]))
def test_macro_figures_are_those_of_scikit_learn_over_the_classes_with_images(matrix):
    answers = answers_of(matrix)
    rows = metrics.per_class(metrics.confusion_matrix(answers, len(matrix)), list(map(str, matrix)))
    present = np.unique(answers.targets)
    wanted = sklearn_metrics.precision_recall_fscore_support(
        answers.targets, answers.predicted, labels=present, average="macro", zero_division=0
    )
    found = [metrics.macro(rows, name) for name in ("precision", "recall", "f1")]
    assert found == pytest.approx(list(wanted[:3]))
    assert metrics.with_images(rows) == len(present)


def test_a_class_that_is_never_answered_counts_as_zero_and_its_row_says_undefined():
    answers = answers_of(np.array([[5, 0], [5, 0]]))
    rows = metrics.per_class(metrics.confusion_matrix(answers, 2), LABELS[:2])
    assert metrics.macro(rows, "precision") == 0.25
    assert [row["precision"] for row in rows] == [0.5, None]


label_tables = st.integers(1, 5).flatmap(
    lambda classes: st.lists(
        st.lists(
            st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1)]), min_size=classes, max_size=classes
        ),
        min_size=1,
        max_size=8,
    )
)


@given(label_tables)
@example([[(0, 0)]])
@example([[(1, 0), (0, 1)], [(1, 0), (0, 0)]])
def test_micro_and_macro_f1_of_labels_are_those_of_scikit_learn(table):
    truth, decided = np.moveaxis(np.array(table), -1, 0)
    answers = collect_answers(flat, [batch(decided * 8 - 4, truth.astype(np.float32), 0)])
    figures, rows = metrics.per_label(answers, list(map(str, range(truth.shape[1]))), 0.5)
    micro = sklearn_metrics.f1_score(truth.ravel(), decided.ravel(), zero_division=0)
    assert figures["micro_f1"] == pytest.approx(micro)
    present = np.flatnonzero(truth.any(0))
    if not len(present):
        assert figures["macro_f1"] is None
        return
    each = [
        sklearn_metrics.precision_recall_fscore_support(
            truth[:, i], decided[:, i], average="binary", zero_division=0
        )[:3]
        for i in present
    ]
    found = [metrics.macro(rows, name) for name in ("precision", "recall", "f1")]
    assert found == pytest.approx(list(np.mean(each, 0)))
    assert figures["macro_f1"] == pytest.approx(found[2])


def test_the_worst_mistakes_are_wrong_answers_with_the_highest_loss_first():
    logits = [[9.0, 0], [1.0, 0], [0, 9.0], [3.0, 0]]
    answers = collect_answers(flat, [batch(logits, [1, 1, 1, 1], 10)])
    assert answers.indices[metrics.worst_mistakes(answers, 2)].tolist() == [10, 13]


def multi_label_answers():
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, (80, 3)).astype(np.float32)
    truth = (logits + generator.normal(0, 2, (80, 3)) > 0.5).astype(np.float32)
    truth[:, 2] = 0
    return logits, truth, collect_answers(flat, [batch(logits, truth, 0)])


def test_multi_label_figures_are_those_of_scikit_learn():
    logits, truth, answers = multi_label_answers()
    figures, rows = metrics.per_label(answers, LABELS[:3], 0.5)
    for i in range(2):
        wanted = sklearn_metrics.roc_auc_score(truth[:, i], logits[:, i])
        assert rows[i]["auroc"] == pytest.approx(wanted, abs=1e-5)
        wanted = sklearn_metrics.average_precision_score(truth[:, i], logits[:, i])
        assert rows[i]["average_precision"] == pytest.approx(wanted, abs=1e-5)
        wanted = sklearn_metrics.f1_score(truth[:, i], logits[:, i] > 0)
        assert rows[i]["f1"] == pytest.approx(wanted)
    micro = sklearn_metrics.f1_score(truth, logits > 0, average="micro", zero_division=0)
    assert figures["micro_f1"] == pytest.approx(micro)


def test_a_label_that_no_image_has_is_undefined_and_not_in_the_means():
    _, _, answers = multi_label_answers()
    figures, rows = metrics.per_label(answers, LABELS[:3], 0.5)
    assert (rows[2]["auroc"], rows[2]["average_precision"], rows[2]["recall"]) == (None,) * 3
    assert figures["macro_auroc"] == pytest.approx((rows[0]["auroc"] + rows[1]["auroc"]) / 2)


def test_the_threshold_decides_what_counts_as_an_answer():
    answers = collect_answers(flat, [batch([[0.0, 2.0]], [[1.0, 1.0]], 0)])
    low, _ = metrics.per_label(answers, LABELS[:2], 0.4)
    high, _ = metrics.per_label(answers, LABELS[:2], 0.6)
    assert (low["exact_match"], high["exact_match"]) == (1.0, 0.0)


def test_multi_label_classes_in_another_order_are_put_into_place():
    answers = collect_answers(
        flat, [batch([[9, -9, -9]], [[0.0, 1.0]], 0)], to_logits=np.array([2, 0])
    )
    assert answers.targets.tolist() == [[True, False, False]]


def test_unreadable_images_are_named_in_order_and_not_counted():
    errors = [ImageError("b.jpg", "empty"), ImageError("a.jpg", "truncated")]
    answers = collect_answers(flat, [batch([[1, 0]], [0], 0, errors)])
    assert len(answers) == 1
    assert answers.errors == [("a.jpg", "truncated"), ("b.jpg", "empty")]


def test_nothing_readable_is_an_error_with_the_count():
    empty = batch(np.zeros((0, 2)), [], 0, [ImageError("a.jpg", "empty")])
    with pytest.raises(DatasetError, match="1 could not be read"):
        collect_answers(flat, [empty])


def test_answers_that_are_not_numbers_are_refused_with_the_likely_cause():
    with pytest.raises(CheckpointError, match=r"1 of 2 images .* diverged"):
        collect_answers(flat, [batch([[np.nan, 0], [1, 0]], [0, 0], 0)])

"""metrics/accuracy.py: shares and losses, by arithmetic and over ranks."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
from torch import nn

from densepath.errors import DatasetError, ImageError
from densepath.metrics.accuracy import Summary, count_batches, summarise, target_ranks
from densepath.metrics.answers import collect_answers


def batch(logits, targets, errors=(), first=0):
    """A batch whose images are the logits that `nn.Flatten` will answer."""
    images = torch.tensor(logits, dtype=torch.float32)
    return SimpleNamespace(
        images=images.reshape(*images.shape, 1, 1),
        targets=torch.tensor(targets),
        indices=torch.arange(first, first + len(images)),
        errors=list(errors),
    )


def summary_of(model, batches):
    return summarise(count_batches(model, batches))


def test_the_shares_and_the_loss_are_those_of_arithmetic():
    batches = [batch([[2.0, 0.0], [0.0, 2.0]], [0, 0]), batch([[0.0, 2.0]], [1])]
    summary = summary_of(nn.Flatten(), batches)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert summary.top1 == 2 / 3
    assert summary.top5 == 1.0
    assert summary.loss == pytest.approx((2 * right + wrong) / 3, rel=1e-6)
    assert (summary.count, summary.skipped) == (3, 0)


def test_top5_counts_the_five_highest_logits():
    row = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0]
    summary = summary_of(nn.Flatten(), [batch([row, row, row], [0, 4, 5])])
    assert (summary.top1, summary.top5) == (1 / 3, 2 / 3)


def test_a_constant_answer_is_right_only_for_the_first_class():
    ranks = target_ranks(torch.zeros(3, 3), torch.tensor([0, 1, 2]))
    assert ranks.tolist() == [0, 1, 2]


def test_an_answer_that_is_not_a_number_is_never_right():
    nan = float("nan")
    summary = summary_of(nn.Flatten(), [batch([[nan, nan], [1.0, 0.0]], [0, 0])])
    assert (summary.top1, summary.top5) == (0.5, 0.5)


def test_multi_label_batches_give_the_f1_of_all_decisions():
    logits = [[3.0, -3.0, 3.0], [-3.0, 3.0, -3.0]]
    summary = summary_of(nn.Flatten(), [batch(logits, [[1.0, 0, 0], [1.0, 1.0, 0]])])
    # 2 true positives of 3 predicted and 3 actual.
    assert summary.top1 == pytest.approx(2 * 2 / (3 + 3))
    assert summary.top5 is None


def test_multi_label_batches_without_a_single_positive_have_an_f1_of_zero():
    summary = summary_of(nn.Flatten(), [batch([[-1.0, -1.0]], [[0.0, 0.0]])])
    assert (summary.top1, summary.top5) == (0.0, None)


def test_unread_images_are_counted_and_an_empty_batch_is_passed_over():
    broken = ImageError("a.jpg", "truncated")
    empty = SimpleNamespace(
        images=torch.zeros(0, 2, 1, 1), targets=torch.zeros(0, dtype=torch.int64), errors=[broken]
    )
    summary = summary_of(nn.Flatten(), [empty, batch([[1.0, 0.0]], [0], [broken])])
    assert (summary.count, summary.skipped) == (1, 2)


def test_nothing_readable_is_an_error_that_says_how_many():
    with pytest.raises(DatasetError, match="0 could not be read"):
        summary_of(nn.Flatten(), [])


def test_the_mode_of_the_network_is_put_back():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9))
    summary = summary_of(model.train(), [batch([[1.0, 0.0]] * 50, [0] * 50)])
    assert summary.top1 == 1.0
    assert model.training


def evaluate_as_rank(rank, folder):
    """Rank 0 has two images in two batches, rank 1 has one in one batch."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    mine = [
        [batch([[2.0, 0.0]], [0]), batch([[0.0, 2.0]], [0], [ImageError("a.jpg", "empty")])],
        [batch([[0.0, 2.0]], [1])],
    ]
    sums = count_batches(nn.Flatten(), mine[rank])
    torch.distributed.all_reduce(sums)
    torch.save(vars(summarise(sums)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_with_unequal_shares_both_get_the_summary_of_one_process(tmp_path):
    command = [sys.executable, __file__]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0]
    logits = [[2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]
    whole = summary_of(nn.Flatten(), [batch(logits, [0, 0, 1])])
    for rank in range(2):
        summary = Summary(**torch.load(tmp_path / f"{rank}.pt"))
        assert (summary.top1, summary.count, summary.skipped) == (whole.top1, 3, 1)
        assert summary.loss == pytest.approx(whole.loss, rel=1e-12)


def test_answers_are_sorted_by_the_images_numbers():
    batches = [batch([[2.0, 0.0]], [0], first=2), batch([[0.0, 2.0]], [0], first=1)]
    answers = collect_answers(lambda images: images[:, :, 0, 0], batches)
    assert (answers.indices.tolist(), answers.predicted.tolist()) == ([1, 2], [1, 0])


if __name__ == "__main__":
    evaluate_as_rank(int(sys.argv[1]), sys.argv[2])

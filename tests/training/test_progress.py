"""training/progress.py: the lines that a training leaves."""

from __future__ import annotations

import dataclasses
import io

import pytest

from densepath.training.epochs import EpochRow
from densepath.training.progress import LineProgress, Pace
from densepath.training.state import Position

ROW = EpochRow(
    epoch=2,
    lr=0.1,
    train_loss=0.5,
    train_accuracy=0.5,
    loss=0.25,
    top1=0.75,
    top5=0.875,
    train_skipped=0,
    count=8,
    skipped=0,
    seconds=1.0,
)


def line(num_classes=10, **changed):
    stream = io.StringIO()
    progress = LineProgress(3, stream)
    progress.start_training(num_classes, [1, 1, 1])
    progress.end_epoch(dataclasses.replace(ROW, **changed))
    return stream.getvalue()


def test_an_epoch_is_one_line():
    said = "epoch 2/3  train loss 0.5000  loss 0.2500  top-1 75.00 %  top-5 87.50 %\n"
    assert line() == said


@pytest.mark.parametrize(("num_classes", "shown"), [(2, False), (5, False), (6, True)])
def test_top5_is_left_out_where_every_answer_is_in_it(num_classes, shown):
    assert ("top-5" in line(num_classes)) is shown
    assert "top-1 75.00 %" in line(num_classes)


def test_the_score_of_several_labels_is_called_by_its_name():
    assert "micro-F1 75.00 %" in line(3, top5=None)
    assert "top-" not in line(3, top5=None)


@pytest.mark.parametrize(
    ("train_skipped", "skipped", "said"),
    [(1, 0, "1 image skipped"), (0, 2, "2 images skipped"), (1499, 1, "1,500 images skipped")],
)
def test_skipped_images_are_counted_in_good_english(train_skipped, skipped, said):
    assert line(train_skipped=train_skipped, skipped=skipped).endswith(f"  {said}\n")


def test_an_epoch_without_a_trained_image_has_no_loss():
    assert "train loss nan" in line(train_loss=float("nan"))


def test_the_time_left_counts_what_the_epochs_to_come_cost(monkeypatch):
    """A step on images of twice the side costs four times as much."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    pace, position = Pace([1, 1, 4]), Position(num_images=[800, 8])
    pace.start_epoch(position, 100)
    clock[0], position.step = 50.0, 50
    pace.step(position, 400)
    assert pace.describe_left(position) == "0:09:10"  # 50 + 100 + 400 s
    position.epoch, position.step = 2, 0
    pace.start_epoch(position, 100)
    assert pace.describe_left(position) == "0:06:40"
    assert pace.rate == 2

"""training/epochs.py and the position: numbers with names, and the files that they become."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from densepath.training.distributed import Ranks
from densepath.training.epochs import EpochRow, EpochSums, RunningSums, to_csv
from densepath.training.state import Position, StartScores

ROW = EpochRow(
    epoch=1,
    lr=0.1,
    train_loss=1 / 3,
    train_accuracy=0.5,
    loss=0.25,
    top1=0.75,
    top5=None,
    train_skipped=2,
    count=8,
    skipped=1,
    seconds=12.5,
)


def test_sums_are_added_field_by_field_and_have_means():
    sums = EpochSums(3.0, 1.0, 4.0, 0.0, 4.0) + EpochSums(1.0, 2.0, 4.0, 5.0, 4.0)
    assert sums == EpochSums(loss=4.0, right=3.0, images=8.0, skipped=5.0, labels=8.0)
    assert (sums.mean_loss, sums.accuracy) == (0.5, 0.375)
    assert math.isnan(EpochSums(skipped=3.0).mean_loss)
    assert math.isnan(EpochSums(skipped=3.0).accuracy)


def test_an_exchange_gives_the_sums_and_flags_and_starts_anew():
    sums = RunningSums(torch.device("cpu"))
    sums.add(torch.tensor(0.5), torch.tensor(2), 3)
    sums.add(torch.tensor(0.25), torch.tensor(1), 2)
    sums.add_skipped(4)
    given, flags = sums.exchange(Ranks(), True, False)
    assert (given, flags) == (EpochSums(0.75, 3.0, 5.0, 4.0, 5.0), [True, False])
    assert sums.exchange(Ranks()) == (EpochSums(), [])


def test_rows_become_csv_with_six_digits_and_empty_cells():
    header = "epoch,lr,train_loss,train_accuracy,loss,top1,top5,train_skipped,count,skipped,seconds"
    assert to_csv([ROW]) == f"{header}\n1,0.1,0.333333,0.5,0.25,0.75,,2,8,1,12.5\n"


def test_a_row_of_a_rounded_network_has_one_column_more():
    header, line = to_csv([replace(ROW, float_top1=0.875)]).splitlines()
    assert header.endswith(",seconds,float_top1")
    assert line.endswith(",12.5,0.875")


@pytest.mark.parametrize(
    ("start", "written"),
    [(None, {}), (StartScores(0.5, 0.75), {"top1": 0.5, "float_top1": 0.75})],
)
def test_a_position_is_written_in_format_2_and_read_back(start, written):
    position = Position(num_images=[10, 4], start=start)
    position.end_epoch(ROW, is_best=True)
    position.step, position.sums = 2, EpochSums(1.0, 2.0, 3.0, 4.0, 3.0)
    values = position.to_json()
    assert values == {
        "epoch": 1,
        "step": 2,
        "sums": [1.0, 2.0, 3.0, 4.0, 3.0],
        "recent_loss": None,
        "best": 0.75,
        "best_epoch": 1,
        "rows": [
            {
                "epoch": 1,
                "lr": 0.1,
                "train_loss": 1 / 3,
                "train_accuracy": 0.5,
                "loss": 0.25,
                "top1": 0.75,
                "top5": None,
                "train_skipped": 2,
                "count": 8,
                "skipped": 1,
                "seconds": 12.5,
            }
        ],
        "seconds": 0.0,
        "num_images": [10, 4],
        "start": written,
    }
    assert Position.from_json(values) == position

"""Which epoch is the best, and when a training ends early: by the rows alone."""

from __future__ import annotations

import math

import pytest

from densepath.errors import RecipeError
from densepath.training.epochs import EpochRow
from densepath.training.monitor import check_monitor, describe_end, is_better, is_exhausted
from densepath.training.recipe_file import make_recipe, merge_flags
from densepath.training.state import Position


def recipe_of(**fields):
    given = {name.replace("__", "."): value for name, value in fields.items()}
    return make_recipe(merge_flags({}, {"epochs": 9, "data.source": "digits", **given}))


def row(epoch, *, top1=0.5, loss=1.0, auroc=None):
    return EpochRow(epoch, 0.1, 1.0, 0.5, loss, top1, None, 0, 8, 0, 1.0, None, auroc, auroc)


def run(recipe, rows):
    """Where a training stands after these epochs."""
    position = Position()
    for one in rows:
        position.end_epoch(one, is_best=is_better(recipe, one, position))
    return position


@pytest.mark.parametrize(
    ("monitor", "best"), [(None, 2), ("top1", 2), ("loss", 3), ("macro_auroc", 1)]
)
def test_the_best_epoch_is_that_of_the_figure_and_of_equal_ones_the_first(monitor, best):
    rows = [
        row(1, top1=0.4, loss=3.0, auroc=0.9),
        row(2, top1=0.6, loss=2.0, auroc=0.9),
        row(3, top1=0.6, loss=1.0, auroc=0.8),
    ]
    recipe = recipe_of(checkpoint__monitor=monitor)
    position = run(recipe, rows)
    assert position.best_epoch == best
    assert position.best == rows[best - 1].top1


@pytest.mark.parametrize("missing", [None, math.nan])
def test_an_epoch_without_the_figure_is_no_better_and_any_other_is_better_than_it(missing):
    recipe = recipe_of(checkpoint__monitor="macro_auroc")
    rows = [row(1, auroc=missing), row(2, auroc=0.2), row(3, auroc=missing)]
    assert run(recipe, rows).best_epoch == 2


def test_it_ends_when_so_many_epochs_in_a_row_were_no_better():
    recipe = recipe_of(checkpoint__monitor="loss", checkpoint__patience=2)
    losses = [3.0, 2.0, 2.5, 2.0]
    rows = [row(n, loss=loss) for n, loss in enumerate(losses, start=1)]
    ends = [is_exhausted(recipe, run(recipe, rows[:n])) for n in range(5)]
    assert ends == [False, False, False, False, True]
    said = describe_end(recipe, run(recipe, rows))
    assert said.startswith(
        "ended early after epoch 4 of 9: loss has not become better for 2 epochs"
    )
    assert not is_exhausted(recipe_of(), run(recipe_of(), rows))


@pytest.mark.parametrize(
    ("monitor", "several", "choices"),
    [("macro_auroc", False, "loss, top1, top5, train_loss"), ("float_top1", True, "macro_auroc")],
)
def test_a_figure_that_epochs_do_not_have_is_refused_with_those_they_have(
    monitor, several, choices
):
    with pytest.raises(RecipeError, match=f"checkpoint.monitor is {monitor}.*{choices}"):
        check_monitor(recipe_of(checkpoint__monitor=monitor), multi_label=several)

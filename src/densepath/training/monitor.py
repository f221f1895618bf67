"""Which epoch is the best, and whether the training has waited long enough for a better one.

On the line: `loop.py` asks after each epoch. All comes of the rows of the epochs, so that a
resumed training decides as one that was never stopped.
"""

from __future__ import annotations

import math

from densepath.choices import Monitor
from densepath.errors import RecipeError
from densepath.training.epochs import EpochRow
from densepath.training.recipe import Recipe
from densepath.training.state import Position
from densepath.wording import counted

LOWER_IS_BETTER = ("loss", "train_loss")
OF_DECISIONS = ("macro_auroc", "mean_average_precision")


def monitored(recipe: Recipe) -> Monitor:
    """The figure that chooses the best epoch."""
    return recipe.checkpoint.monitor or "top1"


def check_monitor(recipe: Recipe, *, multi_label: bool) -> None:
    """Raise unless epochs of this data have the figure.

    Raises:
        RecipeError: they have not.
    """
    name, quantised = monitored(recipe), recipe.quantization.target != "none"
    have = {"top1", "loss", "train_loss"} | (set(OF_DECISIONS) if multi_label else {"top5"})
    have |= {"float_top1"} if quantised else set()
    if name not in have:
        kind = "a multi-label set" if multi_label else "images of one class each"
        raise RecipeError(
            f"checkpoint.monitor is {name}, which epochs on {kind} do not have; choices: "
            f"{', '.join(sorted(have))}."
        )


def is_better(recipe: Recipe, row: EpochRow, position: Position) -> bool:
    """Whether the epoch is better than the best before; of equal ones the first is the best."""
    if position.best_epoch is None:
        return True
    name = monitored(recipe)
    value, best = getattr(row, name), getattr(position.best_row, name)
    if value is None or math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    return bool(value < best if name in LOWER_IS_BETTER else value > best)


def is_exhausted(recipe: Recipe, position: Position) -> bool:
    """Whether so many epochs in a row were no better that the training ends early."""
    patience = recipe.checkpoint.patience
    if patience is None or position.best_epoch is None:
        return False
    return position.step == 0 and len(position.rows) - position.best_epoch >= patience


def describe_end(recipe: Recipe, position: Position) -> str:
    """Why the training ended before its last epoch."""
    waited = counted(len(position.rows) - (position.best_epoch or 0), "epoch")
    return (
        f"ended early after epoch {len(position.rows)} of {recipe.epochs}: {monitored(recipe)} has "
        f"not become better for {waited}, since epoch {position.best_epoch} "
        f"(checkpoint.patience {recipe.checkpoint.patience})"
    )

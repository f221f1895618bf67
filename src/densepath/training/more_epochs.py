"""More epochs than a run was planned for: when it can go on to them, and what to do if not."""

from __future__ import annotations

import shlex
from pathlib import Path

from densepath.errors import UsageError
from densepath.training.recipe import Recipe
from densepath.weights.trained_on import RECIPE_NAME
from densepath.wording import counted

# Schedules whose learning rate at a step does not depend on the number of epochs.
OPEN_ENDED = ("constant", "step")
# Trained weights start anew at this share of the peak that new ones need.
GENTLE_SHARE = 0.1


def extend(planned: Recipe, epochs: int, folder: Path) -> Recipe:
    """The recipe of the run in `folder` with so many epochs: its training goes on as one that
    had them from the start. The number that was planned changes nothing.

    Raises:
        UsageError: fewer epochs, or a schedule that would have been another with more.
    """
    if epochs < planned.epochs:
        shorter = shlex.join(
            ["densepath", "train", str(folder / RECIPE_NAME), "--epochs", str(epochs)]
        )
        raise UsageError(
            f"{folder} is planned for {counted(planned.epochs, 'epoch')}; --epochs {epochs} is "
            "less, and what is done cannot be undone. Name more, or leave the option out to go on "
            f"to {planned.epochs}. A shorter training of its own: {shorter} --output NEW_FOLDER"
        )
    if epochs > planned.epochs and not is_open_ended(planned):
        raise UsageError(
            f"{folder} is planned for {counted(planned.epochs, 'epoch')}, and "
            f"{_what_depends(planned)} depends on that number: with {epochs} all steps before "
            "would have been others. "
            f"Start anew from its weights: {command_from_weights(planned, epochs, folder)}"
        )
    return planned.model_copy(update={"epochs": epochs})


def is_open_ended(recipe: Recipe) -> bool:
    """Whether more epochs leave all that a training has done as it is."""
    sizes_follow = bool(recipe.augment.first_sizes)
    return recipe.schedule.name in OPEN_ENDED and not (_observes_a_share(recipe) or sizes_follow)


def command_from_weights(recipe: Recipe, epochs: int, folder: Path) -> str:
    """The command that trains the rest of `epochs` from the weights of `folder`, gently."""
    lr = max(recipe.optimizer.lr * GENTLE_SHARE, recipe.schedule.final_lr)
    words = ["densepath", "train", str(folder / RECIPE_NAME), "--weights", str(folder)]
    words += ["--epochs", str(max(epochs - recipe.epochs, 1)), "--lr", f"{lr:.6g}"]
    if recipe.schedule.warmup_epochs:
        words += ["--set", "schedule.warmup_epochs=0"]
    if recipe.augment.first_sizes:
        words += ["--set", "augment.first_sizes=[]"]
    return shlex.join([*words, "--output", _beside(folder)])


def _beside(folder: Path) -> str:
    """A name for a run folder beside this one, also where it is `.`."""
    if folder.name in ("", ".."):
        return str(folder / ".." / f"{folder.resolve().name}-more")
    return f"{folder}-more"


def describe_more(recipe: Recipe, folder: Path) -> str:
    """A sentence on how the finished run in `folder` is trained further."""
    more = 2 * recipe.epochs
    if is_open_ended(recipe):
        return f"To train longer: {shlex.join(['densepath', 'train', str(folder)])} --epochs {more}"
    return f"To train on from its weights: {command_from_weights(recipe, more, folder)}"


def _observes_a_share(recipe: Recipe) -> bool:
    """Whether the ranges of a quantisation-aware training stay from some share of it on."""
    section = recipe.quantization
    return section.target != "none" and 0 < section.observe < 1


def _what_depends(recipe: Recipe) -> str:
    """What the number of epochs decides."""
    if recipe.schedule.name not in OPEN_ENDED:
        return f"its learning rate (schedule.name {recipe.schedule.name})"
    if recipe.augment.first_sizes:
        return "the size of its images (augment.first_sizes)"
    return f"its ranges' course (quantization.observe {recipe.quantization.observe:g})"

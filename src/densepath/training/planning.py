"""From what is asked of `densepath.train` to a recipe and a run folder: nothing is opened yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densepath.errors import UnknownNameError, UsageError
from densepath.models.catalogue import find_spec
from densepath.training.images import part_places
from densepath.training.more_epochs import extend
from densepath.training.recipe import Recipe
from densepath.training.recipe_file import (
    make_recipe,
    merge_disjoint,
    merge_flags,
    nest,
    read_recipe,
)
from densepath.training.recipe_names import is_recipe
from densepath.training.run_folder import is_run_folder, read_run_recipe
from densepath.weights.trained_on import RECIPE_NAME

# What starts `--qat`; a recipe file and flags have the last word.
QAT_RECIPE: dict[str, Any] = {
    "epochs": 3,
    "optimizer": {"lr": 0.005},
    "compute": {"channels_last": True},
}


def gather_fields(
    settings: Mapping[str, Any], data: str | Path | None, epochs: int | None
) -> dict[str, Any]:
    """The fields of the recipe that the arguments give, nested.

    Raises:
        RecipeError: one is given twice, to different values.
    """
    given: dict[str, Any] = {}
    for name, value in settings.items():
        given = merge_disjoint(given, nest(name, value))
    source = str(data) if data is not None else None
    return merge_flags(given, {"data.source": source, "epochs": epochs})


def plan(
    subject: str | Path | None,
    recipe_file: str | Path | None,
    given: Mapping[str, Any],
    output: str | Path | None,
    *,
    resume: bool,
    qat: str | Path | None = None,
) -> tuple[Recipe, Path, bool]:
    """The recipe, the run folder, and whether to go on with what that folder holds.

    Raises:
        RecipeError: a field is unknown or wrong.
        UsageError: options for a run that already has its recipe.
    """
    if qat is not None:
        aware = {"model.weights": str(qat), "quantization.target": "int8"}
        given = merge_flags(given, aware)
    if subject is not None and Path(subject).is_dir():
        moved, others = part_places(given)
        more = others.pop("epochs", None)
        folder = _check_resume(Path(subject), others, recipe_file, output)
        recipe = make_recipe(read_run_recipe(folder).to_dict(), moved)
        if more is not None:
            wanted = make_recipe(recipe.to_dict(), {"epochs": more})
            recipe = extend(recipe, wanted.epochs, folder)
        return recipe, folder, True
    layers = [read_recipe(recipe_file)] if recipe_file is not None else []
    named: dict[str, Any] = {}
    if subject is not None and is_recipe(subject):
        if recipe_file is not None:
            raise UsageError(f"two recipes: {subject} and {recipe_file}. Give one.")
        layers = [read_recipe(subject)]
    elif subject is not None:
        named = {"model": _name_or_weights(str(subject))}
    if qat is not None:
        layers.insert(0, QAT_RECIPE)
    recipe = make_recipe(*layers, merge_disjoint(named, given))
    if output is not None:
        return recipe, Path(output), resume
    model = recipe.model.name or Path(str(recipe.model.weights)).stem
    name = f"{model}-{Path(recipe.data.source).stem}"
    return recipe, Path("runs") / (name if qat is None else f"{name}-qat"), resume


def _check_resume(
    folder: Path,
    given: Mapping[str, Any],
    recipe_file: str | Path | None,
    output: str | Path | None,
) -> Path:
    """The folder itself, if it is a run folder and nothing else is asked for.

    Raises:
        UsageError: no run folder, or options that a run under way cannot take.
    """
    if not is_run_folder(folder):
        raise UsageError(
            f"{folder} is a folder, but no run folder: it has no recipe.yaml. To train on images "
            f"in it: densepath train MODEL --data {folder}"
        )
    if given or recipe_file is not None or (output is not None and Path(output) != folder):
        raise UsageError(
            f"{folder} goes on with its own recipe and in its own folder; recipe options cannot "
            "be changed on the way, but for more --epochs and the place of its images (--data). To "
            f"start anew from its weights: densepath train {folder / RECIPE_NAME} --weights "
            f"{folder} --output NEW_FOLDER ..."
        )
    return folder


def _name_or_weights(subject: str) -> dict[str, str]:
    """`subject` as `model.name` when the catalogue has it, else as `model.weights`."""
    try:
        return {"name": find_spec(subject).name}
    except UnknownNameError:
        if "/" in subject or Path(subject).suffix:
            return {"weights": subject}
        raise

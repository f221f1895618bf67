"""How verbs take the options of a data set: the fields `data.` of a recipe, as `train` has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from densepath.data.options import DataOptions

DataSettings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="data.FIELD=VALUE",
        help="How the data is read, as `train` has it: data.train, data.label_column and so on; "
        "may be repeated.",
    ),
]


def read_data_fields(
    settings: list[str] | None, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The fields of `DataOptions` that `--set data.FIELD=VALUE` give, beside those given otherwise.

    Raises:
        RecipeError: a field that is not there, not of `DataOptions`, of another kind, or given
            twice.
    """
    from dataclasses import fields

    from densepath.data.options import DataOptions
    from densepath.errors import UnknownNameError
    from densepath.training.recipe_file import merge_disjoint, parse_settings

    named = parse_settings(settings or []).get("data", {})
    _, options = read_data_options("digits", settings)
    known = [field.name for field in fields(DataOptions)]
    for name in named:
        if name not in known:
            raise UnknownNameError("field of how data is read", f"data.{name}", known)
    return merge_disjoint(given or {}, {name: getattr(options, name) for name in named}, "data.")


def read_data_options(
    source: str | None, settings: list[str] | None, *, seed: int = 0
) -> tuple[str, DataOptions]:
    """The source and the options that `--set data.FIELD=VALUE` give.

    Raises:
        RecipeError: a field that is not there, not of `data`, or of another kind.
    """
    from densepath.errors import RecipeError
    from densepath.training.recipe_file import make_recipe, merge_flags, parse_settings

    values = parse_settings(settings or [])
    others = [name for name in values if name != "data"]
    if others:
        raise RecipeError(f"--set {others[0]} is no field of `data`, and only those are read here.")
    recipe = make_recipe(merge_flags(values, {"data.source": source, "seed": seed}))
    return recipe.data.source, recipe.data.to_options(recipe.seed)

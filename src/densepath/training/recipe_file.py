"""Recipes from YAML files, settings and flags; every mistake names the field and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from densepath.errors import RecipeError
from densepath.files import write_text
from densepath.training.recipe import Recipe
from densepath.training.recipe_names import find_recipe

Values = dict[str, Any]


def read_recipe(path: str | Path) -> Values:
    """The fields that a YAML file sets, or a recipe by name (`recipe:digits`); not checked yet.

    Raises:
        UnknownNameError: no recipe has that name.
        RecipeError: no such file, not YAML, or not a mapping.
    """
    file = find_recipe(path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    except RecursionError as error:
        raise RecipeError(f"the recipe {path} is nested too deeply to be one.") from error
    except (yaml.YAMLError, ValueError) as error:  # such as a date in month 13
        raise RecipeError(f"the recipe {path} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError(
            f"the recipe {path} holds a {type(values).__name__}; it must be a mapping such as "
            "`epochs: 10`."
        )
    return values


def write_recipe(path: str | Path, recipe: Recipe, comment: str) -> None:
    """Write every field of `recipe` into the file `path` as YAML, after `comment`.

    Raises:
        OutputError: it cannot be written.
    """
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, default_flow_style=None)
    write_text(path, "".join(f"# {line}\n" for line in comment.splitlines()) + text)


def parse_settings(settings: Iterable[str]) -> Values:
    """`["optimizer.lr=0.05", "seed=1"]` as nested values; the text after `=` is read as YAML.

    Raises:
        RecipeError: no `=`, an empty name, text that is not YAML, or one field set twice to
            different values.
    """
    values: Values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise RecipeError(f"--set {setting!r} is not of the form section.field=value.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {setting!r}: the value is not YAML: {error}") from error
        values = merge_disjoint(values, nest(name.strip(), value))
    return values


def nest(name: str, value: Any) -> Values:
    """`nest("a.b", 1)` is `{"a": {"b": 1}}`."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> Values:
    """The fields of both; where both set one, `high` has the last word."""
    merged = dict(low)
    for key, value in high.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def merge_disjoint(
    first: Mapping[str, Any], second: Mapping[str, Any], section: str = ""
) -> Values:
    """The fields of both, of equal rank; `section` is where they stand, for the message.

    Raises:
        RecipeError: both set one field, to different values.
    """
    merged = dict(first)
    for key, value in second.items():
        if key not in merged or merged[key] == value:
            merged[key] = value
        elif isinstance(value, Mapping) and isinstance(merged[key], Mapping):
            merged[key] = merge_disjoint(merged[key], value, f"{section}{key}.")
        else:
            raise RecipeError(
                f"{section}{key} is given twice: {merged[key]!r} and {value!r}. Give it once."
            )
    return merged


def merge_flags(values: Mapping[str, Any], flags: Mapping[str, Any]) -> Values:
    """`values` with those flags, by the full names of their fields, that are not None.

    Raises:
        RecipeError: a field is given twice, to different values.
    """
    merged = dict(values)
    for name, value in flags.items():
        if value is not None:
            merged = merge_disjoint(merged, nest(name, value))
    return merged


def make_recipe(*layers: Mapping[str, Any]) -> Recipe:
    """The recipe of these layers of values, the last layer the strongest, checked.

    Raises:
        RecipeError: an unknown field (with near names), or a value that a field cannot have.
    """
    values: Values = {}
    for layer in layers:
        values = merge(values, layer)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = {_explain(dict(problem)) for problem in error.errors()}
        raise RecipeError(" ".join(sorted(problems))) from error


def _explain(problem: dict[str, Any]) -> str:
    """One of pydantic's problems as a sentence with the field's full name."""
    parts = [str(part) for part in problem["loc"]]
    name = ".".join(parts)
    if problem["type"] == "extra_forbidden":
        valid = _fields_at(parts[:-1])
        near = difflib.get_close_matches(parts[-1], valid, n=3, cutoff=0.5)
        elsewhere = [f for f in _all_fields() if f.rsplit(".", 1)[-1] == parts[-1]]
        meant = [".".join([*parts[:-1], field]) for field in near] or elsewhere
        hint = f" Did you mean {' or '.join(meant)}?" if meant else ""
        place = f"the fields of {'.'.join(parts[:-1])} are" if parts[:-1] else "a recipe has"
        return f"unknown recipe field {name!r}.{hint} {place[0].upper()}{place[1:]}: " + (
            f"{', '.join(valid)}."
        )
    if problem["type"] == "value_error":
        return f"{problem['ctx']['error']}."
    return f"recipe field {name} is {problem['input']!r}: {problem['msg']}."


def _fields_at(parts: list[str]) -> list[str]:
    """The field names of the section at this place, sorted."""
    section: type[BaseModel] = Recipe
    for part in parts:
        annotation = section.model_fields[part].annotation
        assert isinstance(annotation, type)
        section = annotation
    return sorted(section.model_fields)


def _all_fields() -> list[str]:
    """Every field of a recipe by its full name."""
    names = []
    for name, field in Recipe.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names += [f"{name}.{inner}" for inner in annotation.model_fields]
        else:
            names.append(name)
    return names


def find_differences(first: Recipe, second: Recipe) -> list[str]:
    """`optimizer.lr: 0.1 against 0.2` for every field in which two recipes differ."""
    differences = []
    for name in _all_fields():
        a, b = value_at(first, name), value_at(second, name)
        if a != b:
            differences.append(f"{name}: {a!r} against {b!r}")
    return differences


def differing_fields(recipes: Sequence[Recipe]) -> list[str]:
    """The fields, by full name, that are not alike in all of these recipes."""
    return [
        name
        for name in _all_fields()
        if any(value_at(recipe, name) != value_at(recipes[0], name) for recipe in recipes)
    ]


def value_at(recipe: Recipe, name: str) -> Any:
    """The value of the field of that full name."""
    value: Any = recipe
    for part in name.split("."):
        value = getattr(value, part)
    return value

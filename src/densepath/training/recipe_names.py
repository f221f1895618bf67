"""The recipes that come with densepath, by name: `recipe:digits`, `recipe:imagenet/densenet121`.

They are the files of `recipes/` in the repository, which are part of the installed package.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from densepath.errors import RecipeError, UnknownNameError

FOLDER = Path(__file__).parents[1] / "recipes"
PREFIX = "recipe:"
SUFFIXES = (".yaml", ".yml")


def recipe_names() -> list[str]:
    """Every recipe's name, as `imagenet/densenet121`; those of no folder first."""
    files = [path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml")]
    files.sort(key=lambda file: (len(file.parts), file))
    return [file.with_suffix("").as_posix() for file in files]


def list_recipes() -> str:
    """A sentence with all of them, for help texts and messages."""
    return f"Recipes that come with densepath, typed as {PREFIX}NAME: {', '.join(recipe_names())}."


def is_recipe(subject: str | Path) -> bool:
    """Whether `subject` is a recipe's name or the path of a YAML file; it may not exist."""
    return str(subject).startswith(PREFIX) or Path(subject).suffix in SUFFIXES


def find_recipe(subject: str | Path) -> Path:
    """The file of a recipe that is named, or `subject` itself where it is a path.

    Raises:
        UnknownNameError: no recipe has that name.
        RecipeError: there is no such file.
    """
    if str(subject).startswith(PREFIX):
        name = str(subject).removeprefix(PREFIX).removesuffix(".yaml")
        if name not in recipe_names():
            raise UnknownNameError("recipe", name, recipe_names())
        return FOLDER / f"{name}.yaml"
    path = Path(subject)
    if not path.exists():
        raise RecipeError(f"there is no file {path}.{_hint(path)} {list_recipes()}")
    return path


def _hint(path: Path) -> str:
    """The recipes whose last word is the file's, as for `recipes/digits.yaml`; nothing if none."""
    near = [PREFIX + name for name in recipe_names() if PurePosixPath(name).name == path.stem]
    return f" Did you mean {' or '.join(near)}?" if near else ""

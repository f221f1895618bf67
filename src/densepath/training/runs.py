"""Run folders side by side: what each has come to, and in what their recipes differ.

Everything is read from files that are replaced as a whole, so a folder whose training is running
can be read at any moment.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from densepath.choices import Monitor
from densepath.errors import CheckpointError, DatasetError, DensepathError
from densepath.files import missing
from densepath.training.at_work import LOG_NAME, is_at_work
from densepath.training.monitor import LOWER_IS_BETTER, monitored
from densepath.training.recipe import Recipe
from densepath.training.recipe_file import differing_fields, value_at
from densepath.training.run_folder import STATE_NAME, read_run_recipe
from densepath.training.state import read_num_images
from densepath.weights.trained_on import RECIPE_NAME

RunState = Literal["running", "stopped", "finished", "diverged"]
METRICS_NAME = "metrics.csv"
# What only a training leaves: a folder with one of them and no recipe was a run folder.
TRACES = (METRICS_NAME, LOG_NAME, STATE_NAME)
LOG_TAIL_BYTES = 65_536
STAMP_WORDS = 2  # of a line of the log: day and time


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: its path.
        recipe: the resolved one.
        state: `running`; `finished`; `diverged`; `stopped`: by a signal, an error or a kill.
        note: how it ended, where that is more than the state says.
        score: what `best` is: `top-1`, of a multi-label set `micro-F1`, or another figure that the
            recipe's `checkpoint.monitor` names; empty before the first evaluation.
        best, best_epoch: the best figure, and the epoch that had it first.
        epochs, planned_epochs: that are done, and of the recipe.
        seconds: the time of the epochs that are done.
        num_images: that are trained on, and that each epoch is judged on; None where no state says.
    """

    folder: Path
    recipe: Recipe = field(repr=False)
    state: RunState
    note: str
    score: str
    best: float | None
    best_epoch: int | None
    epochs: int
    planned_epochs: int
    seconds: float
    num_images: tuple[int, int] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the recipe."""
        trained, judged = self.num_images or (None, None)
        return {
            "folder": str(self.folder),
            "state": self.state,
            "note": self.note,
            "score": self.score,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            "planned_epochs": self.planned_epochs,
            "seconds": self.seconds,
            "train_images": trained,
            "judged_images": judged,
        }


@dataclass(frozen=True)
class Runs:
    """The run folders below a folder.

    Attributes:
        found: the highest figure first, then those without one, by name.
        broken: path and reason of those that cannot be read.
        differences: the fields of the recipe, by full name, that are not alike in all of `found`.
    """

    found: list[Run]
    broken: list[tuple[Path, str]]
    differences: list[str]

    def to_dicts(self) -> Iterator[dict[str, Any]]:
        """Plain values, a run after the other, then those that cannot be read."""
        for run in self.found:
            values = run.recipe.model_dump(mode="json")  # with the fields that are left unsaid
            yield run.to_dict() | {"recipe": {n: _plain(values, n) for n in self.differences}}
        for path, reason in self.broken:
            yield {"folder": str(path), "error": reason}


def find_runs(folder: str | Path) -> Runs:
    """The run folders at and below `folder`; links to folders are not followed.

    Raises:
        DatasetError: there is no such folder, or not one run folder in it.
    """
    top = Path(folder)
    if not top.is_dir():
        raise DatasetError(missing(top, "folder"))
    found: list[Run] = []
    broken: list[tuple[Path, str]] = []
    for path in _candidates(top, broken):
        try:
            found.append(read_run(path))
        except DensepathError as error:
            broken.append((path, str(error)))
    if not found and not broken:
        raise DatasetError(
            f"{folder} holds no run folder. `densepath train MODEL --output "
            f"{top / 'first'}` makes one."
        )
    found.sort(key=lambda run: (run.best is None, -_height(run), str(run.folder)))
    return Runs(found, sorted(broken), differing_fields([run.recipe for run in found]))


def _height(run: Run) -> float:
    """Its figure, the higher the better."""
    best = 0.0 if run.best is None else run.best
    return -best if monitored(run.recipe) in LOWER_IS_BETTER else best


def _candidates(top: Path, broken: list[tuple[Path, str]]) -> Iterator[Path]:
    """The folders that a training has been started in; folders that cannot be listed are broken."""

    def unreadable(error: OSError) -> None:
        broken.append((Path(error.filename), error.strerror or str(error)))

    for place, folders, files in os.walk(top, onerror=unreadable):
        path = Path(place)
        if RECIPE_NAME in files or any((path / trace).exists() for trace in TRACES):
            folders.clear()
            yield path
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def read_run(path: Path) -> Run:
    """What a run folder has come to.

    Raises:
        RecipeError: its recipe cannot be read.
        CheckpointError: it has none; nothing in it says that a training began; or its metrics are
            damaged.
    """
    if not (path / RECIPE_NAME).is_file():
        raise CheckpointError(f"{path} has what a training leaves, but no {RECIPE_NAME}.")
    recipe = read_run_recipe(path)
    if not any((path / trace).exists() for trace in TRACES):
        raise CheckpointError(
            f"{path} has a {RECIPE_NAME} and nothing that a training leaves; no training began "
            f"here, or its files are gone: densepath train {path / RECIPE_NAME} --output NEW_FOLDER"
        )
    rows = _read_rows(path / METRICS_NAME)
    last_words = _last_words(path / LOG_NAME)
    epochs = int(rows[-1]["epoch"]) if rows else 0
    name = monitored(recipe)
    sign = -1 if name in LOWER_IS_BETTER else 1
    judged = [row for row in rows if row.get(name) is not None and not math.isnan(row[name])]
    best = max(judged, key=lambda row: (sign * row[name], -row["epoch"]), default=None)
    state, note = _state(path, last_words, all_done=epochs >= recipe.epochs)
    return Run(
        folder=path,
        recipe=recipe,
        state=state,
        note=note,
        score="" if best is None else _score_name(name, best),
        best=None if best is None else best[name],
        best_epoch=None if best is None else int(best["epoch"]),
        epochs=epochs,
        planned_epochs=recipe.epochs,
        seconds=rows[-1]["seconds"] if rows else 0.0,
        num_images=_num_images(path / STATE_NAME),
    )


def _score_name(name: Monitor, row: dict[str, Any]) -> str:
    """What a figure of `metrics.csv` is called in a table."""
    if name == "top1":
        return "micro-F1" if row["top5"] is None else "top-1"
    return name.replace("_", " ").replace("top5", "top-5").replace("top1", "top-1")


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.csv` as numbers, None for an empty cell; no rows without the file.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    try:
        rows = [
            {name: float(value) if value else None for name, value in row.items() if name}
            for row in csv.DictReader(io.StringIO(text))
        ]
        for row in rows:
            assert None not in (row["epoch"], row["top1"], row["seconds"])
            row["top5"]
    except (KeyError, ValueError, TypeError, AssertionError, csv.Error) as error:
        raise CheckpointError(f"{path} is damaged: it is no table of epochs.") from error
    return rows


def _last_words(path: Path) -> str:
    """The newest line of the log without its time; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return " ".join(lines[-1].split(" ")[STAMP_WORDS:]) if lines else ""


def _state(path: Path, last_words: str, *, all_done: bool) -> tuple[RunState, str]:
    """How the training stands, and how it ended where that is more than the state says."""
    if is_at_work(path):
        return "running", ""
    if all_done or last_words == "finished":
        return "finished", ""
    if last_words.startswith("ended early "):
        return "finished", last_words
    if last_words.startswith("diverged: "):
        return "diverged", last_words.removeprefix("diverged: ")
    if last_words.startswith(("stopped by ", "failed: ")):
        return "stopped", last_words
    return "stopped", "killed: its log has no end"


def _num_images(state: Path) -> tuple[int, int] | None:
    """The images of the training, as its state has them; None where none can be read."""
    try:
        trained, judged = read_num_images(state)
    except (CheckpointError, ValueError):
        return None
    return trained, judged


def _plain(values: dict[str, Any], name: str) -> Any:
    """The field of that full name of a recipe's plain values."""
    found: Any = values
    for part in name.split("."):
        found = found[part]
    return found


def differing_values(run: Run, names: Sequence[str]) -> list[str]:
    """These fields of the run's recipe for a person."""
    values = [value_at(run.recipe, name) for name in names]
    return ["" if value is None else str(value) for value in values]

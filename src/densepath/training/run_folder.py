"""The run folder: what a training leaves behind, and what a later start finds.

recipe.yaml         the resolved recipe
images.npz          the name, label and fingerprint of each image that it is trained and judged on
metrics.csv         a row an epoch            curves.png    the same, drawn
best.safetensors    the best checkpoint       last.safetensors   the newest
state/              the state for an exact resume
environment.json    versions and hardware     train.log     what happened when
README.md           all of this in words
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from densepath.data.sources import built_in
from densepath.drawing.picture import save_picture
from densepath.errors import CheckpointError, OutputError, RecipeError, UsageError
from densepath.files import write_json, write_text
from densepath.folders import contents
from densepath.images.preprocess import Preprocess
from densepath.models.build import Model
from densepath.names import READABLE, check_network_path
from densepath.outputs import check_folder
from densepath.training.at_work import LOG_NAME
from densepath.training.environment import describe_environment
from densepath.training.epochs import to_csv
from densepath.training.images import PLACES, Memory, RunImages
from densepath.training.more_epochs import extend
from densepath.training.recipe import Recipe
from densepath.training.recipe_file import (
    find_differences,
    make_recipe,
    read_recipe,
    write_recipe,
)
from densepath.training.resolve import absolute_places
from densepath.training.run_readme import write_readme
from densepath.training.state import Position, StateParts, read_state, write_state
from densepath.training.steps.step import Step
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.trained_on import RECIPE_NAME, RECORD_NAME, TrainedOn
from densepath.wording import counted, literal

MOVABLE = tuple(f"data.{place}: " for place in PLACES)
SECONDS_BETWEEN_CURVES = 20.0
STATE_NAME = "state/state.safetensors"


def is_run_folder(path: str | Path) -> bool:
    """Whether a training has been started in this folder."""
    return (Path(path) / RECIPE_NAME).is_file()


def read_run_recipe(folder: str | Path) -> Recipe:
    """The resolved recipe of a run folder.

    Raises:
        RecipeError: the folder has none, or one that cannot be read.
    """
    return make_recipe(read_recipe(Path(folder) / RECIPE_NAME))


def check_run_folder(path: Path, recipe: Recipe, *, resume: bool) -> None:
    """Raise unless a training of this resolved recipe may write into the folder.

    Where the images are may differ from what the folder's recipe says, for they are compared
    themselves (`images.remember`). Where nothing is known of those that it began with, they may
    only be elsewhere when they are not there any more.

    Raises:
        RecipeError: it belongs to another recipe.
        UsageError: a training is already there and `resume` is not set; or other things are.
        OutputError: it is a file.
    """
    check_network_path(path)
    if not is_run_folder(path):
        check_folder(path)
        if path.is_dir() and any(not p.name.startswith(".") for p in contents(path)):
            raise UsageError(
                f"{path} is not empty and is no run folder. Name a new folder with --output."
            )
        return
    there = _read_placed(path)
    if resume:
        there = extend(there, recipe.epochs, path)
    differences = find_differences(there, recipe)
    known = (path / RECORD_NAME).is_file() or not (path / STATE_NAME).is_file()
    gone = built_in(there.data.source) is None and not Path(there.data.source).exists()
    if resume and (known or gone):
        differences = [said for said in differences if not said.startswith(MOVABLE)]
    if differences:
        raise RecipeError(
            f"{path} holds a training of another recipe ({'; '.join(differences)}; "
            "there against here). Name another folder with --output."
        )
    if not resume:
        raise UsageError(
            f"{path} already holds this training. Go on with "
            f"`densepath train {path}`, or name another folder with --output."
        )


def _read_placed(path: Path) -> Recipe:
    """The recipe of a run folder; what an older densepath wrote relative is seen from here."""
    recipe = read_run_recipe(path)
    return recipe.model_copy(update={"data": absolute_places(recipe.data)})


def _find_moved(path: Path, recipe: Recipe) -> list[str]:
    """Where the images were and are, in words, of what differs."""
    differences = find_differences(_read_placed(path), recipe)
    return [said for said in differences if said.startswith(MOVABLE)]


@dataclass
class RunFolder:
    """The folder of one training, which only the leading process writes into.

    `preprocess` and what `images` and `memory` (of the leading process) say of the data go into
    every checkpoint.
    """

    path: Path
    recipe: Recipe
    preprocess: Preprocess
    images: RunImages
    memory: Memory | None = None
    start_info: dict[str, Any] = field(default_factory=dict)
    drawn_at: float = -math.inf

    def begin(self, *, resume: bool) -> None:
        """Make the folder, with the recipe and the record of the images.

        `check_run_folder` has found that it may be made.

        Raises:
            OutputError: it cannot be written.
        """
        if not is_run_folder(self.path):
            write_recipe(self.path / RECIPE_NAME, self.recipe, self._headline())
        self._keep_record()
        write_json(self.path / "environment.json", describe_environment(self.start_info))
        self.log("started" if not resume else "started again")

    def keep_recipe(self) -> None:
        """Say in `recipe.yaml` how many epochs this start goes on to, and where its images are.

        Raises:
            OutputError: it cannot be written.
        """
        planned, places = read_run_recipe(self.path).epochs, _find_moved(self.path, self.recipe)
        if planned != self.recipe.epochs or places:
            write_recipe(self.path / RECIPE_NAME, self.recipe, self._headline())
        if planned != self.recipe.epochs:
            self.log(f"goes on to {counted(self.recipe.epochs, 'epoch')}; planned: {planned}")
        if places:
            self._keep_record()
            self.log(f"its images are elsewhere now: {'; '.join(places)}")

    def _keep_record(self) -> None:
        """Write the record of the images, which says where they are too."""
        if self.memory is not None and self.memory.trained_on is not None:
            self.memory.record.save(self.path / RECORD_NAME)

    def _headline(self) -> str:
        """The comment over the recipe."""
        return (
            f"The resolved recipe of a training of {self.recipe.model.name} "
            f"on {self.recipe.data.source}.\n"
            f"densepath train {RECIPE_NAME} --output FOLDER   trains it again"
        )

    @property
    def state_path(self) -> Path:
        """The file with the state for an exact resume."""
        return self.path / STATE_NAME

    def save_state(self, position: Position, parts: StateParts) -> None:
        """Write the state.

        Raises:
            OutputError: it cannot be; the state before it is kept.
        """
        write_state(self.state_path, position, parts)

    def load_state(self, num_images: list[int], parts: StateParts) -> Position:
        """Where the training stands, after its state has been read into `parts`.

        `num_images` is what its data sets hold now.

        Raises:
            CheckpointError: there is no state, it is damaged, or the data has changed.
        """
        position = read_state(self.state_path, parts)
        if position.num_images != num_images:
            raise CheckpointError(
                f"{self.path} was trained and evaluated on {position.num_images} images; "
                f"{self.recipe.data.source} now has {num_images}. Put the data back, or start "
                "anew in another folder."
            )
        return position

    def save_epoch(self, model: Model, position: Position, step: Step, *, is_best: bool) -> None:
        """Write checkpoints, `metrics.csv` and README of the epoch that has just ended.

        Raises:
            OutputError: they cannot be written.
        """
        row = position.rows[-1]
        checkpoint = Checkpoint.of(
            model,
            preprocess=self.preprocess,
            labels=self.images.train.class_names,
            multi_label=self.images.train.multi_label,
            trained_on=self._trained_on(is_chosen=is_best),
            provenance={
                "made_by": "densepath train",
                "data": self.images.train.description,
                "start": self.recipe.model.weights,
                "epochs": row.epoch,
                "of_epochs": self.recipe.epochs,
                "seed": self.recipe.seed,
                "top1": row.top1,
                "evaluated_on": self.recipe.data.evaluate_on,
                **step.provenance(row),
            },
        )
        if is_best:
            checkpoint.save(self.path / "best.safetensors")
        checkpoint.save(self.path / "last.safetensors")
        write_text(self.path / "metrics.csv", to_csv(position.rows))
        about = step.describe(position)
        write_readme(self.path, self.recipe, position, self.images, self.memory, about=about)
        self.log(
            f"epoch {row.epoch}: train loss {row.train_loss:.4f}, loss {row.loss:.4f}, "
            f"top-1 {row.top1:.4f}"
        )

    def _trained_on(self, *, is_chosen: bool) -> TrainedOn | None:
        """What a checkpoint says of its images; None where that is not known."""
        if self.memory is None or self.memory.trained_on is None:
            return None
        return replace(self.memory.trained_on, is_chosen=is_chosen)

    def draw_soon(self, position: Position) -> None:
        """Call `draw`, unless that was done a moment ago and more epochs are to come."""
        moment_ago = time.monotonic() - self.drawn_at < SECONDS_BETWEEN_CURVES
        if position.epoch == self.recipe.epochs or not moment_ago:
            self.draw(position)

    def draw(self, position: Position) -> None:
        """Draw the epochs of `position` into `curves.png`; where that fails, note it in the log.

        To be called when all else of these epochs is on the disk.
        """
        from densepath.training.curves import draw_curves

        if not position.rows:
            return
        rows, judged_on = position.rows, self.recipe.data.evaluate_on
        path = self.path / "curves.png"
        monitor, best = self.recipe.checkpoint.monitor, position.best_epoch
        chosen = None if monitor is None or best is None else (best, monitor)
        failed = save_picture(
            path, lambda: draw_curves(rows, self._title(), judged_on, chosen), dpi=150
        )
        self.drawn_at = time.monotonic()
        if failed is not None:
            with suppress(OutputError):
                self.log(failed)

    def _title(self) -> str:
        """The headline of the curves."""
        source = literal(Path(self.recipe.data.source).name, 60)
        return f"{literal(str(self.recipe.model.name), 60)} on {source}"

    def describe_last_good(self) -> str:
        """A sentence on what can still be used."""
        kept = [n for n in ("best.safetensors", STATE_NAME) if (self.path / n).exists()]
        if not kept:
            return "Nothing good had been written yet."
        return f"{self.path} keeps the last good {' and '.join(kept)}."

    def log(self, message: str) -> None:
        """Add these lines to `train.log`, each with the time.

        Raises:
            OutputError: it cannot be written.
        """
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            with (self.path / LOG_NAME).open("a", encoding="utf-8", errors=READABLE) as file:
                file.writelines(f"{stamp} {line}\n" for line in message.split("\n"))
        except OSError as error:
            raise OutputError(f"cannot write {self.path / LOG_NAME}: {error}") from error

"""The run folder: what a training leaves behind, and what a later start finds.

recipe.yaml         the resolved recipe
metrics.csv         a row an epoch            curves.png    the same, drawn
best.safetensors    the best checkpoint       last.safetensors   the newest
state/              the state for an exact resume
environment.json    versions and hardware     train.log     what happened when
README.md           all of this in words
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from densepath.drawing.picture import literal, save_picture
from densepath.errors import CheckpointError, OutputError, RecipeError, UsageError
from densepath.files import write_json, write_text
from densepath.models.build import Model
from densepath.names import READABLE, check_network_path
from densepath.preprocess import Preprocess
from densepath.training.ema import Ema
from densepath.training.environment import describe_environment
from densepath.training.recipe import Recipe
from densepath.training.recipe_file import (
    find_differences,
    make_recipe,
    read_recipe,
    write_recipe,
)
from densepath.training.run_readme import write_readme
from densepath.training.state import Position, read_state, write_state
from densepath.weights.checkpoint import Checkpoint

RECIPE_NAME = "recipe.yaml"
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


@dataclass
class RunFolder:
    """The folder of one training; only the leading process writes into it.

    `preprocess`, `labels`, `multi_label` and `data` (the description of the data set) go into
    every checkpoint.
    """

    path: Path
    recipe: Recipe
    preprocess: Preprocess
    labels: Sequence[str]
    multi_label: bool
    data: str
    start_info: dict[str, Any] = field(default_factory=dict)
    drawn_at: float = -math.inf

    def begin(self, *, resume: bool) -> None:
        """The folder is there and belongs to this recipe.

        Raises:
            RecipeError: it belongs to another recipe.
            UsageError: a training is already there and `resume` is not set.
            OutputError: it cannot be written.
        """
        check_network_path(self.path)
        if is_run_folder(self.path):
            self._check_owner(resume)
        elif self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; --output names a folder.")
        elif self.path.is_dir() and any(not p.name.startswith(".") for p in self.path.iterdir()):
            raise UsageError(
                f"{self.path} is not empty and is no run folder. Name a new folder with --output."
            )
        else:
            write_recipe(self.path / RECIPE_NAME, self.recipe, self._headline())
        write_json(self.path / "environment.json", describe_environment(self.start_info))
        self.log("started" if not resume else "started again")

    def _check_owner(self, resume: bool) -> None:
        """Returns when this training may go on in the folder that another start made."""
        differences = find_differences(read_run_recipe(self.path), self.recipe)
        if differences:
            raise RecipeError(
                f"{self.path} holds a training of another recipe ({'; '.join(differences)}; "
                "there against here). Name another folder with --output."
            )
        if not resume:
            raise UsageError(
                f"{self.path} already holds this training. Go on with "
                f"`densepath train {self.path}`, or name another folder with --output."
            )

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

    def save_state(
        self,
        position: Position,
        network: Model,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None,
        quantised: nn.Module | None = None,
    ) -> None:
        """The state is written.

        Raises:
            OutputError: it cannot be; the state before it is kept.
        """
        write_state(self.state_path, position, network, optimizer, ema, quantised)

    def load_state(
        self,
        num_images: list[int],
        network: Model,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None,
        quantised: nn.Module | None = None,
    ) -> Position:
        """Where the training stands; `num_images` is what its data sets hold now.

        Raises:
            CheckpointError: there is no state, it is damaged, or the data has changed.
        """
        position = read_state(self.state_path, network, optimizer, ema, quantised)
        if position.num_images != num_images:
            raise CheckpointError(
                f"{self.path} was trained and evaluated on {position.num_images} images; "
                f"{self.recipe.data.source} now has {num_images}. Put the data back, or start "
                "anew in another folder."
            )
        return position

    def save_epoch(self, model: Model, position: Position, *, is_best: bool) -> None:
        """Checkpoints, metrics and README hold the epoch that has just ended.

        Raises:
            OutputError: they cannot be written.
        """
        row = position.rows[-1]
        checkpoint = Checkpoint.of(
            model,
            preprocess=self.preprocess,
            labels=self.labels,
            multi_label=self.multi_label,
            provenance={
                "made_by": "densepath train",
                "data": self.data,
                "start": self.recipe.model.weights,
                "epochs": row["epoch"],
                "of_epochs": self.recipe.epochs,
                "seed": self.recipe.seed,
                "top1": row["top1"],
                "evaluated_on": self.recipe.data.evaluate_on,
                **self._quantization(row),
            },
        )
        if is_best:
            checkpoint.save(self.path / "best.safetensors")
        checkpoint.save(self.path / "last.safetensors")
        self.write_metrics(position)
        self.log(
            f"epoch {row['epoch']}: train loss {row['train_loss']:.4f}, loss {row['loss']:.4f}, "
            f"top-1 {row['top1']:.4f}"
        )

    def _quantization(self, row: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint of a quantisation-aware training says of it; else nothing."""
        section = self.recipe.quantization
        if section.target == "none":
            return {}
        said = {"aware_of": section.target, "weight_bits": section.weight_bits}
        return {"quantization": said | {"float_top1": row["float_top1"]}}

    def write_metrics(self, position: Position) -> None:
        """`metrics.csv` and `README.md` hold the epochs of `position`.

        Raises:
            OutputError: they cannot be written.
        """
        write_text(self.path / "metrics.csv", _to_csv(position.rows))
        write_readme(self.path, self.recipe, position, self.labels, self.data)

    def draw_soon(self, position: Position) -> None:
        """As `draw`, unless that was done a moment ago and more epochs are to come."""
        moment_ago = time.monotonic() - self.drawn_at < SECONDS_BETWEEN_CURVES
        if position.epoch == self.recipe.epochs or not moment_ago:
            self.draw(position)

    def draw(self, position: Position) -> None:
        """`curves.png` shows the epochs of `position`; one that fails is a note, here and there.

        To be called when all else of these epochs is on the disk.
        """
        from densepath.training.curves import draw_curves

        if not position.rows:
            return
        rows, judged_on = position.rows, self.recipe.data.evaluate_on
        path = self.path / "curves.png"
        failed = save_picture(path, lambda: draw_curves(rows, self._title(), judged_on), dpi=150)
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
        """`train.log` has one more line, with the time.

        Raises:
            OutputError: it cannot be written.
        """
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            with (self.path / "train.log").open("a", encoding="utf-8", errors=READABLE) as file:
                file.write(f"{stamp} {message}\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path / 'train.log'}: {error}") from error


def _to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV with a heading; six significant digits; what does not exist stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()

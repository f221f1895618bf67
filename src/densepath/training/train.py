"""`densepath.train`: from the name of a model and some images to a run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from densepath.choices import ProgressStyle
from densepath.errors import UnknownNameError, UsageError
from densepath.models.catalogue import find_spec
from densepath.training.allocator import keep_freed_memory
from densepath.training.assemble import Place, assemble, count_cores
from densepath.training.distributed import (
    Ranks,
    find_ranks,
    pick_device,
    process_group,
    said_by_leader,
)
from densepath.training.images import part_places
from densepath.training.loop import run
from densepath.training.more_epochs import extend
from densepath.training.parts import Training
from densepath.training.progress import Progress, make_progress
from densepath.training.qat import QAT_RECIPE
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
from densepath.training.signals import StopRequest
from densepath.weights.trained_on import RECIPE_NAME


@dataclass(frozen=True)
class RunResult:
    """What a training has come to.

    Attributes:
        folder: the run folder.
        finished: whether all epochs are done.
        already_finished: whether they were done before this start.
        stopped_by: the signal that stopped it, else None.
        state_written: whether there is a state to go on from.
        epochs: the epochs that are done.
        planned_epochs: all epochs of the recipe.
        score: what `best_top1` and `top1` are: `top-1`, the share of right answers, or of a
            multi-label set `micro-F1`.
        best_top1: the best score and
        best_epoch: the epoch that had it first, from 1; None before the first evaluation.
        top1: of the last epoch.
        loss: of the last epoch, on the evaluation images.
        skipped: the images left out of the last epoch, of training and evaluation together.
        seconds: the time of all starts together.
    """

    folder: Path
    finished: bool
    already_finished: bool
    stopped_by: str | None
    state_written: bool
    epochs: int
    planned_epochs: int
    score: str
    best_top1: float | None
    best_epoch: int | None
    top1: float | None
    loss: float | None
    skipped: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"folder": str(self.folder)}


def train(
    subject: str | Path | None = None,
    *,
    data: str | Path | None = None,
    epochs: int | None = None,
    output: str | Path | None = None,
    recipe: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    qat: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: ProgressStyle = "auto",
    say: Callable[[str], None] | None = None,
    ends_process: bool = False,
) -> RunResult:
    """Train a network and leave a run folder; block until it is done or stopped.

        densepath.train("densenet_bc_40_12", data="cifar10.zip", epochs=20, output="runs/first")
        densepath.train("runs/first")                          goes on where it stopped
        densepath.train("runs/first", epochs=30)               goes on for longer than planned
        densepath.train("timm/densenet121.ra_in1k", data="flowers/", epochs=5,
                        settings={"optimizer.lr": 0.01, "model.freeze": "stem"})

    Started by torchrun or mpirun, all processes train together.

    Args:
        subject: a model of the catalogue, weights to fine-tune (published name or checkpoint
            file), a recipe (`recipe:digits` or a YAML file), or a run folder to go on with.
        data: `digits`, `cifar10`, a folder of class folders, a list file, a CSV or an archive.
        epochs: passes over the training images; of a run folder, how many it goes on to.
        output: the run folder; by default `runs/MODEL-DATA`.
        recipe: a recipe with further settings, by name or file; the arguments here have the
            last word.
        settings: fields of the recipe by their full names, or nested.
        qat: weights to fine-tune so that INT8 loses next to nothing (quantisation-aware
            training): a published name, a checkpoint file, a run folder or a bundle.
        resume: go on if the run folder already holds this training.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: processes that load images; changes nothing but the speed.
        progress: `auto`, `bar`, `lines` or `none`, on standard error.
        say: called in the leading process with what a signal brings, and then with how to go on;
            by default the progress says the first.
        ends_process: whether the process ends when a training that a signal stops at once has
            not stopped within seconds.

    Raises:
        UsageError: arguments that do not hold together; RecipeError for fields of the recipe.
        DataError, WeightsError: what the recipe names cannot be read.
        DivergedError: the loss became NaN, infinite or grew without bound.
        OutputError: the run folder cannot be written.
        StoppedNow: a KeyboardInterrupt; a second signal came, or one before the first step.
        PeerError: another process has failed, or says what is wrong with the arguments.
    """
    ranks = find_ranks(os.environ)
    with said_by_leader(ranks):
        given = _given(settings or {}, data, epochs)
        planned, folder, resume = plan(subject, recipe, given, output, resume=resume, qat=qat)
        place = Place(ranks, pick_device(device, ranks), _pick_workers(workers, ranks.local_size))
    view = make_progress(progress, planned.epochs, leads=ranks.leads)
    try:
        stop = _answer_signals(ranks, folder, view, say, ends_process=ends_process)
        return _train(planned, folder, place, view, stop, resume=resume)
    finally:
        view.close()


def _given(
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


def _answer_signals(
    ranks: Ranks,
    folder: Path,
    view: Progress,
    say: Callable[[str], None] | None,
    *,
    ends_process: bool,
) -> StopRequest:
    """How signals are answered: by `say` with how to go on, or else by the progress."""
    if say is None:
        return StopRequest(view.say, ends_process=ends_process)
    speak = say if ranks.leads else lambda message: None

    def advise() -> None:
        if is_run_folder(folder):
            speak(f"Go on with: densepath train {folder}")

    return StopRequest(speak, advise=advise, ends_process=ends_process)


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
    """`folder`, when it is a run folder and nothing else is asked for.

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


def _train(
    recipe: Recipe, folder: Path, place: Place, view: Progress, stop: StopRequest, *, resume: bool
) -> RunResult:
    """Train until it is done or stopped, with this machine's threads and memory set for it."""
    ranks = place.ranks
    _share_threads(ranks.local_size)
    if place.device.type == "cpu":
        keep_freed_memory()
    devices = [place.device] if place.device.type == "cuda" else []
    with stop, process_group(ranks, place.device), torch.random.fork_rng(devices):
        training = assemble(recipe, place, folder, resume=resume, progress=view, stop=stop)
        already_finished = training.is_finished
        run(training)
        stop.waits_for = "this training is written"
        return _conclude(training, already_finished=already_finished)


def _pick_workers(workers: int | None, local_size: int) -> int:
    """The loading processes: as asked; else the cores beyond the two that compute.

    Raises:
        UsageError: below 0.
    """
    if workers is None:
        return min(8, max(0, count_cores() // local_size - 2))
    if workers < 0:
        raise UsageError(f"workers is {workers}; it must be at least 0.")
    return workers


def _share_threads(local_size: int) -> None:
    """Several processes on one machine share its cores, unless OMP_NUM_THREADS says how."""
    if local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, count_cores() // local_size))


def _conclude(training: Training, *, already_finished: bool) -> RunResult:
    """The result; the leading process has noted the end in the log."""
    position, rows = training.position, training.position.rows
    last = rows[-1] if rows else None
    finished = training.is_finished
    stopped_by = None if finished else training.stop.signal
    if training.ranks.leads and not already_finished:
        training.folder.log("finished" if finished else f"stopped by {stopped_by}")
        if not finished:
            training.folder.draw(position)
    return RunResult(
        folder=training.folder.path,
        finished=finished,
        already_finished=already_finished,
        stopped_by=stopped_by,
        state_written=training.folder.state_path.is_file(),
        epochs=position.epoch,
        planned_epochs=training.recipe.epochs,
        score="micro-F1" if training.loss.multi_label else "top-1",
        best_top1=position.best,
        best_epoch=position.best_epoch,
        top1=last["top1"] if last else None,
        loss=last["loss"] if last else None,
        skipped=last["train_skipped"] + last["skipped"] if last else 0,
        seconds=position.seconds,
    )

"""`densepath.train`: from the name of a model and some images to a run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from densepath.choices import ProgressStyle
from densepath.errors import UsageError
from densepath.training.allocator import keep_freed_memory
from densepath.training.assemble import Placement, assemble
from densepath.training.distributed import (
    Ranks,
    find_ranks,
    pick_device,
    process_group,
    said_by_leader,
)
from densepath.training.environment import count_cores
from densepath.training.loop import run
from densepath.training.monitor import describe_end
from densepath.training.parts import Training
from densepath.training.planning import gather_fields, plan
from densepath.training.progress import Progress, make_progress
from densepath.training.recipe import Recipe
from densepath.training.run_folder import is_run_folder
from densepath.training.signals import StopRequest


@dataclass(frozen=True)
class RunResult:
    """What a training has come to.

    Attributes:
        folder: the run folder.
        finished: whether all epochs are done.
        already_finished: whether they were done before this start.
        stopped_by: the signal that stopped it, else None.
        state_written: whether there is a state to go on from.
        ended_early: whether epochs were left because no better one came (`checkpoint.patience`).
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
    ended_early: bool
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
        given = gather_fields(settings or {}, data, epochs)
        planned, folder, resume = plan(subject, recipe, given, output, resume=resume, qat=qat)
        place = Placement(
            ranks, pick_device(device, ranks), _pick_workers(workers, ranks.local_size)
        )
    view = make_progress(progress, planned.epochs, leads=ranks.leads)
    try:
        stop = _answer_signals(ranks, folder, view, say, ends_process=ends_process)
        return _train(planned, folder, place, view, stop, resume=resume)
    finally:
        view.close()


def _answer_signals(
    ranks: Ranks,
    folder: Path,
    view: Progress,
    say: Callable[[str], None] | None,
    *,
    ends_process: bool,
) -> StopRequest:
    """The answer to signals: `say` tells of them and of how to go on, or else the progress."""
    if say is None:
        return StopRequest(view.say, ends_process=ends_process)
    speak = say if ranks.leads else lambda message: None

    def advise() -> None:
        """Say how to go on, where there is something to go on with."""
        if is_run_folder(folder):
            speak(f"Go on with: densepath train {folder}")

    return StopRequest(speak, advise=advise, ends_process=ends_process)


def _train(
    recipe: Recipe,
    folder: Path,
    place: Placement,
    view: Progress,
    stop: StopRequest,
    *,
    resume: bool,
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
    """Share a machine's cores among its processes, unless OMP_NUM_THREADS says how."""
    if local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, count_cores() // local_size))


def _conclude(training: Training, *, already_finished: bool) -> RunResult:
    """Note the end in the log, and give the result."""
    position, rows = training.position, training.position.rows
    last = rows[-1] if rows else None
    finished = training.is_finished
    stopped_by = None if finished else training.stop.signal
    if training.ranks.leads and not already_finished:
        ended = describe_end(training.recipe, position) if training.ended_early else "finished"
        training.folder.log(ended if finished else f"stopped by {stopped_by}")
        if training.ended_early:
            training.progress.say(ended)
        if not finished or training.ended_early:
            training.folder.draw(position)
    return RunResult(
        folder=training.folder.path,
        finished=finished,
        already_finished=already_finished,
        stopped_by=stopped_by,
        state_written=training.folder.state_path.is_file(),
        ended_early=training.ended_early,
        epochs=position.epoch,
        planned_epochs=training.recipe.epochs,
        score="micro-F1" if training.loss.multi_label else "top-1",
        best_top1=position.best,
        best_epoch=position.best_epoch,
        top1=last.top1 if last else None,
        loss=last.loss if last else None,
        skipped=last.all_skipped if last else 0,
        seconds=position.seconds,
    )

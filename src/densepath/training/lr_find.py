"""`densepath.find_learning_rate`: a few steps as the recipe takes them, at ever higher rates.

On the line: what `train` assembles, without a run folder; nothing is written, and the weights are
thrown away. Source: Smith, arXiv:1506.01186, section 3.3 ("LR range test").
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from densepath.data.batch import Batch
from densepath.errors import DatasetError, UsageError, check_count
from densepath.training.agreed import agreed_batches, check_readable
from densepath.training.allocator import keep_freed_memory
from densepath.training.assemble import Placement, assemble
from densepath.training.distributed import find_ranks, pick_device
from densepath.training.judging import show_calibration
from densepath.training.optimizer import train_mode
from densepath.training.parts import Training
from densepath.training.planning import gather_fields, plan
from densepath.training.progress import NoProgress
from densepath.training.rate_curve import RateCurve, make_curve
from densepath.training.recipe import Recipe
from densepath.training.run_folder import is_run_folder
from densepath.training.shares import StepShare
from densepath.training.signals import StopRequest
from densepath.training.step import take_step
from densepath.training.train import pick_workers
from densepath.weights.trained_on import RECIPE_NAME

STEPS, LOWEST, HIGHEST = 100, 1e-6, 10.0
LEAST_STEPS = 20
# The test ends where the mean of the last losses is so many times the lowest such mean.
DIVERGED, RECENT = 4.0, 5

Tell = Callable[[int, float, float], None]


def find_learning_rate(
    subject: str | Path | None = None,
    *,
    data: str | Path | None = None,
    recipe: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    steps: int = STEPS,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    device: str = "auto",
    workers: int | None = None,
    tell: Tell = lambda step, rate, loss: None,
) -> RateCurve:
    """The loss over an exponentially rising learning rate, and the rate that it suggests.

    Images, augmentation, mixing, loss, optimiser and precision are the recipe's; its schedule is
    not. Nothing is written.

    Args:
        subject, data, recipe, settings: as `densepath.train` takes them; of a run folder its recipe
            and first weights.
        steps: the most steps; each takes a batch of the recipe.
        lowest, highest: the rates of the first and of the last step.
        device, workers: as `densepath.train` takes them.
        tell: called with the number, rate and loss of each step.

    Raises:
        UsageError: rates or steps that make no curve, or several processes; what `train` raises
            for arguments.
        DataError, WeightsError: what the recipe names cannot be read.
    """
    check_count("steps", steps, least=LEAST_STEPS)
    if not 0 < lowest < highest < math.inf:
        raise UsageError(
            f"the rates go from {lowest:g} to {highest:g}; they must rise, from above 0."
        )
    ranks = find_ranks(os.environ)
    if ranks.world_size > 1:
        raise UsageError(
            "the learning rate is looked for in one process, which computes whole batches of the "
            "recipe; start it without torchrun or mpirun. For batches that do not fit into its "
            "memory: --set distributed.accumulate=4."
        )
    if subject is not None and is_run_folder(subject):
        subject = Path(subject) / RECIPE_NAME
    planned, _, _ = plan(
        subject, recipe, gather_fields(settings or {}, data, None), None, resume=False
    )
    place = Placement(ranks, pick_device(device, ranks), pick_workers(workers, 1))
    if place.device.type == "cpu":
        keep_freed_memory()
    devices = [place.device] if place.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        training = assemble(
            planned, place, None, resume=False, progress=NoProgress(), stop=StopRequest(_unheard)
        )
        show_calibration(training)
        rates = [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]
        losses, stopped_by = _rise(training, rates, tell)
    if not losses:
        raise DatasetError(
            f"{training.recipe.data.source}: the loss is no number at the first step, at a rate of "
            f"{lowest:g}. Check labels and weights."
        )
    about = _about(training)
    return make_curve(rates[: len(losses)], losses, stopped_by=stopped_by, about=about)


def _unheard(message: str) -> None:
    """Say nothing: no signal is caught, Ctrl-C ends the program."""


def _rise(training: Training, rates: list[float], tell: Tell) -> tuple[list[float], str]:
    """The loss of each step at its rate, and why it ended: `end` or `divergence`."""
    losses: list[float] = []
    lowest = math.inf
    train_mode(training.stepped, training.frozen)
    for batch, share in _endless(training):
        rate = rates[len(losses)]
        take_step(training, batch, share, lr=rate)
        sums, _ = training.sums.exchange(training.ranks)
        loss = sums.mean_loss
        if not math.isfinite(loss):
            return losses, "divergence"
        losses.append(loss)
        tell(len(losses), rate, loss)
        recent = fmean(losses[-RECENT:])
        lowest = min(lowest, recent)
        if recent > DIVERGED * lowest:
            return losses, "divergence"
        if len(losses) == len(rates):
            break
    return losses, "end"


def _endless(training: Training) -> Iterator[tuple[Batch, StepShare]]:
    """The batches of one epoch after the other that have images which can be read.

    Raises:
        DatasetError: an epoch has none.
        ImageError: an image cannot be read, and the recipe says `data.on_error: fail`.
    """
    position = training.position
    while True:
        unreadable = 0
        batches = training.train_loader.epoch(position.epoch)
        for batch, share in agreed_batches(training, batches):
            unreadable += len(batch.errors)
            if share.num_images:
                yield batch, share
            position.step += 1
        check_readable(training, unreadable)
        position.epoch, position.step = position.epoch + 1, 0


def _about(training: Training) -> str:
    """What was trained, in a sentence."""
    recipe: Recipe = training.recipe
    start = f"from {recipe.model.weights}" if recipe.model.weights else "new weights"
    return (
        f"{recipe.model.name} ({start}) on {Path(recipe.data.source).name}, batches of "
        f"{recipe.data.batch_size}, {recipe.optimizer.name}, {recipe.compute.precision}."
    )

"""From a recipe to a Training: data, network, optimiser and folder, put together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from densepath.data.augment import Augment
from densepath.data.dataset import Dataset, gather_targets
from densepath.data.loader import EvalLoader, TrainLoader
from densepath.data.mixing import Mixing
from densepath.errors import LabelMismatchError, RecipeError
from densepath.training.augments import augments_by_epoch
from densepath.training.blocks.choose import fuse_blocks, wants_fused
from densepath.training.distributed import ALONE, Ranks
from densepath.training.ema import Ema
from densepath.training.event_file import import_package
from densepath.training.images import RunImages, follow_images, open_images, remember
from densepath.training.monitor import check_monitor
from densepath.training.network import build_network, open_weights
from densepath.training.open_board import open_board
from densepath.training.optimizer import build_optimizer, freeze
from densepath.training.parts import Training
from densepath.training.progress import Progress
from densepath.training.recipe import Recipe
from densepath.training.resolve import build_preprocess, is_resolved, resolve
from densepath.training.run_folder import STATE_NAME, RunFolder, check_run_folder
from densepath.training.shares import check_batch, count_least_images, is_synced
from densepath.training.signals import StopRequest
from densepath.training.sizes import sizes_by_epoch
from densepath.training.state import Position, StateParts
from densepath.training.steps.choose import choose_step
from densepath.training.sync_bn import synchronise
from densepath.training.weighting import build_loss, describe_weights
from densepath.weights.checkpoint import Checkpoint

NO_FOLDER = Path("NO-FOLDER")  # of a trial: nothing is written there
T = TypeVar("T")


@dataclass(frozen=True)
class Placement:
    """Where a training runs: nothing of this changes what it computes, but for rounding."""

    ranks: Ranks
    device: torch.device
    workers: int


def assemble(
    recipe: Recipe,
    place: Placement,
    folder: Path | None,
    *,
    resume: bool,
    progress: Progress,
    stop: StopRequest,
) -> Training:
    """The training of `recipe`, standing where its folder left it.

    Without a folder it is a trial, of which nothing is to be written.

    Raises:
        RecipeError: the recipe does not fit the data, the weights or the number of processes.
        DataError, WeightsError, OutputError, UsageError: what it names cannot be used.
    """
    ranks, device = place.ranks, place.device
    with ranks.together(device) as exchange:
        exchange.value = resume and folder is not None and (folder / STATE_NAME).is_file()
    goes_on = bool(exchange.values[0])
    if recipe.logging.tensorboard:
        import_package()  # a missing one is said before anything is read
    recipe, checkpoint = _settle(recipe, place, folder, resume=resume, goes_on=goes_on)
    images = _in_turn(place, lambda: open_images(recipe))
    data = images.train
    with ranks.together(device):
        preprocess = build_preprocess(recipe)
        _check_data(recipe, data, images.judged)
        memory = None
        if ranks.leads and folder is not None:
            memory = remember(images, recipe, folder, checkpoint, goes_on=goes_on)
        smallest = min(sizes_by_epoch(recipe), key=math.prod)
        network = build_network(recipe, checkpoint, data.class_names, device)
        step = choose_step(recipe, network, start=checkpoint, data=data, device=device)
        frozen = [*freeze(network, recipe.model.freeze), *step.frozen]
        least_images = count_least_images(network, frozen, smallest)
        check_batch(recipe, ranks, smallest, len(data), least_images)
        optimizer = build_optimizer(network, recipe.optimizer)
        started = {"processes": ranks.world_size, "device": device.type}
        run_folder = RunFolder(folder or NO_FOLDER, recipe, preprocess, images, memory, started)
    if is_synced(recipe, ranks):
        synchronise(network, device)
    ema = Ema(network, recipe.ema.decay) if recipe.ema.decay else None
    with ranks.together(device):
        loss = build_loss(recipe.loss, data, device)
        check_monitor(recipe, multi_label=data.multi_label)
        position = Position(num_images=[len(data), len(images.judged)])
        if goes_on:
            parts = StateParts(network, optimizer, ema, step.state)
            position = run_folder.load_state(position.num_images, parts)
        if ranks.leads and folder is not None:
            _begin(run_folder, position, progress, resume=resume)
            for line in describe_weights(recipe.loss, loss, data.class_names):
                progress.say(line)
    augments = augments_by_epoch(recipe, preprocess)
    train_loader = _train_loader(recipe, place, images, augments, least_images)
    training = Training(
        recipe=recipe,
        ranks=ranks,
        device=device,
        network=network,
        step=step,
        stepped=_wrap(step.module, recipe, place),
        frozen=frozen,
        optimizer=optimizer,
        ema=ema,
        loss=loss,
        masked=data.multi_label and not np.isfinite(gather_targets(data)).all(),
        mixing=_build_mixing(recipe, data),
        train_loader=train_loader,
        eval_loader=EvalLoader(images.judged, preprocess, **_sharing(recipe, place)),
        least_images=least_images,
        folder=run_folder,
        progress=progress,
        stop=stop,
        position=position,
    )
    if not training.is_finished:
        _fuse(training, place)
    with ranks.together(device):
        if recipe.logging.tensorboard and ranks.leads and folder and not training.is_finished:
            training.board = open_board(training)
    return training


def _settle(
    recipe: Recipe, place: Placement, folder: Path | None, *, resume: bool, goes_on: bool
) -> tuple[Recipe, Checkpoint | None]:
    """The recipe with nothing left open, and what the network has its first weights of.

    Raises:
        RecipeError: it does not fit the weights, the number of processes or the folder.
        UsageError, OutputError: the folder cannot take this training.
        WeightsError, DatasetError: the weights or images are not there.
    """
    ranks = place.ranks
    needs_none = goes_on and is_resolved(recipe)
    checkpoint = _in_turn(place, lambda: None if needs_none else open_weights(recipe.model))
    with ranks.together(place.device):
        recipe = resolve(recipe, checkpoint)
        _share_of_batch(recipe, ranks)
        if folder is not None and goes_on:
            recipe = follow_images(recipe, folder)
        if folder is not None and ranks.leads:
            check_run_folder(folder, recipe, resume=resume)
    return recipe, checkpoint


def _begin(run_folder: RunFolder, position: Position, progress: Progress, *, resume: bool) -> None:
    """Write the folder's first files, and say which images the training has.

    Raises:
        OutputError: they cannot be written.
    """
    memory = run_folder.memory
    trains = position.epoch < run_folder.recipe.epochs
    if trains:  # a finished run may be read-only
        run_folder.begin(resume=resume)
    run_folder.keep_recipe()
    said = "" if memory is None else memory.text if trains else "\n".join(memory.notes)
    if said:
        progress.say(said)


def _fuse(training: Training, place: Placement) -> None:
    """Let blocks be computed as the recipe asks, of the average of the network, too.

    Raises:
        OutputError: the log cannot be written.
    """
    recipe, device, ranks = training.recipe, training.device, training.ranks
    folder, num_images = training.folder, training.train_loader.num_images
    progress = training.progress  # the blocks hold `say`: with the training it would hold itself

    def say(line: str) -> None:
        """Say a line once for all processes, and in the log, if the training has one."""
        if ranks.leads:
            progress.say(line)
            if folder.path != NO_FOLDER:
                folder.log(line)

    spec = training.network.spec
    if not wants_fused(spec, recipe, device, say, num_images=num_images, ranks=ranks):
        return
    networks = [training.network, *([training.ema.model] if training.ema is not None else [])]
    counted = ranks if is_synced(recipe, ranks) else ALONE
    _in_turn(place, lambda: fuse_blocks(networks, recipe, device, say, ranks=counted))


def _sharing(recipe: Recipe, place: Placement) -> dict[str, Any]:
    """What both loaders are told of this process's part."""
    ranks = place.ranks
    return {
        "batch_size": _share_of_batch(recipe, ranks),
        "rank": ranks.rank,
        "world_size": ranks.world_size,
        "workers": place.workers,
        "on_error": recipe.data.on_error,
    }


def _train_loader(
    recipe: Recipe,
    place: Placement,
    images: RunImages,
    augments: Sequence[Augment],
    least_images: int,
) -> TrainLoader:
    """This process's batches of training images."""
    return TrainLoader(
        images.train,
        augments,
        seed=recipe.seed,
        least_images=least_images,
        least_share=1 if is_synced(recipe, place.ranks) else least_images,
        sampler=recipe.data.sampler,
        **_sharing(recipe, place),
    )


def _share_of_batch(recipe: Recipe, ranks: Ranks) -> int:
    """The images of a step that each process takes.

    Raises:
        RecipeError: the batch does not divide.
    """
    batch_size, parts = recipe.data.batch_size, recipe.distributed.accumulate
    if batch_size % (ranks.world_size * parts):
        raise RecipeError(
            f"data.batch_size {batch_size} cannot be divided over {ranks.world_size} processes "
            f"with distributed.accumulate {parts}; it must be a multiple of "
            f"{ranks.world_size * parts}. (It counts the images of a step over all processes.)"
        )
    return batch_size // ranks.world_size


def _in_turn(place: Placement, open_it: Callable[[], T]) -> T:
    """What `open_it` returns; the leader is first, for it may have to download it."""
    opened: list[T] = []
    for leads in (True, False):
        with place.ranks.together(place.device):
            if place.ranks.leads == leads:
                opened.append(open_it())
    return opened[0]


def _check_data(recipe: Recipe, train_data: Dataset, eval_data: Dataset) -> None:
    """Raise unless the data can train a network.

    Raises:
        RecipeError: fewer than two classes, or an option that the data rules out.
        LabelMismatchError: the evaluation images are of other classes.
    """
    if train_data.class_names != eval_data.class_names:
        differing = set(train_data.class_names) ^ set(eval_data.class_names)
        raise LabelMismatchError(
            f"{recipe.data.source}: training and evaluation images have different classes "
            f"({', '.join(sorted(differing)) or 'in another order'}); a class needs both."
        )
    if len(train_data.class_names) < 2 and not train_data.multi_label:
        raise RecipeError(
            f"{recipe.data.source} has one class ({train_data.class_names[0]}); "
            "a classifier needs two."
        )
    if train_data.multi_label and recipe.augment.cutmix:
        raise RecipeError("augment.cutmix mixes one class with another; this data is multi-label.")


def _wrap(module: nn.Module, recipe: Recipe, place: Placement) -> nn.Module:
    """What computes the steps: the step's module, compiled and spread over processes as asked."""
    stepped = module
    if recipe.compute.compile:
        stepped = torch.compile(stepped)  # type: ignore[assignment]
    if place.ranks.world_size > 1:
        ids = [place.device.index] if place.device.type == "cuda" else None
        stepped = DistributedDataParallel(stepped, device_ids=ids)
    return stepped


def _build_mixing(recipe: Recipe, data: Dataset) -> Mixing:
    """The mixing of training images with each other."""
    return Mixing(
        num_classes=len(data.class_names),
        mixup=recipe.augment.mixup,
        cutmix=recipe.augment.cutmix,
    )

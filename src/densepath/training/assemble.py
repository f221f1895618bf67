"""From a recipe to a Training: data, network, optimiser and folder, put together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from densepath.data.augment import Augment
from densepath.data.dataset import Dataset
from densepath.data.loader import EvalLoader, TrainLoader
from densepath.data.mixing import Mixing
from densepath.data.open import open_dataset
from densepath.errors import RecipeError
from densepath.models.build import Model, build_model, resolve_spec
from densepath.preprocess import Preprocess
from densepath.training.distributed import Ranks
from densepath.training.ema import Ema
from densepath.training.loop import Training
from densepath.training.loss import Loss
from densepath.training.optimizer import build_optimizer, freeze
from densepath.training.progress import Progress
from densepath.training.recipe import Recipe
from densepath.training.resolve import build_preprocess, resolve
from densepath.training.run_folder import RunFolder
from densepath.training.signals import StopRequest
from densepath.training.state import Position
from densepath.training.sync_bn import synchronise
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint


@dataclass(frozen=True)
class Place:
    """Where a training runs: nothing of this changes what it computes, but for rounding."""

    ranks: Ranks
    device: torch.device
    workers: int


def assemble(
    recipe: Recipe,
    place: Place,
    folder: Path,
    *,
    resume: bool,
    progress: Progress,
    stop: StopRequest,
) -> Training:
    """The training of `recipe`, standing where its folder left it.

    Raises:
        RecipeError: the recipe does not fit the data, the weights or the number of processes.
        DataError, WeightsError, OutputError, UsageError: what it names cannot be used.
    """
    ranks, device = place.ranks, place.device
    share = _share_of_batch(recipe, ranks)
    checkpoint, train_data, eval_data = _open_in_turn(recipe, place)
    recipe = resolve(recipe, checkpoint)
    preprocess = build_preprocess(recipe)
    _check_data(recipe, train_data, eval_data)
    network = _build_network(recipe, checkpoint, train_data, device)
    frozen = freeze(network, recipe.model.freeze)
    if recipe.distributed.sync_bn and ranks.world_size > 1:
        synchronise(network, device)
    optimizer = build_optimizer(network, recipe.optimizer)
    ema = Ema(network, recipe.ema.decay) if recipe.ema.decay else None
    run_folder = RunFolder(
        folder,
        recipe,
        preprocess,
        train_data.class_names,
        train_data.multi_label,
        train_data.description,
        {"processes": ranks.world_size, "device": device.type},
    )
    with ranks.together(device):
        if ranks.leads:
            run_folder.begin(resume=resume)
    position = Position()
    if resume:
        with ranks.together(device):
            position = run_folder.load_state(network, optimizer, ema)
    return Training(
        recipe=recipe,
        ranks=ranks,
        device=device,
        network=network,
        stepped=_wrap(network, recipe, place),
        frozen=frozen,
        optimizer=optimizer,
        ema=ema,
        loss=Loss(multi_label=train_data.multi_label, label_smoothing=recipe.loss.label_smoothing),
        mixing=_build_mixing(recipe, train_data),
        train_loader=TrainLoader(
            train_data,
            _build_augment(recipe, preprocess),
            batch_size=share,
            seed=recipe.seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
            workers=place.workers,
            on_error=recipe.data.on_error,
        ),
        eval_loader=EvalLoader(
            eval_data,
            preprocess,
            batch_size=share,
            rank=ranks.rank,
            world_size=ranks.world_size,
            workers=place.workers,
            on_error=recipe.data.on_error,
        ),
        folder=run_folder,
        progress=progress,
        stop=stop,
        position=position,
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


def _open_in_turn(recipe: Recipe, place: Place) -> tuple[Checkpoint | None, Dataset, Dataset]:
    """Weights, training and evaluation images; the leader first, for it may download them."""
    opened = None
    for leads in (True, False):
        with place.ranks.together(place.device):
            if place.ranks.leads == leads:
                opened = _open(recipe)
    assert opened is not None
    return opened


def _open(recipe: Recipe) -> tuple[Checkpoint | None, Dataset, Dataset]:
    """Weights, training and evaluation images."""
    weights = recipe.model.weights
    data = recipe.data
    options: dict[str, Any] = {
        "channels": data.channels,
        "validation_fraction": data.validation_fraction,
        "seed": recipe.seed,
        "data_root": data.root,
    }
    return (
        open_checkpoint(weights) if weights is not None else None,
        open_dataset(data.source, split="train", **options),
        open_dataset(data.source, split=data.evaluate_on, **options),
    )


def _check_data(recipe: Recipe, train_data: Dataset, eval_data: Dataset) -> None:
    """Returns when the data can train a network.

    Raises:
        RecipeError: fewer than two classes, or an option that the data rules out.
    """
    if len(train_data.class_names) < 2 and not train_data.multi_label:
        raise RecipeError(
            f"{recipe.data.source} has one class ({train_data.class_names[0]}); "
            "a classifier needs two."
        )
    if train_data.multi_label and recipe.augment.cutmix:
        raise RecipeError("augment.cutmix mixes one class with another; this data is multi-label.")


def _build_network(
    recipe: Recipe, checkpoint: Checkpoint | None, data: Dataset, device: torch.device
) -> Model:
    """The network with its first weights on its device; a new classifier for new classes."""
    section = recipe.model
    torch.manual_seed(recipe.seed)
    network = build_model(
        resolve_spec(
            checkpoint.spec if checkpoint is not None else str(section.name),
            stem=section.stem,
            bn_eps=section.bn_eps,
            stem_pool=section.stem_pool,
        ),
        num_classes=len(data.class_names),
        in_channels=recipe.data.channels,
        drop_rate=section.drop_rate,
        drop_path_rate=section.drop_path_rate,
    )
    if checkpoint is not None:
        _load_weights(network, checkpoint, data.class_names)
    layout = torch.channels_last if recipe.compute.channels_last else torch.contiguous_format
    return network.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def _load_weights(network: Model, checkpoint: Checkpoint, labels: list[str]) -> None:
    """The network holds the checkpoint's weights; its classifier only when the labels agree."""
    keep_head = list(checkpoint.labels) == list(labels)
    tensors = {
        name: tensor
        for name, tensor in checkpoint.tensors.items()
        if keep_head or not name.startswith("classifier.")
    }
    network.load_state_dict(tensors, strict=False)


def _wrap(network: Model, recipe: Recipe, place: Place) -> nn.Module:
    """What computes the steps: the network, compiled and spread over processes as asked."""
    stepped: nn.Module = network
    if recipe.compute.compile:
        stepped = torch.compile(stepped)  # type: ignore[assignment]
    if place.ranks.world_size > 1:
        ids = [place.device.index] if place.device.type == "cuda" else None
        stepped = DistributedDataParallel(stepped, device_ids=ids)
    return stepped


def _build_augment(recipe: Recipe, preprocess: Preprocess) -> Augment:
    """The random changes of training images."""
    fields = recipe.augment.model_dump(exclude={"mixup", "cutmix"})
    return Augment(preprocess=preprocess, **fields)


def _build_mixing(recipe: Recipe, data: Dataset) -> Mixing:
    """The mixing of training images with each other."""
    return Mixing(
        num_classes=len(data.class_names),
        mixup=recipe.augment.mixup,
        cutmix=recipe.augment.cutmix,
    )


def count_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

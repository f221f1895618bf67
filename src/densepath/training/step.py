"""One step: this process's share of a batch, forwards and backwards, and the weights' move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from densepath.data.batch import Batch
from densepath.training.loss import count_known
from densepath.training.optimizer import clip_gradients, set_learning_rate, train_mode
from densepath.training.parts import Training
from densepath.training.shares import StepShare


def take_step(training: Training, batch: Batch, share: StepShare) -> None:
    """Move the weights once, against the mean gradient of all processes' images.

    Each process adds up the loss of its own images, so that processes with fewer readable
    images weigh less; of labels that are not all known the mean is over those that some process
    knows, whichever part or process has them. DistributedDataParallel averages gradients over
    processes; the factor `world_size` makes that average the sum. A process without images takes
    part in every exchange, with a gradient of zero.
    """
    recipe, position, ranks = training.recipe, training.position, training.ranks
    torch.manual_seed(_draw_seed(recipe.seed, position.epoch, position.step, ranks.rank))
    set_learning_rate(training.optimizer, training.lr_at(position.step))
    training.step.begin(training.share_done)
    images = batch.images.to(training.device, non_blocking=True)
    targets = batch.targets.to(training.device, non_blocking=True)
    images, targets = training.mixing(
        images, targets, seed=recipe.seed, epoch=position.epoch, step=position.step
    )
    images = images.contiguous(memory_format=training.memory_format)
    total = _count_labels(training, targets, share)
    parts = list(zip(share.split(images), share.split(targets), strict=True))
    for part, (x, y) in enumerate(parts, start=1):
        exchange = part == len(parts)
        if not (len(x) or exchange or training.synced):
            continue
        with _keep_gradients(training.stepped, exchange=exchange), _statistics_of(training, x):
            with _autocast(training):
                logits = training.stepped(x)
                aims = training.step.targets(x, y)
            loss = training.loss(logits.float(), aims)
            (loss * (ranks.world_size / total)).backward()
        right = training.loss.count_right(logits.detach(), y)
        known = count_known(y) if training.masked else len(x)
        training.sums.add(loss.detach(), right, len(x), known)
    clip_gradients(training.network, recipe.optimizer.clip_norm)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    if training.ema is not None:
        training.ema.update(training.network)


def _count_labels(training: Training, targets: Tensor, share: StepShare) -> float:
    """What the sum of all processes' losses is divided by: images, or images' worth of labels.

    A step in which no label is known moves nothing by its labels.
    """
    if not training.masked:
        return share.num_images
    used = torch.cat(share.split(targets))
    known = training.ranks.sum(count_known(used).to(training.device)).item()
    return known or 1.0


def _draw_seed(*place: int) -> int:
    """The seed of the random draws (dropout, drop-path) at this place of the training."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0])


def _keep_gradients(stepped: nn.Module, *, exchange: bool) -> Any:
    """A context in which backward adds gradients, and exchanges them only when it should."""
    if isinstance(stepped, DistributedDataParallel) and not exchange:
        return stepped.no_sync()
    return nullcontext()


@contextmanager
def _statistics_of(training: Training, images: Tensor) -> Iterator[None]:
    """A context in which no statistics follow a pass without images, of this process alone."""
    if len(images):
        yield
        return
    training.step.pause_statistics()
    if not training.synced:
        training.stepped.eval()
    yield
    train_mode(training.stepped, training.frozen)


def _autocast(training: Training) -> torch.autocast:
    """A context of the recipe's precision."""
    lower = training.recipe.compute.precision == "bfloat16"
    return torch.autocast(training.device.type, torch.bfloat16, enabled=lower)

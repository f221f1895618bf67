"""The loop: epochs of steps, an evaluation after each, and nothing lost when it is interrupted.

On the line: batches and a network come in (`assemble.py`), checkpoints and metrics go out
(`run_folder.py`). Every random draw comes from (seed, epoch, step), and the state of the
training is written so that it can go on bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from densepath.data.loader import Batch, EvalLoader
from densepath.errors import DensepathError, DivergedError
from densepath.evaluation.accuracy import Summary, evaluate_batches
from densepath.evaluation.metrics import top5_tells
from densepath.training.distributed import PeerError
from densepath.training.optimizer import all_finite, clip_gradients, set_learning_rate, train_mode
from densepath.training.parts import Training
from densepath.training.progress import Progress

# Processes exchange sums, look for trouble and may write their state at every such step. On a
# GPU reading a number waits for all work in flight, so it is done more rarely there.
PULSE_STEPS = {"cpu": 1, "cuda": 10}
RECENT_STEPS = 50
DIVERGED_FACTOR = 10.0


def run(training: Training) -> None:
    """The training has gone through all its epochs, or a signal has stopped it between steps.

    Raises:
        DivergedError: the loss became NaN, infinite or grew without bound.
        OutputError: the run folder cannot be written.
        ImageError: an image cannot be read, and the recipe says `data.on_error: fail`.
        PeerError: another process failed.
    """
    if training.quantised is not None and not training.quantised.ranges.num_batches:
        _calibrate(training)
    while training.position.epoch < training.recipe.epochs:
        if not _train_epoch(training):
            return
        summary = _evaluate(training, training.judged)
        _finish_epoch(training, summary)


def _calibrate(training: Training) -> None:
    """The ranges of activations are known, and how the rounded network does before it learns.

    The leading process's images count, so that all processes have the same ranges.
    """
    quantised, loader = training.quantised, training.train_loader
    assert quantised is not None
    batches = _agreed(training, loader.epoch(0))
    for batch, num_images in islice(batches, training.recipe.quantization.calibration_batches):
        if num_images:
            images = batch.images.to(training.device)
            quantised.calibrate(images.contiguous(memory_format=training.memory_format))
    training.ranks.take_leaders(list(quantised.ranges.buffers()))
    training.position.start = {
        "top1": _evaluate(training, training.judged).top1,
        "float_top1": _evaluate(training, training.kept).top1,
    }
    if training.ranks.leads:
        scores = "top-1 {top1:.4f}, as float32 {float_top1:.4f}"
        training.folder.log(f"rounded at the start: {scores.format(**training.position.start)}")


def _train_epoch(training: Training) -> bool:
    """Does the steps of this epoch that are not done yet; False when a signal came before."""
    position, loader = training.position, training.train_loader
    train_mode(training.stepped, training.frozen)
    training.progress.start_epoch(position, loader.steps_per_epoch)
    pulse_steps = PULSE_STEPS[training.device.type]
    batches = loader.epoch(position.epoch, start_step=position.step)
    for batch, num_images in _agreed(training, batches):
        if num_images:
            _step(training, batch, num_images)
        training.sums[3] += len(batch.errors)
        position.step += 1
        last = position.step == loader.steps_per_epoch
        if (position.step % pulse_steps == 0 or last) and _pulse(training):
            return False
    return True


def _agreed(training: Training, batches: Iterator[Batch]) -> Iterator[tuple[Batch, int]]:
    """Each process's batch, with the images that all processes have together.

    That number is 0 when some process has fewer images than parts to compute: the step is then
    left out by all of them.

    Raises:
        ImageError: an image cannot be read; in the other processes PeerError.
    """
    ranks, parts = training.ranks, training.recipe.distributed.accumulate
    for _ in range(training.train_loader.steps_per_epoch - training.position.step):
        with ranks.together(training.device) as exchange:
            batch = next(batches)
            exchange.value = len(batch.images)
        counts = exchange.values
        yield batch, sum(counts) if min(counts) >= parts else 0


def _step(training: Training, batch: Batch, num_images: int) -> None:
    """The weights have moved once, against the mean gradient of `num_images` images.

    Each process adds up the loss of its own images, so that processes with fewer readable
    images weigh less. DistributedDataParallel averages gradients over processes; the factor
    `world_size` makes that average the sum.
    """
    recipe, position, ranks = training.recipe, training.position, training.ranks
    torch.manual_seed(_draw_seed(recipe.seed, position.epoch, position.step, ranks.rank))
    set_learning_rate(training.optimizer, training.lr_at(position.step))
    if training.quantised is not None:
        training.quantised.observing = training.share_done < recipe.quantization.observe
    images = batch.images.to(training.device, non_blocking=True)
    targets = batch.targets.to(training.device, non_blocking=True)
    images, targets = training.mixing(
        images, targets, seed=recipe.seed, epoch=position.epoch, step=position.step
    )
    images = images.contiguous(memory_format=training.memory_format)
    parts = recipe.distributed.accumulate
    for part, (x, y) in enumerate(
        zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True), start=1
    ):
        with _keep_gradients(training.stepped, exchange=part == parts):
            with _autocast(training):
                logits = training.stepped(x)
                aim = y if training.teacher is None else training.teacher.targets(x, y)
            loss = training.loss(logits.float(), aim)
            (loss * (ranks.world_size / num_images)).backward()
        training.sums[0] += loss.detach()
        training.sums[1] += training.loss.count_right(logits.detach(), y)
        training.sums[2] += len(x)
    clip_gradients(training.network, recipe.optimizer.clip_norm)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    if training.ema is not None:
        training.ema.update(training.network)


def _draw_seed(*place: int) -> int:
    """The seed of the random draws (dropout, drop-path) at this place of the training."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0])


def _keep_gradients(stepped: nn.Module, *, exchange: bool) -> Any:
    """A context in which backward adds gradients, and exchanges them only when it should."""
    if isinstance(stepped, DistributedDataParallel) and not exchange:
        return stepped.no_sync()
    return nullcontext()


def _autocast(training: Training) -> torch.autocast:
    """A context of the recipe's precision."""
    lower = training.recipe.compute.precision == "bfloat16"
    return torch.autocast(training.device.type, torch.bfloat16, enabled=lower)


def _pulse(training: Training) -> bool:
    """The sums of all processes are in the position; True when a signal says to stop.

    The state is written when it is due, and before a stop.

    Raises:
        DivergedError: the loss since the last exchange is not finite, or far too high.
    """
    position = training.position
    flags = [float(training.stop.signal is not None), float(_save_is_due(training))]
    exchanged = torch.cat([training.sums, training.sums.new_tensor(flags)])
    *sums, stop, save = training.ranks.sum(exchanged).tolist()
    training.sums.zero_()
    position.sums = [a + b for a, b in zip(position.sums, sums, strict=True)]
    training.count_time()
    _check_loss(training, sums)
    training.progress.step(position, training.lr_at(position.step - 1), int(sums[2]))
    if stop and training.stop.signal is None:
        training.stop.signal = "a signal to another process"
    if stop or save:
        _save_state(training)
    return bool(stop)


def _save_is_due(training: Training) -> bool:
    """Whether the recipe asks for a state now; the leading process decides."""
    section, step = training.recipe.checkpoint, training.position.step
    pulse = PULSE_STEPS[training.device.type]
    by_steps = section.every_steps is not None and step % section.every_steps < pulse <= step
    minutes = (time.monotonic() - training.saved_at) / 60
    by_time = section.every_minutes is not None and minutes >= section.every_minutes
    return training.ranks.leads and (by_steps or by_time)


def _check_loss(training: Training, sums: list[float]) -> None:
    """Returns when the training is sane; keeps the recent loss.

    Raises:
        DivergedError: NaN, infinite, or over the last steps 10 times that of a network that
            knows nothing.
    """
    if not sums[2]:
        return
    position, loss = training.position, sums[0] / sums[2]
    known = position.recent_loss
    position.recent_loss = loss if known is None else known + (loss - known) / RECENT_STEPS
    bound = DIVERGED_FACTOR * training.loss.chance_level(training.network.num_classes)
    if math.isfinite(loss) and position.recent_loss < bound:
        return
    raise _leader_says(training, f"the loss became {loss:.4g}")


def _leader_says(training: Training, what: str) -> DensepathError:
    """A DivergedError with the place and the cure; in all but one process a PeerError."""
    if not training.ranks.leads:
        return PeerError("the training diverged.")
    position, folder = training.position, training.folder
    lr = training.lr_at(position.step - 1)
    return DivergedError(
        f"{what} in epoch {position.epoch + 1}, step {position.step}, at a learning rate of "
        f"{lr:.4g}. {folder.describe_last_good()} Mostly the learning rate is too high: "
        "start again with a lower --lr, a warm-up (--set schedule.warmup_epochs=1) or shorter "
        "gradients (--set optimizer.clip_norm=1). Check the labels too."
    )


def _save_state(training: Training) -> None:
    """The run folder holds the state of this step, unless the weights are damaged.

    Raises:
        DivergedError: a weight is NaN or infinite; the last good state is kept.
        OutputError: it cannot be written.
    """
    if not all_finite(list(training.network.parameters())):
        raise _leader_says(training, "a weight became NaN or infinite")
    with training.ranks.together(training.device):
        if training.ranks.leads:
            training.folder.save_state(
                training.position,
                training.network,
                training.optimizer,
                training.ema,
                training.besides,
            )
    training.saved_at = time.monotonic()


def _evaluate(training: Training, model: nn.Module) -> Summary:
    """The summary of `model` over the evaluation images of all ranks.

    Computed in float32, so that `densepath evaluate` of the checkpoint gives the same numbers.

    Raises:
        ImageError: an image cannot be read, and the recipe says `data.on_error: fail`.
        DatasetError: not one image could be read.
    """
    # Without SyncBN each process has its own running statistics; the leader's are kept.
    training.ranks.take_leaders(list(model.buffers()))
    training.progress.start_evaluation(len(training.eval_loader))
    batches = _Deferring(training.eval_loader, training.progress)
    with training.ranks.together(training.device):
        try:
            summary = evaluate_batches(
                model, batches, training.device, memory_format=training.memory_format
            )
        finally:
            if batches.error is not None:
                raise batches.error
    return summary


class _Deferring:
    """Batches of a loader whose error is kept for later, so that no process misses an exchange."""

    def __init__(self, loader: EvalLoader, progress: Progress) -> None:
        self.loader, self.progress = loader, progress
        self.error: DensepathError | None = None

    def __iter__(self) -> Iterator[Batch]:
        try:
            for batch in self.loader:
                yield batch
                self.progress.evaluated(len(batch.images))
        except DensepathError as error:
            self.error = error


def _finish_epoch(training: Training, summary: Summary) -> None:
    """The epoch's row, checkpoints and state are written, then drawn; the next one may start."""
    training.count_time()
    position = training.position
    loss, right, images, skipped = position.sums
    row = {
        "epoch": position.epoch + 1,
        "lr": training.lr_at(position.step - 1),
        "train_loss": loss / max(images, 1),
        "train_accuracy": right / max(images, 1),
        "loss": summary.loss,
        "top1": summary.top1,
        "top5": summary.top5,
        "train_skipped": int(skipped),
        "count": summary.count,
        "skipped": summary.skipped,
        "seconds": position.seconds,
    }
    better = position.best is None or summary.top1 > position.best
    if training.quantised is not None:
        row["float_top1"] = _evaluate(training, training.kept).top1
    if better:
        position.best, position.best_epoch = summary.top1, position.epoch + 1
    position.rows.append(row)
    position.epoch, position.step, position.sums = position.epoch + 1, 0, [0.0] * 4
    model = training.kept
    if not all_finite(list(model.parameters())):
        position.epoch -= 1
        raise _leader_says(training, "a weight became NaN or infinite")
    with training.ranks.together(training.device):
        if training.ranks.leads:
            training.folder.save_epoch(model, position, is_best=better)
    _save_state(training)
    if training.ranks.leads:
        training.folder.draw_soon(position)
    few_classes = not top5_tells(training.network.num_classes)
    training.progress.end_epoch(row | {"top5": None} if few_classes else row)

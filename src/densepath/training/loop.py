"""The loop: epochs of steps, an evaluation after each, and nothing lost when it is interrupted.

On the line: batches and a network come in (`assemble.py`), checkpoints and metrics go out
(`run_folder.py`). Every random draw comes from (seed, epoch, step), and the state of the
training is written so that it can go on bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import islice

import torch
from torch import nn

from densepath.data.loader import Batch
from densepath.errors import DatasetError, DensepathError, DivergedError
from densepath.metrics.accuracy import Summary, count_batches, summarise
from densepath.training.distributed import PeerError
from densepath.training.optimizer import all_finite, train_mode
from densepath.training.parts import Training
from densepath.training.shares import StepShare, share_step
from densepath.training.step import take_step

# Processes exchange sums, look for trouble and may write their state at every such step. On a
# GPU reading a number waits for all work in flight, so it is done more rarely there.
PULSE_STEPS = {"cpu": 1, "cuda": 10}
RECENT_STEPS = 50
UNREADABLE_SHOWN = 10
DIVERGED_FACTOR = 10.0
OTHERS_SIGNAL = "a signal to another process"


def run(training: Training) -> None:
    """The training has gone through all its epochs, or a signal has stopped it between steps.

    Raises:
        DivergedError: the loss became NaN, infinite or grew without bound.
        OutputError: the run folder cannot be written.
        ImageError: an image cannot be read, and the recipe says `data.on_error: fail`.
        PeerError: another process failed.
    """
    training.progress.start_training(training.network.num_classes)
    quantised = training.quantised
    if quantised is not None and not quantised.ranges.num_batches and not _calibrate(training):
        return
    while not training.is_finished:
        if not (_train_epoch(training) and _judge_epoch(training)) or _stops(training):
            return


def _calibrate(training: Training) -> bool:
    """The ranges of activations are known, and how the rounded network does before it learns.

    The leading process's images count, so that all processes have the same ranges. False when a
    signal came before.
    """
    quantised, loader = training.quantised, training.train_loader
    assert quantised is not None
    batches = _agreed(training, loader.epoch(0))
    for batch, _ in islice(batches, training.recipe.quantization.calibration_batches):
        if len(batch.images):
            images = batch.images.to(training.device)
            quantised.calibrate(images.contiguous(memory_format=training.memory_format))
    with training.ranks.together(training.device):
        if training.ranks.leads and not quantised.ranges.num_batches:
            raise DatasetError(f"{_source(training)}: no image that calibrates could be read.")
    training.ranks.take_leaders(list(quantised.ranges.buffers()))
    rounded = _evaluate(training, training.judged)
    as_float = None if rounded is None else _evaluate(training, training.kept)
    if rounded is None or as_float is None:
        return False
    training.position.start = {"top1": rounded.top1, "float_top1": as_float.top1}
    if training.ranks.leads:
        scores = "top-1 {top1:.4f}, as float32 {float_top1:.4f}"
        training.folder.log(f"rounded at the start: {scores.format(**training.position.start)}")
    return True


def _train_epoch(training: Training) -> bool:
    """Does the steps of this epoch that are not done yet; False when a signal came before."""
    position, loader = training.position, training.train_loader
    train_mode(training.stepped, training.frozen)
    training.stop.waits_for = "this step"
    training.progress.start_epoch(position, loader.steps_per_epoch)
    pulse_steps = PULSE_STEPS[training.device.type]
    num_unreadable = 0
    batches = loader.epoch(position.epoch, start_step=position.step)
    for batch, share in _agreed(training, batches):
        if share.num_images:
            take_step(training, batch, share)
        num_unreadable += len(batch.errors)
        training.unread += map(str, batch.errors)
        training.sums[3] += len(batch.errors) + share.left_out
        position.step += 1
        last = position.step == loader.steps_per_epoch
        if (position.step % pulse_steps == 0 or last) and _pulse(training):
            return False
    _check_readable(training, num_unreadable)
    return True


def _check_readable(training: Training, num_unreadable: int) -> None:
    """Raise if no image of the epoch could be read; this process has met so many.

    Raises:
        DatasetError: not one; in the other processes PeerError.
    """
    ranks, num_images = training.ranks, training.train_loader.num_images
    with ranks.together(training.device) as exchange:
        exchange.value = num_unreadable
    with ranks.together(training.device):
        if ranks.leads and sum(exchange.values) == num_images:
            raise DatasetError(
                f"{_source(training)}: not one of {num_images:,} training images could be read."
            )


def _source(training: Training) -> str:
    """What the recipe calls the data."""
    return training.recipe.data.source


def _agreed(training: Training, batches: Iterator[Batch]) -> Iterator[tuple[Batch, StepShare]]:
    """Each process's batch, and how it is computed now that all know what could be read.

    Raises:
        ImageError: an image cannot be read; in the other processes PeerError.
    """
    for _ in range(training.train_loader.steps_per_epoch - training.position.step):
        with training.ranks.together(training.device) as exchange:
            batch = next(batches)
            exchange.value = len(batch.images)
        yield (
            batch,
            share_step(
                exchange.values,
                training.ranks.rank,
                num_parts=training.recipe.distributed.accumulate,
                least_images=training.least_images,
                synced=training.synced,
            ),
        )


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
    if stop:
        _note_stop(training)
    if stop or save:
        _save_state(training)
    return bool(stop)


def _stops(training: Training) -> bool:
    """Whether a signal came to some process; its state is written."""
    with training.ranks.together(training.device) as exchange:
        exchange.value = training.stop.signal is not None
    if any(exchange.values):
        _note_stop(training)
    return any(exchange.values)


def _note_stop(training: Training) -> None:
    """This process knows that the training stops, whichever process the signal came to."""
    if training.stop.signal is None:
        training.stop.signal = OTHERS_SIGNAL


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


def _judge_epoch(training: Training) -> bool:
    """The epoch whose steps are done is evaluated and written.

    False when a signal came meanwhile: the state then stands after the last step, and the
    evaluation is done anew later.
    """
    summary = _evaluate(training, training.judged)
    as_float = None
    if summary is not None and training.quantised is not None:
        as_float = _evaluate(training, training.kept)
        summary = None if as_float is None else summary
    if summary is None:
        _save_state(training)
        return False
    training.stop.waits_for = "this epoch is written"
    _finish_epoch(training, summary, as_float)
    return True


def _evaluate(training: Training, model: nn.Module) -> Summary | None:
    """The summary of `model` over the evaluation images of all ranks; None: a signal came.

    Computed in float32, so that `densepath evaluate` of the checkpoint gives the same numbers.

    Raises:
        ImageError: an image cannot be read, and the recipe says `data.on_error: fail`.
        DatasetError: not one image could be read.
    """
    ranks, device = training.ranks, training.device
    # Without SyncBN each process has its own running statistics; the leader's are kept.
    ranks.take_leaders(list(model.buffers()))
    training.stop.waits_for = "this batch"
    training.progress.start_evaluation(len(training.eval_loader))
    batches = _Deferring(training)
    with ranks.together(device) as exchange:
        sums = count_batches(model, batches, device, memory_format=training.memory_format)
        if batches.error is not None:
            raise batches.error
        exchange.value = batches.stopped
    if any(exchange.values):
        _note_stop(training)
        return None
    sums = ranks.sum(sums)
    with ranks.together(device):
        return summarise(sums)


class _Deferring:
    """The evaluation's batches until a signal comes; an error is kept for later, so that no
    process misses an exchange.
    """

    def __init__(self, training: Training) -> None:
        self.training, self.stopped = training, False
        self.error: DensepathError | None = None

    def __iter__(self) -> Iterator[Batch]:
        try:
            for batch in self.training.eval_loader:
                if self.training.stop.signal is not None:
                    self.stopped = True
                    return
                self.training.unread += map(str, batch.errors)
                yield batch
                self.training.progress.evaluated(len(batch.images))
        except DensepathError as error:
            self.error = error


def _name_unreadable(training: Training) -> None:
    """Say which images of the epoch that is over could not be read; the log has all, once each."""
    found = set(training.ranks.gather(training.unread)) - training.named
    training.unread, training.named = [], training.named | found
    if not found or not training.ranks.leads:
        return
    lines = [f"could not be read: {name}" for name in sorted(found)]
    training.folder.log("\n".join(lines))
    left = len(lines) - UNREADABLE_SHOWN
    more = [f"could not be read: {left:,} more; train.log names them all"] if left > 0 else []
    training.progress.say("\n".join([*lines[:UNREADABLE_SHOWN], *more]))


def _finish_epoch(training: Training, summary: Summary, as_float: Summary | None) -> None:
    """The epoch's row, checkpoints and state are written, then drawn; the next one may start.

    Of epochs that are equally good, the first is the best.
    """
    _name_unreadable(training)
    training.count_time()
    position = training.position
    loss, right, images, skipped = position.sums
    row = {
        "epoch": position.epoch + 1,
        "lr": training.lr_at(position.step - 1),
        "train_loss": loss / images if images else math.nan,
        "train_accuracy": right / images if images else math.nan,
        "loss": summary.loss,
        "top1": summary.top1,
        "top5": summary.top5,
        "train_skipped": int(skipped),
        "count": summary.count,
        "skipped": summary.skipped,
        "seconds": position.seconds,
    }
    better = position.best is None or summary.top1 > position.best
    if as_float is not None:
        row["float_top1"] = as_float.top1
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
    training.progress.end_epoch(row)

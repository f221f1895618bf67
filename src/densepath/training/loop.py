"""The loop: epochs of steps, an evaluation after each, and nothing lost when it is interrupted.

On the line: batches and a network come in (`assemble.py`), checkpoints and metrics go out
(`run_folder.py`). Every random draw comes from (seed, epoch, step), and the state of the
training is written so that it can go on bit for bit.
"""

from __future__ import annotations

import time

from densepath.training.agreed import agreed_batches, check_readable, name_unreadable
from densepath.training.divergence import check_loss, check_weights
from densepath.training.epochs import EpochRow
from densepath.training.judging import Judgement, calibrate, judge
from densepath.training.monitor import is_better
from densepath.training.optimizer import train_mode
from densepath.training.parts import Training
from densepath.training.sizes import sizes_by_epoch
from densepath.training.step import take_step

# Processes exchange sums, look for trouble and may write their state at every such step. On a
# GPU reading a number waits for all work in flight, so it is done more rarely there.
PULSE_STEPS = {"cpu": 1, "cuda": 10}


def run(training: Training) -> None:
    """Train until all epochs are done, or until a signal stops it between steps.

    Raises:
        DivergedError: the loss became NaN, infinite or grew without bound.
        OutputError: the run folder cannot be written.
        ImageError: an image cannot be read, and the recipe says `data.on_error: fail`.
        PeerError: another process failed.
    """
    areas = [height * width for height, width in sizes_by_epoch(training.recipe)]
    training.progress.start_training(training.network.num_classes, areas)
    if not calibrate(training):
        return
    while not training.is_finished:
        if not (_train_epoch(training) and _judge_epoch(training)) or _stops(training):
            return


def _train_epoch(training: Training) -> bool:
    """Take the steps of this epoch that are not done yet; False when a signal came before."""
    position, loader = training.position, training.train_loader
    train_mode(training.stepped, training.frozen)
    training.stop.waits_for = "this step"
    training.progress.start_epoch(position, loader.steps_per_epoch)
    pulse_steps = PULSE_STEPS[training.device.type]
    num_unreadable = 0
    batches = loader.epoch(position.epoch, start_step=position.step)
    for batch, share in agreed_batches(training, batches):
        if not training.steps_done:
            training.board.batch(batch)
        if share.num_images:
            take_step(training, batch, share)
        num_unreadable += len(batch.errors)
        training.unread += map(str, batch.errors)
        training.sums.add_skipped(len(batch.errors) + share.left_out)
        position.step += 1
        last = position.step == loader.steps_per_epoch
        if (position.step % pulse_steps == 0 or last) and _pulse(training):
            return False
    check_readable(training, num_unreadable)
    return True


def _pulse(training: Training) -> bool:
    """Add the sums of all processes to the position; True when a signal says to stop.

    The state is written when it is due, and before a stop.

    Raises:
        DivergedError: the loss since the last exchange is not finite, or far too high.
    """
    position, signalled = training.position, training.stop.signal is not None
    sums, (stop, save) = training.sums.exchange(training.ranks, signalled, _save_is_due(training))
    position.sums += sums
    training.count_time()
    check_loss(training, sums)
    lr = training.lr_at(position.step - 1)
    training.progress.step(position, lr, int(sums.images))
    if sums.images:
        training.board.step(training.steps_done, sums.mean_loss, lr)
    if stop:
        training.stop.heed_others()
    if stop or save:
        _save_state(training)
    return stop


def _stops(training: Training) -> bool:
    """Whether a signal came to some process; its state is written."""
    with training.ranks.together(training.device) as exchange:
        exchange.value = training.stop.signal is not None
    if any(exchange.values):
        training.stop.heed_others()
    return any(exchange.values)


def _save_is_due(training: Training) -> bool:
    """Whether the recipe asks for a state now; the leading process decides."""
    section, step = training.recipe.checkpoint, training.position.step
    pulse = PULSE_STEPS[training.device.type]
    by_steps = section.every_steps is not None and step % section.every_steps < pulse <= step
    minutes = (time.monotonic() - training.saved_at) / 60
    by_time = section.every_minutes is not None and minutes >= section.every_minutes
    return training.ranks.leads and (by_steps or by_time)


def _save_state(training: Training) -> None:
    """Write the state of this step into the run folder, unless the weights are damaged.

    Raises:
        DivergedError: a weight is NaN or infinite; the last good state is kept.
        OutputError: it cannot be written.
    """
    check_weights(training, training.network)
    training.board.flush()
    with training.ranks.together(training.device):
        if training.ranks.leads:
            training.folder.save_state(training.position, training.state_parts)
    training.saved_at = time.monotonic()


def _judge_epoch(training: Training) -> bool:
    """Evaluate and write the epoch whose steps are done.

    False when a signal came meanwhile: the state then stands after the last step, and the
    evaluation is done anew later.
    """
    judgement = judge(training)
    if judgement is None:
        _save_state(training)
        return False
    training.stop.waits_for = "this epoch is written"
    _finish_epoch(training, judgement)
    return True


def _finish_epoch(training: Training, judgement: Judgement) -> None:
    """Write the epoch's row, checkpoints and state, then draw them; the next one may start.

    Of epochs that are equally good, the first is the best.
    """
    name_unreadable(training)
    training.count_time()
    position, row = training.position, _row(training, judgement)
    check_weights(training, training.kept)
    better = is_better(training.recipe, row, position)
    position.end_epoch(row, is_best=better)
    with training.ranks.together(training.device):
        if training.ranks.leads:
            training.folder.save_epoch(training.kept, position, training.step, is_best=better)
            training.board.end_epoch(training.steps_done, row)
    _save_state(training)
    if training.ranks.leads:
        training.folder.draw_soon(position)
    training.progress.end_epoch(row)


def _row(training: Training, judgement: Judgement) -> EpochRow:
    """The epoch whose steps are done, as a row of `metrics.csv`."""
    position, summary, as_float = training.position, judgement.summary, judgement.as_float
    return EpochRow(
        epoch=position.epoch + 1,
        lr=training.lr_at(position.step - 1),
        train_loss=position.sums.mean_loss,
        train_accuracy=position.sums.accuracy,
        loss=summary.loss,
        top1=summary.top1,
        top5=summary.top5,
        train_skipped=int(position.sums.skipped),
        count=summary.count,
        skipped=summary.skipped,
        seconds=position.seconds,
        float_top1=None if as_float is None else as_float.top1,
        macro_auroc=summary.macro_auroc,
        mean_average_precision=summary.mean_average_precision,
    )

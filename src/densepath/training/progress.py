"""What a person sees of a training while it runs, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol, TextIO

from densepath.choices import ProgressStyle
from densepath.metrics.metrics import top5_tells
from densepath.training.epochs import EpochRow, EpochSums
from densepath.training.state import Position
from densepath.wording import counted, percent

SECONDS_BETWEEN_LINES = 30.0
RATE_SECONDS = 20.0


class Progress(Protocol):
    """What the loop tells of a training."""

    def start_training(self, num_classes: int, step_costs: Sequence[float]) -> None:
        """Be told that the data is open, of so many classes; and each epoch's cost of a step."""

    def start_epoch(self, position: Position, num_steps: int) -> None:
        """Be told that an epoch of `num_steps` steps starts or goes on."""

    def step(self, position: Position, lr: float, num_images: int) -> None:
        """Be told that steps with `num_images` images are done, and where the training now is."""

    def start_evaluation(self, num_batches: int) -> None:
        """Be told that the evaluation of an epoch starts."""

    def evaluated(self, num_images: int) -> None:
        """Be told that a batch of this process is evaluated."""

    def end_epoch(self, row: EpochRow) -> None:
        """Be told that an epoch is over."""

    def say(self, message: str) -> None:
        """Show lines at once; may be called from another thread."""

    def close(self) -> None:
        """Be told that nothing more will come."""


class NoProgress:
    """The progress that says nothing."""

    def start_training(self, num_classes: int, step_costs: Sequence[float]) -> None:
        """Say nothing."""

    def start_epoch(self, position: Position, num_steps: int) -> None:
        """Say nothing."""

    def step(self, position: Position, lr: float, num_images: int) -> None:
        """Say nothing."""

    def start_evaluation(self, num_batches: int) -> None:
        """Say nothing."""

    def evaluated(self, num_images: int) -> None:
        """Say nothing."""

    def end_epoch(self, row: EpochRow) -> None:
        """Say nothing."""

    def say(self, message: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


class LineProgress(NoProgress):
    """A line each 30 seconds and one an epoch: for files, pipes and logs."""

    def __init__(self, num_epochs: int, stream: TextIO | None = None) -> None:
        self.num_epochs, self.stream = num_epochs, stream or sys.stderr
        self.num_classes = 0
        self.pace = Pace([1.0] * num_epochs)
        self.said = time.monotonic()

    def start_training(self, num_classes: int, step_costs: Sequence[float]) -> None:
        """Remember the classes, and what the epochs cost."""
        self.num_classes, self.pace = num_classes, Pace(step_costs)

    def start_epoch(self, position: Position, num_steps: int) -> None:
        """Start the clock."""
        self.pace.start_epoch(position, num_steps)

    def step(self, position: Position, lr: float, num_images: int) -> None:
        """Say where it is, now and then."""
        self.pace.step(position, num_images)
        if time.monotonic() - self.said >= SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            self.say(describe(position, lr, self.num_epochs, self.pace))

    def end_epoch(self, row: EpochRow) -> None:
        """Say how the epoch went."""
        self.said = time.monotonic()
        self.say(describe_row(row, self.num_epochs, self.num_classes))

    def say(self, message: str) -> None:
        """Write a line."""
        print(message, file=self.stream, flush=True)


class BarProgress(NoProgress):
    """A bar an epoch with loss, images a second and time left; a line for each epoch done."""

    def __init__(self, num_epochs: int) -> None:
        from rich import progress
        from rich.console import Console

        self.num_epochs, self.num_classes = num_epochs, 0
        self.pace = Pace([1.0] * num_epochs)
        self.bars = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[figures]}", markup=False),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self.bars.start()
        self.task = self.bars.add_task("", total=1, figures="")

    def start_training(self, num_classes: int, step_costs: Sequence[float]) -> None:
        """Remember the classes, and what the epochs cost."""
        self.num_classes, self.pace = num_classes, Pace(step_costs)

    def start_epoch(self, position: Position, num_steps: int) -> None:
        """Start a bar for the epoch's steps."""
        self.pace.start_epoch(position, num_steps)
        title = f"epoch {position.epoch + 1}/{self.num_epochs}"
        self.bars.reset(
            self.task, total=num_steps, completed=position.step, description=title, figures=""
        )

    def step(self, position: Position, lr: float, num_images: int) -> None:
        """Move the bar."""
        self.pace.step(position, num_images)
        left = self.pace.describe_left(position)
        figures = f"{_describe_sums(position.sums)}  {self.pace.rate:,.0f} images/s  {left} left"
        self.bars.update(self.task, completed=position.step, figures=figures)

    def start_evaluation(self, num_batches: int) -> None:
        """Start a bar for the evaluation's batches."""
        self.bars.reset(
            self.task, total=num_batches, completed=0, description="evaluating", figures=""
        )

    def evaluated(self, num_images: int) -> None:
        """Move the bar."""
        self.bars.advance(self.task)

    def end_epoch(self, row: EpochRow) -> None:
        """Write a line that stays."""
        self.say(describe_row(row, self.num_epochs, self.num_classes))

    def say(self, message: str) -> None:
        """Write lines above the bar, as they are."""
        self.bars.console.print(message, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bar."""
        self.bars.stop()


class Pace:
    """How fast the steps go, over about the last 20 seconds.

    Args:
        step_costs: what a step of each epoch costs, in any unit.
    """

    def __init__(self, step_costs: Sequence[float]) -> None:
        self.step_costs = step_costs
        self.rate, self.step_seconds, self.num_steps = 0.0, 0.0, 1
        self.seen_at: float | None = None
        self.seen_step = 0

    def start_epoch(self, position: Position, num_steps: int) -> None:
        """Start the clock at this position, where a step may cost more than before."""
        if position.epoch:
            now, before = self.step_costs[position.epoch], self.step_costs[position.epoch - 1]
            self.rate, self.step_seconds = (
                self.rate * before / now,
                self.step_seconds * now / before,
            )
        self.num_steps, self.seen_step, self.seen_at = num_steps, position.step, time.monotonic()

    def step(self, position: Position, num_images: int) -> None:
        """Note that the position was reached with `num_images` more images."""
        now, steps = time.monotonic(), position.step - self.seen_step
        if self.seen_at is None or steps < 1:
            return
        seconds = max(now - self.seen_at, 1e-9)
        weight = min(1.0, seconds / RATE_SECONDS) if self.rate else 1.0
        self.rate += weight * (num_images / seconds - self.rate)
        self.step_seconds += weight * (seconds / steps - self.step_seconds)
        self.seen_at, self.seen_step = now, position.step

    def describe_left(self, position: Position) -> str:
        """The time until the last step, as h:mm:ss; evaluations come on top."""
        epochs = sum(self.step_costs[position.epoch :]) / self.step_costs[position.epoch]
        steps = epochs * self.num_steps - position.step
        seconds = round(steps * self.step_seconds)
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def make_progress(style: ProgressStyle, num_epochs: int, *, leads: bool) -> Progress:
    """The progress of that style; `auto` is a bar on a terminal and lines elsewhere."""
    if style == "none" or not leads:
        return NoProgress()
    if style == "bar" or (style == "auto" and sys.stderr.isatty()):
        return BarProgress(num_epochs)
    return LineProgress(num_epochs)


def _describe_sums(sums: EpochSums) -> str:
    """Loss and share of right answers of the epoch so far; 0 before the first label."""
    labels = sums.labels or 1.0
    return f"loss {sums.loss / labels:.3f}  acc {percent(sums.right / labels)}"


def describe(position: Position, lr: float, num_epochs: int, pace: Pace) -> str:
    """One line about a training under way."""
    return (
        f"epoch {position.epoch + 1}/{num_epochs}  step {position.step}/{pace.num_steps}  "
        f"{_describe_sums(position.sums)}  lr {lr:.4g}  {pace.rate:,.0f} images/s  "
        f"{pace.describe_left(position)} left"
    )


def describe_row(row: EpochRow, num_epochs: int, num_classes: int) -> str:
    """One line about an epoch that is over, with top-5 or mean AUROC where they tell something."""
    score = "micro-F1" if row.multi_label else "top-1"
    top5 = ""
    if row.top5 is not None and top5_tells(num_classes):
        top5 = f"  top-5 {percent(row.top5, 2)}"
    if row.macro_auroc is not None:
        top5 = f"  AUROC {row.macro_auroc:.4f}"
    skipped = f"  {counted(row.all_skipped, 'image')} skipped" if row.all_skipped else ""
    return (
        f"epoch {row.epoch}/{num_epochs}  train loss {row.train_loss:.4f}  "
        f"loss {row.loss:.4f}  {score} {percent(row.top1, 2)}{top5}{skipped}"
    )

"""All parts of one training, put together by `assemble.py` and set going by `loop.py`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import nn

from densepath.data.loader import EvalLoader, TrainLoader
from densepath.data.mixing import Mixing
from densepath.models.build import Model
from densepath.training.distributed import Ranks
from densepath.training.ema import Ema
from densepath.training.epochs import RunningSums
from densepath.training.loss import Loss
from densepath.training.monitor import is_exhausted
from densepath.training.progress import Progress
from densepath.training.recipe import Recipe
from densepath.training.run_folder import RunFolder
from densepath.training.schedule import learning_rate
from densepath.training.shares import is_synced
from densepath.training.signals import StopRequest
from densepath.training.state import Position, StateParts
from densepath.training.steps.step import Step


@dataclass
class Training:
    """One training as it stands.

    `network` is the bare network, and `step` what is particular to how it is trained; `stepped`
    computes the steps: the step's module, compiled or wrapped for many processes where the recipe
    asks for it. `sums` are those of this process since the last exchange, and `unread` the images
    that it could not read in this epoch, `PATH: REASON` each; `named` are those of all processes
    that the log has. `least_images` is what BatchNorm needs at a time. `masked`: some labels of the
    training images are not known.
    """

    recipe: Recipe
    ranks: Ranks
    device: torch.device
    network: Model
    step: Step
    stepped: nn.Module
    frozen: list[nn.Module]
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    loss: Loss
    mixing: Mixing
    train_loader: TrainLoader
    eval_loader: EvalLoader
    least_images: int
    folder: RunFolder
    progress: Progress
    stop: StopRequest
    position: Position
    masked: bool = False
    sums: RunningSums = field(init=False)
    unread: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    saved_at: float = field(default_factory=time.monotonic)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Start the sums and the clock."""
        self.sums = RunningSums(self.device)
        self.seconds_before = self.position.seconds

    @property
    def kept(self) -> Model:
        """What checkpoints hold: the average of the network, else the network."""
        return self.ema.model if self.ema is not None else self.network

    @property
    def state_parts(self) -> StateParts:
        """What the state holds besides the position."""
        return StateParts(self.network, self.optimizer, self.ema, self.step.state)

    @property
    def synced(self) -> bool:
        """Whether BatchNorm takes its statistics over the images of all processes."""
        return is_synced(self.recipe, self.ranks)

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and weights."""
        return torch.channels_last if self.recipe.compute.channels_last else torch.contiguous_format

    def count_time(self) -> None:
        """Note the time spent up to now in the position."""
        self.position.seconds = self.seconds_before + time.monotonic() - self.started

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or the training ended early."""
        return self.position.epoch >= self.recipe.epochs or self.ended_early

    @property
    def ended_early(self) -> bool:
        """Whether epochs were left because no better one came."""
        left = self.position.epoch < self.recipe.epochs
        return left and is_exhausted(self.recipe, self.position)

    @property
    def share_done(self) -> float:
        """The share of all steps that are done."""
        steps_per_epoch = self.train_loader.steps_per_epoch
        done = self.position.epoch * steps_per_epoch + self.position.step
        return done / (self.recipe.epochs * steps_per_epoch)

    def lr_at(self, step: int) -> float:
        """The learning rate of that step of the epoch that runs."""
        steps_per_epoch = self.train_loader.steps_per_epoch
        overall = self.position.epoch * steps_per_epoch + step
        return learning_rate(self.recipe, overall, steps_per_epoch)

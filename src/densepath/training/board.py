"""What a board of curves is told of a training: the protocol, and the board that keeps nothing."""

from __future__ import annotations

from typing import Protocol

from densepath.data.batch import Batch
from densepath.training.epochs import EpochRow


class Board(Protocol):
    """A record of a training that is watched from outside; of the leading process alone.

    A step's number counts the steps of the whole training that are done.
    """

    def begin(self) -> None:
        """Be told that the training starts, or goes on."""

    def batch(self, batch: Batch) -> None:
        """Be told of the first batch of training images."""

    def step(self, step: int, loss: float, lr: float) -> None:
        """Be told that `step` is done: the loss since the last call, and the learning rate."""

    def end_epoch(self, step: int, row: EpochRow) -> None:
        """Be told that an epoch is over, with that step."""

    def flush(self) -> None:
        """Put all that was told on the disk: the state of the training will be written."""

    def end(self, step: int) -> None:
        """Be told that all epochs are done."""

    def close(self) -> None:
        """Be told that nothing more will come."""


class NoBoard:
    """The board that keeps nothing."""

    def begin(self) -> None:
        """Keep nothing."""

    def batch(self, batch: Batch) -> None:
        """Keep nothing."""

    def step(self, step: int, loss: float, lr: float) -> None:
        """Keep nothing."""

    def end_epoch(self, step: int, row: EpochRow) -> None:
        """Keep nothing."""

    def flush(self) -> None:
        """Keep nothing."""

    def end(self, step: int) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Keep nothing."""

"""The plain step: the network computes as it is, and learns from the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from densepath.models.build import Model
from densepath.training.epochs import EpochRow
from densepath.training.state import Position


class PlainStep:
    """The smallest `Step`: nothing around the network."""

    def __init__(self, network: Model) -> None:
        self.module = network
        self.frozen: Sequence[nn.Module] = ()
        self.state = None
        self.batches_to_calibrate = 0
        self.calibrated: Sequence[Tensor] = ()

    def calibrate(self, images: Tensor) -> None:
        """Measure nothing."""

    def begin(self, share_done: float) -> None:
        """Prepare nothing."""

    def targets(self, images: Tensor, targets: Tensor) -> Tensor:
        """The targets as they are."""
        return targets

    def pause_statistics(self) -> None:
        """Do nothing: BatchNorm is paused by its mode."""

    def judged(self, network: Model) -> nn.Module:
        """The network itself."""
        return network

    def provenance(self, row: EpochRow) -> dict[str, Any]:
        """Nothing."""
        return {}

    def describe(self, position: Position) -> str:
        """Nothing."""
        return ""

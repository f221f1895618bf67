"""What is particular to a way of training: the protocol that `PlainStep` and others fill in.

On the line: `assemble.py` chooses one (`choose.py`), `training/step.py` computes with it, and the
loop, the state and the run folder ask it for what is its own. None of them knows which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from densepath.models.build import Model
from densepath.training.epochs import EpochRow
from densepath.training.state import Position


class Step(Protocol):
    """How a network is trained, beside the loop that all trainings have.

    The network itself goes into checkpoints, whatever a step puts around it.
    """

    @property
    def module(self) -> nn.Module:
        """Images [N, C, H, W] → logits [N, classes], with the network's own parameters.

        The training compiles it and spreads it over processes as the recipe asks.
        """

    @property
    def frozen(self) -> Sequence[nn.Module]:
        """The modules that stay in evaluation mode, besides those that the recipe freezes."""

    @property
    def state(self) -> nn.Module | None:
        """What a state holds besides the network, the optimiser and the average; or None."""

    @property
    def batches_to_calibrate(self) -> int:
        """The training batches to `calibrate` on before the first step; 0: none, or it is done."""

    @property
    def calibrated(self) -> Sequence[Tensor]:
        """What `calibrate` sets; all processes take the leading one's."""

    def calibrate(self, images: Tensor) -> None:
        """Measure what the first step needs on images [N, C, H, W]."""

    def begin(self, share_done: float) -> None:
        """Prepare the next step, when `share_done` of all steps of the training are done."""

    def targets(self, images: Tensor, targets: Tensor) -> Tensor:
        """What the loss compares the logits of `images` with.

        Targets and result: int64 [N], or float32 [N, classes].
        """

    def pause_statistics(self) -> None:
        """Until the next `begin`, let no statistics follow: a pass without images comes."""

    def judged(self, network: Model) -> nn.Module:
        """What epochs are judged on, for the weights of `network`.

        If it is not `network` itself, that is measured beside it.
        """

    def provenance(self, row: EpochRow) -> dict[str, Any]:
        """What the checkpoint of that epoch says of the step, as JSON values."""

    def describe(self, position: Position) -> str:
        """A paragraph of the run's README; empty: nothing is to be said."""

"""Whether a training still learns: its loss and weights are looked at, and a bad one ends it."""

from __future__ import annotations

import math

from torch import nn

from densepath.errors import DensepathError, DivergedError
from densepath.training.distributed import PeerError
from densepath.training.epochs import EpochSums
from densepath.training.optimizer import all_finite
from densepath.training.parts import Training

RECENT_STEPS = 50
DIVERGED_FACTOR = 10.0


def check_loss(training: Training, sums: EpochSums) -> None:
    """Raise unless the loss of the newest steps is sane; keep it in the recent loss.

    Raises:
        DivergedError: NaN, infinite, or over the last steps 10 times that of a network that
            knows nothing.
    """
    if not sums.labels:
        return
    position, loss = training.position, sums.mean_loss
    known = position.recent_loss
    position.recent_loss = loss if known is None else known + (loss - known) / RECENT_STEPS
    bound = DIVERGED_FACTOR * training.loss.chance_level(training.network.num_classes)
    if math.isfinite(loss) and position.recent_loss < bound:
        return
    raise _leader_says(training, f"the loss became {loss:.4g}")


def check_weights(training: Training, model: nn.Module) -> None:
    """Raise unless the parameters of `model` are numbers.

    Raises:
        DivergedError: one is NaN or infinite.
    """
    if not all_finite(list(model.parameters())):
        raise _leader_says(training, "a weight became NaN or infinite")


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

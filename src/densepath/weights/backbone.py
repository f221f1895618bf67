"""Networks without a classifier, as other programs save them to train on: a checkpoint says so.

An encoder of a segmentation, the body of a fastai learner, a network whose own head has several
layers: the features are whole, and there is nothing that answers. Such a checkpoint begins a
training; whatever wants an answer of it is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from densepath.errors import UsageError
from densepath.weights.checkpoint import Checkpoint

# In the provenance of a checkpoint; its one label says the same to whoever reads the file.
KEY = "backbone"
LABEL = "(no classifier)"


def no_classifier(channels: int) -> dict[str, Tensor]:
    """The classifier of a backbone: of one class, and nothing in it."""
    return {"classifier.weight": torch.zeros(1, channels), "classifier.bias": torch.zeros(1)}


def is_backbone(provenance: dict[str, Any]) -> bool:
    """Whether a checkpoint's provenance says that it has no classifier."""
    return provenance.get(KEY) is True


def check_answers(checkpoint: Checkpoint, source: str) -> None:
    """Raise unless a checkpoint has a classifier.

    Raises:
        UsageError: it is a backbone.
    """
    if is_backbone(checkpoint.provenance):
        raise UsageError(
            f"{source} is a backbone: the file that it was imported from has no classifier of "
            f"ours, so that nothing answers. Train one on it: densepath train {source} --data "
            "FOLDER (with --freeze features, the classifier alone)."
        )

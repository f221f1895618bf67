"""The state of an unfinished training: one safetensors file, enough to go on bit for bit.

The file is written under a temporary name and renamed, so a kill at any moment leaves either
the old state or the new one. Tensors hold the network, the optimiser, the average and what a
quantisation-aware training has besides (ranges, teacher); the metadata holds the rest as JSON. No
random state is kept: every draw of a training comes from the recipe's seed and the place in the
training.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from densepath.errors import CheckpointError
from densepath.training.ema import Ema
from densepath.weights.checkpoint import write_tensors

METADATA_KEY = "densepath_state"
# 2: an epoch takes every image; in 1 it left out those that filled no batch, so that the same step
# stood for other images.
FORMAT = 2


@dataclass
class Position:
    """Where a training stands, and what it has seen.

    Attributes:
        epoch: the epoch that runs, from 0.
        step: the steps of it that are done.
        sums: of this epoch so far, over all processes: loss, right answers, images, skipped.
        recent_loss: the loss, averaged over about the last 50 steps; None before the first.
        best: the best score so far; None before the first evaluation.
        best_epoch: the epoch of that score.
        rows: a row of `metrics.csv` for each finished epoch.
        seconds: the time spent so far, over all starts.
        num_images: of training and of evaluation.
        start: `top1` and `float_top1` of a quantisation-aware training before its first step.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    recent_loss: float | None = None
    best: float | None = None
    best_epoch: int | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    num_images: list[int] = field(default_factory=list)
    start: dict[str, float] = field(default_factory=dict)


def write_state(
    path: Path,
    position: Position,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    quantised: nn.Module | None = None,
) -> None:
    """The file `path` holds the training as it stands.

    Raises:
        OutputError: it cannot be written; the state that stood there before is kept.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, tensor in slots.items():
            if tensor is not None:
                tensors[f"optimizer.{index}.{slot}"] = tensor
    if ema is not None:
        tensors |= {f"ema.{name}": tensor for name, tensor in ema.model.state_dict().items()}
    if quantised is not None:
        tensors |= {f"quantised.{name}": t for name, t in quantised.state_dict().items()}
    values = {
        "format": FORMAT,
        "position": dataclasses.asdict(position),
        "ema_updates": ema.num_updates if ema is not None else 0,
    }
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, held, {METADATA_KEY: json.dumps(values)})


def read_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    quantised: nn.Module | None = None,
) -> Position:
    """The network, the optimiser, the average and `quantised` are as `write_state` left them.

    Raises:
        CheckpointError: no state, a damaged one, or one of another network.
    """
    tensors: dict[str, dict[str, Tensor]] = {
        "model": {},
        "optimizer": {},
        "ema": {},
        "quantised": {},
    }
    try:
        with safe_open(str(path), framework="pt") as file:
            values = json.loads((file.metadata() or {})[METADATA_KEY])
            for name in file.keys():  # noqa: SIM118
                part, _, rest = name.partition(".")
                tensors[part][rest] = file.get_tensor(name)
        if values["format"] != FORMAT:
            run = path.parent.parent
            raise CheckpointError(
                f"{path} is of state format {values['format']}, not {FORMAT}: another version of "
                "densepath wrote it, whose steps have other images. Start anew from its weights: "
                f"densepath train {run / 'recipe.yaml'} --weights {run} --output NEW_FOLDER"
            )
        model.load_state_dict(tensors["model"])
        _load_optimizer(optimizer, tensors["optimizer"])
        if ema is not None:
            ema.model.load_state_dict(tensors["ema"])
            ema.num_updates = values["ema_updates"]
        if quantised is not None:
            quantised.load_state_dict(tensors["quantised"])
        return Position(**values["position"])
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no state to resume from.") from error
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged or of another training: {error}") from error


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The optimiser's slots (momentum, moments, steps) hold these tensors."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})

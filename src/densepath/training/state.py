"""The state of an unfinished training: one safetensors file, enough to go on bit for bit.

The file is written under a temporary name and renamed, so a kill at any moment leaves either
the old state or the new one. Tensors hold the network, the optimiser, the average and what the
step has besides (ranges, teacher); the metadata holds the rest as JSON. No random state is kept:
every draw of a training comes from the recipe's seed and the place in the training.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from densepath.errors import CheckpointError
from densepath.training.ema import Ema
from densepath.training.epochs import EpochRow, EpochSums
from densepath.weights.checkpoint import write_tensors

METADATA_KEY = "densepath_state"
# What `StateParts.step` is called in the file: after the first step that kept something.
STEP_KEY = "quantised"
# 2: an epoch takes every image; in 1 it left out those that filled no batch, so that the same step
# stood for other images.
FORMAT = 2


@dataclass(frozen=True)
class StartScores:
    """What the first evaluation gives, before the first step: as trained, and in float32."""

    top1: float
    float_top1: float


@dataclass(frozen=True)
class StateParts:
    """What a state holds of a training besides its position.

    Attributes:
        model: the network.
        optimizer: of its parameters.
        ema: the average of its weights; None without.
        step: what its step keeps (`Step.state`); None where that is nothing.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None = None
    step: nn.Module | None = None


@dataclass
class Position:
    """Where a training stands, and what it has seen.

    Attributes:
        epoch: the epoch that runs, from 0.
        step: the steps of it that are done.
        sums: of this epoch so far, over all processes.
        recent_loss: the loss, averaged over about the last 50 steps; None before the first.
        best: the best score so far; None before the first evaluation.
        best_epoch: the epoch of that score.
        rows: of the epochs that are over, in order.
        seconds: the time spent so far, over all starts.
        num_images: of training and of evaluation.
        start: the scores before the first step, of a training that is calibrated; else None.
    """

    epoch: int = 0
    step: int = 0
    sums: EpochSums = field(default_factory=EpochSums)
    recent_loss: float | None = None
    best: float | None = None
    best_epoch: int | None = None
    rows: list[EpochRow] = field(default_factory=list)
    seconds: float = 0.0
    num_images: list[int] = field(default_factory=list)
    start: StartScores | None = None

    def end_epoch(self, row: EpochRow, *, is_best: bool) -> None:
        """Move to the start of the next epoch."""
        if is_best:
            self.best, self.best_epoch = row.top1, row.epoch
        self.rows.append(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, EpochSums()

    @property
    def best_row(self) -> EpochRow:
        """The row of the best epoch; there has been an evaluation."""
        assert self.best_epoch is not None
        return self.rows[self.best_epoch - 1]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the state file holds them."""
        return dataclasses.asdict(self) | {
            "sums": list(dataclasses.astuple(self.sums)),
            "rows": [row.to_dict() for row in self.rows],
            "start": {} if self.start is None else dataclasses.asdict(self.start),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Position:
        """The position that `to_json` gave as these values.

        Raises:
            KeyError, TypeError: they are those of no position.
        """
        typed = {
            "sums": _sums_of(values["sums"]),
            "rows": [EpochRow(**row) for row in values["rows"]],
            "start": StartScores(**values["start"]) if values["start"] else None,
        }
        return cls(**{**values, **typed})


def _sums_of(values: list[float]) -> EpochSums:
    """The sums of a state; where labels were not counted by themselves, all were known."""
    if len(values) == len(dataclasses.fields(EpochSums)) - 1:
        values = [*values, EpochSums(*values).images]
    return EpochSums(*values)


def write_state(path: Path, position: Position, parts: StateParts) -> None:
    """Write the training as it stands into the file `path`.

    Raises:
        OutputError: it cannot be written; the state that stood there before is kept.
    """
    ema = parts.ema
    tensors = {f"model.{name}": tensor for name, tensor in parts.model.state_dict().items()}
    for index, slots in parts.optimizer.state_dict()["state"].items():
        for slot, tensor in slots.items():
            if tensor is not None:
                tensors[f"optimizer.{index}.{slot}"] = tensor
    if ema is not None:
        tensors |= {f"ema.{name}": tensor for name, tensor in ema.model.state_dict().items()}
    if parts.step is not None:
        tensors |= {f"{STEP_KEY}.{name}": t for name, t in parts.step.state_dict().items()}
    values = {
        "format": FORMAT,
        "position": position.to_json(),
        "ema_updates": ema.num_updates if ema is not None else 0,
    }
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, held, {METADATA_KEY: json.dumps(values)})


def read_state(path: Path, parts: StateParts) -> Position:
    """The position of a training, whose `parts` are now as `write_state` found them.

    Raises:
        CheckpointError: no state, a damaged one, or one of another network.
    """
    tensors: dict[str, dict[str, Tensor]] = {
        "model": {},
        "optimizer": {},
        "ema": {},
        STEP_KEY: {},
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
        parts.model.load_state_dict(tensors["model"])
        _load_optimizer(parts.optimizer, tensors["optimizer"])
        if parts.ema is not None:
            parts.ema.model.load_state_dict(tensors["ema"])
            parts.ema.num_updates = values["ema_updates"]
        if parts.step is not None:
            parts.step.load_state_dict(tensors[STEP_KEY])
        return Position.from_json(values["position"])
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no state to resume from.") from error
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged or of another training: {error}") from error


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put these tensors into the optimiser's slots (momentum, moments, steps)."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})

"""Which layers 8 bits hurt: each layer quantised alone, and what that does to the logits.

On the line: `--keep-float auto` leaves the worst in float32; `figure.py` draws them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from densepath.models.build import Model
from densepath.models.plan import plan
from densepath.quantize.calibration import Calibration
from densepath.quantize.observer import HIGHEST_LEVEL
from densepath.quantize.scoring import signal_to_noise
from densepath.weights.checkpoint import Checkpoint

# So many images tell the layers apart.
MOST_IMAGES = 16
MOST_WEIGHT = 127


@dataclass(frozen=True)
class Sensitivity:
    """A layer, and the ratio of signal to noise of the logits when it alone is in INT8."""

    name: str
    snr_db: float


def measure_sensitivity(
    checkpoint: Checkpoint,
    images: Calibration,
    *,
    say: Callable[[str], None] = lambda step: None,
) -> list[Sensitivity]:
    """Every layer of the plan in its order, each rounded alone.

    Its weights by a scale a channel, its input by one from its own extremes.
    """
    model = checkpoint.to_model()
    batch = torch.from_numpy(next(images.batches(MOST_IMAGES)))
    names = [layer.name for layer in plan(checkpoint.spec)]
    with torch.inference_mode():
        expected = model(batch).numpy()
        found = []
        for number, name in enumerate(names):
            say(f"rounding layer {number + 1} of {len(names)}")
            with _rounded(model, name):
                ratio = signal_to_noise(model(batch).numpy(), expected)
            found.append(Sensitivity(name, min(ratio, 150.0)))
    return found


def worst_layers(found: list[Sensitivity], share: float) -> list[str]:
    """The names of that share of the layers, the most sensitive ones, at least one."""
    count = max(1, round(len(found) * share))
    return [one.name for one in sorted(found, key=lambda one: one.snr_db)[:count]]


@contextmanager
def _rounded(model: Model, name: str) -> Iterator[None]:
    """Round the layer's weights and input to 8 bits within the block."""
    layer = cast(nn.Conv2d | nn.Linear, model.get_submodule(name))
    kept = layer.weight.data
    others = tuple(range(1, kept.dim()))
    scale = kept.abs().amax(others, keepdim=True).clamp_min(1e-12) / MOST_WEIGHT
    layer.weight.data = (kept / scale).round() * scale
    handle = layer.register_forward_pre_hook(lambda _, inputs: (_round_activation(inputs[0]),))
    try:
        yield
    finally:
        handle.remove()
        layer.weight.data = kept


def _round_activation(x: Tensor) -> Tensor:
    """The values in 256 steps between their extremes, with 0 among them."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 1e-12)
    step = (high - low) / HIGHEST_LEVEL
    return ((x / step).round() * step).clamp(low, high)

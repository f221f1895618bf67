"""Which layers 8 bits hurt: each convolution quantised alone, and what that does to the logits.

On the line: `--keep-float auto` leaves the worst in float32; `figure.py` draws them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from densepath.models.build import Model
from densepath.quantize.calibration import Calibration
from densepath.quantize.observer import HIGHEST_LEVEL
from densepath.quantize.scoring import signal_to_noise
from densepath.weights.checkpoint import Checkpoint

# So many images tell the layers apart.
MOST_IMAGES = 16
MOST_WEIGHT = 127


@dataclass(frozen=True)
class Sensitivity:
    """A convolution, and the ratio of signal to noise of the logits when it alone is in INT8."""

    name: str
    snr_db: float


def measure_sensitivity(
    checkpoint: Checkpoint,
    images: Calibration,
    *,
    say: Callable[[str], None] = lambda step: None,
) -> list[Sensitivity]:
    """Every convolution of the network in its order, each rounded alone.

    Its weights by a scale a channel, its input by one from its own extremes.
    """
    model = checkpoint.to_model()
    batch = torch.from_numpy(next(images.batches(MOST_IMAGES)))
    names = [name for name, one in model.named_modules() if isinstance(one, nn.Conv2d)]
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
    """Within, the convolution's weights and input have 8 bits."""
    conv = model.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    kept = conv.weight.data
    scale = kept.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12) / MOST_WEIGHT
    conv.weight.data = (kept / scale).round() * scale
    handle = conv.register_forward_pre_hook(lambda _, inputs: (_round_activation(inputs[0]),))
    try:
        yield
    finally:
        handle.remove()
        conv.weight.data = kept


def _round_activation(x: Tensor) -> Tensor:
    """The values in 256 steps between their extremes, with 0 among them."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 1e-12)
    step = (high - low) / HIGHEST_LEVEL
    return ((x / step).round() * step).clamp(low, high)

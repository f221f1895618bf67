"""What the inputs of a network's convolutions are like, measured on calibration images.

On the line: `native.py` makes levels and weights of it. An `Observer` of two kilobytes a channel is
held for each, however many images there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from densepath.models.plan import Layer, convolutions
from densepath.models.spec import ModelSpec
from densepath.quantize.calibration import Calibration
from densepath.quantize.observer import NATIVE, Observer
from densepath.weights.checkpoint import Checkpoint


def quant_layers(spec: ModelSpec) -> list[Layer]:
    """The convolutions that read a ReLU's outputs, in their order: all but the stem."""
    return [layer for layer in convolutions(spec) if layer.reads != "images"]


def observe_inputs(checkpoint: Checkpoint, calibration: Calibration) -> dict[str, Observer]:
    """An observer of each of `quant_layers`' inputs on the calibration images."""
    model = checkpoint.to_model()
    modules = dict(model.named_modules())
    found: dict[str, Observer] = {}
    for layer in quant_layers(checkpoint.spec):
        found[layer.name] = Observer(NATIVE, channels=layer.inputs, moments=True)
        hook = _hook(found[layer.name], layer.averaged)
        modules[layer.name].register_forward_pre_hook(hook)
    with torch.inference_mode():
        for images in calibration.batches():
            model(torch.from_numpy(images))
    return found


def _hook(observer: Observer, averaged: bool) -> Callable[[Any, Any], None]:
    """A hook that shows the observer the input of a convolution."""

    def show(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        values = F.avg_pool2d(inputs[0], 2) if averaged else inputs[0]
        observer.see(values.transpose(0, 1).flatten(1).numpy())

    return show

"""A pretrained checkpoint for another number of input channels or classes.

The rules are those of timm 1.0 `models/_manipulate.py` (`adapt_input_conv`), so that a network
adapted here starts as one adapted there.
"""

from __future__ import annotations

import dataclasses
import math

from torch import Tensor

from densepath.images.preprocess import Preprocess
from densepath.models.build import Model, build_model
from densepath.models.plan import plan
from densepath.models.spec import ModelSpec
from densepath.weights.backbone import check_answers, is_backbone
from densepath.weights.checkpoint import Checkpoint


def adapt_first_layer(weight: Tensor, in_channels: int) -> Tensor:
    """The first convolution's weight [O, C, h, w] for images of other channels: [O, n, h, w].

    For one channel the C filters are summed: a gray image then gives what its C equal channels
    gave. For n the filters are repeated in turn and scaled by C / n, which keeps the size of
    what the layer gives.
    """
    channels = weight.shape[1]
    if in_channels == channels:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = math.ceil(in_channels / channels)
    return weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (channels / in_channels)


def adapt_preprocess(preprocess: Preprocess, in_channels: int) -> Preprocess:
    """The same arithmetic for other channels: each has the average mean and deviation."""
    if preprocess.channels == in_channels:
        return preprocess
    mean = sum(preprocess.mean) / preprocess.channels
    std = sum(preprocess.std) / preprocess.channels
    return dataclasses.replace(preprocess, mean=(mean,) * in_channels, std=(std,) * in_channels)


def first_layer(spec: ModelSpec) -> str:
    """The name of the weight that sees the image."""
    return f"{plan(spec)[0].name}.weight"


def adapt_model(
    checkpoint: Checkpoint,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Model:
    """The checkpoint's network for other classes or channels, in training mode.

    With another `num_classes`, and of a backbone, the classifier is new and has first weights;
    everything else is the checkpoint's. `in_channels` follows `adapt_first_layer`. None keeps the
    checkpoint's.

    Raises:
        KeyMismatchError: the tensors are not those of the checkpoint's own network.
        UsageError: a count below 1 or a rate outside [0, 1); no classes for a backbone.
    """
    if num_classes is None:
        check_answers(checkpoint, "the checkpoint")
    classes = checkpoint.num_classes if num_classes is None else num_classes
    channels = checkpoint.in_channels if in_channels is None else in_channels
    model = build_model(
        checkpoint.spec,
        num_classes=classes,
        in_channels=channels,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
    )
    kept = checkpoint.to_model().state_dict()
    stem = first_layer(checkpoint.spec)
    kept[stem] = adapt_first_layer(kept[stem], channels)
    if classes != checkpoint.num_classes or is_backbone(checkpoint.provenance):
        kept |= {k: v for k, v in model.state_dict().items() if k.startswith("classifier.")}
    model.load_state_dict(kept)
    return model.train()

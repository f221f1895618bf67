"""`densepath.load`: what a user names → a predictor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from densepath.engines.engine import Precision
from densepath.engines.predictor import Predictor
from densepath.errors import UsageError

if TYPE_CHECKING:
    from densepath.models.layers import TestPooling


def load(
    subject: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "float32",
    size: int | tuple[int, int] | None = None,
    crop_share: float | None = None,
    test_pooling: TestPooling = "mean",
    threads: int | None = None,
) -> Predictor:
    """A predictor for a published name, a checkpoint file or a run folder.

    Args:
        subject: for example `timm/densenet121.ra_in1k`, `x.safetensors` or `runs/digits`.
        device: `auto` (a GPU when there is one), `cpu`, `cuda:0`.
        precision: `float32` or `bfloat16`.
        size: side of the input in pixels, or height and width; the checkpoint's by default.
        crop_share: the share of the short side that the centre crop keeps; the checkpoint's.
        test_pooling: `mean`, or `mean_max` at sizes above the training size.
        threads: CPU threads of the network, for the whole process; torch's own by default.

    Raises:
        CheckpointError, UnknownNameError, WeightsUnavailableError: no such weights.
        UsageError: no such device, or an impossible size.
    """
    import torch

    from densepath.engines.eager import EagerEngine
    from densepath.weights.subject import open_checkpoint

    if threads is not None:
        if threads < 1:
            raise UsageError(f"threads is {threads}; it must be at least 1.")
        torch.set_num_threads(threads)
    checkpoint = open_checkpoint(subject)
    preprocess = checkpoint.preprocess
    if size is not None or crop_share is not None:
        preprocess = preprocess.at_size(preprocess.size if size is None else size, crop_share)
    model = checkpoint.to_model()
    model.test_pooling = test_pooling
    engine = EagerEngine(model, device=device, precision=precision, size=preprocess.size)
    return Predictor(engine, preprocess, checkpoint.labels, multi_label=checkpoint.multi_label)

"""A Checkpoint's network → one `torch.export` program, from which every graph is made."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.export import Dim, ExportedProgram

from densepath.export.rewrite import rewrite
from densepath.weights.checkpoint import Checkpoint


def export_program(
    checkpoint: Checkpoint, size: tuple[int, int], *, dynamic_size: bool = False
) -> ExportedProgram:
    """The rewritten network as a graph: `images` [N, C, H, W] → `logits` [N, classes], any N.

    Args:
        checkpoint: the network and its weights.
        size: height and width of the images.
        dynamic_size: any height and width are taken, not only `size`.
    """
    network = rewrite(checkpoint.to_model())
    # Two images, for torch.export takes a size of 1 for a constant.
    images = torch.zeros(2, checkpoint.in_channels, *size)
    sizes = {0: Dim("n", min=1)}
    if dynamic_size:
        sizes |= {2: Dim.AUTO, 3: Dim.AUTO}
    with quiet_exporters(), torch.no_grad():
        return torch.export.export(network, (images,), dynamic_shapes=(sizes,), strict=False)


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """What the exporters say of themselves stays unsaid: deprecations of their own, progress."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for module in ("torch", "onnx", "onnxscript", "onnx_ir", "openvino", "copyreg", "ast"):
                warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

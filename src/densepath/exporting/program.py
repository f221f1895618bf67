"""A Checkpoint's network → one `torch.export` program, from which every graph is made."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch.export import Dim, ExportedProgram

from densepath.exporting.rewrite import STEPS, Step, rewrite
from densepath.weights.checkpoint import Checkpoint

# What PyTorch 2.13's exporters say of their own code, and no user can mend.
OWN_WARNINGS = (
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    (DeprecationWarning, r"`torch\.jit\.script_method` is deprecated"),
)
# It warns that torchvision, whose operators no network here has, is not installed.
OWN_LOGGER = "torch.onnx._internal.exporter._registration"


def export_program(
    checkpoint: Checkpoint,
    size: tuple[int, int],
    *,
    dynamic_size: bool = False,
    steps: Collection[Step] = STEPS,
) -> ExportedProgram:
    """The rewritten network as a graph: `images` [N, C, H, W] → `logits` [N, classes], any N.

    Args:
        checkpoint: the network and its weights.
        size: height and width of the images.
        dynamic_size: any height and width are taken, not only `size`.
        steps: see `rewrite`.
    """
    network = rewrite(checkpoint.to_model(), steps)
    # Two images, for torch.export takes a size of 1 for a constant.
    images = torch.zeros(2, checkpoint.in_channels, *size)
    sizes = {0: Dim("n", min=1)}
    if dynamic_size:
        sizes |= {2: Dim.AUTO, 3: Dim.AUTO}
    with quiet_exporters(), torch.no_grad():
        return torch.export.export(network, (images,), dynamic_shapes=(sizes,), strict=False)


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence what the exporters say of themselves; all else is heard."""
    logger = logging.getLogger(OWN_LOGGER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category, message in OWN_WARNINGS:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        logger.setLevel(level)

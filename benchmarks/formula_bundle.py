"""Checkpoints and Bundles whose parameters are the formula's: what the benchmarks run.

Run: .venv/bin/python benchmarks/formula_bundle.py MODEL FOLDER [FORMAT,FORMAT]   a Bundle in FOLDER
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densepath.weights.checkpoint import Checkpoint

FORMATS = "onnx,openvino,torch"


def formula_checkpoint(model: str, **switches: Any) -> Checkpoint:
    """A Checkpoint of the catalogue's model, with timm's preprocessing of densenet121.ra_in1k.

    `switches` are those of `build_model`.
    """
    import torch

    from densepath.models.build import build_model
    from densepath.preprocess import Preprocess
    from densepath.weights.checkpoint import Checkpoint
    from densepath.weights.formula import formula_tensor

    network = build_model(model, **switches)
    tensors = {
        name: torch.from_numpy(formula_tensor(name, tuple(tensor.shape)))
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    preprocess = Preprocess((224, 224), 256, "bicubic")
    return Checkpoint.of(network, preprocess=preprocess, tensors=tensors)


@contextmanager
def formula_bundle(model: str, kept: Path | None, formats: str = FORMATS) -> Iterator[Path]:
    """A Bundle of the model; a process of its own made it, whose memory is free.

    Args:
        model: a name of the catalogue.
        kept: the folder in which it stays for the next time, under the model's name; without one
            it is removed.
        formats: of the bundle, commas between.

    Raises:
        SystemExit: the export failed.
    """
    with TemporaryDirectory() as scratch:
        folder = (kept or Path(scratch)).resolve() / model
        if not folder.exists():
            command = [sys.executable, __file__, model, str(folder), formats]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                sys.exit(f"{model} cannot be exported:\n{run.stderr[-2000:]}")
        yield folder


if __name__ == "__main__":
    from densepath.export.export import export

    model, folder, *formats = sys.argv[1:]
    wanted: Any = (formats or [FORMATS])[0].split(",")
    export(formula_checkpoint(model), folder, to=wanted, num_images=2, batch_sizes=(1,))

"""Checkpoints and Bundles whose parameters are the formula's: what the benchmarks run."""

from __future__ import annotations

from pathlib import Path


def formula_checkpoint(model: str):
    """A Checkpoint of the catalogue's model, with timm's preprocessing of densenet121.ra_in1k."""
    import torch

    from densepath.models.build import build_model
    from densepath.preprocess import Preprocess
    from densepath.weights.checkpoint import Checkpoint
    from densepath.weights.formula import formula_tensor

    network = build_model(model)
    tensors = {
        name: torch.from_numpy(formula_tensor(name, tuple(tensor.shape)))
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    preprocess = Preprocess((224, 224), 256, "bicubic")
    return Checkpoint.of(network, preprocess=preprocess, tensors=tensors)


def formula_bundle(model: str, folder: Path) -> Path:
    """The folder is a Bundle of the model for every runtime of this machine."""
    from densepath.export.export import export

    export(formula_checkpoint(model), folder, num_images=2, batch_sizes=(1,))
    return folder

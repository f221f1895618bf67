"""densepath: DenseNet and Dual Path Networks, from a folder of images to an answer.

The public names load on first use, so that `import densepath` stays free of torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Nothing that densepath stands on sends messages of its own accord, or keeps files for it. The
# packages read these when they are imported; OpenVINO's is in `engines/hiding.py`.
WITHOUT_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
for _variable in WITHOUT_TELEMETRY:
    os.environ.setdefault(_variable, "1")

_HOMES = {
    "Bundle": "densepath.bundle.bundle",
    "CATALOGUE": "densepath.models.catalogue",
    "Checkpoint": "densepath.weights.checkpoint",
    "Preprocess": "densepath.preprocess",
    "create_model": "densepath.weights.create",
    "evaluate": "densepath.evaluation.evaluate",
    "export": "densepath.export",
    "load": "densepath.engines.load",
    "open_dataset": "densepath.data.open",
    "train": "densepath.training.train",
}

__all__ = [  # noqa: RUF022  in the order of `sorted`, which a test holds
    "Bundle",
    "CATALOGUE",
    "Checkpoint",
    "Preprocess",
    "create_model",
    "evaluate",
    "export",
    "load",
    "open_dataset",
    "train",
]

if TYPE_CHECKING:
    from densepath.bundle.bundle import Bundle
    from densepath.data.open import open_dataset
    from densepath.engines.load import load
    from densepath.evaluation.evaluate import evaluate
    from densepath.export.export import export
    from densepath.models.catalogue import CATALOGUE
    from densepath.preprocess import Preprocess
    from densepath.training.train import train
    from densepath.weights.checkpoint import Checkpoint
    from densepath.weights.create import create_model


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'densepath' has no attribute {name!r}; it has {__all__}")
    home = importlib.import_module(_HOMES[name])
    # `export` is a folder too: the package, which can be called.
    return home if name == "export" else getattr(home, name)


def __dir__() -> list[str]:
    return __all__

"""densepath: DenseNet and Dual Path Networks, from a folder of images to an answer.

The public names load on first use, so that `import densepath` stays free of torch. Each verb of
the command line that makes or measures something is one of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from densepath.privacy import switch_off_telemetry
from densepath.version import __version__

switch_off_telemetry()

_HOMES = {
    "Bundle": "densepath.bundle.bundle",
    "CATALOGUE": "densepath.models.catalogue",
    "Checkpoint": "densepath.weights.checkpoint",
    "DataOptions": "densepath.data.options",
    "Preprocess": "densepath.images.preprocess",
    "PreprocessChanges": "densepath.weights.preprocess_changes",
    "convert": "densepath.exporting.convert",
    "create_model": "densepath.weights.create",
    "evaluate": "densepath.evaluation.evaluate",
    "export": "densepath.exporting.export",
    "find_learning_rate": "densepath.training.lr_find",
    "find_runs": "densepath.training.runs",
    "import_weights": "densepath.weights.import_file",
    "inspect_splits": "densepath.data.inspect",
    "load": "densepath.predict.load",
    "measure_ladder": "densepath.evaluation.ladder",
    "open_dataset": "densepath.data.open",
    "open_splits": "densepath.data.splits",
    "quantize": "densepath.quantize",
    "train": "densepath.training.train",
}

__all__ = [  # noqa: RUF022  in the order of `sorted`, which a test holds
    "Bundle",
    "CATALOGUE",
    "Checkpoint",
    "DataOptions",
    "Preprocess",
    "PreprocessChanges",
    "__version__",
    "convert",
    "create_model",
    "evaluate",
    "export",
    "find_learning_rate",
    "find_runs",
    "import_weights",
    "inspect_splits",
    "load",
    "measure_ladder",
    "open_dataset",
    "open_splits",
    "quantize",
    "train",
]

if TYPE_CHECKING:
    from densepath.bundle.bundle import Bundle
    from densepath.data.inspect import inspect_splits
    from densepath.data.open import open_dataset
    from densepath.data.options import DataOptions
    from densepath.data.splits import open_splits
    from densepath.evaluation.evaluate import evaluate
    from densepath.evaluation.ladder import measure_ladder
    from densepath.exporting.convert import convert
    from densepath.exporting.export import export
    from densepath.images.preprocess import Preprocess
    from densepath.models.catalogue import CATALOGUE
    from densepath.predict.load import load
    from densepath.quantize.quantize import quantize
    from densepath.training.lr_find import find_learning_rate
    from densepath.training.runs import find_runs
    from densepath.training.train import train
    from densepath.weights.checkpoint import Checkpoint
    from densepath.weights.create import create_model
    from densepath.weights.import_file import import_weights
    from densepath.weights.preprocess_changes import PreprocessChanges


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'densepath' has no attribute {name!r}; it has {__all__}")
    home = importlib.import_module(_HOMES[name])
    # `quantize` is a folder, too: a package that can be called.
    return home if home.__name__ == f"densepath.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return __all__

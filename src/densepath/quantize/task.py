"""What the writer of an INT8 form is given, and what it gives.

A row of `bundle/formats.py` names each writer: a function of a `Task` and of the methods to try.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from densepath.exporting.onnx import OPSET
from densepath.quantize.calibration import Calibration
from densepath.quantize.layers import choose_layers
from densepath.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Task:
    """What is to be quantised.

    Attributes:
        checkpoint: the float network.
        calibration: the images that ranges are measured on.
        keep_float: names of modules that stay in float32.
        scratch: a folder for what is made on the way.
        opset: ONNX's set of operators.
    """

    checkpoint: Checkpoint
    calibration: Calibration
    keep_float: tuple[str, ...]
    scratch: Path
    opset: int = OPSET

    def kept_names(self) -> list[str]:
        """The layers that stay in float32, each by its own name."""
        return [layer.name for layer in choose_layers(self.checkpoint.spec, self.keep_float)]

    def folder(self, name: str) -> Path:
        """A new folder for what is made on the way."""
        folder = self.scratch / name
        folder.mkdir()
        return folder


# A method's name, the folder of its files, and the file of each part.
Written: TypeAlias = tuple[str, Path, dict[str, str]]

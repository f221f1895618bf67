"""What a format's writer is given: the network, where its files go, and one traced program for all.

On the line: Checkpoint → the files of one format. A row of `bundle/formats.py` names each writer:
a function of a `Job` that writes into its folder and gives the file of each part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from densepath.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A network to be written.

    Attributes:
        checkpoint: the network, at the size that its preprocessing makes.
        folder: for the files.
        dynamic_size: the graphs take images of any size.
        opset: ONNX's set of operators.
        say: is told of each step.
    """

    checkpoint: Checkpoint
    folder: Path
    dynamic_size: bool = False
    opset: int | None = None
    say: Say = lambda step: None

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of the graphs' images, None where any size is taken."""
        return input_shape(self.checkpoint, self.dynamic_size)

    @cached_property
    def program(self) -> ExportedProgram:
        """The network as one graph, traced when the first writer asks for it."""
        from densepath.exporting.program import export_program

        self.say("tracing the network")
        size = self.checkpoint.preprocess.size
        return export_program(self.checkpoint, size, dynamic_size=self.dynamic_size)


def input_shape(checkpoint: Checkpoint, dynamic_size: bool) -> tuple[int | None, ...]:
    """The shape of the model graph's images, None where any size is taken."""
    sides = (None, None) if dynamic_size else checkpoint.preprocess.size
    return (None, checkpoint.in_channels, *sides)

"""What an engine is opened on: a file of its format, or a checkpoint in memory, and how.

Each runtime's file has a function `open_engine` of a `Runtime`'s row and an `Opening`; the row
names it (`bundle/formats.py`). Whoever opens an engine, for answers, for a comparison or for a
ladder, goes through `open_runtime`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from densepath.bundle.formats import Precision, Runtime, named
from densepath.engines.engine import Engine
from densepath.engines.modes import Mode
from densepath.images.preprocess import Preprocess

if TYPE_CHECKING:
    from densepath.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Opening:
    """A network, and how it is to be run.

    Attributes:
        model: the file of the runtime's format; None where the checkpoint is in memory.
        checkpoint: the network in memory, for runtimes that take weights.
        preprocess: the way from an image to its input; the engine normalises by it.
        in_channels: of the images.
        num_classes: the logits.
        size: height and width of the images, where the file takes one size only.
        precision: of the arithmetic; of an INT8 file `int8`.
        mode, threads: how cores are used, see `modes.py`.
        device: `auto`, `cpu`, `cuda:0`; for runtimes that have a choice.
        mean_max: pooling by mean and maximum, for runtimes that can.
    """

    model: Path | None
    preprocess: Preprocess
    in_channels: int
    num_classes: int
    size: tuple[int, int] | None = None
    precision: Precision = "float32"
    mode: Mode = "auto"
    threads: int | None = None
    device: str = "auto"
    mean_max: bool = False
    checkpoint: Checkpoint | None = None

    @property
    def file(self) -> Path:
        """The file, for runtimes that read one."""
        assert self.model is not None
        return self.model

    @property
    def one_size(self) -> tuple[int, int]:
        """Height and width of the images, for files that always have one size."""
        return self.size or self.preprocess.size

    def read_checkpoint(self) -> Checkpoint:
        """The weights, from memory or from the file.

        Raises:
            CheckpointError: the file cannot be read.
            UsageError: images of this size are too small for the network.
        """
        from densepath.weights.checkpoint import Checkpoint

        found = self.checkpoint or Checkpoint.load(self.file)
        found.spec.check_size(self.preprocess.size)
        return found


def open_runtime(row: Runtime, opening: Opening) -> Engine:
    """The runtime's engine on a network.

    Raises:
        DensepathError: it cannot be opened; see the runtime's own class.
    """
    engine: Engine = named(row.open)(row, opening)
    return engine

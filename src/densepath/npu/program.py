"""A compiled program and all that belongs to it, in one sealed folder.

On the line: `compile.py` writes it; the simulator, the profiler and a board read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from densepath.bundle.sealed import Sealed, missing_file, read_description, verify_file
from densepath.images.preprocess import Preprocess
from densepath.npu.description import COMPILED, LAYERS, PROGRAM, SOURCE, Description
from densepath.npu.estimate import OperatorCost, read_layers

DESCRIPTION = PROGRAM.description


@dataclass(frozen=True)
class Program:
    """A network compiled for an NPU.

    Attributes:
        folder: of its files.
        description: target, tools, estimate, layout, hashes.
    """

    folder: Path
    description: Description

    @classmethod
    def open(cls, folder: str | Path) -> Program:
        """The program in `folder`, its files verified.

        Raises:
            BundleError: not a program, of another version, or a file is missing or was changed.
            UsageError: the folder's name is no UTF-8.
        """
        folder = Path(folder)
        text, _, has_seal = read_description(folder, PROGRAM)
        description = Description.from_text(text, str(folder))
        if description.seal is not None and not has_seal:
            raise missing_file(folder, PROGRAM.seal, PROGRAM)
        for name, digest in description.files.items():
            verify_file(folder, name, Sealed(digest), PROGRAM)
        return cls(folder, description)

    @property
    def model(self) -> Path:
        """The INT8 network that was compiled, as LiteRT runs it."""
        return self.folder / SOURCE

    @property
    def compiled(self) -> Path:
        """The program, as TensorFlow Lite Micro reads it."""
        return self.folder / COMPILED

    @property
    def labels(self) -> list[str]:
        """The name of each class, in the order of the logits."""
        return self.description.labels

    @property
    def multi_label(self) -> bool:
        """Every class is a yes or no of its own."""
        return self.description.multi_label

    @property
    def preprocess(self) -> Preprocess:
        """The way from an image to the input."""
        return self.description.preprocess

    def layers(self) -> list[OperatorCost]:
        """What each operator costs."""
        return read_layers(self.folder / LAYERS, self.compiled)

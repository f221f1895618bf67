"""A compiled program and all that belongs to it, in one folder whose hashes are verified.

On the line: `compile.py` writes it; the simulator, the profiler and a board read it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densepath.errors import BundleError, UsageError
from densepath.files import missing, sha256
from densepath.images.preprocess import Preprocess
from densepath.npu.estimate import OperatorCost, read_layers

DESCRIPTION = "program.json"
FORMAT = "densepath-npu-program"
VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# What the simulator and the profiler read of the description, with the fields in each.
_PARTS = {
    "target": ("name", "clock_hz", "macs_per_cycle"),
    "estimate": ("inference_ms", "memory_bytes", "fits", "sram_limit_bytes"),
    "operators": ("share", "cpu"),
}
COMPILED, SOURCE, LAYERS = "program_vela.tflite", "model.tflite", "layers.csv"


@dataclass(frozen=True)
class Program:
    """A network compiled for an NPU.

    Attributes:
        folder: of its files.
        about: the description: target, tools, estimate, hashes.
    """

    folder: Path
    about: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Program:
        """The program in `folder`, its files verified.

        Raises:
            BundleError: not a program, of another version, or a file is missing or was changed.
        """
        folder = Path(folder)
        path = folder / DESCRIPTION
        if not folder.exists():
            raise BundleError(missing(folder, "folder"))
        if not path.is_file():
            raise BundleError(
                f"{folder} is not a compiled program: it has no {DESCRIPTION}. "
                "`densepath npu compile` makes programs."
            )
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            kind, number = about["format"], about["version"]
            files = dict(about["files"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleError(f"{folder}: {DESCRIPTION} cannot be read: {error!r}.") from error
        if (kind, number) != (FORMAT, VERSION):
            raise BundleError(
                f"{folder}: its version is {number!r}; this densepath reads version {VERSION}. "
                "Compile it again."
            )
        for name, digest in files.items():
            if not _NAME.fullmatch(name):
                raise BundleError(f"{folder}: {name[:40]!r} is no plain name of a file.")
            file = folder / name
            if not file.is_file():
                raise BundleError(f"{folder}: {name} is missing; compile the program again.")
            if sha256(file) != digest:
                raise BundleError(f"{folder}: {name} was changed; compile the program again.")
        _check_description(about, folder)
        return cls(folder, about)

    @property
    def model(self) -> Path:
        """The INT8 network that was compiled, as LiteRT runs it."""
        return self.folder / SOURCE

    @property
    def labels(self) -> list[str]:
        """The name of each class, in the order of the logits."""
        return list(self.about["labels"])

    @property
    def multi_label(self) -> bool:
        """Every class is a yes or no of its own."""
        return bool(self.about["multi_label"])

    @property
    def preprocess(self) -> Preprocess:
        """The way from an image to the input."""
        return Preprocess.from_dict(self.about["preprocess"])

    def layers(self) -> list[OperatorCost]:
        """What each operator costs."""
        return read_layers(self.folder / LAYERS, self.folder / COMPILED)


def _check_description(about: dict[str, Any], folder: Path) -> None:
    """Raise BundleError unless the description has what is read of it."""
    try:
        missing = [name for name in ("model", "multi_label") if name not in about]
        for part, fields in _PARTS.items():
            missing += [f"{part}.{name}" for name in fields if name not in about[part]]
        Preprocess.from_dict(about["preprocess"])
        labels = about["labels"]
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            missing.append("labels")
        missing += [name for name in (SOURCE, COMPILED, LAYERS) if name not in about["files"]]
    except (UsageError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder}: {DESCRIPTION} cannot be read: {error!r}.") from error
    if missing:
        raise BundleError(
            f"{folder}: {DESCRIPTION} lacks {', '.join(missing)}; compile the program again."
        )

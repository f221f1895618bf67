"""The SUBJECT of a verb becomes a Checkpoint: published name, checkpoint file or run folder."""

from __future__ import annotations

from pathlib import Path

from densepath.errors import CheckpointError, UnknownNameError, UsageError
from densepath.models.catalogue import CATALOGUE
from densepath.weights.checkpoint import Checkpoint

RUN_FILES = ("best.safetensors", "last.safetensors")


def open_checkpoint(subject: str | Path) -> Checkpoint:
    """The checkpoint that `subject` names.

    `subject` is a checkpoint file, a run folder (its best checkpoint, else its last).

    Raises:
        CheckpointError: the file or folder is no checkpoint.
        UsageError: a bare model name, which has no weights.
        UnknownNameError: neither a file nor a known name.
    """
    path = Path(subject)
    if path.is_dir():
        return Checkpoint.load(_checkpoint_in(path))
    if path.exists() or path.suffix == ".safetensors":
        return Checkpoint.load(path)
    name = str(subject)
    if name.lower() in CATALOGUE:
        raise UsageError(
            f"{name} is an architecture and has no weights of its own. Name a checkpoint file or "
            "a run folder instead."
        )
    raise UnknownNameError("model or file", name, CATALOGUE)


def _checkpoint_in(folder: Path) -> Path:
    """The best, else the last checkpoint of a run folder.

    Raises:
        CheckpointError: the folder has neither.
    """
    for name in RUN_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} is not a run folder: it has neither {' nor '.join(RUN_FILES)}")

"""Images that stand in files of their own, each with a target: folder, list file and CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densepath.data.dataset import Sample, Target, one_line
from densepath.data.fingerprint import fingerprint_file
from densepath.images.decode import open_image
from densepath.images.read_as import AS_PHOTOS, ReadAs
from densepath.wording import counted


class FilesDataset:
    """Files under `root` with targets, in the given order.

    Names and targets lie in a few large blocks: worker processes share them, where a list of a
    million strings would be copied into each as its reference counts change.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        targets: Sequence[Target],
        class_names: list[str],
        *,
        description: str,
        read_as: ReadAs = AS_PHOTOS,
        multi_label: bool = False,
        named: bool = True,
        groups: Sequence[int] | None = None,
    ) -> None:
        self.class_names, self.named, self.multi_label = class_names, named, multi_label
        self.description = f"{description} ({counted(len(files), 'image')})"
        self._root, self.read_as = "" if root == Path() else os.fspath(root), read_as
        names = [os.fsencode(file) for file in files]
        self._names = b"".join(names)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._targets = np.array(targets, np.float32 if multi_label else np.int64)

        self.groups = None if groups is None else np.array(groups, np.int64)

    __repr__ = one_line

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._ends)

    def load(self, index: int) -> Sample:
        """Sample `index`; raises ImageError when its image cannot be read."""
        path = self.path(index)
        channels, intensity = self.read_as.channels, self.read_as.intensity
        image = open_image(path, channels=channels, intensity=intensity)
        return Sample(image, self.target(index), path)

    def path(self, index: int) -> str:
        """The file of sample `index`."""
        start = self._ends[index - 1] if index else 0
        return os.path.join(self._root, os.fsdecode(self._names[start : self._ends[index]]))  # noqa: PTH118

    def target(self, index: int) -> Target:
        """The target of sample `index`."""
        target = self._targets[index]
        return target if self.multi_label else int(target)

    def fingerprint(self, index: int) -> int:
        """64 bits of the contents of sample `index`'s file."""
        return fingerprint_file(self.path(index))

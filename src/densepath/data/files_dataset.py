"""Images that stand in files of their own, each with a target: folder, list file and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from densepath.data.dataset import Sample, Target
from densepath.data.decode import open_image


class FilesDataset:
    """Files under `root` with targets, in the given order."""

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        targets: Sequence[Target],
        class_names: list[str],
        *,
        description: str,
        channels: int = 3,
        multi_label: bool = False,
    ) -> None:
        self.class_names, self.multi_label = class_names, multi_label
        self.description = f"{description} ({len(files):,} images)"
        self._root, self._files, self._targets = root, files, targets
        self._channels = channels

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._files)

    def load(self, index: int) -> Sample:
        """Sample `index`; raises ImageError when its image cannot be read."""
        path = self.path(index)
        return Sample(open_image(path, channels=self._channels), self.target(index), path)

    def path(self, index: int) -> str:
        """The file of sample `index`."""
        return str(self._root / self._files[index])

    def target(self, index: int) -> Target:
        """The target of sample `index`."""
        return self._targets[index]

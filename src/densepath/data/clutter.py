"""What operating systems and tools leave in people's folders: never a class, never an image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

# In lower case. Sources: macOS archives and volumes, Windows, Synology DSM, QNAP QTS, Linux,
# Python. Names that begin with a dot (.DS_Store, ._photo.jpg, .git, .ipynb_checkpoints) are hidden.
CLUTTER = frozenset(
    (
        "__macosx",
        "icon\r",
        "network trash folder",
        "temporary items",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "desktop.ini",
        "ehthumbs.db",
        "thumbs.db",
        "@eadir",
        "@tmp",
        "#recycle",
        "#snapshot",
        "@recycle",
        "@recently-snapshot",
        "lost+found",
        "__pycache__",
    )
)
SHOWN = 5


def is_clutter(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or an operating system's or a tool's."""
    return name.startswith(".") or name.lower() in CLUTTER


def lies_in_clutter(path: str) -> bool:
    """Whether a part of a path in an archive (`__MACOSX/train/._1.jpg`) is clutter."""
    return any(is_clutter(part) for part in PurePosixPath(path).parts)


@dataclass
class Ignored:
    """What was passed over where images were looked for.

    Attributes:
        clutter: entries of operating systems and tools, and hidden ones, by name.
        others: files that are no image by their ending, by that ending in lower case.
    """

    clutter: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def add_other(self, name: str) -> None:
        """One more file that is no image."""
        self.others[os.path.splitext(name)[1].lower() or os.path.basename(name)] += 1  # noqa: PTH119, PTH122

    def add(self, more: Ignored) -> None:
        """What was passed over elsewhere, too."""
        self.clutter += more.clutter
        self.others += more.others

    def sentences(self, where: object) -> Iterator[str]:
        """What was passed over, in words."""
        if self.others:
            total, endings = self.others.total(), _counted(self.others)
            files = "file is" if total == 1 else "files are"
            yield f"ignored in {where}: {total:,} other {files} no image by the ending ({endings})."
        if self.clutter:
            total, names = self.clutter.total(), _counted(self.clutter)
            yield f"ignored in {where}: {total:,} hidden or of the operating system ({names})."


def _counted(counter: Counter[str]) -> str:
    """`3 .txt, 1 .xml`, the most frequent first."""
    shown = [f"{count:,} {name!r}" for name, count in counter.most_common(SHOWN)]
    return ", ".join(shown) + (", …" if len(counter) > SHOWN else "")

"""What operating systems and tools leave in people's folders: never a class, never an image."""

from __future__ import annotations

import os
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
        "found.000",
        "__pycache__",
    )
)


def is_clutter(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or an operating system's or a tool's."""
    return name.startswith(".") or name.lower() in CLUTTER


def is_clutter_entry(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is clutter by its name, or the folder of the version control CVS.

    The latter is known by what lies in it: a class may have that name, too.
    """
    if entry.name == "CVS":
        return os.path.isfile(os.path.join(entry.path, "Entries"))  # noqa: PTH113, PTH118
    return is_clutter(entry.name)


def lies_in_clutter(path: str) -> bool:
    """Whether a part of a path in an archive (`__MACOSX/train/._1.jpg`) is clutter."""
    return any(is_clutter(part) for part in PurePosixPath(path).parts)

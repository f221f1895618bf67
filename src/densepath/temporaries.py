"""Names of unfinished outputs, and what becomes of those whose process was killed.

`.NAME.densepath-MACHINE-PROCESS-RANDOM.tmp` stands beside `NAME`, or inside it, until it is whole.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

OLD = "-old"  # behind the name of a folder that is being replaced by what had that name
CUT = "~"
MOST_NAME_BYTES = 180  # of 255, which is what most file systems take
FOLDERS_REMEMBERED = 1000
NAMES = re.compile(
    r"\.(?P<name>.+)\.densepath-(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.tmp"
    rf"(?P<old>{OLD})?",
    re.DOTALL,
)


def temporary_in(folder: Path, name: str) -> Path:
    """A path in `folder` where nothing is yet, for what is to be called `name`."""
    number = uuid.uuid4().hex[:8]
    return folder / f".{_short(name)}.densepath-{_machine()}-{os.getpid()}-{number}.tmp"


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is an unfinished output."""
    return NAMES.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed have left unfinished in `folder`.

    Looked for once in each folder. What a living process writes, or one of another machine or
    container, is left alone.
    """
    if os.name == "posix":  # elsewhere to ask for a process may end it
        _remove_leftovers(os.path.realpath(folder))


@functools.lru_cache(FOLDERS_REMEMBERED)
def _remove_leftovers(folder: str) -> None:
    """See `remove_leftovers`."""
    with suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208  names are what is looked at
            found = NAMES.fullmatch(name)
            if found and found["machine"] == _machine() and not _is_alive(int(found["process"])):
                _tidy(Path(folder), found)


def _tidy(folder: Path, found: re.Match[str]) -> None:
    """Remove a leftover; the old folder of a replacement that was cut off goes back to its place.

    One whose name was cut is kept: nobody knows where it belongs.
    """
    left, place = folder / found[0], folder / found["name"]
    with suppress(OSError):
        if found["old"] and not os.path.lexists(place):
            if not found["name"].endswith(CUT):
                left.rename(place)
        elif left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink()


def _is_alive(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


def _short(name: str) -> str:
    """The name, cut where with its additions it would be longer than file systems take."""
    data = os.fsencode(name)
    if len(data) <= MOST_NAME_BYTES:
        return name
    return os.fsdecode(data[:MOST_NAME_BYTES]) + CUT


@functools.cache
def _machine() -> str:
    """Eight digits for where a process number means one process: a container, since its start."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8"))
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:8]

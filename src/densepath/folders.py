"""Writing a folder as a whole: bundles and programs are never seen half made.

It is made under a temporary name beside its place and takes that by renaming. A folder that is
empty is filled, for it may be a mount point or somebody's working folder; so is one that cannot be
renamed. A link to a folder stays: what it points to is replaced.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from densepath.errors import OutputError
from densepath.outputs import UNMOVABLE, cannot_write, flush, follow, give, new_folders
from densepath.temporaries import OLD, is_temporary, remove_leftovers, temporary_in

# What mkfs leaves in the first folder of a file system.
NO_CONTENTS = ("lost+found",)


def contents(folder: Path) -> list[Path]:
    """What stands in the folder, unfinished outputs left out.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        return [
            path
            for path in folder.iterdir()
            if path.name not in NO_CONTENTS and not is_temporary(path.name)
        ]
    except OSError as error:
        raise OutputError(f"{folder} cannot be read: {error.strerror or error}.") from error


@contextmanager
def write_folder(
    path: str | Path, *, last: Sequence[str] = ()
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Yields an empty folder, and what puts it in the place of `path`, once it is whole.

    When that is not called, or fails, nothing is left, and what stood at `path` stays as it was.
    Whether that may be replaced is for the caller to check.

    Args:
        path: of the folder; those above it are made.
        last: the files in it without which nobody takes it for whole.

    Raises:
        OutputError: it cannot be written.
    """
    target, scratch = Path(path), Path(path)
    try:
        real = follow(target)
        with new_folders(real.parent), _scratch(real) as scratch:
            was_empty = not real.exists() or not contents(real)
            yield scratch, lambda: _put(scratch, real, last, was_empty=was_empty)
    except OSError as error:
        raise cannot_write(target, error) from error
    except OutputError as error:  # of a file within; the temporary name means nothing to anybody
        raise OutputError(str(error).replace(str(scratch), str(target))) from error


@contextmanager
def _scratch(real: Path) -> Iterator[Path]:
    """Yields a new folder: beside `real` if that is to be renamed, else in it."""
    where = real if real.exists() and not (_can_move(real) and contents(real)) else real.parent
    remove_leftovers(where)
    scratch = temporary_in(where, real.name)
    try:
        scratch.mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _can_move(real: Path) -> bool:
    """Whether the folder may be renamed: no mount point, and not where this process stands."""
    if real.is_mount() or not os.access(real.parent, os.W_OK | os.X_OK):
        return False
    return not real.samefile(os.curdir)


def _put(scratch: Path, real: Path, last: Sequence[str], *, was_empty: bool) -> None:
    """`real` is what `scratch` was.

    Raises:
        OSError: it cannot be; what stood there stands there still.
    """
    for path in scratch.rglob("*"):
        if path.is_file():
            flush(path)
    if not real.exists():
        scratch.rename(real)
    elif was_empty and contents(real):
        raise OSError(errno.ENOTEMPTY, "something else has been written there meanwhile")
    elif scratch.parent == real:
        _fill(real, scratch, last)
    elif not _swap(real, scratch):
        inside = temporary_in(real, real.name)
        try:
            shutil.move(scratch, inside)  # which copies, if that is another file system
            _fill(real, inside, last)
        finally:
            shutil.rmtree(inside, ignore_errors=True)
    with suppress(OSError):  # a folder may be one that cannot be opened
        flush(real.parent)


def _swap(real: Path, scratch: Path) -> bool:
    """Whether `scratch` stands at `real` by renaming; the old folder goes once the new one stands.

    Its mode and owner are kept.

    Raises:
        OSError: it does not, and cannot be filled either.
    """
    old, there = scratch.with_name(scratch.name + OLD), real.stat()
    if not give(scratch, there):
        return False
    try:
        scratch.chmod(stat.S_IMODE(there.st_mode))
        real.rename(old)
        scratch.rename(real)
    except OSError as error:
        if error.errno not in UNMOVABLE:
            raise
        return False
    finally:
        if old.exists() and not real.exists():  # an interruption between the two
            old.rename(real)
        shutil.rmtree(old, ignore_errors=True)
    return True


def _fill(real: Path, scratch: Path, last: Sequence[str]) -> None:
    """What was in `real` goes, and what is in `scratch`, a folder in it, takes its place.

    Raises:
        OSError: it cannot; what was in `real` is there again.
    """
    aside = scratch / f"{scratch.name}{OLD}"
    aside.mkdir()
    out = [(path, aside / path.name) for path in contents(real)]
    into = [(path, real / path.name) for path in scratch.iterdir() if path != aside]
    out.sort(key=lambda move: move[0].name not in last)
    into.sort(key=lambda move: move[0].name in last)
    moves = [*out, *into]
    try:
        for source, place in moves:
            source.rename(place)
    except BaseException:
        for source, place in reversed(moves):
            if os.path.lexists(place) and not os.path.lexists(source):
                place.rename(source)
        raise
    with suppress(OSError):
        flush(real)

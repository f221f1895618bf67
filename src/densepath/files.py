"""Files: writing them so that nothing is lost, finding those that were meant, and our cache."""

from __future__ import annotations

import difflib
import functools
import hashlib
import io
import itertools
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from densepath.errors import OutputError
from densepath.names import READABLE, to_json
from densepath.notes import say_once
from densepath.outputs import cannot_write, find_place, kind_of, new_folders

CHUNK_BYTES = 1 << 20
# So many names of a folder are compared with one that is not there.
MOST_ENTRIES = 10_000


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path; on leaving, `path` holds what was written there.

    A regular file is replaced as a whole, or stays as it was when the body fails; it keeps its mode
    and owner. Of a link that is the file that it points to. What cannot be replaced, as a pipe, a
    device or `/dev/stdout`, is written when the body has ended (`outputs.py`). The parent folders
    are made, and go again with a body that fails.

    Raises:
        OutputError: the folder cannot be made or the file cannot be written (disk full,
            permissions, a folder of that name).
    """
    target = Path(path)
    try:
        with new_folders(target.parent), find_place(target).writing() as temporary:
            yield temporary
    except OSError as error:
        raise cannot_write(target, error) from error


@contextmanager
def open_output(path: str | Path) -> Iterator[TextIO]:
    """Yields a text file in UTF-8, stray bytes of names escaped, that becomes `path`.

    As `write_atomically`, but a pipe or device gets each line as it is written.

    Raises:
        OutputError: it cannot be written.
    """
    target = Path(path)
    written: dict[str, Any] = {"encoding": "utf-8", "errors": READABLE, "newline": ""}
    try:
        with new_folders(target.parent):
            place = find_place(target)
            if place.through and place.old is None:
                with place.open() as sink:
                    file = io.TextIOWrapper(sink, **written, line_buffering=True)
                    yield file
                    file.flush()
                    file.detach()
            else:
                with place.writing() as temporary, temporary.open("w", **written) as whole:
                    yield whole
    except OSError as error:
        raise cannot_write(target, error) from error


def write_text(path: str | Path, text: str) -> None:
    """The file `path` holds `text` as UTF-8, stray bytes of names escaped.

    Raises:
        OutputError: it cannot be written.
    """
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=READABLE)


def write_json(path: str | Path, value: Any) -> None:
    """The file `path` holds `value` as indented JSON.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, to_json(value, indent=2, allow_nan=False) + "\n")


def missing(path: str | Path, kind: str = "file") -> str:
    """The message for a path where no such thing is, with the nearest ones that there are.

    Where something else is, it says what: a folder, a pipe, a link that leads nowhere.
    """
    if os.path.lexists(path):
        return f"{path} is {kind_of(path)}; name a {kind}."
    near = nearest_paths(path)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{path}: no such {kind}{hint}"


def nearest_paths(path: str | Path) -> list[str]:
    """The paths, three at most, that exist and are written nearly as `path`, which does not."""
    named = Path(path)
    home = os.path.expanduser(named)  # noqa: PTH111  no error where there is no home
    if home != str(named) and os.path.lexists(home):
        return [home]
    start = Path(named.anchor)
    return [str(found) for found in _walk(start, named.relative_to(named.anchor).parts)][:3]


def _walk(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """The paths below `folder` whose parts are nearly `names`."""
    if not names:
        yield folder
        return
    if os.path.lexists(folder / names[0]):
        yield from _walk(folder / names[0], names[1:])
        return
    try:
        with os.scandir(folder) as entries:
            there = sorted(entry.name for entry in itertools.islice(entries, MOST_ENTRIES))
    except (OSError, ValueError):
        return
    for name in _alike(names[0], there):
        yield from _walk(folder / name, names[1:])


def _alike(name: str, choices: list[str]) -> list[str]:
    """The choices nearest to `name`: those with another suffix first, capitals aside."""
    lower = name.lower()
    stems = {lower, Path(lower).stem}
    longer = [choice for choice in choices if Path(choice.lower()).stem in stems]
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(lower, by_lower, n=3, cutoff=0.7)
    return list(dict.fromkeys([*longer, *(by_lower[one] for one in near)]))[:3]


def sha256(path: str | Path) -> str:
    """The SHA-256 of the file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def expand_user(path: str | Path) -> Path:
    """`path` with a leading `~` replaced; as it is where nobody knows that home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def cache_dir() -> Path:
    """The folder for downloads and compiled kernels.

    `$DENSEPATH_CACHE`, else `~/.cache/densepath`. Without a home folder that can be written, as
    in a container with a user of its own, this user's folder below the temporary one.

    Raises:
        OutputError: there is no temporary folder either.
    """
    named = os.environ.get("DENSEPATH_CACHE")
    if named:
        return expand_user(named)
    home = _home()
    folder = None if home is None else home / ".cache" / "densepath"
    if folder is not None and _can_be_written(folder):
        return folder
    return _temporary_cache()


def find_cached(*parts: str) -> Path:
    """What the cache has by this name, or where to put it.

    A home folder that can only be read, as of an image with the weights inside, is read all the
    same. What goes below the temporary folder may be gone next time, which is said once.

    Raises:
        OutputError: there is no temporary folder either.
    """
    home = _home()
    if home is not None and not os.environ.get("DENSEPATH_CACHE"):
        there = home.joinpath(".cache", "densepath", *parts)
        with suppress(OSError):  # some folder on the way cannot be looked into
            if there.exists():
                return there
    path = cache_dir().joinpath(*parts)
    if _temporary_cache.cache_info().currsize and path.is_relative_to(_temporary_cache()):
        _say_temporary(_temporary_cache())
    return path


def _home() -> Path | None:
    """The user's home folder; none where it is not known, or is `/` for want of another."""
    try:
        home = Path.home()
    except RuntimeError:  # HOME is not set, and the system does not know the user
        return None
    return home if home.is_absolute() and home != Path(home.anchor) else None


def _can_be_written(folder: Path) -> bool:
    """Whether the folder is there, or can be made, and takes files."""
    try:
        there = next(one for one in (folder, *folder.parents) if one.exists())
        return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError:
        return False


@functools.cache
def _temporary_cache() -> Path:
    """The user's own folder below the temporary one, which nobody else can write.

    Raises:
        OutputError: there is no temporary folder either.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    try:
        folder = Path(tempfile.gettempdir()) / f"densepath-{user}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if not _is_ours_alone(folder):  # libraries are loaded from there
            folder = Path(tempfile.mkdtemp(prefix="densepath-"))
    except OSError as error:
        raise OutputError(
            f"there is no folder for downloads and compiled kernels: {error}. Name one in "
            "DENSEPATH_CACHE."
        ) from error
    return folder


def _say_temporary(folder: Path) -> None:
    """Note where the cache is, for a person who has to find it or name another."""
    say_once(
        f"no home folder can be written: downloads and compiled kernels go to {folder}, and may "
        "have to be made again. DENSEPATH_CACHE names another folder."
    )


def _is_ours_alone(folder: Path) -> bool:
    """Whether it is a folder of this user's, no link, that nobody else may write."""
    found = folder.lstat()
    ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return stat.S_ISDIR(found.st_mode) and ours and not found.st_mode & 0o022

"""Where an output goes: what a path stands for, and what can be written there.

A regular file is replaced as a whole; a link stays, and what it points to is replaced. What is no
regular file (a pipe, a device, `/dev/stdout`), and a file that cannot be replaced (its folder is
read-only, it is a mount point, its owner would change), is written through.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from densepath.descriptors import (
    check_descriptor,
    descriptor_of,
    stream_name,
    write_what_waits,
)
from densepath.errors import OutputError
from densepath.temporaries import remove_leftovers, temporary_in

# Why a name cannot be given to another file, though the file can be written.
UNMOVABLE = (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EROFS)


def _usual_mode() -> int:
    """The permissions of a new file; the umask can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


FILE_MODE = _usual_mode()


@dataclass(frozen=True)
class OutputPlace:
    """What the path of an output stands for.

    Attributes:
        path: to be replaced or opened; of a link what it points to.
        through: whether it is written through; else a new file takes its place.
        old: of the regular file that stands there.
        descriptor: of this process's open file that the path stands for.
    """

    path: Path
    through: bool = False
    old: os.stat_result | None = None
    descriptor: int | None = None

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yields a temporary path; on leaving, what was written there is in this place.

        Raises:
            OSError: it cannot be written.
        """
        with self._temporary() as temporary:
            yield temporary
            if self.through or not self._replace(temporary):
                with temporary.open("rb") as source, self.open() as sink:
                    shutil.copyfileobj(source, sink)

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yields a path where nothing is yet, beside this place if it is to be replaced."""
        if self.through:
            with tempfile.TemporaryDirectory(prefix="densepath-") as folder:
                yield Path(folder) / "output"
            return
        remove_leftovers(self.path.parent)
        temporary = temporary_in(self.path.parent, self.path.name)
        try:
            yield temporary
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _replace(self, temporary: Path) -> bool:
        """Whether `temporary` is in this place, with the mode and owner of what stood there.

        Raises:
            OSError: it cannot be, and what stands there cannot be written through either.
        """
        flush(temporary)
        if self.old is not None and not give(temporary, self.old):
            return False
        # Some writers, safetensors among them, leave 0600.
        temporary.chmod(FILE_MODE if self.old is None else stat.S_IMODE(self.old.st_mode))
        try:
            temporary.replace(self.path)
        except OSError as error:
            if self.old is None or error.errno not in UNMOVABLE:
                raise
            return False
        with suppress(OSError):  # a folder may be one that cannot be opened
            flush(self.path.parent)
        return True

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Yields the file, pipe or device itself, emptied; a pipe waits for its reader.

        Raises:
            OSError: it cannot be opened or written.
        """
        if self.descriptor is None:
            number = os.open(self.path, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NOCTTY", 0))
        else:
            write_what_waits(self.descriptor)
            number = os.dup(self.descriptor)
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            if stat.S_ISREG(os.fstat(number).st_mode):
                os.fsync(number)


def find_place(path: Path) -> OutputPlace:
    """What `path` stands for; the folder that it is in need not be there.

    Raises:
        OSError: nothing can be written there: a folder, a socket, a disk, a file that is read-only,
            a link that leads nowhere.
    """
    if (number := descriptor_of(path)) is not None:
        check_descriptor(number)
        return OutputPlace(path, through=True, descriptor=number)
    try:
        there = path.stat()
    except FileNotFoundError:
        return OutputPlace(follow(path))
    _check_kind(there.st_mode)
    if not stat.S_ISREG(there.st_mode):
        return OutputPlace(path, through=True)
    if not os.access(path, os.W_OK):
        os.close(os.open(path, os.O_WRONLY))  # the system says why not
    real = Path(os.path.realpath(path))
    if not real.exists() or not os.path.samestat(real.stat(), there):
        return OutputPlace(path, through=True)  # a file that only an open one leads to
    return OutputPlace(real, through=not _takes_files(real.parent), old=there)


def follow(path: Path) -> Path:
    """What `path` is or becomes: of a link that leads nowhere, the place that it leads to.

    Raises:
        OSError: a link whose folder is not there, or a loop of links.
    """
    real = Path(os.path.realpath(path))
    if path.is_symlink() and not real.parent.is_dir():
        why = f"it is a link to {real}, and there is no folder {real.parent}"
        raise FileNotFoundError(errno.ENOENT, why)
    if real.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return real


@contextmanager
def new_folders(folder: Path) -> Iterator[None]:
    """Within, `folder` is there; those that were made for it go again if they stay empty.

    Raises:
        OSError: it cannot be made.
    """
    missing, one = [], folder
    while not one.exists():
        missing.append(one)
        one = one.parent
    made: list[Path] = []
    try:
        for one in reversed(missing):
            made.append(follow(one) if one.is_symlink() else one)
            made[-1].mkdir(exist_ok=True)
        yield
    finally:
        for one in reversed(made):
            with suppress(OSError):
                one.rmdir()


def is_stream(path: str | Path) -> bool:
    """Whether the path is a pipe, a device or an open file of this process: no file, no folder."""
    target = Path(path)
    if descriptor_of(target) is not None:
        return True
    return target.exists() and not (target.is_file() or target.is_dir())


def check_file(path: str | Path) -> None:
    """Raise OutputError unless a file can be written at `path`, before anything takes its time."""
    target = Path(path)
    try:
        place = find_place(target)
        if not place.through and place.old is None:
            _check_new(place.path)
    except OSError as error:
        raise cannot_write(target, error) from error


def check_folder(path: str | Path) -> None:
    """Raise OutputError unless files can be written into the folder `path`, or it can be made."""
    target = Path(path)
    try:
        if descriptor_of(target) is not None:
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder; name one")
        try:
            there = target.stat()
        except FileNotFoundError:
            _check_new(follow(target))
            return
        if not stat.S_ISDIR(there.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, f"it is {_kind(there.st_mode)}; name a folder")
        if not _takes_files(target):
            _refuse(target)
    except OSError as error:
        raise cannot_write(target, error) from error


def cannot_write(path: str | Path, error: OSError) -> OutputError:
    """The error of an output that the system refuses."""
    return OutputError(f"cannot write {stream_name(path)}: {error.strerror or error}")


def flush(path: Path) -> None:
    """Return when what was written to the file or folder `path` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give(path: Path, old: os.stat_result) -> bool:
    """Whether `path` has the owner and group of what it replaces, which only some may give."""
    now = path.stat()
    if not hasattr(os, "chown") or (now.st_uid, now.st_gid) == (old.st_uid, old.st_gid):
        return True
    try:
        os.chown(path, old.st_uid, old.st_gid)
    except OSError:
        return False
    return True


def _check_new(path: Path) -> None:
    """Raise OSError unless `path`, where nothing is, can be made with the folders above it."""
    above = path.parent
    while not above.exists():
        above = follow(above).parent if above.is_symlink() else above.parent
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{above} is {_kind(above.stat().st_mode)}")
    if not _takes_files(above):
        _refuse(above)


def _refuse(folder: Path) -> NoReturn:
    """Raise OSError: the folder takes no files."""
    read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
    code = errno.EROFS if read_only else errno.EACCES
    raise OSError(code, os.strerror(code))


def _takes_files(folder: Path) -> bool:
    """Whether files can be made in the folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def kind_of(path: str | Path) -> str:
    """What stands at `path`, in words: a folder, a pipe, a link to what is not there."""
    try:
        return _kind(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return f"a link to {os.path.realpath(path)}, which is not there"


def _kind(mode: int) -> str:
    """What a path of this mode is, in words."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a disk",
    }
    return kinds.get(stat.S_IFMT(mode), "a file")


def _check_kind(mode: int) -> None:
    """Raise OSError for what a file cannot be written to."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory; name a file")
    if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
        raise OSError(errno.ENXIO, f"it is {_kind(mode)}; name a file")

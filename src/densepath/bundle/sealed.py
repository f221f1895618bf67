"""A sealed folder: files, a description that has the hash of each, and beside it its own hash.

On the line: bundles and programs for an NPU are such folders. They are written whole or not at all,
and what is used of them is verified first. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densepath.bundle.fields import read_json
from densepath.errors import BundleError, OutputError
from densepath.files import nearest_paths, sha256, write_text
from densepath.folders import contents, write_folder
from densepath.names import check_network_path
from densepath.outputs import FILE_MODE, check_folder

MOST_BYTES = 64 << 20  # of a description: far above one with a million labels


@dataclass(frozen=True)
class Kind:
    """What is said of a kind of sealed folder.

    Attributes:
        name: `bundle`.
        title: with its article, where it is told from what is none: `a bundle`.
        description: the name of its description's file.
        word: what messages call that: `manifest`.
        format: what the description says that it describes.
        version_field, version: the number that is read, and where it stands.
        maker: the verb of densepath that writes such folders.
        remake: how one is had again, other than by copying: `export it`.
    """

    name: str
    title: str
    description: str
    word: str
    format: str
    version_field: str
    version: int
    maker: str
    remake: str

    @property
    def seal(self) -> str:
        """The name of the file with the description's hash, as `sha256sum` writes it."""
        return f"{self.description}.sha256"


@dataclass(frozen=True)
class Sealed:
    """A file's hash, and its size in bytes where the description has that, too."""

    sha256: str
    size_bytes: int | None = None


def is_sealed(path: str | Path, kind: Kind) -> bool:
    """Whether `path` is a folder that has, or had, a description of this kind."""
    names = (kind.description, kind.seal)
    return any(os.path.isfile(os.path.join(path, name)) for name in names)  # noqa: PTH113, PTH118


def folder_around(path: str | Path, kind: Kind) -> Path | None:
    """The folder of this kind that a file stands in, if it does."""
    folder = Path(path).parent
    return folder if os.path.isfile(path) and is_sealed(folder, kind) else None  # noqa: PTH113


def _not_sealed(folder: Path, kind: Kind) -> BundleError:
    """The error for what is none of this kind, with what may have been meant."""
    around = folder_around(folder, kind)
    if around is not None:
        return BundleError(f"{folder} is a file of the {kind.name} {around}: name that folder.")
    said, makes = f"{folder} is not {kind.title}: it ", f"`{kind.maker}` makes {kind.name}s."
    if folder.is_dir():
        inside = [str(one) for one in sorted(folder.iterdir()) if is_sealed(one, kind)]
        there = f" In it are {', '.join(inside[:5])}: name one." if inside else ""
        return BundleError(f"{said}has no {kind.description}. {makes}{there}")
    near = [] if folder.exists() else nearest_paths(folder)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return BundleError(f"{said}is not a folder. {makes}{hint}")


def read_description(folder: Path, kind: Kind) -> tuple[str, str, bool]:
    """The description's text, its sha256, and whether that stands beside it.

    Raises:
        BundleError: there is none, or it was changed.
        UsageError: the folder's name is no UTF-8.
    """
    check_network_path(folder)
    path, beside = folder / kind.description, folder / kind.seal
    if not folder.is_dir() or not is_sealed(folder, kind):
        raise _not_sealed(folder, kind)
    if not path.is_file():
        raise missing_file(folder, path.name, kind)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BundleError(f"{folder}: {path.name} is larger than any {kind.word} is.")
        data = path.read_bytes()
        text = data.decode("utf-8")
        said = beside.read_text(encoding="ascii").split() if beside.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder}: its {kind.word} cannot be read: {error}.") from error
    found = hashlib.sha256(data).hexdigest()
    if said is not None and said[:1] != [found]:
        raise BundleError(
            f"{folder}: {path.name} was changed: its sha256 is {found}, and {beside.name} says "
            f"{said[0] if said else 'nothing'}. Copy the {kind.name} again, or {kind.remake} anew."
        )
    return text, found, said is not None


def missing_file(folder: Path, name: str, kind: Kind) -> BundleError:
    """The error for a file that is not there."""
    return BundleError(f"{folder}: {name} is missing; copy the whole {kind.name} again.")


def read_document(text: str, kind: Kind, folder: str) -> dict[str, Any]:
    """The description's members, of the format and version that are read; the rest is unchecked.

    Raises:
        BundleError: not JSON, or of another format or version.
    """
    try:
        values = read_json(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{folder}: {kind.description} is not JSON: {error}.") from error
    if not isinstance(values, dict) or values.get("format") != kind.format:
        raise BundleError(
            f"{folder}: {kind.description} does not say that it describes a {kind.format}."
        )
    version = values.get(kind.version_field)
    if version != kind.version or isinstance(version, bool):
        raise BundleError(
            f"{folder}: its {kind.version_field.replace('_', ' ')} is {version!r}; this densepath "
            f"reads version {kind.version}. {kind.remake.capitalize()} again, or install the "
            "densepath that wrote it."
        )
    return values


def verify_file(folder: Path, name: str, file: Sealed, kind: Kind) -> None:
    """Raise unless the file is what the description says.

    Raises:
        BundleError: it is missing, a link, cut short or changed.
    """
    path = folder / name
    if path.is_symlink():
        raise BundleError(
            f"{folder}: {name} is a link, not a file; copy the whole {kind.name} again."
        )
    if not path.is_file():
        raise missing_file(folder, name, kind)
    try:
        size = path.stat().st_size
        if file.size_bytes is not None and size != file.size_bytes:
            raise BundleError(
                f"{folder}: {name} has {size:,} bytes, not the {file.size_bytes:,} of the "
                f"{kind.word}; copy the {kind.name} again."
            )
        found = sha256(path)
    except OSError as error:
        raise BundleError(f"{folder}: {name} cannot be read: {error.strerror}.") from error
    if found != file.sha256:
        raise BundleError(
            f"{folder}: {name} was changed: its sha256 is {found}, not the {kind.word}'s "
            f"{file.sha256}. Copy the {kind.name} again."
        )


@contextmanager
def write_sealed(
    target: str | Path, kind: Kind, *, overwrite: bool = False
) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """Yields an empty folder and what seals it; on leaving, `target` is the sealed folder.

    Sealing takes the description's text, and writes it, its hash and the modes of the files. When
    the body fails, or never seals, nothing is left of it and what stood at `target` stays as it was
    (`write_folder`).

    Raises:
        OutputError: something that may not be replaced stands at `target`, or nothing can be
            written there.
    """
    target = Path(target)
    check_target(target, kind, overwrite=overwrite)
    sealed = False
    with write_folder(target, last=(kind.seal, kind.description)) as (scratch, put):

        def seal(description: str) -> None:
            """Write the description and its hash."""
            nonlocal sealed
            path = scratch / kind.description
            write_text(path, description)
            write_text(scratch / kind.seal, f"{sha256(path)}  {path.name}\n")
            for file in scratch.iterdir():
                file.chmod(FILE_MODE)
            sealed = True

        yield scratch, seal
        if sealed:
            put()


def check_target(target: Path, kind: Kind, *, overwrite: bool) -> None:
    """Raise unless such a folder may be written: over nothing, an empty folder, an old one.

    Of a link that is what it points to.

    Raises:
        OutputError: something else stands there, one that may not be overwritten, or nothing can be
            written there.
        UsageError: its name is no UTF-8.
    """
    check_network_path(target)
    check_folder(target)
    if target.is_dir() and contents(target):
        if not is_sealed(target, kind):
            raise OutputError(f"{target} is a folder with other files in it; name a new one.")
        if not overwrite:
            raise OutputError(f"{target} is a {kind.name} already; --overwrite replaces it.")

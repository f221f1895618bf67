"""Opening and writing a Bundle: nothing is used whose hash is not the manifest's.

On the line: `write_bundle` is export's last step, `Bundle.open` every engine's first. Nothing here
imports torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from densepath.bundle.formats import FORMATS
from densepath.bundle.manifest import MANIFEST, MANIFEST_HASH, MOST_BYTES, File, Manifest
from densepath.bundle.other_formats import how_to_get
from densepath.errors import BundleError, OutputError, UnknownNameError
from densepath.files import nearest_paths, sha256, write_text
from densepath.folders import contents, write_folder
from densepath.names import check_network_path
from densepath.outputs import FILE_MODE, check_folder


@dataclass(frozen=True)
class Bundle:
    """A folder whose manifest has been read and verified.

    Attributes:
        folder: where it stands.
        manifest: what it holds.
        sha256: of the manifest's file, which has the hash of every other: two bundles with the same
            one are the same.
    """

    folder: Path
    manifest: Manifest
    sha256: str

    def __repr__(self) -> str:
        """The folder and what it holds, in one line."""
        return f"<Bundle {self.folder}: {str(self.manifest).removeprefix('<Manifest: ')}"

    @classmethod
    def open(cls, folder: str | Path, *, verify: str = "manifest") -> Bundle:
        """The bundle in `folder`.

        Args:
            folder: where `densepath export` wrote it.
            verify: the files that are hashed now: those of one format by its name, `all`, or
                none but the `manifest`.

        Raises:
            BundleError: not a bundle, a manifest that was changed or is of another version, or a
                file that is missing, cut short or changed.
            UnknownNameError: `verify` is none of these.
            UsageError: the folder's name is no UTF-8.
        """
        folder = Path(folder)
        check_network_path(folder)
        if verify not in ("manifest", "all", *FORMATS):
            raise UnknownNameError("verification", verify, ("manifest", "all", *FORMATS))
        text, digest = _read_manifest(folder)
        bundle = cls(folder, Manifest.from_text(text, str(folder)), digest)
        if verify != "manifest":
            bundle.verify(None if verify == "all" else verify)
        return bundle

    def verify(self, format: str | None = None) -> None:
        """Returns when the files, of one format or all, are what the manifest says.

        Raises:
            BundleError: the bundle lacks the format, or a file is missing, cut short or changed.
        """
        if format is not None:
            self._check_format(format)
        for name, file in self.manifest.files.items():
            if format is None or format in file.formats:
                _verify_file(self.folder / name, file, str(self.folder))

    def path_of(self, format: str, part: str = "model") -> Path:
        """The file of a format's `model` or `preprocess`; not verified here.

        Raises:
            BundleError: the bundle lacks it.
        """
        self._check_format(format)
        parts = self.manifest.formats[format]
        if part not in parts:
            raise BundleError(f"{self.folder}: its format {format} has no {part} graph.")
        return self.folder / parts[part]

    def _check_format(self, format: str) -> None:
        """Returns when the bundle has the format."""
        if format not in self.manifest.formats:
            there = ", ".join(sorted(self.manifest.formats))
            formats, precision = self.manifest.formats, self.manifest.precision
            cure = how_to_get(format, there=formats, precision=precision)
            raise BundleError(f"{self.folder} has no {format} format; it has {there}. {cure}")


def is_bundle(path: str | Path) -> bool:
    """Whether `path` is a folder that has, or had, a manifest."""
    names = (MANIFEST, MANIFEST_HASH)
    return any(os.path.isfile(os.path.join(path, name)) for name in names)  # noqa: PTH113, PTH118


def bundle_around(path: str | Path) -> Path | None:
    """The bundle that a file stands in, if it does."""
    folder = Path(path).parent
    return folder if os.path.isfile(path) and is_bundle(folder) else None  # noqa: PTH113


def _no_bundle(folder: Path) -> BundleError:
    """The error for what is no bundle, with what may have been meant."""
    around = bundle_around(folder)
    if around is not None:
        return BundleError(f"{folder} is a file of the bundle {around}: name that folder.")
    said = f"{folder} is not a bundle: it "
    if folder.is_dir():
        inside = [str(one) for one in sorted(folder.iterdir()) if is_bundle(one)]
        there = f" In it are {', '.join(inside[:5])}: name one." if inside else ""
        return BundleError(f"{said}has no {MANIFEST}. `densepath export` makes bundles.{there}")
    near = [] if folder.exists() else nearest_paths(folder)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return BundleError(f"{said}is not a folder. `densepath export` makes bundles.{hint}")


def _read_manifest(folder: Path) -> tuple[str, str]:
    """The manifest's text and its sha256, which is the one beside it.

    Raises:
        BundleError: there is none, or it was changed.
    """
    path, beside = folder / MANIFEST, folder / MANIFEST_HASH
    if not folder.is_dir() or not is_bundle(folder):
        raise _no_bundle(folder)
    for file in (path, beside):
        if not file.is_file():
            raise BundleError(f"{folder}: {file.name} is missing; copy the whole bundle again.")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BundleError(f"{folder}: {MANIFEST} is larger than any manifest is.")
        data = path.read_bytes()
        text = data.decode("utf-8")
        said = beside.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder}: its manifest cannot be read: {error}.") from error
    found = hashlib.sha256(data).hexdigest()
    if not said or said[0] != found:
        raise BundleError(
            f"{folder}: {MANIFEST} was changed: its sha256 is {found}, and {MANIFEST_HASH} says "
            f"{said[0] if said else 'nothing'}. Copy the bundle again, or export it anew."
        )
    return text, found


def _verify_file(path: Path, file: File, folder: str) -> None:
    """Returns when the file is what the manifest says.

    Raises:
        BundleError: it is missing, cut short or changed.
    """
    if path.is_symlink() or not path.is_file():
        what = "is a link, not a file" if path.is_symlink() else "is missing"
        raise BundleError(f"{folder}: {path.name} {what}; copy the whole bundle again.")
    try:
        size = path.stat().st_size
        if size != file.size_bytes:
            raise BundleError(
                f"{folder}: {path.name} has {size:,} bytes, not the {file.size_bytes:,} of the "
                "manifest; copy the bundle again."
            )
        found = sha256(path)
    except OSError as error:
        raise BundleError(f"{folder}: {path.name} cannot be read: {error.strerror}.") from error
    if found != file.sha256:
        raise BundleError(
            f"{folder}: {path.name} was changed: its sha256 is {found}, not the manifest's "
            f"{file.sha256}. Copy the bundle again."
        )


@contextmanager
def write_bundle(
    target: str | Path, *, overwrite: bool = False
) -> Iterator[tuple[Path, Callable[[Manifest], None]]]:
    """Yields an empty folder and what seals it; on leaving, `target` is the sealed bundle.

    Sealing writes the manifest, its hash and the modes of the files. When the body fails, or never
    seals, nothing is left of it and what stood at `target` stays as it was (`write_folder`).

    Raises:
        OutputError: something that may not be replaced stands at `target`, or nothing can be
            written there.
    """
    target = Path(target)
    check_target(target, overwrite=overwrite)
    sealed = False
    with write_folder(target, last=(MANIFEST_HASH, MANIFEST)) as (scratch, put):

        def seal(manifest: Manifest) -> None:
            nonlocal sealed
            write_text(scratch / MANIFEST, manifest.to_text())
            write_text(scratch / MANIFEST_HASH, f"{sha256(scratch / MANIFEST)}  {MANIFEST}\n")
            for file in scratch.iterdir():
                file.chmod(FILE_MODE)
            sealed = True

        yield scratch, seal
        if sealed:
            put()


def check_target(target: Path, *, overwrite: bool) -> None:
    """Returns when a bundle may be written at `target`: nothing, an empty folder, an old bundle.

    Of a link that is what it points to.

    Raises:
        OutputError: something else stands there, a bundle that may not be overwritten, or nothing
            can be written there.
        UsageError: its name is no UTF-8.
    """
    check_network_path(target)
    check_folder(target)
    if target.is_dir() and contents(target):
        if not is_bundle(target):
            raise OutputError(f"{target} is a folder with other files in it; name a new one.")
        if not overwrite:
            raise OutputError(f"{target} is a bundle already; --overwrite replaces it.")

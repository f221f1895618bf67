"""Opening and writing a Bundle: nothing is used whose hash is not the manifest's.

On the line: `write_bundle` is export's last step, `Bundle.open` every engine's first. Nothing here
imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from densepath.bundle import sealed
from densepath.bundle.formats import FORMATS
from densepath.bundle.manifest import BUNDLE, Manifest
from densepath.bundle.other_formats import how_to_get
from densepath.bundle.sealed import (
    Sealed,
    folder_around,
    is_sealed,
    missing_file,
    read_description,
    verify_file,
    write_sealed,
)
from densepath.errors import BundleError, UnknownNameError


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
        if verify not in ("manifest", "all", *FORMATS):
            raise UnknownNameError("verification", verify, ("manifest", "all", *FORMATS))
        text, digest, has_seal = read_description(folder, BUNDLE)
        if not has_seal:
            raise missing_file(folder, BUNDLE.seal, BUNDLE)
        bundle = cls(folder, Manifest.from_text(text, str(folder)), digest)
        if verify != "manifest":
            bundle.verify(None if verify == "all" else verify)
        return bundle

    def verify(self, format: str | None = None) -> None:
        """Raise unless the files, of one format or all, are what the manifest says.

        Raises:
            BundleError: the bundle lacks the format, or a file is missing, cut short or changed.
        """
        if format is not None:
            self._check_format(format)
        for name, file in self.manifest.files.items():
            if format is None or format in file.formats:
                verify_file(self.folder, name, Sealed(file.sha256, file.size_bytes), BUNDLE)

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
        """Raise BundleError unless the bundle has the format."""
        if format not in self.manifest.formats:
            there = ", ".join(sorted(self.manifest.formats))
            formats, precision = self.manifest.formats, self.manifest.precision
            cure = how_to_get(format, there=formats, precision=precision)
            raise BundleError(f"{self.folder} has no {format} format; it has {there}. {cure}")


def is_bundle(path: str | Path) -> bool:
    """Whether `path` is a folder that has, or had, a manifest."""
    return is_sealed(path, BUNDLE)


def bundle_around(path: str | Path) -> Path | None:
    """The bundle that a file stands in, if it does."""
    return folder_around(path, BUNDLE)


@contextmanager
def write_bundle(
    target: str | Path, *, overwrite: bool = False
) -> Iterator[tuple[Path, Callable[[Manifest], None]]]:
    """Yields an empty folder and what seals it; on leaving, `target` is the sealed bundle.

    Raises:
        OutputError: something that may not be replaced stands at `target`, or nothing can be
            written there.
    """
    with write_sealed(target, BUNDLE, overwrite=overwrite) as (scratch, seal):
        yield scratch, lambda manifest: seal(manifest.to_text())


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise unless a bundle may be written at `target`: nothing, an empty folder, an old bundle.

    Raises:
        OutputError: something else stands there, a bundle that may not be overwritten, or nothing
            can be written there.
        UsageError: its name is no UTF-8.
    """
    sealed.check_target(target, BUNDLE, overwrite=overwrite)

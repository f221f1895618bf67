"""What a user names, zip archives too → images that are files when they are asked for.

On the line: before the comparison of an exported network and the drawing of calibration images,
which take a few images of perhaps very many. An archive's list of members is read once, for it may
take seconds, and only members that are asked for are unpacked.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from densepath.errors import DatasetError
from densepath.files import missing
from densepath.images.clutter import lies_in_clutter
from densepath.images.find import find_images
from densepath.images.image_files import PassedOver, is_image_name
from densepath.text import read_lines


@dataclass(frozen=True)
class _Member:
    """An image in an open zip archive."""

    archive: zipfile.ZipFile
    name: str


class FoundImages:
    """Images in the order of their sources; members of archives become files one by one.

    Attributes:
        origin: the sources' names, for a person.
        passed_over: the files beside them that are no images.
    """

    def __init__(
        self, found: Sequence[Path | _Member], origin: str, passed_over: PassedOver, folder: Path
    ) -> None:
        self._found, self._folder = found, folder
        self.origin, self.passed_over = origin, passed_over

    def __len__(self) -> int:
        return len(self._found)

    def name(self, index: int) -> str:
        """Of an image, without a machine's folders."""
        return self._found[index].name

    def path(self, index: int) -> Path:
        """The image as a file.

        Raises:
            DatasetError: it cannot be unpacked.
        """
        item = self._found[index]
        if isinstance(item, Path):
            return item
        path = self._folder / f"{index}{PurePosixPath(item.name).suffix}"
        try:
            path.write_bytes(item.archive.read(item.name))
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
            archive = item.archive.filename
            raise DatasetError(f"{archive}: {item.name} cannot be unpacked: {error}.") from error
        return path


@contextmanager
def open_images(sources: Sequence[str | Path], *, values: bool = False) -> Iterator[FoundImages]:
    """Yield the images of `sources`; what was unpacked of archives is gone afterwards.

    Args:
        sources: images, folders and zip archives of images, and text files that name an image a
            line, from their own folder on.
        values: DICOM files and arrays are images, too: `read_as.py:ReadAs.by_value`.

    Raises:
        DataError: a source that is not there, cannot be read, or has no images.
    """
    with tempfile.TemporaryDirectory(prefix="densepath-") as scratch, ExitStack() as archives:
        found: list[Path | _Member] = []
        passed_over = PassedOver()
        for one in map(Path, sources):
            if one.suffix.lower() == ".zip" and one.exists():
                archive = archives.enter_context(_open_archive(one))
                names = _image_names(archive, passed_over, values)
                found.extend(_Member(archive, name) for name in names)
            else:
                found.extend(_find(one, passed_over, values))
        origin = ", ".join(Path(one).name for one in sources)
        yield FoundImages(found, origin, passed_over, Path(scratch))


def _find(source: Path, passed_over: PassedOver, values: bool) -> Iterator[Path]:
    """The images of a source that is no archive; `passed_over` is told of the other files in it.

    Raises:
        DataError: it is not there, cannot be read, or has no images.
    """
    if not source.exists():
        raise DatasetError(missing(source, "file or folder of images"))
    if source.is_file() and source.suffix.lower() == ".txt":
        lines = [line for line in read_lines(source) if line]
        if not lines:
            raise DatasetError(f"{source} has no lines; it must name an image on each.")
        yield from (source.parent / line for line in lines)
    elif source.is_file():
        yield source
    else:
        names = find_images([str(source)], passed_over=passed_over, values=values)
        yield from (Path(name) for name in names if isinstance(name, str))


def _open_archive(path: Path) -> zipfile.ZipFile:
    """The zip archive, its list of members read.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DatasetError(f"{path} cannot be read as a zip archive: {error}.") from error


def _image_names(archive: zipfile.ZipFile, passed_over: PassedOver, values: bool) -> list[str]:
    """The images in a zip archive, sorted by name; hidden ones are left out, others counted.

    Raises:
        DatasetError: it has none.
    """
    names = sorted(one.filename for one in archive.infolist() if not one.is_dir())
    inside = PassedOver()
    shown = [name for name in names if not lies_in_clutter(name)]
    images = [name for name in shown if is_image_name(name, values=values)]
    for name in set(shown) - set(images):
        inside.add(name)
    if not images:
        said = f"; {inside}" if inside else ""
        raise DatasetError(f"{archive.filename}: no images in this archive{said}.")
    passed_over.update(inside)
    return images

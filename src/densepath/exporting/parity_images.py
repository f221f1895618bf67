"""The real images that an exported network is compared on, as files.

On the line: `measure.py` runs every format on them, from the file on.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from densepath.errors import DatasetError
from densepath.files import missing
from densepath.images.clutter import lies_in_clutter
from densepath.images.find import find_images
from densepath.images.image_files import PassedOver, is_image_name
from densepath.text import read_lines
from densepath.wording import counted

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
# Parts of the photographs, which have 640 × 427 pixels: left, top, width, height. Wide, tall,
# square, smaller and larger than what networks take, with odd sides.
CROPS = (
    (100, 0, 427, 427),
    (170, 5, 300, 401),
    (0, 120, 640, 213),
    (250, 10, 131, 411),
    (60, 90, 257, 255),
    (200, 150, 224, 224),
    (333, 77, 97, 131),
    (311, 201, 64, 48),
)
JPEG_QUALITY = 90


@dataclass(frozen=True)
class ParityImages:
    """Image files, and what a report calls them.

    Attributes:
        paths: the files.
        names: of each, without a machine's folders.
        description: what they are, for a person.
        passed_over: the files beside them that are no images.
        named: whether a user named them; else they are photographs.
    """

    paths: list[Path]
    names: list[str]
    description: str
    passed_over: PassedOver = field(default_factory=PassedOver)
    named: bool = True


@dataclass(frozen=True)
class _Member:
    """An image in a zip archive."""

    archive: Path
    name: str


@contextmanager
def collect_images(
    sources: Sequence[str | Path] | None, count: int, *, values: bool = False
) -> Iterator[ParityImages]:
    """Yield at most `count` images, taken evenly from `sources`; some may be gone afterwards.

    Args:
        sources: images, folders and zip archives of images, and text files that name an image a
            line, from their own folder on. None for the two photographs that come with
            scikit-learn, and crops of them.
        count: at least 1.
        values: DICOM files and arrays are images, too: `read_as.py:ReadAs.by_value`.

    Raises:
        DataError: a source that is not there, cannot be read, or has no images.
    """
    with tempfile.TemporaryDirectory(prefix="densepath-") as scratch:
        found: list[Path | _Member] = []
        passed_over = PassedOver()
        if not sources:
            found.extend(write_photographs(Path(scratch)))
            origin = f"scikit-learn's {' and '.join(PHOTOGRAPHS)}, whole and in crops"
        else:
            for one in sources:
                found.extend(_find(Path(one), passed_over, values))
            origin = ", ".join(Path(one).name for one in sources)
        number = min(count, len(found))
        chosen = [found[index * len(found) // number] for index in range(number)]
        shown = (
            f"{number} of {len(found)} images" if number < len(found) else counted(number, "image")
        )
        yield ParityImages(
            [_as_file(item, index, Path(scratch)) for index, item in enumerate(chosen)],
            [item.name for item in chosen],
            f"{shown}: {origin}",
            passed_over,
            named=bool(sources),
        )


def write_photographs(folder: Path) -> list[Path]:
    """Write scikit-learn's two photographs into `folder`, and crops of them as JPEG and PNG."""
    from PIL import Image

    paths = []
    for photograph in _sample_photographs():
        paths.append(Path(shutil.copy(photograph, folder)))
        with Image.open(photograph) as picture:
            whole = picture.convert("RGB")
        for index, (left, top, width, height) in enumerate(CROPS):
            suffix = (".jpg", ".png")[index % 2]
            path = folder / f"{photograph.stem}-{width}x{height}{suffix}"
            crop = whole.crop((left, top, left + width, top + height))
            crop.save(path, quality=JPEG_QUALITY)
            paths.append(path)
    return paths


def _sample_photographs() -> list[Path]:
    """The files in scikit-learn's package, which is not imported for them: that takes a second."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    return [Path(package.origin).parent / "datasets" / "images" / name for name in PHOTOGRAPHS]


def _find(source: Path, passed_over: PassedOver, values: bool) -> Iterator[Path | _Member]:
    """The images of one source; `passed_over` is told of the other files in it.

    Raises:
        DataError: it is not there, cannot be read, or has no images.
    """
    if not source.exists():
        raise DatasetError(missing(source, "file or folder of images"))
    if source.suffix.lower() == ".zip":
        yield from _members(source, passed_over, values)
    elif source.is_file() and source.suffix.lower() == ".txt":
        lines = [line for line in read_lines(source) if line]
        if not lines:
            raise DatasetError(f"{source} has no lines; it must name an image on each.")
        yield from (source.parent / line for line in lines)
    elif source.is_file():
        yield source
    else:
        names = find_images([str(source)], passed_over=passed_over, values=values)
        yield from (Path(name) for name in names if isinstance(name, str))


def _members(archive: Path, passed_over: PassedOver, values: bool) -> Iterator[_Member]:
    """The images in a zip archive, sorted by name; hidden ones are left out, others counted.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            names = sorted(one.filename for one in file.infolist() if not one.is_dir())
    except (zipfile.BadZipFile, OSError) as error:
        raise DatasetError(f"{archive} cannot be read as a zip archive: {error}.") from error
    inside = PassedOver()
    shown = [name for name in names if not lies_in_clutter(name)]
    images = [name for name in shown if is_image_name(name, values=values)]
    for name in set(shown) - set(images):
        inside.add(name)
    if not images:
        said = f"; {inside}" if inside else ""
        raise DatasetError(f"{archive}: no images in this archive{said}.")
    passed_over.update(inside)
    yield from (_Member(archive, name) for name in images)


def _as_file(item: Path | _Member, index: int, folder: Path) -> Path:
    """The image as a file; a member of an archive is written into `folder`.

    Raises:
        DatasetError: it cannot be unpacked.
    """
    if isinstance(item, Path):
        return item
    path = folder / f"{index}{PurePosixPath(item.name).suffix}"
    try:
        with zipfile.ZipFile(item.archive) as file, file.open(item.name) as member:
            path.write_bytes(member.read())
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise DatasetError(f"{item.archive}: {item.name} cannot be unpacked: {error}.") from error
    return path

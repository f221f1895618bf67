"""The real images that an exported network is compared on, as files.

On the line: `measure.py` runs every format on them, from the file on.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from densepath.images.archives import FoundImages, open_images
from densepath.images.image_files import PassedOver
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


@contextmanager
def collect_images(
    sources: Sequence[str | Path] | None, count: int, *, values: bool = False
) -> Iterator[ParityImages]:
    """Yield at most `count` images, taken evenly from `sources`; some may be gone afterwards.

    Args:
        sources: as `open_images` takes them. None for the two photographs that come with
            scikit-learn, and crops of them.
        count: at least 1.
        values: DICOM files and arrays are images, too: `read_as.py:ReadAs.by_value`.

    Raises:
        DataError: a source that is not there, cannot be read, or has no images.
    """
    if not sources:
        with tempfile.TemporaryDirectory(prefix="densepath-") as scratch:
            photographs = write_photographs(Path(scratch))
            origin = f"scikit-learn's {' and '.join(PHOTOGRAPHS)}, whole and in crops"
            found = FoundImages(photographs, origin, PassedOver(), Path(scratch))
            yield _choose(found, count, named=False)
    else:
        with open_images(sources, values=values) as found:
            yield _choose(found, count, named=True)


def _choose(found: FoundImages, count: int, *, named: bool) -> ParityImages:
    """At most `count` images in equal steps, as files.

    Raises:
        DatasetError: one cannot be unpacked.
    """
    number = min(count, len(found))
    chosen = [index * len(found) // number for index in range(number)]
    shown = f"{number} of {len(found)} images" if number < len(found) else counted(number, "image")
    return ParityImages(
        [found.path(index) for index in chosen],
        [found.name(index) for index in chosen],
        f"{shown}: {found.origin}",
        found.passed_over,
        named=named,
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

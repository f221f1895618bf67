"""The real images that an exported network is compared on, as files."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densepath.data.decode import SUFFIXES
from densepath.errors import DatasetError

# Crops of the photographs: centre and share of the width and height; every shape is another one.
CROPS = (
    (0.5, 0.5, 1.0, 1.0),
    (0.3, 0.4, 0.55, 0.75),
    (0.7, 0.6, 0.6, 0.35),
    (0.5, 0.3, 0.25, 0.6),
    (0.6, 0.7, 0.8, 0.5),
    (0.2, 0.2, 0.3, 0.3),
    (0.8, 0.3, 0.35, 0.5),
    (0.4, 0.8, 0.7, 0.4),
)


@dataclass(frozen=True)
class ParityImages:
    """Image files, and what to call them in a report."""

    paths: list[Path]
    description: str


@contextmanager
def collect_images(sources: Sequence[str | Path] | None, count: int) -> Iterator[ParityImages]:
    """Yields at most `count` images, taken evenly from `sources`.

    Args:
        sources: files, folders and zip archives of images; None for crops of the two photographs
            that come with scikit-learn.
        count: at least 1.

    Raises:
        DatasetError: a source that is not there, or no image in any of them.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if sources is None:
            found = _write_crops(Path(scratch))
            description = "crops of scikit-learn's photographs china.jpg and flower.jpg"
        else:
            found = [path for i, s in enumerate(sources) for path in _find(Path(s), scratch, i)]
            description = f"{', '.join(Path(source).name for source in sources)}"
        if not found:
            raise DatasetError(
                f"no image in {', '.join(map(str, sources or ()))}; an image ends in one of "
                f"{', '.join(sorted(SUFFIXES))}."
            )
        places = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
        chosen = [found[i] for i in places]
        yield ParityImages(chosen, f"{len(chosen)} of {len(found)} images: {description}")


def _find(source: Path, scratch: str, index: int) -> list[Path]:
    """The images of one source; an archive is unpacked into `scratch`."""
    if not source.exists():
        raise DatasetError(f"{source}: no such file or folder of images.")
    if source.suffix.lower() == ".zip":
        folder = Path(scratch) / str(index)
        try:
            with zipfile.ZipFile(source) as archive:
                names = [n for n in archive.namelist() if Path(n).suffix.lower() in SUFFIXES]
                archive.extractall(folder, names)
        except (zipfile.BadZipFile, OSError) as error:
            raise DatasetError(f"{source} cannot be unpacked: {error}.") from error
        source = folder
    if source.is_file():
        return [source]
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)


def _write_crops(folder: Path) -> list[Path]:
    """Parts of two photographs, as PNG files of 16 different sizes."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    paths = []
    samples = load_sample_images()
    for name, pixels in zip(samples.filenames, samples.images, strict=True):
        height, width = pixels.shape[:2]
        for i, (x, y, wide, high) in enumerate(CROPS):
            columns, rows = int(width * wide), int(height * high)
            left = min(max(int(x * width - columns / 2), 0), width - columns)
            top = min(max(int(y * height - rows / 2), 0), height - rows)
            part = Image.fromarray(pixels[top : top + rows, left : left + columns])
            paths.append(folder / f"{Path(name).stem}-{i}.png")
            part.save(paths[-1])
    return paths

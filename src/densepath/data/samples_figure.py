"""A picture of samples of each class, so that a person sees what the labels mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Dataset, gather_targets
from densepath.descriptors import stream_name
from densepath.drawing.picture import INK, new_figure, save_picture
from densepath.errors import ImageError, UsageError
from densepath.images.preprocess import Image
from densepath.outputs import is_stream
from densepath.wording import counted, literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PER_CLASS = 8
CLASSES_PER_PICTURE = 12
TILE, GAP = 112, 8  # pixels
TILE_INCHES, NAMES_INCHES, WORDS_INCHES = 0.95, 2.4, 0.9
NAME_WIDTH = 22
PAPER, UNREADABLE, CROSS = 244, 214, 120  # grays


def save_samples(dataset: Dataset, title: str, output: Path) -> tuple[list[Path], list[str]]:
    """(files written, reasons of those that could not be): pictures of every class.

    Args:
        dataset: the images.
        title: what they are.
        output: a `.png` file for the picture, or a folder. More than a dozen classes make more
            than one picture: `NAME-1.png`, `NAME-2.png` and so on, which no pipe can take.

    Raises:
        UsageError: more than one picture for a pipe or device.
    """
    members = _members(dataset)
    pages = [
        range(start, min(start + CLASSES_PER_PICTURE, len(members)))
        for start in range(0, len(members), CLASSES_PER_PICTURE)
    ]
    if len(pages) > 1 and is_stream(output):
        raise UsageError(
            f"{stream_name(output)} takes one picture, and {len(members):,} classes make "
            f"{len(pages)}; name a folder or a .png file."
        )
    written, reasons = [], []
    for number, page in enumerate(pages, start=1):
        of = f" ({page.start + 1} to {page.stop} of {len(members):,} classes)"
        shown = title + (of if len(pages) > 1 else "")
        path = _page_path(output, f"-{number:0{len(str(len(pages)))}}" if len(pages) > 1 else "")
        reason = save_picture(path, partial(draw_samples, dataset, members, page, shown))
        if reason is None:
            written.append(path)
        else:
            reasons.append(reason)
    return written, reasons


def _is_one_file(output: Path) -> bool:
    """Whether the output is a picture, not a folder of them."""
    return is_stream(output) or (output.suffix.lower() == ".png" and not output.is_dir())


def _page_path(output: Path, number: str) -> Path:
    """The file of a page."""
    file = output if _is_one_file(output) else output / "samples.png"
    return file.with_name(f"{file.stem}{number}{file.suffix}")


def draw_samples(
    dataset: Dataset, members: Sequence[NDArray[np.int64]], classes: Sequence[int], title: str
) -> Figure:
    """A row for each class: its name, its number of images, and some of them, evenly taken."""
    rows = [_row_of_tiles(dataset, members[number]) for number in classes]
    size = (NAMES_INCHES + TILE_INCHES * PER_CLASS, WORDS_INCHES + TILE_INCHES * len(rows))
    caption = (
        f"Up to {PER_CLASS} images of each class, taken evenly in the order of the files, whole "
        "and as they are read. Crossed out: an image that cannot be read."
    )
    figure = new_figure(*size, title, caption)
    axes = figure.subplots()
    axes.imshow(np.concatenate(rows), interpolation="nearest")
    height = TILE + GAP
    labels = [_label(dataset.class_names[n], len(members[n])) for n in classes]
    axes.set_yticks([height * (i + 0.5) for i in range(len(rows))], labels, fontsize=9, color=INK)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _label(name: str, count: int) -> str:
    """A class and its number of images."""
    images = counted(count, "image")
    return f"{literal(name, NAME_WIDTH)}\n{images}"


def _members(dataset: Dataset) -> list[NDArray[np.int64]]:
    """For each class the samples that have it."""
    targets = gather_targets(dataset)
    if dataset.multi_label:
        return [np.flatnonzero(column == 1) for column in np.asarray(targets).T]
    order = np.argsort(targets, kind="stable")
    ends = np.searchsorted(targets[order], np.arange(len(dataset.class_names)), side="right")
    return np.split(order, ends[:-1])


def _row_of_tiles(dataset: Dataset, members: NDArray[np.int64]) -> NDArray[np.uint8]:
    """uint8 [TILE + GAP, PER_CLASS · (TILE + GAP), 3]."""
    count = min(PER_CLASS, len(members))
    chosen = members[np.linspace(0, max(len(members) - 1, 0), count).astype(np.int64)]
    row = np.full((TILE + GAP, PER_CLASS * (TILE + GAP), 3), 255, np.uint8)
    for place, tile in enumerate(_tiles(dataset, chosen)):
        left = place * (TILE + GAP) + GAP // 2
        row[GAP // 2 : GAP // 2 + TILE, left : left + TILE] = tile
    return row


def _tiles(dataset: Dataset, chosen: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """uint8 [TILE, TILE, 3] of each sample; gray where it cannot be read."""
    for index in chosen:
        try:
            yield _tile(dataset.load(int(index)).image)
        except ImageError:
            yield _crossed_out()


def _crossed_out() -> NDArray[np.uint8]:
    """A tile in place of an image that cannot be read."""
    tile = np.full((TILE, TILE, 3), UNREADABLE, np.uint8)
    line = np.eye(TILE, dtype=bool) | np.eye(TILE, k=1, dtype=bool)
    tile[line | line[::-1]] = CROSS
    return tile


def _tile(image: Image) -> NDArray[np.uint8]:
    """The whole image in the middle of a square tile."""
    from PIL import Image as Pillow

    height, width = image.shape[:2]
    scale = TILE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    picture = Pillow.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB")
    way = Pillow.Resampling.NEAREST if scale > 2 else Pillow.Resampling.LANCZOS
    small = np.asarray(picture.resize(size, way))
    tile = np.full((TILE, TILE, 3), PAPER, np.uint8)
    top, left = (TILE - size[1]) // 2, (TILE - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    return tile

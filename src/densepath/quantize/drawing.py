"""Images drawn by a seed from what a user names: a data set, files, or images in memory.

On the line: `calibration.py` parts what is drawn here into two sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from densepath.data.cifar10_files import is_batches_folder
from densepath.data.dataset import Dataset
from densepath.data.open import open_dataset
from densepath.data.sources import ARCHIVES, TABLES, built_in
from densepath.data.split_folders import find_split_folders
from densepath.errors import DatasetError, ImageError
from densepath.files import expand_user
from densepath.images.archives import open_images
from densepath.images.given import images_in
from densepath.images.image_files import PassedOver
from densepath.images.preprocess import Preprocess
from densepath.images.read_as import PHOTO_CHANNELS, ReadAs
from densepath.images.reading import read_image
from densepath.text import read_lines
from densepath.wording import counted

if TYPE_CHECKING:
    from densepath.images.reading import Readable

# What of a set is tried where images cannot be read, before it is given up.
MOST_UNREADABLE = 0.5

Named = tuple[str, NDArray[np.uint8]]


@dataclass
class DrawnImages:
    """Images in the order they were drawn in, and what was not among them."""

    source: str
    description: str
    images: list[Named] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)


def how_files_are_read(
    data: object, preprocess: Preprocess, prepare: Callable[..., Any] | None
) -> ReadAs:
    """As the network has them read; as RGB for the user's function that makes other channels."""
    own = preprocess.read_as
    others = prepare is not None and isinstance(data, str | Path)
    return replace(own, channels=3) if others and own.channels not in PHOTO_CHANNELS else own


def cure_of_channels(preprocess: Preprocess) -> str:
    """How images of other channels than photos have are brought; empty for other networks."""
    if preprocess.channels in PHOTO_CHANNELS:
        return ""
    height, width = preprocess.size
    return (
        f" The network takes {preprocess.channels} channels: TIFFs of as many pages, .npy arrays, "
        "or RGB images and a function of your own: --functions FILE.py with `preprocess(image)`, "
        f"which gives uint8 [{height}, {width}, {preprocess.channels}]."
    )


def draw(
    data: str | Path | Sequence[Readable],
    read_as: ReadAs,
    fit: Callable[..., NDArray[np.uint8]],
    count: int,
    seed: int,
    *,
    reading: Mapping[str, Any],
) -> DrawnImages:
    """The first `count` images of a random order that can be read.

    With fields of DataOptions in `reading` the data are a data set.
    """
    if not isinstance(data, str | Path):
        return _draw_images(data, read_as, fit, count, seed)
    source = expand_user(data)
    if not reading and not _is_dataset(data, source):
        return _draw_files(source, read_as, fit, count, seed)
    how: dict[str, Any] = {"channels": read_as.channels, "intensity": read_as.intensity}
    dataset = open_dataset(data, split="train", **how, **reading)
    return _draw_samples(str(data), dataset, fit, count, seed)


def _is_dataset(data: str | Path, path: Path) -> bool:
    """Whether the data have classes; an archive, too, may be a data set of its own kind."""
    if built_in(data) is not None or path.suffix.lower() in TABLES:
        return True
    try:
        if path.is_dir():
            return is_batches_folder(path) or "train" in find_split_folders(path, {}).folders
        if path.name.lower().endswith(ARCHIVES) or _is_list_with_labels(path):
            open_dataset(path, split="train")
            return True
    except DatasetError:  # no such set, or split folders that leave a doubt: just images
        pass
    return False


def _is_list_with_labels(path: Path) -> bool:
    """Whether a text file names, in its first line, no image but perhaps an image and its class."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        return False
    first = next(filter(None, read_lines(path)), "")
    return not (path.parent / first).exists()


def _draw_samples(
    source: str,
    dataset: Dataset,
    fit: Callable[..., NDArray[np.uint8]],
    count: int,
    seed: int,
) -> DrawnImages:
    """The samples drawn of a data set; see `_draw`."""
    drawn = DrawnImages(source, dataset.description)
    for index in map(int, _order(len(dataset), seed)):
        failed = len(drawn.unreadable)
        if len(drawn.images) == count or failed > max(count, MOST_UNREADABLE * len(dataset)):
            break
        try:
            sample = dataset.load(index)
        except ImageError as error:
            drawn.unreadable.append(str(error))
            continue
        drawn.images.append((dataset.path(index), fit(sample.image)))
    return drawn


def _draw_files(
    source: Path, read_as: ReadAs, fit: Callable[..., NDArray[np.uint8]], count: int, seed: int
) -> DrawnImages:
    """The images drawn of image files; see `_draw`."""
    with open_images([source], values=read_as.by_value) as found:
        said = f"{counted(len(found), 'image')}: {found.origin}"
        drawn = DrawnImages(str(source), said, passed_over=found.passed_over)
        for index in map(int, _order(len(found), seed)):
            if len(drawn.images) == count:
                break
            _read_into(drawn, str(found.path(index)), found.name(index), read_as, fit)
        return drawn


def _draw_images(
    images: Sequence[Readable],
    read_as: ReadAs,
    fit: Callable[..., NDArray[np.uint8]],
    count: int,
    seed: int,
) -> DrawnImages:
    """The images drawn of images in memory and paths; see `_draw`."""
    named = list(images_in(images, values=read_as.by_value))
    drawn = DrawnImages("the images", counted(len(named), "image"))
    for name, image in (named[index] for index in _order(len(named), seed)):
        if len(drawn.images) == count:
            break
        _read_into(drawn, image, name, read_as, fit)
    return drawn


def _read_into(
    drawn: DrawnImages,
    image: Readable,
    name: str,
    read_as: ReadAs,
    fit: Callable[..., NDArray[np.uint8]],
) -> None:
    """Read the image into `drawn`, or the reason why not."""
    read = read_image(image, name, read_as, fit)
    if read.image is None:
        drawn.unreadable.append(f"{name}: {read.error}")
    else:
        drawn.images.append((name, read.image))


def _order(count: int, seed: int) -> NDArray[np.int64]:
    """A random order of `count` things."""
    return np.random.default_rng([seed, count]).permutation(count)

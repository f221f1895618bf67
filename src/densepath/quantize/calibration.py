"""Images that stand for those to come: what activations' ranges are measured on.

On the line: `quantize.py` draws one set to calibrate and another, disjoint one to choose by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densepath.data.cifar10_files import is_batches_folder
from densepath.data.dataset import Dataset
from densepath.data.open import open_dataset
from densepath.data.sources import ARCHIVES, TABLES, built_in
from densepath.data.split_folders import find_split_folders
from densepath.engines.reading import read_image
from densepath.errors import DatasetError, UsageError
from densepath.export.parity_images import collect_images
from densepath.preprocess import Preprocess

# What of a set is tried where images cannot be read, before it is given up.
MOST_UNREADABLE = 0.5


@dataclass(frozen=True)
class Calibration:
    """Images as the network's preprocessing makes them, before they are normalised.

    Attributes:
        images: uint8 [N, H, W, C].
        names: of each.
        preprocess: the way from an image to the network's input.
        description: what they are, for a person.
    """

    images: NDArray[np.uint8]
    names: list[str]
    preprocess: Preprocess
    description: str

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def batches(self, size: int = 1) -> Iterator[NDArray[np.float32]]:
        """The images normalised, float32 [n, C, H, W], `size` at a time."""
        for start in range(0, len(self), size):
            yield np.stack([self.preprocess.normalise(one) for one in self.images[start:][:size]])

    def digest(self) -> str:
        """The sha256 of the pixels: the same images give the same."""
        return hashlib.sha256(self.images.tobytes()).hexdigest()


def draw_calibration(
    data: str | Path,
    preprocess: Preprocess,
    *,
    num_images: int,
    num_held_out: int = 0,
    seed: int = 0,
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
) -> tuple[Calibration, Calibration | None]:
    """Images drawn by a seed to calibrate with, and others, held out, to choose by.

    Args:
        data: a data set (`open_dataset`; its training split), or a folder, zip archive or list
            of images without classes.
        preprocess: the network's.
        num_images: to calibrate with; where `data` has fewer, what is left over of the others.
        num_held_out: at most; a third of the images where there are few.
        seed: draws them.
        prepare: makes a uint8 [H, W, C] image of the network's size of one as it was read, in
            place of `preprocess.fit`.

    Raises:
        UsageError: fewer than one image is asked for.
        DatasetError: no such data, or no image of it can be read.
    """
    if num_images < 1:
        raise UsageError(f"the number of calibration images is {num_images}; name 1 or more.")
    source = Path(data).expanduser()
    fit = preprocess.fit if prepare is None else prepare
    if _is_dataset(data, source):
        dataset = open_dataset(data, split="train", channels=preprocess.channels)
        drawn = _draw_samples(dataset, fit, num_images + num_held_out, seed)
        said = dataset.description
    else:
        drawn, said = _draw_files(source, preprocess, fit, num_images + num_held_out, seed)
    if not drawn:
        raise DatasetError(f"{data}: none of its images can be read; calibration needs some.")
    _check_shapes(drawn, preprocess)
    held = min(num_held_out, len(drawn) // 3)
    parts = (drawn[held:][:num_images], drawn[:held])
    made = [_gather(part, preprocess, said, seed) for part in parts if part]
    return made[0], made[1] if held else None


def check_calibration(
    calibration: Calibration | None, preprocess: Preprocess, keep_float: Collection[str]
) -> None:
    """Returns when the images are what a network with this preprocessing takes, or none are needed.

    Raises:
        UsageError: there are none, or they are of another size or number of channels; or layers
            are to be kept in a network that is float32 anyhow.
    """
    if calibration is None:
        if keep_float:
            raise UsageError("keep_float names layers of an INT8 network; it needs a calibration.")
        return
    wanted = (*preprocess.size, preprocess.channels)
    if len(calibration) == 0 or calibration.images.shape[1:] != wanted:
        raise UsageError(
            f"the calibration has images {calibration.images.shape}; the network takes uint8 "
            f"[N, {', '.join(map(str, wanted))}], N at least 1. Draw them with its preprocessing."
        )


Drawn = list[tuple[str, NDArray[np.uint8]]]


def _is_dataset(data: str | Path, path: Path) -> bool:
    """Whether the data have classes; an archive, too, may be a data set of its own kind."""
    if built_in(data) is not None or path.suffix.lower() in TABLES:
        return True
    try:
        if path.is_dir():
            return is_batches_folder(path) or "train" in find_split_folders(path, {}).folders
        if path.name.lower().endswith(ARCHIVES):
            open_dataset(path, split="train")
            return True
    except DatasetError:  # no such set, or split folders that leave a doubt: just images
        pass
    return False


def _draw_samples(
    dataset: Dataset, fit: Callable[..., NDArray[np.uint8]], count: int, seed: int
) -> Drawn:
    """The first `count` samples of a random order that can be read."""
    from densepath.errors import ImageError

    drawn: Drawn = []
    failed = 0
    for index in _order(len(dataset), seed):
        if len(drawn) == count or failed > max(count, MOST_UNREADABLE * len(dataset)):
            break
        try:
            sample = dataset.load(int(index))
        except ImageError:
            failed += 1
            continue
        drawn.append((dataset.path(int(index)), fit(sample.image)))
    return drawn


def _draw_files(
    source: Path,
    preprocess: Preprocess,
    fit: Callable[..., NDArray[np.uint8]],
    count: int,
    seed: int,
) -> tuple[Drawn, str]:
    """As `_draw_samples`, of image files; and what they are."""
    drawn: Drawn = []
    with collect_images([source], 1 << 40) as found:
        for index in _order(len(found.paths), seed):
            if len(drawn) == count:
                break
            read = read_image(str(found.paths[index]), "", preprocess.channels, fit)
            if read.image is not None:
                drawn.append((found.names[index], read.image))
        return drawn, found.description


def _order(count: int, seed: int) -> NDArray[np.int64]:
    """A random order of `count` things."""
    return np.random.default_rng([seed, count]).permutation(count)


def _check_shapes(drawn: Drawn, preprocess: Preprocess) -> None:
    """Returns when every image is what the network takes; a user's own function may err.

    Raises:
        UsageError: one is not.
    """
    wanted = (*preprocess.size, preprocess.channels)
    for name, image in drawn:
        if image.shape != wanted or image.dtype != np.uint8:
            raise UsageError(
                f"{name}: preprocessing made {image.dtype} {image.shape} of it; the network takes "
                f"uint8 {wanted}, not normalised."
            )


def _gather(drawn: Drawn, preprocess: Preprocess, said: str, seed: int) -> Calibration:
    """The set of these images."""
    images = np.stack([image for _, image in drawn])
    names = [name for name, _ in drawn]
    return Calibration(
        images, names, preprocess, f"{len(names)} images drawn by seed {seed} from {said}"
    )

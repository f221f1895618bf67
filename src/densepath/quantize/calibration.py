"""Images that stand for those to come: what activations' ranges are measured on.

On the line: `quantize.py` draws one set to calibrate and another, disjoint one to choose by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from densepath.errors import DatasetError, UsageError, check_count
from densepath.images.preprocess import Preprocess
from densepath.quantize.drawing import (
    DrawnImages,
    Named,
    cure_of_channels,
    draw,
    how_files_are_read,
)
from densepath.wording import counted

if TYPE_CHECKING:
    from densepath.images.reading import Readable

# Fewer than these say too little of a method: then a third of all images is held out.
LEAST_HELD_OUT = 20
NAMED_UNREADABLE = 3


@dataclass(frozen=True)
class Calibration:
    """Images as the network's preprocessing makes them, before they are normalised.

    Attributes:
        images: uint8 [N, H, W, C].
        names: of each.
        preprocess: the way from an image to the network's input.
        description: what they are, for a person.
        notes: what a person should know of how they were drawn: too few, unreadable ones.
    """

    images: NDArray[np.uint8]
    names: list[str]
    preprocess: Preprocess
    description: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def batches(self, size: int = 1) -> Iterator[NDArray[np.float32]]:
        """The images normalised, float32 [n, C, H, W], `size` at a time."""
        for start in range(0, len(self), size):
            yield self.preprocess.normalise(self.images[start:][:size])

    def digest(self) -> str:
        """The sha256 of the pixels: the same images give the same."""
        return hashlib.sha256(self.images.tobytes()).hexdigest()


def draw_calibration(
    data: str | Path | Sequence[Readable],
    preprocess: Preprocess,
    *,
    num_images: int,
    num_held_out: int = 0,
    seed: int = 0,
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> tuple[Calibration, Calibration | None]:
    """Images drawn by a seed to calibrate with, and others, held out, to choose by.

    Where there are fewer than both numbers ask for, those to calibrate with come first; where
    that would leave hardly any to choose by, a third of all are held out. The calibration's
    `notes` say so, and what could not be read or was passed over.

    Args:
        data: a data set (`open_dataset`; its training split), or a folder, zip archive or list
            of images without classes; or images in memory, as `predict` takes them.
        preprocess: the network's.
        num_images: to calibrate with.
        num_held_out: to choose by.
        seed: draws them.
        prepare: makes a uint8 [H, W, C] image of the network's size of one as it was read, in
            place of `preprocess.fit`; of an RGB image where the network's channels are neither
            1 nor 3.
        reading: fields of DataOptions; with any of them `data` is a data set.

    Raises:
        UsageError: fewer than one image is asked for.
        DatasetError: no such data, or no image of it can be read.
    """
    check_count("num_images", num_images)
    check_count("num_held_out", num_held_out, least=0)
    read_as = how_files_are_read(data, preprocess, prepare)
    fit = preprocess.fit if prepare is None else prepare
    drawn = draw(data, read_as, fit, num_images + num_held_out, seed, reading=reading or {})
    if not drawn.images:
        why = f"; the first, {drawn.unreadable[0]}" if drawn.unreadable else ""
        raise DatasetError(
            f"{drawn.source}: none of its images can be read; calibration needs some{why}."
            f"{cure_of_channels(preprocess)}"
        )
    _check_shapes(drawn.images, preprocess)
    total = len(drawn.images)
    held = _number_held_out(total, num_images, num_held_out)
    left = min(num_images, total - held)
    notes = tuple(_notes(drawn, num_images, left, num_held_out, held))
    parts = (drawn.images[held:][:num_images], drawn.images[:held])
    made = [_gather(part, preprocess, drawn.description, seed, notes) for part in parts if part]
    return made[0], made[1] if held else None


def check_calibration(
    calibration: Calibration | None, preprocess: Preprocess, keep_float: Collection[str]
) -> None:
    """Raise unless the images are what a network with this preprocessing takes.

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


def _number_held_out(total: int, num_images: int, num_held_out: int) -> int:
    """How many of the images that can be had are held out to choose by."""
    spare = total - num_images
    if spare >= min(num_held_out, LEAST_HELD_OUT):
        return min(spare, num_held_out)
    return min(num_held_out, total // 3)


def _notes(drawn: DrawnImages, asked: int, left: int, asked_held: int, held: int) -> Iterator[str]:
    """What a user should know of the draw: fewer images than asked for, and which are missing."""
    if left < asked or held < min(asked_held, LEAST_HELD_OUT):
        there = counted(len(drawn.images), "image")
        others = f", {held:,} of {asked_held:,} are held out to choose methods by"
        yield (
            f"only {there} to calibrate with in {drawn.source}: {left:,} of the {asked:,} asked "
            f"for measure ranges{others if asked_held else ''}"
        )
    if drawn.unreadable:
        number = len(drawn.unreadable)
        named = "; ".join(drawn.unreadable[:NAMED_UNREADABLE])
        more = f"; {number - NAMED_UNREADABLE:,} more" if number > NAMED_UNREADABLE else ""
        yield f"{counted(number, 'image')} could not be read: {named}{more}"
    if drawn.passed_over:
        yield str(drawn.passed_over)


def _check_shapes(drawn: Sequence[Named], preprocess: Preprocess) -> None:
    """Raise unless every image is what the network takes; a user's own function may err.

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


def _gather(
    drawn: Sequence[Named], preprocess: Preprocess, said: str, seed: int, notes: tuple[str, ...]
) -> Calibration:
    """The set of these images."""
    images = np.stack([image for _, image in drawn])
    names = [name for name, _ in drawn]
    described = f"{counted(len(names), 'image')} drawn by seed {seed} from {said}"
    return Calibration(images, names, preprocess, described, notes)

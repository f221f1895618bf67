"""The board that TensorBoard shows: scalars, pictures and hyper-parameters of one training.

On the line: beside `metrics.csv` and `curves.png`, in `tensorboard/` of the run folder. A training
that goes on goes on in the same file, from which what it forgets is cut (`event_file.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from densepath.data.batch import Batch
from densepath.drawing.picture import new_figure, picture_bytes
from densepath.images.preprocess import Preprocess
from densepath.training.epochs import EpochRow
from densepath.training.event_file import EventFile
from densepath.wording import literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "tensorboard/events.out.tfevents.0.densepath"
SECONDS_BETWEEN_FLUSHES = 2.0
SHOWN_IMAGES = 16
MOST_NAMED_CLASSES = 30
PER_STEP = "step/"
# Columns of `metrics.csv` that are curves.
CURVES = ("train_loss", "train_accuracy", "loss", "top1", "top5", "float_top1", "seconds")

Confusion = Callable[[], NDArray[np.int64] | None]


class TensorBoard:
    """A `Board` in an event file.

    Args:
        folder: the run folder.
        step, mid_epoch: the steps of the whole training that are done; whether the epoch whose
            last one may be among them is yet to be judged.
        preprocess: what the images of a batch were normalised by.
        labels: the class names.
        hyper_parameters: the recipe's fields by their full names.
        confusion: counts of the evaluation images at the end, rows true classes, columns answers;
            None of a multi-label set.

    Raises:
        MissingPackageError: tensorboardX is not installed.
        OutputError: the file cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int,
        mid_epoch: bool,
        preprocess: Preprocess,
        labels: Sequence[str],
        hyper_parameters: Mapping[str, Any],
        confusion: Confusion,
    ) -> None:
        from densepath.training.event_file import import_package

        self._made = import_package().summary
        self._preprocess, self._labels, self._confusion = preprocess, labels, confusion
        self._hyper_parameters, self._is_new = hyper_parameters, step == 0

        def keep(event: Any) -> bool:
            """Whether the training that goes on has told this already."""
            if step == 0 or event.step > step:
                return False
            tag = event.summary.value[0].tag
            return event.step < step or tag.startswith(PER_STEP) or not mid_epoch

        self._file = EventFile(folder / FILE, keep)
        self._flushed = time.monotonic()

    def begin(self) -> None:
        """Write the hyper-parameters, of a training that is new."""
        if self._is_new:
            experiment, start, _ = self._session()
            self._file.add(experiment, 0)
            self._file.add(start, 0)
            self._file.flush()

    def batch(self, batch: Batch) -> None:
        """Write the first images of the batch, as they are after augmentation, in a grid."""
        count = min(len(batch.images), SHOWN_IMAGES)
        if not count:
            return
        mean, std = np.array(self._preprocess.mean), np.array(self._preprocess.std)
        shares = batch.images[:count].numpy().transpose(0, 2, 3, 1) * std + mean
        pixels = np.clip(np.rint(255 * shares), 0, 255).astype(np.uint8)
        self._add_image("images/first_batch", _grid(pixels), 0)

    def step(self, step: int, loss: float, lr: float) -> None:
        """Write loss and learning rate."""
        self._add_scalar(f"{PER_STEP}train_loss", loss, step)
        self._add_scalar(f"{PER_STEP}learning_rate", lr, step)
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def end_epoch(self, step: int, row: EpochRow) -> None:
        """Write the row of `metrics.csv`."""
        values = row.to_dict()
        for name in CURVES:
            if values.get(name) is not None:
                self._add_scalar(f"epoch/{name}", values[name], step)
        self.flush()

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()
        self._flushed = time.monotonic()

    def end(self, step: int) -> None:
        """Write the confusion matrix, and that the training is over."""
        counts = self._confusion()
        if counts is not None:
            picture = picture_bytes(lambda: draw_confusion(counts, self._labels))
            self._add_picture("images/confusion_matrix", picture, step)
        self._file.add(self._session()[2], step)
        self.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _session(self) -> tuple[Any, Any, Any]:
        """The summaries of the hyper-parameters: what there is, the start, the end."""
        metrics = dict.fromkeys(("epoch/top1", "epoch/loss"), 0.0)
        session: tuple[Any, Any, Any] = self._made.hparams(dict(self._hyper_parameters), metrics)
        return session

    def _add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write a point of a curve."""
        self._file.add(self._made.scalar(tag, value), step)

    def _add_image(self, tag: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Write an image, uint8 [H, W, C]."""
        self._file.add(self._made.image(tag, pixels, dataformats="HWC"), step)

    def _add_picture(self, tag: str, png: bytes, step: int) -> None:
        """Write a picture that is drawn."""
        summary = self._made.Summary
        image = summary.Image(encoded_image_string=png, colorspace=4)
        self._file.add(summary(value=[summary.Value(tag=tag, image=image)]), step)


def flat_fields(values: Mapping[str, Any], before: str = "") -> dict[str, str | float | bool]:
    """Nested fields by their full names, as TensorBoard takes them: None and lists are text."""
    flat: dict[str, str | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_fields(value, f"{before}{name}.")
        else:
            plain = isinstance(value, str | int | float)
            flat[f"{before}{name}"] = value if plain else str(value)
    return flat


def _grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images [N, H, W, C] in rows of four, with a line of black between them; gray as RGB."""
    count, height, width, channels = images.shape
    columns = min(count, 4)
    rows = -(-count // columns)
    grid = np.zeros((rows * (height + 1), columns * (width + 1), 3), np.uint8)
    shown = images if channels == 3 else images[..., :1].repeat(3, axis=3)
    for place, image in enumerate(shown):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid


def draw_confusion(counts: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """The share of each true class (rows) that was answered as each class (columns)."""
    figure = new_figure(
        7,
        6.5,
        f"Confusion of {int(counts.sum()):,} images",
        "Rows are true classes, columns answers; the colour is the share of the row.",
    )
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    axes.set_xlabel("answered")
    axes.set_ylabel("true")
    if len(labels) <= MOST_NAMED_CLASSES:
        names = [literal(label, 20) for label in labels]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    return figure

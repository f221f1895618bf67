"""From a checkpoint and a data set to a Report: `densepath.evaluate`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from densepath.data.dataset import Dataset, Split
from densepath.data.loader import Batch, EvalLoader
from densepath.data.sources import LISTS, TABLES
from densepath.errors import LabelMismatchError, UsageError
from densepath.evaluation.labels import MissingClasses, match_labels
from densepath.evaluation.measured import (
    find_overlap,
    find_trained_on,
    open_measured,
    why_unknown,
)
from densepath.evaluation.report import Mistake, Report
from densepath.images.preprocess import Preprocess
from densepath.metrics import metrics
from densepath.metrics.answers import Answers, Predict, collect_answers
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint

if TYPE_CHECKING:
    from densepath.models.layers import TestPooling

OnError = Literal["skip", "fail"]

MOST_MISTAKES = 16
DEFAULT_BATCH_SIZE = 32


def evaluate(
    subject: str | Path | Checkpoint,
    data: str | Path | Dataset | None = None,
    *,
    split: Split | None = None,
    size: int | tuple[int, int] | None = None,
    crop_share: float | None = None,
    test_pooling: TestPooling = "mean",
    batch_size: int = DEFAULT_BATCH_SIZE,
    workers: int = 0,
    device: str = "auto",
    on_error: OnError = "fail",
    missing_classes: MissingClasses = "refuse",
    threshold: float = 0.5,
    data_root: str | Path | None = None,
    reading: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Report:
    """How well the checkpoint does on the data set; and whether it was trained on those images.

    Args:
        subject: a published name, a checkpoint file, a run folder, or a Checkpoint.
        data: `digits`, `cifar10`, a folder, list, table or archive; or an open data set; None:
            what the checkpoint was trained on, read as in its training.
        split: of the data set; None: its test images, else its validation images, else all; of
            the checkpoint's own data never images that it was trained on.
        size: side of the input in pixels, or height and width; the checkpoint's by default.
        crop_share: the share of the short side that the centre crop keeps; the checkpoint's.
        test_pooling: `mean`, or `mean_max` at sizes above the training size.
        batch_size: images of one run.
        workers: processes that read images.
        device: `auto` (a GPU when there is one), `cpu`, `cuda:0`.
        on_error: an unreadable image: leave it out and name it in the report, or stop there.
        missing_classes: whether the data set may lack classes of the checkpoint.
        threshold: of a multi-label network's scores.
        data_root: the folder that a list's or table's paths start from.
        reading: fields of DataOptions, such as a table's columns; by default the training's own
            where `data` is what it was trained on.
        progress: a progress bar on standard error.

    Raises:
        LabelMismatchError: the data set's classes are not the checkpoint's.
        ImageError: an image cannot be read, and `on_error` is `fail`.
        DensepathError: the subject or the data set cannot be opened, or a value is impossible.
    """
    if not 0 < threshold < 1:
        raise UsageError(f"the threshold is {threshold}; it must lie between 0 and 1.")
    checkpoint = open_checkpoint(subject)
    preprocess = checkpoint.preprocess
    if size is not None or crop_share is not None:
        sides = preprocess.size if size is None else checkpoint.spec.check_size(size)
        preprocess = preprocess.at_size(sides, crop_share)
    known = find_trained_on(subject, checkpoint)
    measured = open_measured(
        *(known, data, split),
        channels=checkpoint.in_channels,
        reading=_reading(data, checkpoint, data_root, reading or {}),
    )
    dataset = measured.dataset
    _check_kind(dataset, checkpoint)
    to_logits = match_labels(
        dataset.class_names, checkpoint.labels, missing=missing_classes, named=dataset.named
    )
    predict = network_of(checkpoint, device, test_pooling)
    loader = EvalLoader(
        dataset, preprocess, batch_size=batch_size, workers=workers, on_error=on_error
    )
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        batches: Iterable[Batch] = loader
        if progress:  # closed, for the bar's thread must end when the network's answers fail
            batches = stack.enter_context(contextlib.closing(_shown(loader, len(dataset))))
        answers = collect_answers(predict, batches, to_logits=np.array(to_logits))
    seconds = time.monotonic() - start
    settings = {
        "split": measured.split,
        "rule": measured.rule,
        "size": list(preprocess.size),
        "resize_short": preprocess.resize_short,
        "interpolation": preprocess.interpolation,
        "test_pooling": test_pooling,
        "on_error": on_error,
        "missing_classes": missing_classes,
    }
    report = make_report(
        answers,
        dataset,
        preprocess,
        labels=checkpoint.labels,
        subject=_name_of(subject),
        settings=settings,
        threshold=threshold,
        images_per_second=len(answers) / max(seconds, 1e-9),
    )
    overlap = find_overlap(known, dataset, answers.indices, why_unknown(subject))
    return dataclasses.replace(report, overlap=overlap)


def evaluate_logits(
    predict: Predict,
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    labels: list[str],
    subject: str,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_error: OnError = "fail",
    threshold: float = 0.5,
) -> Report:
    """The report of anything that turns images into logits: an engine, an exported program.

    Args:
        predict: float32 images [N, C, H, W] → float32 logits [N, classes].
        dataset: labelled images.
        preprocess: the way from an image to the input.
        labels: the class of each logit; the data set must have the same.
        subject: what to call it.
        batch_size, on_error, threshold: as in `evaluate`.

    Raises:
        LabelMismatchError: the data set's classes are not `labels`.
        ImageError: an image cannot be read, and `on_error` is `fail`.
    """
    to_logits = np.array(match_labels(dataset.class_names, labels, named=dataset.named))
    loader = EvalLoader(dataset, preprocess, batch_size=batch_size, on_error=on_error)
    start = time.monotonic()
    answers = collect_answers(predict, loader, to_logits=to_logits)
    return make_report(
        answers,
        dataset,
        preprocess,
        labels=labels,
        subject=subject,
        settings={"size": list(preprocess.size), "on_error": on_error},
        threshold=threshold,
        images_per_second=len(answers) / max(time.monotonic() - start, 1e-9),
    )


def network_of(checkpoint: Checkpoint, device: str, test_pooling: TestPooling) -> Predict:
    """The checkpoint's network as a function of arrays, on the device, in float32."""
    import torch

    from densepath.models.device import find_device

    place = find_device(device)
    model = checkpoint.to_model()
    model.test_pooling = test_pooling
    model = model.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(images).to(place, memory_format=torch.channels_last)
            return model(batch).float().cpu().numpy()

    return predict


def make_report(
    answers: Answers,
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    labels: list[str],
    subject: str,
    settings: dict[str, Any],
    threshold: float,
    images_per_second: float,
) -> Report:
    """The answers in figures."""
    report = Report(
        subject=subject,
        data=dataset.description,
        labels=list(labels),
        images=len(answers),
        skipped=answers.errors,
        figures={},
        per_class=[],
        confusion=None,
        reliability=[],
        mistakes=[],
        settings=settings,
        images_per_second=images_per_second,
    )
    if answers.multi_label:
        figures, rows = metrics.per_label(answers, labels, threshold)
        settings = settings | {"classes_with_images": metrics.with_images(rows)}
        return dataclasses.replace(report, figures=figures, per_class=rows, settings=settings)
    confusion = metrics.confusion_matrix(answers, len(labels))
    rows, bins = metrics.per_class(confusion, labels), metrics.reliability(answers)
    return dataclasses.replace(
        report,
        figures={
            **metrics.overall(answers),
            **{f"macro_{name}": metrics.macro(rows, name) for name in metrics.DECIDED},
            "calibration_error": metrics.calibration_error(bins),
        },
        settings=settings | {"classes_with_images": metrics.with_images(rows)},
        per_class=rows,
        confusion=confusion,
        reliability=bins,
        mistakes=list(_mistakes(answers, dataset, preprocess, labels)),
    )


def _mistakes(
    answers: Answers, dataset: Dataset, preprocess: Preprocess, labels: list[str]
) -> Iterator[Mistake]:
    """The worst wrong answers, with what the network saw."""
    for row in metrics.worst_mistakes(answers, MOST_MISTAKES):
        index = int(answers.indices[row])
        yield Mistake(
            dataset.path(index),
            labels[int(answers.targets[row])],
            labels[int(answers.predicted[row])],
            float(answers.scores[row, 0]),
            float(answers.losses[row]),
            preprocess.fit(dataset.load(index).image),
        )


def _reading(
    data: str | Path | Dataset | None,
    checkpoint: Checkpoint,
    data_root: str | Path | None,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """How the user wants the source to be read; a table or list as the checkpoint needs it:
    rows of one file add up, and a table's cell may be empty.
    """
    reading = dict(given)
    if data_root is not None:
        reading["root"] = data_root
    repeats = isinstance(data, str | Path) and Path(data).suffix.lower() in (*TABLES, *LISTS)
    if checkpoint.multi_label and repeats:
        reading.setdefault("multi_label", True)
    return reading


def _check_kind(dataset: Dataset, checkpoint: Checkpoint) -> None:
    """Raise unless both have one label an image, or both have several.

    Raises:
        LabelMismatchError: one has and the other has not.
    """
    if dataset.multi_label != checkpoint.multi_label:
        words = {True: "several labels an image", False: "one label an image"}
        cure = "" if dataset.multi_label else " A table or a list can name all classes of an image."
        raise LabelMismatchError(
            f"the data set has {words[dataset.multi_label]}; the checkpoint was trained for "
            f"{words[checkpoint.multi_label]}.{cure}"
        )


def _shown(loader: Iterable[Batch], total: int) -> Generator[Batch, None, None]:
    """The batches, with a progress bar on standard error that a pipe does not see."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = ("evaluating", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("evaluating", total=total)
        for batch in loader:
            yield batch
            progress.advance(task, len(batch.images) + len(batch.errors))


def _name_of(subject: str | Path | Checkpoint) -> str:
    """What the report calls it."""
    return subject.spec.name if isinstance(subject, Checkpoint) else str(subject)

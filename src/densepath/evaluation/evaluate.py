"""From a network and a data set to a Report: `densepath.evaluate`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from densepath.bundle.bundle import is_bundle
from densepath.choices import (
    EVALUATION_BATCH_SIZE,
    THRESHOLD,
    MissingClasses,
    OnError,
    TestAugmentation,
    TestPooling,
)
from densepath.data.dataset import Dataset, Split
from densepath.data.loader import Batch, EvalLoader
from densepath.data.sources import LISTS, TABLES
from densepath.engines.engine import Images, Logits, Normalised
from densepath.engines.request import AskedPrecision
from densepath.errors import LabelMismatchError, UsageError
from densepath.evaluation.forms import Form, is_program, open_form
from densepath.evaluation.labels import match_labels
from densepath.evaluation.measured import (
    find_overlap,
    find_trained_on,
    open_measured,
    why_unknown,
)
from densepath.evaluation.mistake import Mistake
from densepath.evaluation.ranked import bins_tell, keeps_logits, rank_classes
from densepath.evaluation.report import Report
from densepath.evaluation.tuning import (
    Tuned,
    Wanted,
    check_target,
    check_wanted,
    save_tuned,
    tune,
)
from densepath.images.preprocess import Preprocess
from densepath.images.views import average_views, make_views
from densepath.metrics import metrics
from densepath.metrics.answers import Answers, Predict, collect_answers
from densepath.metrics.metrics import Bin
from densepath.metrics.thresholds import Rule
from densepath.predict.viewing import check_mirrors, describe_views
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint

Say: TypeAlias = Callable[[str], None]

MOST_MISTAKES = 16


def evaluate(
    subject: str | Path | Checkpoint,
    data: str | Path | Dataset | None = None,
    *,
    split: Split | None = None,
    size: int | tuple[int, int] | None = None,
    crop_share: float | None = None,
    test_pooling: TestPooling = "mean",
    tta: TestAugmentation = "none",
    batch_size: int = EVALUATION_BATCH_SIZE,
    workers: int = 0,
    engine: str = "auto",
    precision: AskedPrecision = "float32",
    device: str = "auto",
    on_error: OnError = "fail",
    missing_classes: MissingClasses = "refuse",
    threshold: float | None = None,
    choose_thresholds: str | None = None,
    calibrate: bool = False,
    save_checkpoint: str | Path | None = None,
    data_root: str | Path | None = None,
    reading: Mapping[str, Any] | None = None,
    progress: bool = False,
    say: Say = lambda step: None,
) -> Report:
    """How well a network does on the data set; and whether it was trained on those images.

    What is measured is what answers: a bundle by the engine that `load` takes for it, an INT8
    bundle in INT8, a compiled program by the NPU's simulator. The report says which.

    Args:
        subject: a published name, a checkpoint file, a run folder, a bundle, a compiled program,
            or a Checkpoint.
        data: `digits`, `cifar10`, a folder, list, table or archive; or an open data set; None:
            what the checkpoint was trained on, read as in its training.
        split: of the data set; None: its test images, else its validation images, else all; of
            the checkpoint's own data never images that it was trained on.
        size: side of the input in pixels, or height and width; the checkpoint's by default.
        crop_share: the share of the short side that the centre crop keeps; the checkpoint's.
        test_pooling: `mean`, or `mean_max` at sizes above the training size.
        tta: test-time augmentation, as `load` takes it.
        batch_size: images of one run.
        workers: processes that read images.
        engine, precision, device: as `load` takes them.
        on_error: an unreadable image: leave it out and name it in the report, or stop there.
        missing_classes: whether the data set may lack classes of the checkpoint.
        threshold: of a multi-label network's scores, in place of its own for each class; without
            either it is 0.5.
        choose_thresholds: choose one for each class on these images, the validation images by
            default, by `youden`, `f1`, `precision=SHARE` or `recall=SHARE`; write them into the
            checkpoint.
        calibrate: fit a temperature on them likewise.
        save_checkpoint: the file to write in place of the subject's own.
        data_root: the folder that a list's or table's paths start from.
        reading: fields of DataOptions, such as a table's columns; by default the training's own
            where `data` is what it was trained on.
        progress: a progress bar on standard error.
        say: is told which engine was taken, and why.

    Raises:
        LabelMismatchError: the data set's classes are not the checkpoint's.
        ImageError: an image cannot be read, and `on_error` is `fail`.
        DensepathError: the subject or the data set cannot be opened, or a value is impossible.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(f"the threshold is {threshold}; it must lie between 0 and 1.")
    wanted = _wanted(choose_thresholds, threshold, save_checkpoint, calibrate=calibrate)
    target = check_target(subject, _path(save_checkpoint)) if wanted else None
    opened = _open_once(subject)
    if wanted and not isinstance(opened, Checkpoint):
        raise UsageError(
            f"{subject} is sealed: thresholds and a temperature are put into the checkpoint or run "
            "folder that it was exported from, and travel with the next export."
        )
    known = find_trained_on(subject, opened) if isinstance(opened, Checkpoint) else None
    check_mirrors(tta, known.source if known else None)
    options: dict[str, Any] = {"engine": engine, "precision": precision, "device": device}
    options |= {"size": size, "crop_share": crop_share, "test_pooling": test_pooling}
    with open_form(opened, name=_name_of(subject), **options) as form:
        say(form.about)
        check_wanted(wanted, multi_label=form.multi_label)
        views = make_views(tta, form.preprocess)
        run: Predict = form.run if views is None else partial(average_views, form.run)
        if views is not None:
            say(describe_views(views))
        measured = open_measured(
            known,
            data,
            split,
            read_as=form.preprocess.read_as,
            reading=_reading(data, form.multi_label, data_root, reading or {}),
            why_unknown=why_unknown(subject),
            chooses=bool(wanted),
        )
        dataset = measured.dataset
        _check_kind(dataset, form.multi_label)
        to_logits = match_labels(
            dataset.class_names, form.labels, missing=missing_classes, named=dataset.named
        )
        loader = EvalLoader(
            dataset,
            form.preprocess,
            batch_size=batch_size,
            workers=workers,
            on_error=on_error,
            images="pixels",
            views=views,
        )
        start = time.monotonic()
        with contextlib.ExitStack() as stack:
            batches: Iterable[Batch] = loader
            if progress:  # closed, for the bar's thread must end when the network's answers fail
                batches = stack.enter_context(contextlib.closing(_shown(loader, len(dataset))))
            answers = collect_answers(
                run,
                batches,
                to_logits=np.array(to_logits),
                keep_logits=bool(wanted) or keeps_logits(dataset, form.labels),
            )
        seconds = time.monotonic() - start
    settings = {
        "split": measured.split,
        "rule": measured.rule,
        **_about(form.preprocess),
        "test_pooling": test_pooling,
        **({} if views is None else {"tta": tta, "views": views.count}),
        "on_error": on_error,
        "missing_classes": missing_classes,
    }
    tuned = Tuned()
    if wanted:
        answers, tuned = tune(answers, form.labels, wanted, temperature=form.temperature)
        settings |= tuned.about
    report = make_report(
        answers,
        dataset,
        form,
        subject=_name_of(subject),
        settings=settings,
        threshold=tuned.thresholds or threshold or form.thresholds or THRESHOLD,
        before=tuned.before,
        images_per_second=len(answers) / max(seconds, 1e-9),
    )
    if target is not None and isinstance(opened, Checkpoint):
        chosen_on = {"data": dataset.description, "split": measured.split, "images": len(answers)}
        save_tuned(opened, tuned, chosen_on, target)
        for said in (*tuned.notes, f"{_said_of(tuned)} written into {target}"):
            say(said)
    overlap = find_overlap(known, dataset, answers.indices, why_unknown(subject))
    return dataclasses.replace(report, overlap=overlap)


def _wanted(
    rule: str | None,
    threshold: float | None,
    save_checkpoint: str | Path | None,
    *,
    calibrate: bool,
) -> Wanted:
    """What is to be chosen.

    Raises:
        UsageError: no such rule, or options that exclude each other.
    """
    wanted = Wanted(None if rule is None else Rule.parse(rule), calibrate)
    if rule is not None and threshold is not None:
        raise UsageError("a threshold for all classes, and one chosen for each: give one option.")
    if save_checkpoint is not None and not wanted:
        raise UsageError(
            "a file to save the checkpoint in is for chosen thresholds or a fitted temperature; "
            "give one of the options that choose them."
        )
    return wanted


def _path(path: str | Path | None) -> Path | None:
    """The path, where one is given."""
    return None if path is None else Path(path)


def _said_of(tuned: Tuned) -> str:
    """What was chosen, in words."""
    parts = ["thresholds"] if tuned.thresholds is not None else []
    parts += [] if tuned.temperature is None else [f"temperature {tuned.temperature:.4g}"]
    return " and ".join(parts)


def _open_once(subject: str | Path | Checkpoint) -> str | Path | Checkpoint:
    """A checkpoint in memory, read once; bundles and programs as they are."""
    if isinstance(subject, Checkpoint) or is_program(subject) or is_bundle(subject):
        return subject
    return open_checkpoint(subject)


def _about(preprocess: Preprocess) -> dict[str, Any]:
    """How images were made, for the settings of a report."""
    about: dict[str, Any] = {
        "size": list(preprocess.size),
        "resize_short": preprocess.resize_short,
        "interpolation": preprocess.interpolation,
    }
    if preprocess.intensity is not None:
        about["intensity"] = preprocess.intensity.to_text()
    return about


def evaluate_logits(
    predict: Callable[[Normalised], Logits],
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    labels: list[str],
    subject: str,
    batch_size: int = EVALUATION_BATCH_SIZE,
    on_error: OnError = "fail",
    threshold: float = THRESHOLD,
) -> Report:
    """The report of anything that turns images into logits: an engine, an exported program.

    Args:
        predict: float32 images [N, C, H, W], normalised → float32 logits [N, classes].
        dataset: labelled images.
        preprocess: the way from an image to the input.
        labels: the class of each logit; the data set must have the same.
        subject: what to call it.
        batch_size, on_error, threshold: as in `evaluate`.

    Raises:
        LabelMismatchError: the data set's classes are not `labels`.
        ImageError: an image cannot be read, and `on_error` is `fail`.
    """

    def run(images: Images) -> Logits:
        return predict(preprocess.normalise(images))

    form = Form(subject, "", "", labels, preprocess, dataset.multi_label, 0, run)
    to_logits = np.array(match_labels(dataset.class_names, labels, named=dataset.named))
    loader = EvalLoader(
        dataset, preprocess, batch_size=batch_size, on_error=on_error, images="pixels"
    )
    start = time.monotonic()
    answers = collect_answers(run, loader, to_logits=to_logits)
    return make_report(
        answers,
        dataset,
        form,
        subject=subject,
        settings={"size": list(preprocess.size), "on_error": on_error},
        threshold=threshold,
        images_per_second=len(answers) / max(time.monotonic() - start, 1e-9),
    )


def make_report(
    answers: Answers,
    dataset: Dataset,
    form: Form,
    *,
    subject: str,
    settings: dict[str, Any],
    threshold: float | Sequence[float] = THRESHOLD,
    before: list[Bin] | None = None,
    images_per_second: float = math.nan,
) -> Report:
    """The answers of a form in figures; `before`: the bins before they were calibrated."""
    labels = form.labels
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
        engine=form.engine,
        precision=form.precision,
        reliability_before=before or [],
    )
    bins = metrics.reliability(answers)
    error = {"calibration_error": metrics.calibration_error(bins) if bins_tell(bins) else None}
    ranked = rank_classes(answers, getattr(dataset, "groups", None), labels)
    if answers.multi_label:
        figures, rows = metrics.per_label(answers, labels, threshold)
        return dataclasses.replace(
            report,
            figures={**figures, **error, **ranked.figures},
            per_class=ranked.put_into(rows),
            settings=settings
            | {"classes_with_images": metrics.with_images(rows), **ranked.settings},
            reliability=bins,
            curves=ranked.curves,
        )
    confusion = metrics.confusion_matrix(answers, len(labels))
    rows = metrics.per_class(confusion, labels)
    return dataclasses.replace(
        report,
        figures={
            **metrics.overall(answers),
            **{f"macro_{name}": metrics.macro(rows, name) for name in metrics.DECIDED},
            **error,
            **ranked.figures,
        },
        settings=settings | {"classes_with_images": metrics.with_images(rows), **ranked.settings},
        per_class=ranked.put_into(rows),
        confusion=confusion,
        reliability=bins,
        curves=ranked.curves,
        mistakes=list(_mistakes(answers, dataset, form.preprocess, labels)),
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
    multi_label: bool,
    data_root: str | Path | None,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """How the user wants the source to be read; a table or list as the network needs it:
    rows of one file add up, and a table's cell may be empty.
    """
    reading = dict(given)
    if data_root is not None:
        reading["root"] = data_root
    repeats = isinstance(data, str | Path) and Path(data).suffix.lower() in (*TABLES, *LISTS)
    if multi_label and repeats:
        reading.setdefault("multi_label", True)
    return reading


def _check_kind(dataset: Dataset, multi_label: bool) -> None:
    """Raise unless data set and network both have one label an image, or both have several.

    Raises:
        LabelMismatchError: one has and the other has not.
    """
    if dataset.multi_label != multi_label:
        words = {True: "several labels an image", False: "one label an image"}
        cure = "" if dataset.multi_label else " A table or a list can name all classes of an image."
        raise LabelMismatchError(
            f"the data set has {words[dataset.multi_label]}; the checkpoint was trained for "
            f"{words[multi_label]}.{cure}"
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

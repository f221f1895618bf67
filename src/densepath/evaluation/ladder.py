"""The accuracy ladder: one network from float to NPU, every form on the same images.

On the line: Bundles and checkpoints enter, each is run by the engine of each of its formats, and
compared with the first one and with the images' classes.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.choices import SIMULATED_IMAGES, THRESHOLD, MissingClasses, OnError
from densepath.data.dataset import Dataset, Split, Subset
from densepath.data.loader import EvalLoader
from densepath.engines.engine import Images, Logits
from densepath.errors import LabelMismatchError, UsageError
from densepath.evaluation.evaluate import make_report
from densepath.evaluation.forms import Form, open_forms, short_names
from densepath.evaluation.labels import match_labels
from densepath.evaluation.measured import Overlap, find_known, find_overlap, open_measured
from densepath.evaluation.ranked import keeps_logits
from densepath.evaluation.report import Report
from densepath.metrics.answers import collect_answers
from densepath.metrics.metrics import top5_tells
from densepath.names import several
from densepath.quantize.scoring import signal_to_noise
from densepath.wording import counted, in_markdown, percent

BATCH, SIMULATED_BATCH = 32, 100
WARM_RUNS, TIMED_RUNS = 5, 30
NUM_NAMES = 3
UNKNOWN = "none of these forms says it (a run folder or its checkpoint does)"

Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Rung:
    """A form of the network: its Report, and how it compares with the first form.

    Attributes:
        report: of its answers.
        agreement: the share of images with the same best class as the first form.
        snr_db: of its logits to the first form's; None where they are equal.
        first_top1: the first form's top-1 on the same images.
        size_bytes: of its files.
        latency_ms: of one image on all cores, the median; None where it was not timed.
    """

    report: Report
    agreement: float
    snr_db: float | None
    first_top1: float
    size_bytes: int
    latency_ms: float | None

    @property
    def name(self) -> str:
        """The subject's and the format's."""
        return self.report.subject

    @property
    def top1(self) -> float:
        """The share of images whose class is the best."""
        return self.report.figures["top1"] or 0.0

    @property
    def top5(self) -> float:
        """The share of images whose class is among the best five."""
        return self.report.figures["top5"] or 0.0

    @property
    def lost_points(self) -> float:
        """Percentage points of top-1 that it has less than the first form."""
        return 100 * (self.first_top1 - self.top1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "engine": self.report.engine,
            "precision": self.report.precision,
            "num_images": self.report.images,
            "top1": self.top1,
            "top5": self.top5,
            "agreement": self.agreement,
            "snr_db": self.snr_db,
            "first_top1": self.first_top1,
            "size_bytes": self.size_bytes,
            "latency_ms": self.latency_ms,
            "lost_points": self.lost_points,
        }


@dataclass(frozen=True)
class Ladder:
    """How the forms of a network compare.

    Attributes:
        rows: the first of them is what the others are compared with.
        data: the images, in a sentence.
        num_classes: of the network.
        overlap: how many of the images it was trained on.
    """

    rows: list[Rung]
    data: str
    num_classes: int
    overlap: Overlap

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = [row.to_dict() for row in self.rows]
        about = self.overlap.to_dict()
        return {**about, "data": self.data, "num_classes": self.num_classes, "rows": rows}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Titles and cells for people: without top-5 where it is 100 % by its nature."""
        left_out = () if top5_tells(self.num_classes) else ("top-5",)
        cells = [_cells(row) for row in self.rows]
        titles = [title for title in cells[0] if title not in left_out]
        return titles, [[row[title] for title in titles] for row in cells]

    def to_markdown(self) -> str:
        """The table for a person."""
        first, (titles, rows) = self.rows[0], self.table()
        alignment = ["---"] * NUM_NAMES + ["--:"] * (len(titles) - NUM_NAMES)
        lines = [
            "# Accuracy ladder",
            "",
            in_markdown(str(self.overlap)),
            "",
            f"Images: {in_markdown(self.data)}. Agreement and SNR of the logits: with "
            f"{in_markdown(first.name)},",
            f"run by {in_markdown(first.report.engine)}. Latency: one image on all cores, median "
            f"of {TIMED_RUNS}.",
            "",
            f"| {' | '.join(titles)} |",
            f"|{'|'.join(alignment)}|",
        ]
        lines += [f"| {' | '.join(map(_in_cell, row))} |" for row in rows]
        return "\n".join(lines) + "\n"


def _in_cell(text: str) -> str:
    """A cell's text in Markdown; what is empty stays so."""
    return in_markdown(text) if text else ""


def _cells(row: Rung) -> dict[str, str]:
    """The figures of a row as text, by their titles; `NUM_NAMES` names come first."""
    return {
        "form": row.name,
        "engine": row.report.engine,
        "precision": row.report.precision,
        "images": f"{row.report.images:,}",
        "top-1": percent(row.top1, 2),
        "points lost": f"{row.lost_points:+.2f}",
        "top-5": percent(row.top5, 2),
        "agreement": percent(row.agreement, 2),
        "SNR, dB": "exact" if row.snr_db is None else f"{row.snr_db:.1f}",
        "size, MB": f"{row.size_bytes / 1e6:.2f}",
        "latency, ms": "" if row.latency_ms is None else f"{row.latency_ms:.2f}",
    }


def measure_ladder(
    subjects: Sequence[str | Path],
    data: str | Path,
    *,
    split: Split | None = None,
    num_images: int | None = None,
    num_simulated: int = SIMULATED_IMAGES,
    timed: bool = True,
    data_root: str | Path | None = None,
    reading: Mapping[str, Any] | None = None,
    missing_classes: MissingClasses = "refuse",
    on_error: OnError = "fail",
    say: Say = lambda step: None,
) -> Ladder:
    """The ladder of these subjects, in their order.

    Args:
        subjects: checkpoints, run folders, bundles and compiled NPU programs of one network.
        data: a labelled data set, see `open_dataset`.
        split: of it; None: as in `evaluate`.
        num_images: of the split, taken evenly; all by default.
        num_simulated: of them, those that an NPU's simulator answers.
        timed: measure latencies.
        data_root: the folder that a list's or table's paths start from.
        reading: fields of DataOptions, such as a table's columns.
        missing_classes: whether the data set may lack classes of the network.
        on_error: an unreadable image: leave it out and count it, or stop there.
        say: is told of each step.

    Raises:
        UsageError: no subject, or networks of different sizes or classes.
        DensepathError: a subject or the data set cannot be opened.
    """
    subjects = several(subjects)
    if not subjects:
        raise UsageError("name at least one checkpoint, run folder, bundle or program.")
    with ExitStack() as stack:
        named = zip(subjects, short_names(subjects), strict=True)
        forms = [
            stack.enter_context(form) for one, name in named for form in open_forms(one, name=name)
        ]
        _check_alike(forms)
        first = forms[0]
        known = find_known(subjects)
        measured = open_measured(
            known,
            data,
            split,
            read_as=first.preprocess.read_as,
            reading={**({} if data_root is None else {"root": data_root}), **(reading or {})},
            why_unknown=UNKNOWN,
        )
        dataset = measured.dataset
        _check_labels(dataset, first)
        dataset = _subset(dataset, _evenly(dataset, num_images))
        sample = _evenly(dataset, num_simulated)
        everything = sample if first.simulated else _evenly(dataset, None)
        to_logits = match_labels(
            dataset.class_names, first.labels, missing=missing_classes, named=dataset.named
        )
        answered = [
            _answer(
                form,
                dataset,
                sample if form.simulated else everything,
                to_logits=np.array(to_logits),
                on_error=on_error,
                say=say,
            )
            for form in forms
        ]
        latencies = _time(forms, dataset) if timed else [None] * len(forms)
    rows = [
        _row(form, found, answered[0], latency)
        for form, found, latency in zip(forms, answered, latencies, strict=True)
    ]
    read = answered[0].places
    overlap = find_overlap(known, dataset, read, UNKNOWN)
    said = f"{len(read):,} of {dataset.description}"
    if len(read) < len(everything):
        said += f"; {counted(len(everything) - len(read), 'image')} could not be read"
    return Ladder(rows, said, len(first.labels), overlap)


@dataclass(frozen=True)
class _Answered:
    """What a form answered.

    Attributes:
        report: in figures.
        logits: [N, classes].
        right: whether each image's class was the best.
        places: the number of each image in the data set, in order.
    """

    report: Report
    logits: Logits
    right: NDArray[np.bool_]
    places: NDArray[np.int64]


def _check_alike(forms: Sequence[Form]) -> None:
    """Returns when all take the same images and name the same classes.

    Raises:
        UsageError: one does not.
    """
    first = forms[0]
    for form in forms[1:]:
        if form.labels != first.labels or form.preprocess != first.preprocess:
            raise UsageError(
                f"{form.name} has other classes or another preprocessing than {first.name}; a "
                "ladder compares forms of one network."
            )


def _check_labels(dataset: Dataset, first: Form) -> None:
    """Returns when each image has one class.

    Raises:
        LabelMismatchError: images have several.
    """
    if dataset.multi_label:
        raise LabelMismatchError(
            f"{dataset.description}: its images have several labels; a ladder needs one an image "
            f"for {first.name}."
        )


def _evenly(dataset: Dataset, count: int | None) -> NDArray[np.int64]:
    """The numbers of so many of the images, taken evenly; of all where `count` is None."""
    total = len(dataset)
    wanted = total if count is None else min(count, total)
    return np.linspace(0, total - 1, wanted, dtype=np.int64)


def _subset(dataset: Dataset, places: NDArray[np.int64]) -> Dataset:
    """Those images, under the same description."""
    if len(places) == len(dataset):
        return dataset
    return Subset(dataset, places, dataset.description)


def _answer(
    form: Form,
    everything: Dataset,
    places: NDArray[np.int64],
    *,
    to_logits: NDArray[np.int64],
    on_error: OnError,
    say: Say,
) -> _Answered:
    """The form's answers to the images with these numbers.

    Raises:
        ImageError: an image cannot be read, and `on_error` is `fail`.
        DatasetError: none can.
        CheckpointError: an answer is not a number.
    """
    dataset = _subset(everything, places)
    size = SIMULATED_BATCH if form.simulated else BATCH
    loader = EvalLoader(
        dataset, form.preprocess, batch_size=size, on_error=on_error, images="pixels"
    )
    kept: list[Logits] = []

    def run(images: Images) -> Logits:
        say(f"{form.name}: {len(kept) + 1} of {len(loader)} batches")
        kept.append(form.run(images))
        return kept[-1]

    keep = keeps_logits(dataset, form.labels)
    answers = collect_answers(run, loader, to_logits=to_logits, keep_logits=keep)
    threshold = form.thresholds or THRESHOLD
    report = make_report(
        answers, dataset, form, subject=form.name, settings={}, threshold=threshold
    )
    return _Answered(report, np.concatenate(kept), answers.ranks < 1, places[answers.indices])


def _time(forms: Sequence[Form], dataset: Dataset) -> list[float | None]:
    """The median of each on one image, in turns, in milliseconds."""
    batches = EvalLoader(
        dataset, forms[0].preprocess, batch_size=1, on_error="skip", images="pixels"
    )
    image = next(batch.images.numpy() for batch in batches if len(batch.images))
    spent: list[list[float]] = [[] for _ in forms]
    for turn in range(WARM_RUNS + TIMED_RUNS):
        for form, times in zip(forms, spent, strict=True):
            if form.simulated:
                continue
            start = time.perf_counter()
            form.run(image)
            if turn >= WARM_RUNS:
                times.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(times) if times else None for times in spent]


def _row(form: Form, found: _Answered, first: _Answered, latency_ms: float | None) -> Rung:
    """The figures of a form, beside the first form's on the same images."""
    places = np.searchsorted(first.places, found.places)
    reference, right = first.logits[places], first.right[places]
    ratio = signal_to_noise(found.logits, reference)
    return Rung(
        found.report,
        agreement=float((found.logits.argmax(1) == reference.argmax(1)).mean()),
        snr_db=ratio if math.isfinite(ratio) else None,
        first_top1=float(right.mean()),
        size_bytes=form.size_bytes,
        latency_ms=latency_ms,
    )

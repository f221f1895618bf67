"""Which images a figure is about, and whether the network was trained on them.

On the line: between a checkpoint that says what it was trained on and the loader of `evaluate`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.bundle import is_bundle
from densepath.data.dataset import Dataset, Split, Subset
from densepath.data.fingerprint import fingerprints
from densepath.data.options import DEFAULT_OPTIONS, DataOptions
from densepath.data.record import Record, count_in, place_of
from densepath.data.sources import built_in
from densepath.data.splits import Splits, open_splits
from densepath.errors import DatasetError, UsageError
from densepath.files import expand_user
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.checkpoint_file import is_checkpoint
from densepath.weights.subject import open_checkpoint
from densepath.weights.trained_on import RECORD_NAME, TrainedOn


@dataclass(frozen=True)
class Measured:
    """The images of a figure.

    Attributes:
        dataset: them.
        split: of the source; None of a data set that was given open.
        rule: how they were chosen, in words.
    """

    dataset: Dataset
    split: Split | None
    rule: str


@dataclass(frozen=True)
class Overlap:
    """What a network has seen of the images of a figure.

    Attributes:
        images: their number.
        trained_on: those of them that it was trained on; None where that is not known.
        chosen_by: those that its best epoch was chosen on; None likewise.
        why_unknown: why it is not known, or what of it is not.
    """

    images: int
    trained_on: int | None
    chosen_by: int | None
    why_unknown: str = ""

    def __str__(self) -> str:
        """One sentence for the first line of a report."""
        one = self.images == 1
        if self.trained_on is None:
            images = "the image was" if one else f"the {self.images:,} images were"
            return f"it is not known whether {images} trained on: {self.why_unknown}."
        if self.trained_on:
            count = f"{self.trained_on:,} of {self.images:,} images"
            if self.trained_on == self.images:
                count = "the one image" if one else f"all {self.images:,} images"
            was = "was" if self.trained_on == 1 else "were"
            return f"{count} {was} trained on: this figure is not about new images."
        said = "the one image was not" if one else f"none of the {self.images:,} images was"
        chosen = ""
        if self.chosen_by:
            them = "it" if one else "them"
            them = them if self.chosen_by == self.images else f"{self.chosen_by:,} of them"
            chosen = f"; the best epoch was chosen on {them}, so the figure leans upwards"
        unknown = f" ({self.why_unknown})" if self.why_unknown else ""
        return f"{said} trained on{chosen}{unknown}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {"trained_on": self.trained_on, "chosen_by": self.chosen_by}
        return {"about": str(self), **counts}


def find_trained_on(subject: str | Path | Checkpoint, checkpoint: Checkpoint) -> TrainedOn | None:
    """What the checkpoint was trained on, with all fingerprints where its run folder is there."""
    known = checkpoint.trained_on
    if known is None or isinstance(subject, Checkpoint):
        return known
    path = Path(subject)
    folder = path if path.is_dir() else path.parent
    if not (folder / RECORD_NAME).is_file():
        return known
    record = Record.load(folder / RECORD_NAME)
    if known.trained is None:
        known = known.with_record(record)
    places: dict[str, Any] = record.follow(folder)
    source = places.pop("source")
    return dataclasses.replace(
        known, source=source, options=dataclasses.replace(known.options, **places)
    )


def find_known(subjects: Sequence[str | Path]) -> TrainedOn | None:
    """What the first of these that says it was trained on; None where none does."""
    for subject in map(Path, subjects):
        is_run = subject.is_dir() and (subject / RECORD_NAME).is_file()
        if is_run or (subject.is_file() and is_checkpoint(subject)):
            known = find_trained_on(subject, open_checkpoint(subject))
            if known is not None:
                return known
    return None


def open_measured(
    known: TrainedOn | None,
    data: str | Path | Dataset | None,
    split: Split | None,
    *,
    channels: int,
    reading: Mapping[str, Any],
    why_unknown: str,
    chooses: bool = False,
) -> Measured:
    """The images to measure on.

    The run's own source is read as in the training: its columns, seed and fraction. By default
    its test images are taken, else those that it held out; of another source the test images,
    else the validation images, else all.

    Args:
        known: what the checkpoint was trained on; None where that is not known.
        data: a source, an open data set, or None for what it was trained on.
        split: of the source; None for the default.
        channels: 3 for RGB, 1 for grayscale.
        reading: fields of DataOptions in place of the run's own.
        why_unknown: said where `known` and `data` are None.
        chooses: something is chosen on them: by default validation images are taken, as far as
            the source has some, so that the test images stay for figures.

    Raises:
        UsageError: no data, and it is not known what the network was trained on.
        DatasetError: the source cannot be read, or has no such split.
    """
    if data is not None and not isinstance(data, str | Path):
        return Measured(data, None, data.description)
    if data is None and known is None:
        raise UsageError(
            "it is not known what images to measure on: name labelled ones by --data SOURCE, for "
            f"{why_unknown}."
        )
    own = known is not None and (data is None or _is_same(str(data), known.source))
    source = known.source if known is not None and own else str(data)
    options = dataclasses.replace(_options(known, own=own), **reading)
    splits = _open(source, channels, options, own=data is None)
    if known is not None and not own and _is_copy(splits, known):
        own = True
    usual = _usual_split(splits, own=own)
    if chooses and splits.validation is not None and (own or not _is_whole(splits)):
        usual = "validation"
    chosen = split or usual
    dataset, rule = splits.of(chosen), splits.rules[chosen]
    if chosen == "validation" and known is not None:
        changed = _without_trained(dataset, known, source, channels, options)
        if changed is not None:
            dataset, rule = changed, changed.description
    return Measured(dataset, chosen, rule)


def _options(known: TrainedOn | None, *, own: bool) -> DataOptions:
    """How a source is read: as in the training where it is that one; else drawn alike."""
    if known is None:
        return DEFAULT_OPTIONS
    if own:
        return known.options
    fraction, seed = known.options.validation_fraction, known.options.seed
    return dataclasses.replace(DEFAULT_OPTIONS, validation_fraction=fraction, seed=seed)


def _open(source: str, channels: int, options: DataOptions, *, own: bool) -> Splits:
    """The parts of a source.

    Raises:
        DatasetError: it cannot be read; of the training's own one with the cure.
    """
    try:
        return open_splits(source, channels=channels, options=options)
    except DatasetError as error:
        if not own or Path(source).exists():
            raise
        raise DatasetError(
            f"it was trained on {source}, which is not there. Name the images: --data SOURCE"
        ) from error


def _is_same(source: str, other: str) -> bool:
    """Whether two sources are one: the same name, or the same file or folder."""
    known = built_in(source)
    if known is not None or place_of(source) == other:
        return known == built_in(other)
    here, there = expand_user(source), Path(other)
    return here.exists() and there.exists() and here.samefile(there)


def _is_whole(splits: Splits) -> bool:
    """Whether the source has no splits of its own, so that `test` is all of it."""
    apart = "test" not in splits.separate and splits.test is not None
    return apart and splits.test is not splits.validation


def _is_copy(splits: Splits, known: TrainedOn) -> bool:
    """Whether a source without splits is a copy of the training's: it has all the images that
    the run held out, and some that it was trained on.
    """
    if not _is_whole(splits) or known.trained is None or known.judged is None:
        return False
    marks = fingerprints(splits.of("test"))
    return bool(np.isin(known.judged, marks).all()) and count_in(marks, known.trained) > 0


def _usual_split(splits: Splits, *, own: bool) -> Split:
    """The split that is measured unless another is asked for."""
    if "test" in splits.separate:
        return "test"
    if own or splits.test is splits.validation:
        return "validation"
    return "test"


def _without_trained(
    dataset: Dataset, known: TrainedOn, source: str, channels: int, options: DataOptions
) -> Subset | None:
    """The images that were not trained on, where what is held out now is not what was; else None.

    A set to which images were added since is divided otherwise by the same rule.
    """
    if known.trained is None or known.judged is None:
        return None
    marks = fingerprints(dataset)
    if np.array_equal(np.unique(marks), known.judged) or not count_in(marks, known.trained):
        return None
    undivided = dataclasses.replace(options, validation_fraction=0.0)
    splits = open_splits(source, channels=channels, options=undivided)
    if splits.validation is not None:  # of its own: nothing is drawn
        return None
    everything = splits.of("train")
    fresh = np.flatnonzero(~np.isin(fingerprints(everything), known.trained))
    if not len(fresh):
        return None
    rule = "the images that were not trained on, for the set has changed since the training"
    return Subset(everything, fresh, f"{everything.description}; {rule}")


def find_overlap(
    known: TrainedOn | None,
    dataset: Dataset,
    answered: NDArray[np.int64],
    why_unknown: str,
) -> Overlap:
    """How many of the images of a figure the network was trained on.

    Args:
        known: what it was trained on; None where that is not known.
        dataset: the images.
        answered: the numbers of those that could be read.
        why_unknown: said where `known` is None.
    """
    count = len(answered)
    if known is None:
        return Overlap(count, None, None, why_unknown)
    if known.trained is None or known.judged is None:
        why = (
            f"it was trained on {known.num_images[0]:,} images, too many for the checkpoint to "
            "keep; its run folder knows them"
        )
        return Overlap(count, None, None, why)
    if not hasattr(dataset, "fingerprint"):
        return Overlap(count, None, None, "the data set does not tell contents (`fingerprint`)")
    marks = fingerprints(Subset(dataset, answered, ""))
    start = known.unknown_start
    said = f"what its first weights, {start}, were trained on is not known" if start else ""
    chosen_by = count_in(marks, known.judged) if known.is_chosen else 0
    return Overlap(count, count_in(marks, known.trained), chosen_by, said)


def why_unknown(subject: str | Path | Checkpoint) -> str:
    """Why a subject without a record does not say what it was trained on."""
    if not isinstance(subject, Checkpoint) and is_bundle(Path(subject)):
        return (
            "a bundle does not keep what its network was trained on; evaluate the run folder or "
            "checkpoint that it was exported from"
        )
    return "its weights do not say what they were trained on"

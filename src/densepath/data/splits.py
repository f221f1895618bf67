"""A source → its training, validation and test images, and in words how each was made.

A source's own splits are kept. What is missing is made: validation images are held out of the
training images, by class; a source without any splits is held out of likewise, and all of it
stands for its test images; validation images stand for test images where there are no others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from densepath.data.aligned import align, as_multi_label, check_single_label
from densepath.data.dataset import SPLITS, Dataset, Split, check_split
from densepath.data.groups import NamedGroups
from densepath.data.holdout import hold_out
from densepath.data.options import DEFAULT_OPTIONS, DataOptions
from densepath.data.parts import WHOLE, Part, Parts
from densepath.data.sources import find_parts
from densepath.errors import DatasetError
from densepath.files import expand_user

__all__ = ["DataOptions", "Splits", "open_split", "open_splits"]


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set.

    Attributes:
        train, validation, test: the images; None where there are none.
        rules: for each of the three how it was made, or why there is none.
        notes: what was ignored, guessed or is doubtful, one sentence each.
        source: as it was named.
        separate: the parts that have no image in common, unless one is in the source twice.
    """

    train: Dataset | None
    validation: Dataset | None
    test: Dataset | None
    rules: dict[str, str]
    notes: tuple[str, ...]
    source: str
    separate: tuple[Split, ...] = field(default=SPLITS)

    def __repr__(self) -> str:
        """The source and the number of images of each part, in one line."""
        parts = {split: getattr(self, split) for split in SPLITS}
        said = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part)
        return f"<Splits of {self.source}: {said or 'no images'}>"

    def of(self, split: Split) -> Dataset:
        """The images of a split.

        Raises:
            DatasetError: there are none; the message says why.
            UnknownNameError: no such split.
        """
        check_split(split)
        found = {"train": self.train, "validation": self.validation, "test": self.test}[split]
        if found is None:
            raise _none(self.source, split, self.rules[split])
        return found


def open_splits(
    source: str | Path, *, channels: int = 3, options: DataOptions = DEFAULT_OPTIONS
) -> Splits:
    """All parts of a data set.

    Args:
        source: `digits`, `cifar10`, a folder, a list file, a table or a CIFAR-10 archive.
        channels: 3 for RGB, 1 for grayscale.
        options: how the source is to be read.

    Raises:
        DatasetError: no such source, or one that cannot be read or understood.
    """
    division = _Division(source, channels, options)
    made = {split: division.open(split) for split in SPLITS}
    return Splits(
        **made,
        rules={split: division.rule(split) for split in SPLITS},
        notes=tuple(dict.fromkeys(division.parts.notes)),
        source=str(source),
        separate=division.separate,
    )


def open_split(source: str | Path, split: Split, *, channels: int, options: DataOptions) -> Dataset:
    """One part of a data set; the others are not read unless it is made of them.

    Raises:
        DatasetError: no such source, one that cannot be read, or one without that part.
        UnknownNameError: no such split.
    """
    check_split(split)
    division = _Division(source, channels, options)
    dataset = division.open(split)
    if dataset is None:
        raise _none(str(source), split, division.rule(split))
    return dataset


def _none(source: str, split: Split, why: str) -> DatasetError:
    """The error of a part that there is not."""
    return DatasetError(f"{source} has no {split} images: {why}")


class _Division:
    """The parts of one source, opened at most once."""

    def __init__(self, source: str | Path, channels: int, options: DataOptions) -> None:
        self.source, self.options = str(source), options
        self.parts: Parts = find_parts(source, channels, options)
        self._opened: dict[Part, Dataset] = {}
        self._groups = None
        if options.group_pattern is not None:
            place = expand_user(source)
            base = place if place.is_dir() else place.parent
            self._groups = NamedGroups(options.group_pattern, base)

    def open(self, split: Split) -> Dataset | None:
        """The images of a split; None where there are none."""
        origin = self._origin(split)
        if origin == "held out":
            train, validation, _ = self._held_out
            return train if split == "train" else validation
        return None if origin is None else self._own(origin)

    def rule(self, split: Split) -> str:
        """How the split is made, or why there is none."""
        origin = self._origin(split)
        if origin == "held out":
            rule = self._held_out[2]
            if split == "validation":
                return rule
            of = self.parts.rules[self._trained_on]
            return of if self._held_out[1] is None else f"{of}, without the validation images"
        if origin is None:
            return self._why_none(split)
        if origin == WHOLE:
            return "all images, including those trained on"
        if origin != split:
            return f"the {origin} images"
        return self.parts.rules[origin]

    @property
    def separate(self) -> tuple[Split, ...]:
        """The splits that were not made of one another."""
        has = self.parts.openers
        return SPLITS if "test" in has else ("train", "validation")

    def _origin(self, split: Split) -> Part | Literal["held out"] | None:
        """The part of the source that a split is, or what else it is made by."""
        has = self.parts.openers
        if split == "test":
            order: tuple[Part, ...] = ("test", "validation", WHOLE)
            return next((part for part in order if part in has), None)
        if WHOLE in has or ("train" in has and "validation" not in has):
            return "held out"
        return split if split in has else None

    @property
    def _trained_on(self) -> Part:
        """The part that is held out of."""
        return WHOLE if WHOLE in self.parts.openers else "train"

    @cached_property
    def _held_out(self) -> tuple[Dataset, Dataset | None, str]:
        """Training and validation images of one part, and the rule."""
        of = "images" if self._trained_on == WHOLE else "training images"
        fraction, seed = self.options.validation_fraction, self.options.seed
        return hold_out(self._own(self._trained_on), fraction, seed, of=of)

    def _own(self, part: Part) -> Dataset:
        """A part as the source has it."""
        if part not in self._opened:
            dataset = self._aligned(part, self.parts.openers[part]())
            self._opened[part] = dataset if self._groups is None else self._groups.put(dataset)
        return self._opened[part]

    def _aligned(self, part: Part, dataset: Dataset) -> Dataset:
        """The part with as many labels an image, and the class numbers, as it is to have.

        Raises:
            DatasetError: it has several labels where the options say one.
            LabelMismatchError: it has classes that the training images do not have.
        """
        if self.options.multi_label:
            dataset = as_multi_label(dataset)
        elif self.options.multi_label is not None:
            check_single_label(dataset)
        if part in ("train", WHOLE) or "train" not in self.parts.openers:
            return dataset
        return align(dataset, self._own("train")) if self.parts.mixed else dataset

    def _why_none(self, split: Split) -> str:
        """Why there are no images of the split, and what to do."""
        has = ", ".join(f"{part} ({self.parts.rules[part]})" for part in self.parts.openers)
        if split == "test":
            return (
                f"it has neither `test` nor `validation`, only {has}. Name a source of test "
                "images (data.test), or the training images themselves to evaluate on them."
            )
        return f"it has only {has}. Name the others: data.{split} is a folder in it or a source."

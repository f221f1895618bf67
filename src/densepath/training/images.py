"""The images of a training: opened as the recipe says, recorded, and compared on a resume.

On the line: between the recipe and the loaders. What is found here goes into the run folder
(`images.npz`), into every checkpoint, onto standard error and into the run's README.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from densepath.data.dataset import Dataset, Split
from densepath.data.fingerprint import fingerprints
from densepath.data.inspect import inspect_splits
from densepath.data.options import DataOptions
from densepath.data.record import NO_FINGERPRINTS, Fingerprints, Part, Record, count_in
from densepath.data.splits import Splits, open_splits
from densepath.errors import RecipeError
from densepath.training.recipe import DataSection, Recipe
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.trained_on import TrainedOn

RECORD_NAME = "images.npz"
DEFAULT_FRACTION = 0.1
# Fields of `data` that say where the images are, not which they are.
PLACES = ("source", "train", "validation", "test", "root")


@dataclass(frozen=True)
class RunImages:
    """What a run is trained and judged on.

    Attributes:
        train, judged: the images of the steps, and those that each epoch is judged on.
        rule: how the latter were chosen, in a sentence.
        has_test: whether the set has test images besides.
    """

    train: Dataset
    judged: Dataset
    splits: Splits = field(repr=False)
    rule: str
    has_test: bool


@dataclass(frozen=True)
class Memory:
    """What the leading process keeps of a run's images.

    Attributes:
        record: each image's name, label and fingerprint.
        trained_on: the compact form for checkpoints.
        text: a table of the images for a person.
        doubts: what makes the figures of this run less than they seem, a sentence each.
    """

    record: Record
    trained_on: TrainedOn
    text: str
    doubts: tuple[str, ...]


def to_options(recipe: Recipe) -> DataOptions:
    """How the recipe's source is to be read."""
    data = recipe.data
    fraction = data.validation_fraction
    return DataOptions(
        train=data.train,
        validation=data.validation,
        test=data.test,
        root=data.root,
        validation_fraction=default_fraction(data) if fraction is None else fraction,
        seed=recipe.seed,
        path_column=data.path_column,
        label_column=data.label_column,
        split_column=data.split_column,
        group_column=data.group_column,
        class_columns=data.class_columns,
        multi_label=data.multi_label,
    )


def default_fraction(data: DataSection) -> float:
    """What is held out where the recipe does not say: nothing when the test images judge."""
    return 0.0 if data.evaluate_on == "test" else DEFAULT_FRACTION


def open_images(recipe: Recipe) -> RunImages:
    """The images to train and to judge on.

    Raises:
        RecipeError: nothing is left to judge the epochs on.
        DatasetError: the source cannot be read.
    """
    data, options = recipe.data, to_options(recipe)
    splits = open_splits(data.source, channels=data.channels or 3, options=options)
    if splits.train is None:
        raise RecipeError(
            f"{data.source} has no training images. Name their folder or file: "
            "--set data.train=NAME"
        )
    judged = splits.test if data.evaluate_on == "test" else splits.validation
    if judged is None or (data.evaluate_on == "test" and not splits.has_own_test):
        raise RecipeError(_no_judges(data, options))
    return RunImages(
        splits.train, judged, splits, splits.rules[data.evaluate_on], splits.has_own_test
    )

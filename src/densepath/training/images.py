"""The images of a training: opened as the recipe says, recorded, and compared on a resume.

On the line: between the recipe and the loaders. What is found here goes into the run folder
(`images.npz`), into every checkpoint, onto standard error and into the run's README.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from densepath.data.dataset import Dataset, Split
from densepath.data.fingerprint import NO_FINGERPRINTS, Fingerprints, fingerprints
from densepath.data.inspect import inspect_splits
from densepath.data.record import Record, count_in
from densepath.data.recorded_part import RecordedPart
from densepath.data.sources import built_in
from densepath.data.splits import Splits, open_splits
from densepath.errors import CheckpointError, DatasetError, RecipeError
from densepath.training.recipe import Recipe
from densepath.training.recipe_sections import DataSection
from densepath.training.resolve import to_intensity
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.trained_on import RECORD_NAME, TrainedOn

# Fields of `data` that say where the images are, not which they are.
PLACES = ("source", "train", "validation", "test", "root")


@dataclass(frozen=True)
class RunImages:
    """What a run is trained and judged on.

    Attributes:
        train, judged: the images of the steps, and those that each epoch is judged on.
        judged_on: the split that the latter are.
        splits: all parts of the source.
    """

    train: Dataset
    judged: Dataset
    judged_on: Split
    splits: Splits = field(repr=False)


@dataclass(frozen=True)
class Memory:
    """What the leading process keeps of a run's images.

    Attributes:
        record: each image's name, label and fingerprint.
        trained_on: the compact form for checkpoints; None for a run whose record is missing.
        text: a table of the images for a person.
        doubts: what makes the figures of this run less than they seem, a sentence each.
        seen: of the images that are judged on, and of the test images that are kept for
            `evaluate`, how many were trained on, by this run or for its first weights.
    """

    record: Record
    trained_on: TrainedOn | None
    text: str
    doubts: tuple[str, ...]
    seen: Mapping[str, int]

    @property
    def notes(self) -> list[str]:
        """The doubts as lines for a person."""
        return [f"note: {doubt}" for doubt in self.doubts]


def part_places(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a recipe that say where the images are, and the other ones of `given`."""
    data = dict(given.get("data", {}))
    places = {name: data.pop(name) for name in PLACES if name in data}
    others = {name: value for name, value in given.items() if name != "data"}
    return {"data": places} if places else {}, others | ({"data": data} if data else {})


def follow_images(recipe: Recipe, folder: Path) -> Recipe:
    """`recipe` with the places of its images, should they have moved together with the folder.

    Raises:
        DatasetError: the folder's record is damaged; or the images are neither where they were
            nor where they would be then.
    """
    source = recipe.data.source
    if built_in(source) is not None or Path(source).exists():
        return recipe
    data = recipe.data
    if (folder / RECORD_NAME).is_file():
        record = Record.load(folder / RECORD_NAME)
        found = {
            p: v for p, v in record.follow(folder).items() if getattr(data, p) == record.places[p]
        }
        data = data.model_copy(update=found)
    if not Path(data.source).exists():
        raise DatasetError(
            f"the images of {folder} are to be at {source}, and nothing is there (seen from "
            f"{Path.cwd()}). If they are elsewhere: densepath train {folder} --set "
            "data.source=PLACE"
        )
    return recipe.model_copy(update={"data": data})


def open_images(recipe: Recipe) -> RunImages:
    """The images to train and to judge on.

    Raises:
        RecipeError: nothing is left to judge the epochs on.
        DatasetError: the source cannot be read.
    """
    data, channels = recipe.data, recipe.data.channels
    assert channels is not None
    splits = open_splits(
        data.source,
        channels=channels,
        intensity=to_intensity(recipe.preprocess.intensity),
        options=data.to_options(recipe.seed),
    )
    if data.evaluate_on == "test" and "test" not in splits.separate:
        raise RecipeError(
            f"data.evaluate_on is test, and {data.source} has no test images of its own. Name "
            "them (data.test=SOURCE), or judge on images that are held out: "
            "data.evaluate_on=validation."
        )
    if data.evaluate_on == "validation" and splits.validation is None and not data.held_out:
        raise RecipeError(
            f"data.validation_fraction is 0 and {data.source} has no validation images, so there "
            "is nothing to judge an epoch on. Hold some out (data.validation_fraction=0.1), name "
            "them (data.validation=SOURCE), or judge on the test images, as papers do "
            "(data.evaluate_on=test)."
        )
    return RunImages(splits.of("train"), splits.of(data.evaluate_on), data.evaluate_on, splits)


def remember(
    images: RunImages,
    recipe: Recipe,
    folder: Path,
    checkpoint: Checkpoint | None,
    *,
    goes_on: bool,
) -> Memory:
    """The images as the run folder, its checkpoints and its user are to know them.

    Args:
        images: of the run; the contents of each are read for its fingerprint.
        recipe: a resolved one.
        folder: of the run.
        checkpoint: the first weights; None for new ones.
        goes_on: the folder holds the state of a training under way.

    Raises:
        CheckpointError: that training was of other images; the message names the first.
        DatasetError: the folder's record is damaged.
    """
    path = folder / RECORD_NAME
    kept = Record.load(path) if goes_on and path.is_file() else None
    record = _record(images, recipe, folder, _seen_before(checkpoint, recipe, kept))
    if kept is not None:
        _check_same(kept, record, folder)
    marks: dict[str, Fingerprints] = {s: part.fingerprints for s, part in record.parts.items()}
    if (test := kept_test(images)) is not None:
        marks["test"] = fingerprints(test)
    doubts = list(_doubts(images, recipe, record, marks))
    trained_on = None
    if goes_on and kept is None:
        doubts.append(
            f"{folder} was begun by a densepath that did not keep which images it trained on: "
            "only their numbers are compared, and what is held out of a set without splits is "
            "drawn by class now, so images that were trained on may be among it."
        )
    else:
        trained_on = _trained_on(images, recipe, record)
    table = inspect_splits(images.splits, marks).to_text()
    trained = np.concatenate([record.parts["train"].fingerprints, record.before])
    seen = {split: count_in(part, trained) for split, part in marks.items() if split != "train"}
    memory = Memory(record, trained_on, "", tuple(doubts), seen)
    return replace(memory, text="\n".join([table, *memory.notes, _judges(images)]))


def kept_test(images: RunImages) -> Dataset | None:
    """The test images that have no part in the training; None where there are none."""
    apart = images.judged_on != "test" and "test" in images.splits.separate
    return images.splits.test if apart else None


def _seen_before(
    checkpoint: Checkpoint | None, recipe: Recipe, kept: Record | None
) -> tuple[Fingerprints, str | None]:
    """The images that the first weights had seen; and their name, where that is not known."""
    if kept is not None:
        return kept.before, kept.unknown_start
    if checkpoint is None:
        return NO_FINGERPRINTS, None
    start = checkpoint.trained_on
    if start is None or start.trained is None:
        return NO_FINGERPRINTS, str(recipe.model.weights)
    return start.trained, start.unknown_start


def _record(
    images: RunImages, recipe: Recipe, folder: Path, before: tuple[Fingerprints, str | None]
) -> Record:
    """The record of these images."""
    data, bases = recipe.data, list(_bases(recipe.data))
    datasets: dict[Split, Dataset] = {"train": images.train, images.judged_on: images.judged}
    parts = {
        split: RecordedPart.of(dataset, bases, fingerprints(dataset))
        for split, dataset in datasets.items()
    }
    train, here = images.train, os.path.abspath(folder)  # noqa: PTH100
    places = {name: str(place) for name in PLACES if (place := getattr(data, name)) is not None}
    return Record(train.class_names, train.multi_label, places, here, parts, *before)


def _check_same(kept: Record, now: Record, folder: Path) -> None:
    """Raise unless the images are those that the run was trained and judged on.

    Raises:
        CheckpointError: they differ.
    """
    differences, source = kept.find_differences(now), now.places["source"]
    if differences:
        raise CheckpointError(
            f"{folder} was trained on other images than {source} has now: "
            f"{'; '.join(differences)}. Put them back; or, if its images are elsewhere: "
            f"densepath train {folder} --set data.source=PLACE; or start anew from its weights: "
            f"densepath train --weights {folder} --data {source} --output NEW_FOLDER"
        )


def _trained_on(images: RunImages, recipe: Recipe, record: Record) -> TrainedOn:
    """What the checkpoints of the run say of their images."""
    return TrainedOn(
        recipe.data.source,
        recipe.data.to_options(recipe.seed),
        {split: images.splits.rules[split] for split in record.parts},
        images.judged_on,
        (len(images.train), len(images.judged)),
        NO_FINGERPRINTS,
        NO_FINGERPRINTS,
        record.unknown_start,
    ).with_record(record)


def _bases(data: DataSection) -> Iterator[Path]:
    """The folders that names of images may lie in."""
    for place in PLACES:
        named = getattr(data, place)
        if named is None:
            continue
        for path in (Path(named), Path(data.source) / named):
            if path.exists():
                yield path if path.is_dir() else path.parent


def _judges(images: RunImages) -> str:
    """Which images judge the epochs, and which are kept from the training."""
    said = f"each epoch is judged on the {len(images.judged):,} {images.judged_on} images"
    kept = kept_test(images)
    if kept is None:
        return f"{said}."
    return f"{said}; the {len(kept):,} test images are kept for `densepath evaluate`."


def _doubts(
    images: RunImages, recipe: Recipe, record: Record, marks: Mapping[str, Fingerprints]
) -> Iterator[str]:
    """What makes this run's figures less than they seem; `marks` are fingerprints of the parts."""
    name, count = images.judged_on, len(images.judged)
    if name == "test":
        yield (
            f"the best epoch is chosen on the {count:,} test images: no images are left that had "
            "no part in the training (data.evaluate_on=validation keeps them for that)."
        )
        held = images.splits.validation
        if held is not None:
            yield (
                f"the {len(held):,} validation images are neither trained on nor judged by "
                "(data.validation_fraction=0 trains on those that are held out)."
            )
    weights = f"the first weights, {recipe.model.weights}, were trained on"
    seen = count_in(marks[name], record.before)
    if seen:
        yield (
            f"{weights} {seen:,} of the {count:,} {name} images: the scores lean upwards (--seed "
            "and --set data.validation_fraction as in that training hold out the same images)."
        )
    seen = 0 if name == "test" else count_in(marks.get("test", NO_FINGERPRINTS), record.before)
    if seen:
        yield (
            f"{weights} {seen:,} of the {len(marks['test']):,} test images: no figure of those is "
            "about new images."
        )

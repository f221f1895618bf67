"""How a source of images is to be read: which part is which split, what a table's columns say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from densepath.choices import Uncertain

TABLE_OPTIONS = ("path_column", "label_column", "split_column", "group_column", "class_columns")
FILE_OPTIONS = ("root",)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How a source is to be read.

    Attributes:
        train, validation, test: the folder inside the source that is this split (`.` as `train`:
            the source's own folders are classes, whatever they are called), or a source of its
            own for it.
        root: the folder that a list's or table's paths start from; its own by default.
        validation_fraction: the share of the training images that is held out where there is no
            validation split; 0 holds none out.
        seed: draws it.
        path_column: a table's column of files.
        label_column: its column of class names.
        split_column: its column of splits.
        group_column: its column of patients, scenes or other groups that are never divided.
        class_columns: its columns of 0 and 1, one a class.
        multi_label: whether an image can have several classes; None: as the source shows.
        uncertain: what a label of −1 is: `mask` (not known), or a no or a yes.
        group_pattern: a regular expression; images in whose paths it finds the same are a group.
    """

    train: str | None = None
    validation: str | None = None
    test: str | None = None
    root: str | Path | None = None
    validation_fraction: float = 0.1
    seed: int = 0
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    class_columns: tuple[str, ...] | None = None
    multi_label: bool | None = None
    uncertain: Uncertain = "mask"
    group_pattern: str | None = None


DEFAULT_OPTIONS = DataOptions()

"""What a checkpoint was trained on: where its images were, how they were read, which they were.

On the line: training writes it beside the weights, under a metadata key of its own that other
readers pass over; evaluation tells by it whether the images of a figure were trained on. An
exported bundle carries none of it: it is as large as the images are many, and names a folder of
one machine.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from densepath.data.fingerprint import NO_FINGERPRINTS, Fingerprints
from densepath.data.options import DataOptions
from densepath.data.record import Record
from densepath.files import to_json

METADATA_KEY = "densepath_trained_on"
# Files of a run folder: see `data/record.py` and `training/run_folder.py`.
RECORD_NAME, RECIPE_NAME = "images.npz", "recipe.yaml"
FORMAT = 1
# 1.6 MB, or 2.1 MB as text. Of more images only the run folder knows which they were.
MOST_FINGERPRINTS = 200_000


@dataclass(frozen=True)
class TrainedOn:
    """What a checkpoint was trained on.

    Attributes:
        source: absolute, or the name of a set that comes with densepath.
        options: how it was read, with the seed and the fraction that drew the parts.
        rules: by split, a sentence on how it was made.
        judged_on: the split that the best epoch was chosen on.
        num_images: of training and of that split.
        trained: sorted fingerprints of all images that the weights have seen, those of their
            first weights included; None: too many for a checkpoint.
        judged: those of the images that the best epoch was chosen on; None likewise.
        unknown_start: the first weights, where nothing says what those were trained on.
        is_chosen: whether these weights are those of the best epoch.
    """

    source: str
    options: DataOptions
    rules: dict[str, str]
    judged_on: str
    num_images: tuple[int, int]
    trained: Fingerprints | None = field(repr=False)
    judged: Fingerprints | None = field(repr=False)
    unknown_start: str | None = None
    is_chosen: bool = False

    def to_text(self) -> str:
        """One line of JSON for a checkpoint's metadata, without fingerprints that are too many."""
        parts = (self.trained, self.judged)
        few = sum(len(part) for part in parts if part is not None) <= MOST_FINGERPRINTS
        values = {
            "format": FORMAT,
            "source": self.source,
            "options": _to_dict(self.options),
            "rules": self.rules,
            "judged_on": self.judged_on,
            "num_images": list(self.num_images),
            "trained": _encode(self.trained) if few else None,
            "judged": _encode(self.judged) if few else None,
            "unknown_start": self.unknown_start,
            "is_chosen": self.is_chosen,
        }
        return to_json(values)

    @classmethod
    def from_text(cls, text: str) -> TrainedOn:
        """The record that `to_text` wrote.

        Raises:
            ValueError: it is damaged, or of a later format.
        """
        try:
            values: Mapping[str, Any] = json.loads(text)
            if values["format"] != FORMAT:
                raise ValueError(f"it is of format {values['format']!r}, not {FORMAT}")
            trained, judged = values["num_images"]
            return cls(
                str(values["source"]),
                _to_options(values["options"]),
                {str(split): str(rule) for split, rule in values["rules"].items()},
                str(values["judged_on"]),
                (int(trained), int(judged)),
                _decode(values["trained"]),
                _decode(values["judged"]),
                values["unknown_start"],
                bool(values["is_chosen"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def with_record(self, record: Record) -> TrainedOn:
        """The same with the fingerprints of the run folder's record."""
        parts = record.parts
        judged = [part.fingerprints for split, part in parts.items() if split == self.judged_on]
        trained = np.union1d(parts["train"].fingerprints, record.before)
        return dataclasses.replace(
            self, trained=trained, judged=np.unique(np.concatenate([NO_FINGERPRINTS, *judged]))
        )


def _to_dict(options: DataOptions) -> dict[str, Any]:
    """The options that are not as by default, as JSON values."""
    values = dataclasses.asdict(options)
    values["root"] = None if options.root is None else str(options.root)
    plain = dataclasses.asdict(DataOptions())
    always = ("validation_fraction", "seed")
    return {name: v for name, v in values.items() if name in always or v != plain[name]}


def _to_options(values: Mapping[str, Any]) -> DataOptions:
    """The options that `_to_dict` wrote.

    Raises:
        TypeError: a field that is unknown to this densepath.
    """
    columns = values.get("class_columns")
    return DataOptions(**{**values, "class_columns": None if columns is None else tuple(columns)})


def _encode(fingerprints: Fingerprints | None) -> str | None:
    """The fingerprints, little-endian, eight bytes each, in base64."""
    if fingerprints is None:
        return None
    return base64.b64encode(fingerprints.astype("<u8").tobytes()).decode("ascii")


def _decode(text: str | None) -> Fingerprints | None:
    """The fingerprints that `_encode` wrote.

    Raises:
        ValueError: it is not that.
    """
    if text is None:
        return None
    return np.frombuffer(base64.b64decode(text, validate=True), "<u8").astype(np.uint64)

"""The record of a training's images: the name, label and fingerprint of each, in one file.

On the line: training writes it into the run folder (`images.npz`) and compares it on a resume;
evaluation asks it which images were trained on. The file is a plain `.npz` of typed arrays: for
each part `PART.names` (bytes, a NUL between two names), `PART.targets` and `PART.fingerprints`
(uint64), `before` (uint64), and `about`, a JSON document.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Split
from densepath.data.differences import differing_classes, differing_images
from densepath.data.fingerprint import NO_FINGERPRINTS, Fingerprints
from densepath.data.recorded_part import RecordedPart
from densepath.data.sources import built_in
from densepath.errors import DatasetError
from densepath.files import expand_user, write_atomically

FORMAT = 1
# What NumPy and zipfile raise for files that are none of theirs any more.
DAMAGES = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Record:
    """What a run is trained and judged on.

    Attributes:
        class_names: in the order of the class numbers.
        multi_label: whether an image can have several classes.
        places: where the images are, by field of the recipe (`source`, `train`, `validation`,
            `test`, `root`): paths from the root, names of folders in the source, or the name of a
            set that comes with densepath.
        folder: where the run folder was, absolute: when it moves together with its images, they
            are found from it.
        parts: by split: `train`, and the one that epochs are judged on.
        before: fingerprints of images that the first weights had been trained on.
        unknown_start: the first weights, where nothing says what those were trained on.
    """

    class_names: list[str]
    multi_label: bool
    places: dict[str, str]
    folder: str
    parts: dict[Split, RecordedPart]
    before: Fingerprints = field(default_factory=lambda: NO_FINGERPRINTS)
    unknown_start: str | None = None

    def save(self, path: str | Path) -> None:
        """Write this record into the file `path`, which is never seen half written.

        Raises:
            OutputError: it cannot be written.
        """
        about = {
            "format": FORMAT,
            "class_names": self.class_names,
            "multi_label": self.multi_label,
            "places": self.places,
            "folder": self.folder,
            "parts": list(self.parts),
            "unknown_start": self.unknown_start,
        }
        arrays: dict[str, NDArray[Any]] = {"about": _to_bytes(json.dumps(about).encode())}
        for split, part in self.parts.items():
            joined = b"\0".join(os.fsencode(name) for name in part.names)
            arrays[f"{split}.names"] = _to_bytes(joined)
            arrays[f"{split}.targets"] = part.targets
            arrays[f"{split}.fingerprints"] = part.fingerprints
        arrays["before"] = self.before
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """The record in the file `path`.

        Raises:
            DatasetError: it cannot be read, is damaged or of a later format.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                if about["format"] != FORMAT:
                    raise DatasetError(
                        f"{path} is of record format {about['format']!r}; this densepath reads "
                        f"format {FORMAT}."
                    )
                return cls(
                    [str(name) for name in about["class_names"]],
                    bool(about["multi_label"]),
                    {str(name): str(place) for name, place in about["places"].items()},
                    str(about["folder"]),
                    {s: _read_part(arrays, s, len(about["class_names"])) for s in about["parts"]},
                    arrays["before"],
                    about["unknown_start"],
                )
        except DAMAGES as error:
            raise DatasetError(
                f"{path} is damaged: {error}. Without that file the run can be used, but which "
                "images it was trained on is then known by its checkpoints alone."
            ) from error

    def follow(self, folder: Path) -> dict[str, str]:
        """The places, now that the run folder is `folder`: as before where they are there."""
        return {name: self._follow(place, folder) for name, place in self.places.items()}

    def _follow(self, place: str, folder: Path) -> str:
        """Where one is."""
        if Path(place).exists() or not Path(place).is_absolute():
            return place
        moved = os.path.abspath(folder / os.path.relpath(place, self.folder))  # noqa: PTH100
        return moved if Path(moved).exists() else place

    def find_differences(self, now: Record) -> list[str]:
        """What the images `now` differ in, in words, the first of each kind named; else none."""
        classes = differing_classes(self.class_names, now.class_names)
        if self.multi_label != now.multi_label:
            several = "several labels" if now.multi_label else "one label"
            classes.append(f"an image has {several} now")
        if classes:  # Every name and label below them differs for that reason.
            return classes
        return differing_images(self.parts, now.parts, self.class_names)


def _to_bytes(data: bytes) -> NDArray[np.uint8]:
    """The bytes as an array."""
    return np.frombuffer(data, np.uint8)


def _read_part(arrays: Any, split: str, num_classes: int) -> RecordedPart:
    """A part of the file.

    Raises:
        ValueError: its arrays do not belong together, or to so many classes.
    """
    joined = arrays[f"{split}.names"].tobytes()
    targets, fingerprints = arrays[f"{split}.targets"], arrays[f"{split}.fingerprints"]
    names = [os.fsdecode(name) for name in joined.split(b"\0")] if len(targets) else []
    if not len(names) == len(targets) == len(fingerprints):
        raise ValueError(f"the arrays of {split} are of different lengths")
    if targets.ndim == 1 and len(targets) and not 0 <= targets.min() <= targets.max() < num_classes:
        raise ValueError(f"a target of {split} is no class")
    return RecordedPart(names, targets, fingerprints.astype(np.uint64))


def place_of(source: str) -> str:
    """A source from the root of the file system; the name of a set that comes with densepath as
    it is. Links are not followed; what is not there stays as it was written, for an error to show.

    Raises:
        DatasetError: the name of such a set, and a folder here.
    """
    if built_in(source) is not None:
        return source
    full = os.path.abspath(expand_user(source))  # noqa: PTH100
    return full if Path(full).exists() else source


def count_in(fingerprints: Fingerprints, known: Fingerprints) -> int:
    """How many of these images are among the known ones."""
    return int(np.isin(fingerprints, known).sum())

"""Features as a `.npy` file, written row by row: however many there are, memory holds one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from densepath.errors import UsageError
from densepath.files import write_atomically, write_json
from densepath.outputs import check_file, is_stream
from densepath.predict.answers import Prediction

SUFFIX = ".npy"
MAGIC, HEADER_BYTES = b"\x93NUMPY\x01\x00", 128  # of format 1.0, whose header's length is fixed


def check_feature_file(path: Path) -> Path:
    """The side file of the feature file `path`; raise unless both can be written.

    Raises:
        UsageError: it does not end in `.npy`, or is a stream.
        OutputError: it cannot be written.
    """
    if is_stream(path) or path.suffix.lower() != SUFFIX:
        raise UsageError(
            f"--features {path}: name a file that ends in .npy; the images' names go into one "
            "beside it that ends in .json."
        )
    side = path.with_suffix(".json")
    for file in (path, side):
        check_file(file)
    return side


class FeatureRows:
    """The rows of features as they are written, with the names of their images."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.images, self.unreadable = file, [], []  # type: ignore[var-annotated]
        self.channels = 0
        file.write(bytes(HEADER_BYTES))

    def add(self, answer: Prediction, features: NDArray[np.float32] | None) -> None:
        """Write the row of an image, or note why it has none."""
        if features is None:
            self.unreadable.append({"path": answer.path, "error": answer.error})
            return
        self.channels = len(features)
        self._file.write(np.ascontiguousarray(features, "<f4").tobytes())
        best = {"label": answer.labels[0], "score": answer.scores[0]}
        self.images.append({"path": answer.path, **best})

    def finish(self) -> None:
        """Write the header, now that the rows are counted."""
        shape = (len(self.images), self.channels)
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        length = HEADER_BYTES - len(MAGIC) - 2
        self._file.seek(0)
        self._file.write(MAGIC + length.to_bytes(2, "little"))
        self._file.write(text.ljust(length - 1).encode("ascii") + b"\n")


@contextmanager
def write_features(path: Path, *, subject: str) -> Iterator[FeatureRows]:
    """Yield what takes the rows; both files appear when all are there.

    Raises:
        UsageError, OutputError: they cannot be written.
    """
    side = check_feature_file(path)
    with write_atomically(path) as temporary, temporary.open("w+b") as file:
        rows = FeatureRows(file)
        yield rows
        rows.finish()
        file.flush()
    described = {
        "features": path.name,
        "subject": subject,
        "what": "the mean over the positions of the last map, after the last BatchNorm and ReLU",
        "shape": [len(rows.images), rows.channels],
        "images": rows.images,
        "unreadable": rows.unreadable,
    }
    write_json(side, described)

"""The official files of CIFAR-10: five training batches and one of test images, in two forms.

The binary form is plain records. The Python form is pickles: they are read by a table of the
four names that they may use, so that nothing in them can run.

Source: A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html, "Dataset layout".
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.errors import DatasetError
from densepath.pickles import ThriftyUnpickler

SIDE = 32
NUM_CLASSES = 10
RECORD_BYTES = 1 + 3 * SIDE * SIDE
Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def read_batches(source: Path, split: str) -> Arrays:
    """Images uint8 [N, 32, 32, 3] and classes uint8 [N] of an archive or its unpacked folder.

    Raises:
        DatasetError: files of the split are missing or damaged.
    """
    found = _files(source)
    for suffix, parse in ((".bin", _parse_binary), ("", _parse_pickle)):
        names = [name + suffix for name in BATCHES[split]]
        if all(name in found for name in names):
            parts = [_parsed(source, name, found[name], parse) for name in names]
            images, targets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            planes = images.reshape(-1, 3, SIDE, SIDE)
            return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), targets
    raise DatasetError(
        f"{source} is not CIFAR-10: it lacks {BATCHES[split][0]} (Python) or "
        f"{BATCHES[split][0]}.bin (binary), or one of its other batches."
    )


def is_batches_folder(folder: Path) -> bool:
    """Whether the folder is an unpacked official archive."""
    return any((folder / f"test_batch{suffix}").is_file() for suffix in (".bin", ""))


def _files(source: Path) -> dict[str, bytes]:
    """The batches in an archive or a folder, by their names."""
    names = {
        name + suffix for batch in BATCHES.values() for name in batch for suffix in ("", ".bin")
    }
    if source.is_dir():
        return {name: (source / name).read_bytes() for name in names if (source / name).is_file()}
    found = {}
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = Path(member.name).name
                file = archive.extractfile(member) if name in names else None
                if file is not None:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DatasetError(f"{source} is damaged: {error}. Download it again.") from error
    return found


def _parsed(source: Path, name: str, data: bytes, parse: Callable[[bytes], Arrays]) -> Arrays:
    """The images [N, 3072] and classes [N] of one batch, checked."""
    try:
        images, targets = parse(data)
    except Exception as error:  # A damaged pickle raises nearly anything.
        raise DatasetError(f"{source}: {name} is damaged: {error}.") from error
    right = images.shape == (len(targets), RECORD_BYTES - 1) and images.dtype == np.uint8
    if not right or len(targets) == 0 or targets.max() >= NUM_CLASSES:
        raise DatasetError(
            f"{source}: {name} holds images {images.dtype} {images.shape} and {len(targets)} "
            f"classes; it must be uint8 [N, {RECORD_BYTES - 1}] and N classes from 0 to 9."
        )
    return images, targets


def _parse_binary(data: bytes) -> Arrays:
    """Records: a class byte, then 3 planes of 32 × 32."""
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)
    return records[:, 1:], records[:, 0]


def _parse_pickle(data: bytes) -> Arrays:
    """A dictionary with `data` and `labels`, written by Python 2."""
    batch = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    return np.asarray(batch["data"]), np.array(batch["labels"], np.uint8)


class _ArrayUnpickler(ThriftyUnpickler):
    """Reads dictionaries, lists, numbers, strings and NumPy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for `module.name`.

        Raises:
            UnpicklingError: it is none of the names that an array needs.
        """
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,
            ("numpy._core.multiarray", "_reconstruct"): _empty_array,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not run")
        return allowed[module, name]


def _empty_array(_: type, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """NumPy's `_reconstruct`: the array that the pickle then fills."""
    return np.ndarray(shape, dtype)

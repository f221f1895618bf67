"""HDF5: the arrays and names of a Keras file, by h5py, of which nothing else is asked.

A file of another's making may point into other files, ask for filters that are loaded as code, or
say sizes that it does not have. Only what Keras writes is read: groups, arrays of numbers that lie
in the file itself, plain or deflated, and a few texts.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from densepath.errors import UnsafeFileError, WeightsError

if TYPE_CHECKING:
    import h5py

START = b"\x89HDF\r\n\x1a\n"
MOST_OBJECTS, DEEPEST = 100_000, 24
MOST_TEXT = 64 << 20
# HDF5's own numbers of deflate, shuffle and checksum; every other filter is somebody's library.
_FILTERS = frozenset({1, 2, 3})
_MOST_DEFLATED = 64  # weights hardly shrink: what grows by more than this is a bomb
_TEXTS = ("model_config", "keras_version", "backend")


@dataclass
class Hdf5:
    """What a file holds.

    Attributes:
        arrays: by their whole path in the file.
        names: the attribute `name` of a group by its path: Keras 3 has the layers' names there.
        texts: of the file itself: `model_config`, `keras_version`.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def read_hdf5(content: bytes, source: str) -> Hdf5:
    """What an HDF5 file holds; `hdf5_process.py` is the way to it that survives every file.

    Args:
        content: the file's bytes.
        source: the file's name, for messages.

    Raises:
        UnsafeFileError: it points into other files, or asks for a filter that is code.
        WeightsError: it is no such file, is damaged, or holds what Keras does not write.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            found = Hdf5(texts=dict(_texts(file, _TEXTS)))
            for place, array in _arrays(file, found.names):
                found.arrays[place] = array
            return found
    except WeightsError as error:
        raise type(error)(f"{source}: {error}") from error
    except Exception as error:  # a damaged file can make h5py raise anything
        raise WeightsError(
            f"{source} cannot be read as an HDF5 file ({_first_line(error)}). It is damaged or "
            "incomplete: compare its size with the publisher's."
        ) from error


def _first_line(error: Exception) -> str:
    """What the error says in short; its kind where it says nothing."""
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _arrays(file: h5py.File, names: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays with their paths; `names` is filled by the way.

    Raises:
        UnsafeFileError: a link into another file.
        WeightsError: more objects, or deeper, than any network has.
    """
    import h5py

    waiting: list[tuple[str, Any]] = [("", file)]
    seen = 0
    while waiting:
        place, group = waiting.pop()
        names.update((place, value) for _, value in _texts(group, ("name",)))
        for key in group:
            seen += 1
            if seen > MOST_OBJECTS or place.count("/") > DEEPEST:
                raise WeightsError("it has more groups than any network")
            inner = f"{place}/{key}" if place else key
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UnsafeFileError(f"{inner} points into another file, which is not followed.")
            if not isinstance(link, h5py.HardLink):
                raise WeightsError(f"{inner} is a link, which Keras does not write")
            item = group[key]
            if isinstance(item, h5py.Dataset):
                yield inner, _values(item, inner)
            elif isinstance(item, h5py.Group):
                waiting.append((inner, item))
            else:
                raise WeightsError(f"{inner} is a type, which Keras does not write")


def _values(dataset: h5py.Dataset, place: str) -> np.ndarray:
    """The numbers of an array, once it is known that the file has them.

    Raises:
        UnsafeFileError: they are in another file, or behind a filter that is code.
        WeightsError: no numbers, or more than the file has bytes for.
    """
    creation = dataset.id.get_create_plist()
    if dataset.is_virtual or creation.get_external_count():
        raise UnsafeFileError(f"{place} has its values in another file, which is not read.")
    filters = {creation.get_filter(i)[0] for i in range(creation.get_nfilters())}
    if not filters <= _FILTERS:
        raise UnsafeFileError(
            f"{place} is stored through filter {min(filters - _FILTERS)}, which is a library of "
            "somebody's; save it again without compression."
        )
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise WeightsError(f"{place} holds {dataset.dtype} instead of numbers")
    stored, needed = dataset.id.get_storage_size(), dataset.dtype.itemsize * dataset.size
    if needed > stored * (_MOST_DEFLATED if 1 in filters else 1):
        raise WeightsError(f"{place} needs {needed} bytes and has {stored}")
    values: np.ndarray = np.asarray(dataset[()])
    return values


def _texts(group: Any, wanted: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Those of a group's attributes that are there and are one text each.

    Raises:
        WeightsError: a text of more bytes than any description has.
    """
    for name in wanted:
        if name not in group.attrs:
            continue
        value = group.attrs[name]
        if isinstance(value, bytes | np.bytes_):
            value = bytes(value).decode("utf-8", "replace")
        if isinstance(value, str):
            if len(value) > MOST_TEXT:
                raise WeightsError(f"its {name} has {len(value)} characters")
            yield name, value

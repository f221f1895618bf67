"""The zip archives of PyTorch: members that lie in them as they are, and a pickle over them.

Every length is held against the file before room is taken, and all that is read of an archive is
never more than the file has: its members are not compressed.

Source: torch 2.13 `torch.serialization`.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

from densepath.errors import WeightsError
from densepath.weights.torch_calls import Storage, storage_type
from densepath.weights.torch_unpickle import unpickle

ZIP_START = b"PK\x03\x04"
_LOCAL_HEADER = 30
# A program's text is compressed; it is looked through for BatchNorm's ε alone.
_MOST_TEXT = 8 << 20


class Archive:
    """A zip archive whose members lie in it as they are.

    Attributes:
        top: the folder that everything is in, with its slash.
    """

    def __init__(self, file: IO[bytes], size_bytes: int) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file)
        self._left = size_bytes
        self._infos = {info.filename: info for info in self._zip.infolist()}
        names = [name for name in self._infos if not name.startswith("/")]
        tops = {name.partition("/")[0] for name in names if "/" in name}
        self.top = f"{tops.pop()}/" if len(tops) == 1 else ""

    def __contains__(self, name: str) -> bool:
        return self.top + name in self._infos

    def names(self, start: str) -> list[str]:
        """The members whose names begin so, without the top folder."""
        whole = self.top + start
        return [name.removeprefix(self.top) for name in self._infos if name.startswith(whole)]

    def read(self, name: str) -> bytearray:
        """A member's bytes.

        Raises:
            WeightsError: it is not there, is compressed, or reaches beyond the file.
        """
        info = self._infos.get(self.top + name)
        if info is None:
            raise WeightsError(f"it lacks its part {name}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise WeightsError(
                f"its part {name} is compressed, which PyTorch never does: unpack the archive and "
                "zip it again without compression (zip -0 -r)"
            )
        if info.file_size > self._left:
            raise WeightsError(f"its parts are larger than the file: {name} claims too much")
        self._left -= info.file_size
        self._file.seek(info.header_offset)
        head = self._file.read(_LOCAL_HEADER)
        if len(head) < _LOCAL_HEADER or not head.startswith(ZIP_START):
            raise WeightsError(f"its part {name} is not where it should be")
        name_length, extra = struct.unpack("<HH", head[26:30])
        self._file.seek(name_length + extra, 1)
        content = bytearray(self._file.read(info.file_size))
        if len(content) < info.file_size:
            raise WeightsError(f"its part {name} is cut off")
        return content

    def texts(self, start: str) -> Iterator[str]:
        """The text of the members whose names begin so, as far as it is of a usual length."""
        left = _MOST_TEXT
        for name in self.names(start):
            info = self._infos[self.top + name]
            if name.endswith(".py") and info.compress_type in (zipfile.ZIP_STORED, 8):
                with self._zip.open(info) as member:
                    try:
                        text = member.read(left)
                    except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
                        continue
                left -= len(text)
                yield text.decode("utf-8", "replace")


class _Storages:
    """The storages of an archive's pickle, each read once."""

    def __init__(self, archive: Archive, folder: str) -> None:
        self._archive, self._folder = archive, folder
        self._read: dict[str, bytearray] = {}

    def __call__(self, pid: tuple[Any, ...]) -> Storage:
        """The storage of an id: type, name, place, count."""
        if len(pid) < 4 or type(pid[3]) is not int or pid[3] < 0 or not isinstance(pid[1], str):
            raise WeightsError("it refers to numbers in an unknown way")
        dtype, key, numel = storage_type(pid[0]), pid[1], pid[3]
        return Storage(dtype, numel, lambda: self._content(key, numel * dtype.itemsize))

    def _content(self, key: str, size_bytes: int) -> bytearray:
        """Its bytes, which must be as many as the pickle says."""
        if key not in self._read:
            self._read[key] = self._archive.read(self._folder + key)
        if len(self._read[key]) < size_bytes:
            raise WeightsError(f"its part {key} has {len(self._read[key])} of {size_bytes} bytes")
        return self._read[key]


def read_member(archive: Archive) -> Any:
    """The value of an archive's pickle.

    Raises:
        UnsafeFileError: it asks for code to be run.
        WeightsError, Exception: it is damaged.
    """
    return unpickle(bytes(archive.read("data.pkl")), _Storages(archive, "data/"))[0]

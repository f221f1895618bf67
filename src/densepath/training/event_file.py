"""TensorBoard's event file, written at its end and cut back to where a training goes on.

A file is records of a length, its checksum, an event and its checksum; each event has the step
that it belongs to, and they stand in the order of the training. So what a resume must forget is
the file's end. The messages and the checksum are tensorboardX's, whose own writer begins a new
file at each start and puts the machine's name into the file's.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from densepath.errors import MissingPackageError, OutputError

PACKAGE, EXTRA = "tensorboardX", "tensorboard"
VERSION = "brain.Event:2"
LENGTH, CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
HEAD_BYTES, TAIL_BYTES = LENGTH.size + CHECKSUM.size, CHECKSUM.size
COMET = "comet_ml"  # tensorboardX imports it where it is installed; it talks to a server


@contextmanager
def _without_comet() -> Iterator[None]:
    """Within the block, comet_ml cannot be imported, unless the user has."""
    hidden = COMET not in sys.modules
    if hidden:
        sys.modules[COMET] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[COMET]


def import_package() -> Any:
    """tensorboardX with the modules that are used of it.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        with _without_comet():
            import tensorboardX
            import tensorboardX.proto.event_pb2
            import tensorboardX.record_writer
            import tensorboardX.summary
    except ImportError as error:
        raise MissingPackageError(PACKAGE, EXTRA) from error
    return tensorboardX


class EventFile:
    """An event file that grows.

    Args:
        path: the file; it is made.
        keep: whether an event of the file that is there belongs to the training as it goes on;
            from the first that does not, all are cut off.

    Raises:
        MissingPackageError: tensorboardX is not installed.
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, keep: Callable[[Any], bool]) -> None:
        self.path, self._package = path, import_package()
        self._event = self._package.proto.event_pb2.Event
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            length = self._kept_bytes(keep) if path.is_file() else 0
            self._file: BinaryIO = path.open("r+b" if length else "wb")
            self._file.truncate(length)
            self._file.seek(length)
        except OSError as error:
            raise self._cannot_write(error) from error
        if not length:
            self._write(self._event(wall_time=time.time(), file_version=VERSION))

    def add(self, summary: Any, step: int) -> None:
        """Write a summary that belongs to `step`.

        Raises:
            OutputError: it cannot be written.
        """
        self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Hand all that was written to the system.

        Raises:
            OutputError: it cannot be.
        """
        try:
            self._file.flush()
        except OSError as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Close the file; calling it twice does no harm."""
        try:
            self._file.close()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _write(self, event: Any) -> None:
        """Write one event as a record."""
        data = event.SerializeToString()
        head = LENGTH.pack(len(data))
        record = head + self._checksum(head) + data + self._checksum(data)
        try:
            self._file.write(record)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _checksum(self, data: bytes) -> bytes:
        """The checksum that stands behind `data`."""
        return CHECKSUM.pack(self._package.record_writer.masked_crc32c(data))

    def _kept_bytes(self, keep: Callable[[Any], bool]) -> int:
        """How much of the file belongs to the training; a record that is not whole does not."""
        kept, size = 0, self.path.stat().st_size
        with self.path.open("rb") as file:
            while kept + HEAD_BYTES <= size:
                head = file.read(HEAD_BYTES)
                (length,) = LENGTH.unpack(head[: LENGTH.size])
                if kept + HEAD_BYTES + length + TAIL_BYTES > size:
                    break
                data, tail = file.read(length), file.read(TAIL_BYTES)
                if tail != self._checksum(data):
                    break
                event = self._event.FromString(data)
                if not (event.file_version or keep(event)):
                    break
                kept += HEAD_BYTES + length + TAIL_BYTES
        return kept

    def _cannot_write(self, error: OSError) -> OutputError:
        """The error of a file that the system refuses."""
        return OutputError(f"cannot write {self.path}: {error.strerror or error}")

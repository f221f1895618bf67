"""An unpickler for files that may be damaged or hostile."""

from __future__ import annotations

import pickle
import sys
from typing import Any, ClassVar


class ThriftyUnpickler(pickle._Unpickler):
    """Takes no more memory than the file has bytes for.

    It is Python's own that is written in Python. That in C takes room for as many memos as the
    largest number of one, of which four bytes of a file can make 64 GB.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self: Any) -> None:
        """As many bytes as there are, instead of room for as many as the file says."""
        length = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(min(length, sys.maxsize))))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

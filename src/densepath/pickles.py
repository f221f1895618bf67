"""An unpickler for files that may be damaged or hostile."""

from __future__ import annotations

import pickle
import sys
from typing import Any, ClassVar

# Of a key's own tuples; a name and a number, or a pair of pairs, are all that is met.
_DEEPEST_KEY, _WIDEST_KEY = 3, 64


def check_key(key: Any, deep: int = 0) -> None:
    """Raise unless a table or set may have this key: to hash it must not take for ever.

    A tuple of two equal tuples of two equal tuples and so on takes a line of a file for each, and
    twice the time: Python hashes every way through it.

    Raises:
        UnpicklingError: it is made of tuples in tuples, or of many.
    """
    if not isinstance(key, tuple | frozenset):
        return
    if deep >= _DEEPEST_KEY or len(key) > _WIDEST_KEY:
        raise pickle.UnpicklingError("it holds a table with a key that is made of many others")
    for part in key:
        check_key(part, deep + 1)


class ThriftyUnpickler(pickle._Unpickler):
    """Takes no more memory and time than the file has bytes for.

    It is Python's own that is written in Python. That in C takes room for as many memos as the
    largest number of one, of which four bytes of a file can make 64 GB.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self: Any) -> None:
        """As many bytes as there are, instead of room for as many as the file says."""
        length = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(min(length, sys.maxsize))))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def load_dict(self: Any) -> None:
        """A table of what stands behind the mark, as `load_setitems` fills one."""
        items = self.pop_mark()
        self.append(_filled({}, items))

    dispatch[pickle.DICT[0]] = load_dict

    def load_setitem(self: Any) -> None:
        """One entry of a table, whose key is looked at first."""
        value = self.stack.pop()
        key = self.stack.pop()
        _filled(self.stack[-1], [key, value])

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self: Any) -> None:
        """Several entries of a table, whose keys are looked at first."""
        items = self.pop_mark()
        _filled(self.stack[-1], items)

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_additems(self: Any) -> None:
        """Members of a set, which are looked at first."""
        items = self.pop_mark()
        for item in items:
            check_key(item)
        self.stack[-1].update(items)

    dispatch[pickle.ADDITEMS[0]] = load_additems

    def load_frozenset(self: Any) -> None:
        """A set of what stands behind the mark, which is looked at first."""
        items = self.pop_mark()
        for item in items:
            check_key(item)
        self.append(frozenset(items))

    dispatch[pickle.FROZENSET[0]] = load_frozenset


def _filled(table: Any, items: list[Any]) -> Any:
    """`table` with keys and values that take turns in `items`.

    Raises:
        UnpicklingError: it is no table, or a key is impossible.
    """
    if not isinstance(table, dict) or len(items) % 2:
        raise pickle.UnpicklingError("it sets entries of what is no table")
    for key, value in zip(items[::2], items[1::2], strict=True):
        check_key(key)
        dict.__setitem__(table, key, value)
    return table

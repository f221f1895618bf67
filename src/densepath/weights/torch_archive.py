"""The containers of PyTorch: what `torch.save`, TorchScript and `torch.export` put into one file.

A zip archive (`torch_zip.py`); before torch 1.6 one pickle after another, and the numbers behind.

Source: torch 2.13 `torch.serialization`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from densepath.errors import WeightsError
from densepath.weights import exported_program
from densepath.weights.stand_ins import Inert, table_of
from densepath.weights.torch_calls import Storage, storage_type
from densepath.weights.torch_unpickle import unpickle
from densepath.weights.torch_zip import Archive, read_member

_PREAMBLE = 1 << 12
# A class's constant in a script; the call in a trace: `torch.batch_norm(..., momentum, eps, True)`.
_EPSILON = re.compile(
    r"\beps : Final\[float\] = ([0-9][0-9.e+-]*)"
    r"|batch_norm\([^()]*, ([0-9][0-9.e+-]*), (?:True|False)\)"
)
SCRIPT, PROGRAM = "a TorchScript program", "a program of torch.export"


@dataclass(frozen=True)
class Opened:
    """What a file holds.

    Attributes:
        value: tables of tensors, or stand-ins of pickled networks.
        epsilons: the ε of its BatchNorms, of a program that says them.
        kind: what it is, where it is a program; else empty.
    """

    value: Any
    epsilons: frozenset[float] = frozenset()
    kind: str = ""


def read_zip(path: Path) -> Opened:
    """What an archive holds.

    Raises:
        UnsafeFileError: it asks for code to be run.
        WeightsError, Exception: it is damaged.
    """
    with path.open("rb") as file:
        archive = Archive(file, path.stat().st_size)
        _check_order(archive)
        if any(name in archive for name in exported_program.MARKS):
            return Opened(*exported_program.read_program(archive), PROGRAM)
        value = read_member(archive)
        if "constants.pkl" not in archive:
            return Opened(value)
        _check_script(value)
        return Opened(value, _epsilons(archive), SCRIPT)


def _check_order(archive: Archive) -> None:
    """Raise unless the numbers' bytes are in this machine's order.

    Raises:
        WeightsError: they are in the other one.
    """
    if "byteorder" in archive and bytes(archive.read("byteorder")).strip() not in (b"little", b""):
        raise WeightsError(
            "its numbers are big-endian: save model.state_dict() on a machine of today"
        )


def _check_script(value: Any) -> None:
    """Raise unless a TorchScript program kept the names of its tensors.

    Raises:
        WeightsError: it was frozen.
    """
    if isinstance(value, Inert) and not table_of(value):
        raise WeightsError(
            "it is a frozen TorchScript program: torch.jit.freeze turns parameters into constants "
            "without names. Save the program that it was made of, or export it to ONNX, which is "
            "read by its structure"
        )


def _epsilons(archive: Archive) -> frozenset[float]:
    """The ε of a TorchScript program's BatchNorms."""
    found = (pair for text in archive.texts("code/") for pair in _EPSILON.findall(text))
    return frozenset(float(one or other) for one, other in found)


class _Blocks:
    """The storages of a file of before torch 1.6, whose numbers stand behind the pickle."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self.made: dict[str, tuple[torch.dtype, bytearray]] = {}

    def __call__(self, pid: tuple[Any, ...]) -> Storage:
        """The storage of an id: type, name, place, count, and the part of it that is meant."""
        if len(pid) < 4 or type(pid[3]) is not int or pid[3] < 0:
            raise WeightsError("it refers to numbers in an unknown way")
        dtype, key, numel = storage_type(pid[0]), str(pid[1]), pid[3]
        if key not in self.made:
            self._left -= numel * dtype.itemsize
            if self._left < 0:
                raise WeightsError(f"it says to hold {numel:,} numbers, more than it has bytes for")
            self.made[key] = dtype, bytearray(numel * dtype.itemsize)
        own, content = self.made[key]
        view = pid[4] if len(pid) > 4 else None
        if view is None:
            return Storage(own, len(content) // own.itemsize, lambda: content)
        _, offset, count = view if isinstance(view, tuple) and len(view) == 3 else (0, -1, -1)
        if not (type(offset) is type(count) is int and offset >= 0 and count >= 0):
            raise WeightsError("it refers to numbers in an unknown way")
        if (offset + count) * own.itemsize > len(content):
            raise WeightsError("it refers to numbers that are not in it")
        return Storage(own, count, lambda: content, offset * own.itemsize)


def read_legacy(path: Path) -> Opened:
    """What a file of before torch 1.6 holds: pickles, then the numbers of each storage.

    Raises:
        UnsafeFileError: it asks for code to be run.
        WeightsError, Exception: it is damaged.
    """
    content = path.read_bytes()
    blocks = _Blocks(len(content))
    at = 0
    for _ in range(
        3
    ):  # a number that says what it is, the format's, and the machine's sizes of numbers
        at += unpickle(content[at : at + _PREAMBLE], blocks)[1]
    value, length = unpickle(content[at:], blocks)
    at += length
    keys, length = unpickle(content[at:], blocks)
    at += length
    for key in keys if isinstance(keys, list) else ():
        if str(key) not in blocks.made:
            raise WeightsError(f"it holds numbers that nothing refers to: {str(key)[:40]}")
        dtype, block = blocks.made[str(key)]
        (numel,) = struct.unpack_from("<q", content, at)
        if numel * dtype.itemsize != len(block) or at + 8 + len(block) > len(content):
            raise WeightsError("its numbers are cut off")
        block[:] = content[at + 8 : at + 8 + len(block)]
        at += 8 + len(block)
    return Opened(value)

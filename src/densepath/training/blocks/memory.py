"""The memory of a training's maps on the CPU: one stretch, each map at the lowest place that fits.

The C library puts gradients and statistics, which stay, between maps that go; the gaps that are
left hold no map of the next block, which is larger or smaller, and nothing of the next step. It
came to twice what is alive at once (DenseNet-121, 16 images of 224 × 224). Here maps have only maps
for neighbours, and what is freed grows together again.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from bisect import bisect
from collections import deque
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

# Of Linux: pages that nobody has written yet count for nothing. Python names it from 3.13 on.
MAP_NORESERVE = 0x4000
# Every map begins at a line of the cache.
ALIGNMENT = 64


class MapMemory:
    """Room for maps, as many bytes of addresses as the machine has of memory.

    Pages are taken when they are first written, used again by later maps, and given back when this
    object and all its maps are gone. Where there is no room (other systems than Linux, one that
    counts addresses as memory, a map larger than what is left) PyTorch's own memory is taken.
    """

    def __init__(self, size: int | None = None) -> None:
        """`size` in bytes; None: the machine's memory, or half of what `ulimit` leaves."""
        self._stretch = _reserve(size)
        self._start, room = _span(self._stretch)
        # Gaps (start, size), by their start. What maps leave is put among them at the next call:
        # a map can go at any moment, in any thread, within `_take` as well.
        self._gaps = [(0, room)] if room else []
        self._left: deque[tuple[int, int]] = deque()
        self._lock = Lock()

    def empty(self, elements: int, dtype: torch.dtype) -> Tensor:
        """An unwritten tensor of so many elements."""
        size = -(-elements * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        with self._lock:
            start = self._take(size)
        if start is None:
            return torch.empty(elements, dtype=dtype, device="cpu")
        block = (ctypes.c_ubyte * size).from_address(self._start + start)
        # The tensor holds the block, and the registry of finalizers this object.
        weakref.finalize(block, self._leave, start, size).atexit = False
        return torch.frombuffer(block, dtype=dtype, count=elements)

    def _take(self, size: int) -> int | None:
        """Where so many bytes are, which are taken now; None: nowhere."""
        while self._left:
            self._put_back(*self._left.popleft())
        for index, (start, room) in enumerate(self._gaps):
            if room >= size:
                rest = [(start + size, room - size)] if room > size else []
                self._gaps[index : index + 1] = rest
                return start
        return None

    def _leave(self, start: int, size: int) -> None:
        """Note that a map has gone."""
        self._left.append((start, size))

    def _put_back(self, start: int, size: int) -> None:
        """Make a gap, together with its neighbours."""
        index, end = bisect(self._gaps, (start, size)), start + size
        if index < len(self._gaps) and self._gaps[index][0] == end:
            end += self._gaps.pop(index)[1]
        if index and sum(self._gaps[index - 1]) == start:
            index -= 1
            start = self._gaps.pop(index)[0]
        self._gaps.insert(index, (start, end - start))


def _reserve(size: int | None) -> mmap.mmap | None:
    """So many bytes of addresses; None where they are not to be had."""
    if not sys.platform.startswith("linux") or _counts_addresses():
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    try:
        return mmap.mmap(-1, size or _usual_size(), flags=flags)
    except OSError:
        return None


def _counts_addresses(setting: Path = Path("/proc/sys/vm/overcommit_memory")) -> bool:
    """Whether Linux counts addresses as memory in use, before anything is written there."""
    try:
        return setting.read_text().strip() == "2"
    except OSError:
        return False


def _usual_size() -> int:
    """The bytes of the machine's memory, or half of a limit on the process's addresses."""
    import resource  # of Unix alone

    kinds = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    limits = [resource.getrlimit(kind)[0] for kind in kinds]
    halves = [limit // 2 for limit in limits if limit != resource.RLIM_INFINITY]
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *halves])


def _span(stretch: mmap.mmap | None) -> tuple[int, int]:
    """Address and size of a stretch."""
    if stretch is None:
        return 0, 0
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(stretch)), len(stretch)

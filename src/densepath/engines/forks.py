"""What `os.fork` leaves of an engine: its memory, and none of its threads.

A runtime waits for ever for threads that stayed in the parent. So every `Spread` is told that it is
lost in the child, and a `Predictor` opens another engine there, by its `Source`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from densepath.errors import EngineError

Answer = TypeVar("Answer")
CURE = (
    "Start processes by multiprocessing.get_context('spawn'), or load it in each process before "
    "it is used anywhere else."
)


class Forked(Protocol):
    """What wants to know that it is in a child now."""

    def on_fork(self) -> None:
        """Called in the child, before anything else runs there."""


# Of the last threads that ended, where Linux shows that they have not yet.
_ending: deque[Path] = deque(maxlen=256)
MOST_SECONDS = 1.0

_told: weakref.WeakSet[Forked] = weakref.WeakSet()
# Modules that an ancestor of this process had imported, and devices that its engines were on.
_modules: set[str] = set()
_devices: set[str] = set()
_ancestors_devices: set[str] = set()


def tell_of_forks(one: Forked) -> None:
    """Call `one.on_fork()` in each child that is forked, as long as `one` exists."""
    _told.add(one)


def note_device(device: str) -> None:
    """Note that an engine was opened on `cpu`, `cuda:0`."""
    _devices.add(device)


def is_inherited(module: str) -> bool:
    """Whether a process that this one was forked from had imported the module."""
    return module in _modules


def has_inherited_gpu() -> bool:
    """Whether a process that this one was forked from had an engine on a GPU."""
    return any(not device.startswith("cpu") for device in _ancestors_devices)


def end_threads(pool: ThreadPoolExecutor) -> None:
    """Shut the pool down: what it has begun is finished, the rest dropped.

    Python waits for a thread's last line of Python only. What a runtime then does at its end, with
    locks of its own, must not be cut off by a fork: the child would wait for those locks.
    """
    threads = list(pool._threads)
    pool.shutdown(wait=True, cancel_futures=True)
    _ending.extend(Path(f"/proc/self/task/{thread.native_id}") for thread in threads)


def keep_for_ever(one: object) -> None:
    """Never free it, not even when Python ends: its end would wait for threads that are gone."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def lost_engine(name: str) -> EngineError:
    """Why an engine of the parent's cannot answer here, and what to do."""
    return EngineError(
        f"the engine {name!r} was opened before this process was forked, and its threads stayed in "
        f"the parent. {CURE}"
    )


def refuse_to_pickle(name: str) -> NoReturn:
    """Say what can be sent to another process in place of an engine.

    Raises:
        EngineError: always.
    """
    raise EngineError(
        f"an engine ({name}) cannot be sent to another process or copied; a predictor of "
        "densepath.load can: it is opened there again."
    )


def in_one_process(answers: Iterable[Answer]) -> Iterator[Answer]:
    """The answers, as long as they are asked for where they were begun.

    Raises:
        EngineError: another process goes on with them.
    """
    begun = os.getpid()
    for answer in answers:
        yield answer
        if os.getpid() != begun:
            raise EngineError(
                "these answers were begun before this process was forked, and who makes them "
                "stayed in the parent. Call predict here."
            )


def _before() -> None:
    """Wait for threads that are about to end; not for long, for the number may be another's."""
    deadline = time.monotonic() + MOST_SECONDS
    while _ending and time.monotonic() < deadline:
        if _ending[-1].exists():
            time.sleep(0.001)
        else:
            _ending.pop()
    _ending.clear()


def _in_child() -> None:
    """What the child knows of its ancestors."""
    _ending.clear()
    _modules.update(sys.modules)
    _ancestors_devices.update(_devices)
    for one in list(_told):
        one.on_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)

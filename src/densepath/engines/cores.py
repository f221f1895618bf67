"""How many CPU cores this process may use."""

from __future__ import annotations

import operator
import os
from pathlib import Path

from densepath.errors import UsageError

# Linux's control groups, version 2: "QUOTA PERIOD" in microseconds, or "max PERIOD".
QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """The cores that the machine, the process's affinity and a container's quota leave."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, _quota(cores)))


def _quota(cores: int) -> int:
    """The whole cores of a container's quota; `cores` where there is none."""
    try:
        quota, period = QUOTA_FILE.read_text(encoding="ascii").split()
        return int(quota) // int(period)
    except (OSError, ValueError):
        return cores


def count_threads(asked: int | None) -> int:
    """The threads that were asked for, else one a usable core.

    Raises:
        UsageError: fewer than one.
    """
    return usable_cores() if asked is None else check_count("threads", asked)


def check_count(name: str, value: object) -> int:
    """The value, which counts something.

    Raises:
        UsageError: it is no whole number, or below 1.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UsageError(f"{name} is {value!r}; it must be a whole number.")
    if (count := operator.index(value)) < 1:
        raise UsageError(f"{name} is {count}; it must be at least 1.")
    return count

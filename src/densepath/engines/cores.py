"""How many CPU cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from densepath.errors import check_count

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

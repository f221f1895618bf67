"""A training step that waits to be timed: what ours and the peers' scripts for training share.

The process builds its network and optimiser, notes its resident memory and says that it is ready.
Then, for each line `WARM_UP STEPS SECONDS` on its standard input, it takes so many steps that are
not counted and so many that are, none of which but the first begins after so many seconds, and
prints the milliseconds of each, the losses, and how far the resident memory rose above what it was
before the first step.
"""

from __future__ import annotations

import ctypes
import gc
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from latency_worker import PR_SET_PDEATHSIG, say

# A step is the same everywhere: SGD without weight decay on one random batch, again and again.
LEARNING_RATE = 0.01
MOMENTUM = 0.9
PEAK_AGAIN = "5"  # Linux, proc_pid_clear_refs(5): the peak of the resident memory begins anew

Step = Callable[[], float]
Begin = Callable[[np.ndarray, np.ndarray], Step]


@dataclass(frozen=True)
class Job:
    """What a worker's command line asks for.

    Attributes:
        model: the network, by the system's own name.
        mode: as the system's script calls it.
        precision: `float32`, or `bfloat16` for autocast.
        threads: of the computation.
        batch, side: the images and their height and width in pixels.
        classes: the logits.
    """

    model: str
    mode: str
    precision: str
    threads: int
    batch: int
    side: int
    classes: int

    @classmethod
    def read(cls, words: Sequence[str]) -> Job:
        """The job of `words`, those that `to_words` wrote."""
        model, mode, precision, *numbers = words
        return cls(model, mode, precision, *(int(number) for number in numbers))

    def to_words(self) -> list[str]:
        """The arguments of a worker's script."""
        return [str(value) for value in vars(self).values()]

    def random_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Images float32 [N, 3, H, W] and labels int64 [N], the same in every process."""
        draw = np.random.RandomState(0)
        images = draw.standard_normal((self.batch, 3, self.side, self.side)).astype(np.float32)
        return images, draw.randint(0, self.classes, self.batch)


def serve_steps(job: Job, begin: Begin, versions: dict[str, str]) -> None:
    """Answer until the standard input ends.

    `begin` takes the batch and gives the step, which returns its loss.
    """
    if sys.platform == "linux":  # a stopped process would not notice that its parent has gone
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    gc.collect()
    start_bytes = resident_bytes()
    step = begin(*job.random_batch())
    say({"versions": versions, "start_bytes": start_bytes})
    for line in sys.stdin:
        warm_up, steps, seconds = line.split()
        before, losses = time_steps(step, int(warm_up))
        restart_peak()
        ms, counted = time_steps(step, int(steps), float(seconds))
        growth = peak_bytes() - start_bytes
        say({"warm_up_ms": before, "ms": ms, "losses": losses + counted, "growth_bytes": growth})
        give_back()


def time_steps(
    step: Step, count: int, seconds: float = math.inf
) -> tuple[list[float], list[float]]:
    """The milliseconds and losses of so many steps, or of what begins in so many seconds."""
    milliseconds, losses = [], []
    for _ in range(count):
        if sum(milliseconds) > 1e3 * seconds:
            break
        start = time.perf_counter()
        losses.append(step())
        milliseconds.append(round((time.perf_counter() - start) * 1e3, 3))
    return milliseconds, losses


def resident_bytes() -> int:
    """The resident memory of this process."""
    return _status_bytes("VmRSS")


def peak_bytes() -> int:
    """The most resident memory since `restart_peak`, or of the whole process where it failed."""
    return _status_bytes("VmHWM")


def restart_peak() -> None:
    """Let the peak of the resident memory begin at what it is now."""
    Path("/proc/self/clear_refs").write_text(PEAK_AGAIN)


def give_back() -> None:
    """Return freed memory to the system, so that a stopped worker leaves it to the others."""
    gc.collect()
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(field: str) -> int:
    """A field of the process's status, which Linux gives in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))

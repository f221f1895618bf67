"""A network that waits to be timed: what `latency_ours.py` and the peers' `latency.py` share.

The process loads its network and says that it is ready. Then, for each line `BATCH SECONDS` on its
standard input, it runs batches for so many seconds and prints the milliseconds of each run.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from densepath.weights.formula import formula_images

SIDE = 224
MOST_IMAGES = 8
WARM_UP = 2
LEAST_RUNS = 3
PATIENCE = 4
PR_SET_PDEATHSIG = 1  # Linux, prctl(2)

Run = Callable[[np.ndarray], np.ndarray]


def serve(run: Run, versions: dict[str, str]) -> None:
    """Answers until the standard input ends; `run` is images [N, 3, H, W] → logits [N, classes]."""
    if sys.platform == "linux":  # a stopped process would not notice that its parent has gone
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    images = formula_images(MOST_IMAGES, SIDE, SIDE)
    alone = {0: _float(run(images[:1]))[0]}
    say({"versions": versions, "logits": alone[0].tolist()})
    for line in sys.stdin:
        batch, seconds = line.split()
        last = int(batch) - 1
        if last not in alone:
            alone[last] = _float(run(images[last : last + 1]))[0]
        milliseconds, logits = time_runs(run, images[: last + 1], float(seconds))
        ends = (0, last)
        difference = max(float(np.abs(logits[i] - alone[i]).max()) for i in ends)
        largest = max(float(np.abs(alone[i]).max()) for i in ends)
        say({"ms": milliseconds, "difference": difference / largest})


def time_runs(run: Run, images: np.ndarray, seconds: float) -> tuple[list[float], np.ndarray]:
    """Milliseconds of each run in so many seconds, after the warm-up, and the last logits.

    A network that takes longer for a run has a shorter warm-up, and runs until `PATIENCE` times
    the seconds are over.
    """
    milliseconds: list[float] = []
    begin = time.perf_counter()
    for _ in range(WARM_UP):
        run(images)
        if time.perf_counter() - begin > seconds:
            break
    begin = time.perf_counter()
    while (taken := time.perf_counter() - begin) < seconds or (
        len(milliseconds) < LEAST_RUNS and taken < PATIENCE * seconds
    ):
        start = time.perf_counter()
        logits = run(images)
        milliseconds.append(round((time.perf_counter() - start) * 1e3, 3))
    return milliseconds, _float(logits)


def _float(logits: np.ndarray) -> np.ndarray:
    """In float32, in memory that the next run leaves alone."""
    return np.array(logits, dtype=np.float32)


def say(values: dict) -> None:
    """One line of JSON; the first character tells it from what systems print."""
    sys.stdout.write("\n@" + json.dumps(values) + "\n")
    sys.stdout.flush()

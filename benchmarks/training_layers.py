"""Where the time of our step with fused blocks goes, against the machine's own matrix products.

Every call of the operations is timed and its multiplications are counted; the rate of the machine
is that of `torch.mm` on a product as long as a block's, measured before and after. Prints one line
of JSON; see training.py.

Run: .venv/bin/python benchmarks/training_layers.py
     MODEL fused float32|bfloat16 THREADS BATCH SIDE CLASSES
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from training_blocks import fuse_network
from training_ours import build
from training_torch import begin_on_torch
from training_worker import Job, time_steps

WARM_UP, STEPS, PRODUCTS = 2, 3, 15
# Pixels × channels × outputs of a product as DenseNet-121's third block has them at batch 16.
MATRIX = (3136, 640, 128)


class TimedOperations:
    """Operations whose calls are timed, by their name and the side of the map they read.

    Attributes:
        seconds, gflop, calls: by name and side; `new_map`, which reads no map, has the side 0.
    """

    def __init__(self, inner: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        self._inner, self._clock = inner, clock
        self.seconds: dict[tuple[str, int], float] = defaultdict(float)
        self.gflop: dict[tuple[str, int], float] = defaultdict(float)
        self.calls: dict[tuple[str, int], int] = defaultdict(int)

    def __getattr__(self, name: str) -> Any:
        """The inner operation, timed."""
        inner = getattr(self._inner, name)
        if not callable(inner):
            return inner

        def timed(*words: Any, **options: Any) -> Any:
            start = self._clock()
            found = inner(*words, **options)
            place = (name, words[0].shape[1] if isinstance(words[0], Tensor) else 0)
            self.seconds[place] += self._clock() - start
            self.gflop[place] += multiplications(name, words, options) * 2 / 1e9
            self.calls[place] += 1
            return found

        return timed

    def forget(self) -> None:
        """Begin anew."""
        for counts in (self.seconds, self.gflop, self.calls):
            counts.clear()


def multiplications(name: str, words: tuple[Any, ...], options: dict[str, Any]) -> int:
    """The multiplications of the convolution of a call; a backward pass has two products.

    `words` are those of `Operations`: of a convolution the map, the norm and the weight
    [O, I, k, k], then the map that is written, or the gradient of that map.
    """
    if not name.startswith(("pointwise", "convolve")):
        return 0
    weight, last = words[2], words[3]
    outputs = last if isinstance(last, Tensor) else last.data
    pixels = outputs.shape[0] * outputs.shape[1] * outputs.shape[2]
    return pixels * weight.numel() * (2 if name.endswith("_backward") else 1)


def matrix_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of `torch.mm` on a product of `MATRIX`: the median of several."""
    pixels, channels, outputs = MATRIX
    a, b = torch.randn(pixels, channels).to(dtype), torch.randn(channels, outputs).to(dtype)
    out = torch.empty(pixels, outputs, dtype=dtype)
    times = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        times.append(time.perf_counter() - start)
    return 2 * pixels * channels * outputs / median(times) / 1e9


def rows_of(timed: TimedOperations, steps: int, step_ms: float) -> list[dict]:
    """A row for each operation and side, slowest first, of one step; and what is left of it."""
    rows = [
        {
            "operation": name,
            "side": side,
            "calls": timed.calls[name, side] // steps,
            "ms": seconds / steps * 1e3,
            "gflop": timed.gflop[name, side] / steps,
        }
        for (name, side), seconds in timed.seconds.items()
    ]
    rows.sort(key=lambda row: -row["ms"])
    rest = step_ms - sum(row["ms"] for row in rows)
    return [*rows, {"operation": "the rest", "side": 0, "calls": 0, "ms": rest, "gflop": 0.0}]


def measure(job: Job) -> dict:
    """What `training_report.py` tells of a network."""
    network, timers = build(job.model, job.classes), []

    def wrap(operations: Any) -> TimedOperations:
        timers.append(TimedOperations(operations))
        return timers[-1]

    check = fuse_network(network, "fused", job.precision, wrap)
    step = begin_on_torch(network, job, channels_last=True, check=check)(*job.random_batch())
    dtype = torch.bfloat16 if job.precision == "bfloat16" else torch.float32
    matrix_rate(dtype)
    rates = [matrix_rate(dtype)]
    time_steps(step, WARM_UP)
    for timed in timers:
        timed.forget()
    ms = sum(time_steps(step, STEPS)[0]) / STEPS
    rates.append(matrix_rate(dtype))
    used = next(timed for timed in timers if timed.seconds)
    return {
        "step_ms": ms,
        "matrix_gflops": max(rates),
        "matrix_shape": " × ".join(str(side) for side in MATRIX),
        "matrix_precision": job.precision,
        "rows": rows_of(used, STEPS, ms),
    }


if __name__ == "__main__":
    job = Job.read(sys.argv[1:])
    torch.set_num_threads(job.threads)
    print(json.dumps(measure(job)))

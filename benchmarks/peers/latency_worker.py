"""A network that waits to be timed: what the `latency.py` of each peer shares.

The process loads its network, says that it is ready, and then, for each line `BATCH REPEATS` on
its standard input, runs a batch so often and prints the milliseconds of each run. So that several
systems can take turns, all of them loaded, each idle while another runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from densepath.weights.formula import formula_images

SIDE = 224
WARM_UP = 2


def serve(run: Callable[[np.ndarray], np.ndarray], versions: dict[str, str]) -> None:
    """Answers until the standard input ends; `run` is images [N, 3, H, W] → logits."""
    image = formula_images(1, SIDE, SIDE)
    logits = np.asarray(run(image), dtype=np.float32)[0]
    say({"versions": versions, "logits": logits.tolist()})
    for line in sys.stdin:
        batch, repeats = map(int, line.split())
        images = np.ascontiguousarray(np.repeat(image, batch, axis=0))
        milliseconds = []
        for i in range(WARM_UP + repeats):
            start = time.perf_counter()
            run(images)
            if i >= WARM_UP:
                milliseconds.append(round((time.perf_counter() - start) * 1e3, 3))
        say({"ms": milliseconds})


def say(values: dict) -> None:
    """One line of JSON."""
    sys.stdout.write("\n@" + json.dumps(values) + "\n")
    sys.stdout.flush()

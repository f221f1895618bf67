"""How fast the engines that `auto` may take answer on this machine, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from statistics import median
from typing import TypeAlias

import numpy as np

from densepath.bundle.formats import RUNTIMES, Precision
from densepath.bundle.speeds import Speeds
from densepath.engines.engine import Engine, Normalised
from densepath.engines.machine import describe_kind
from densepath.engines.opening import Opening, open_runtime
from densepath.errors import EngineError

BATCH_SIZE = 4
# A turn: one run that is not counted, for the threads of the engine before may still be spinning,
# and some that are.
TURNS, RUNS = 3, 2
Pair: TypeAlias = tuple[str, Precision]  # an engine and its arithmetic


def measure_speeds(
    openings: Mapping[str, Opening], inputs: Normalised, *, in_bfloat16: Container[str] = ()
) -> Speeds | None:
    """The times of the engines for the formats; None where `auto` has no choice.

    Args:
        openings: the network in each format, and how it is to be run, in the mode `latency`.
        inputs: float32 [N, C, H, W]; the first few are run.
        in_bfloat16: the engines that are measured in bfloat16, too.
    """
    batch = np.resize(inputs, (BATCH_SIZE, *inputs.shape[1:]))
    taken: dict[Pair, list[float]] = {}
    with ExitStack() as opened:
        engines = dict(_open_all(openings, in_bfloat16))
        for engine in engines.values():
            opened.callback(engine.close)
        if len(engines) < 2:
            return None
        for _ in range(TURNS):
            for pair, engine in engines.items():
                taken.setdefault(pair, []).extend(_time_runs(engine, batch))
    return Speeds(
        describe_kind(), BATCH_SIZE, _medians(taken, "float32"), _medians(taken, "bfloat16")
    )


def _open_all(
    openings: Mapping[str, Opening], in_bfloat16: Container[str]
) -> Iterator[tuple[Pair, Engine]]:
    """The engines on a CPU that this machine has and `auto` may take, in each precision."""
    for row in RUNTIMES.values():
        if row.format not in openings or not row.is_raced:
            continue
        for precision in row.precisions if row.name in in_bfloat16 else row.precisions[:1]:
            try:
                engine = open_runtime(row, replace(openings[row.format], precision=precision))
                yield (row.name, precision), engine
            except EngineError:
                continue


def _medians(taken: Mapping[Pair, Sequence[float]], precision: Precision) -> dict[str, float]:
    """The seconds of a run in a precision by engine, to four digits."""
    return {
        name: float(f"{median(times):.4g}")
        for (name, of), times in taken.items()
        if of == precision
    }


def _time_runs(engine: Engine, batch: Normalised) -> Iterator[float]:
    """The seconds of a turn's runs."""
    for number in range(1 + RUNS):
        start = time.perf_counter()
        engine.run_tensor_share(batch)
        if number:
            yield time.perf_counter() - start

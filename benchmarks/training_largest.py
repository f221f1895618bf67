"""The largest batch in so much memory: a line through two sizes, and a step at its end."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from training_systems import TrainingSystem
from training_turns import WARM_UP, open_worker, size_of
from workers import MEMORY_KEPT_BYTES, WorkerError, available_bytes


def find_largest(system: TrainingSystem, model: str, options: argparse.Namespace) -> dict:
    """What was measured at two sizes, what follows for `options.largest_batch` GB, and a check.

    Raises:
        WorkerError: a size of the two could not be measured.
    """
    batch, _ = size_of(model, options)
    points = {n: growth_gb(system, model, options, n) for n in (batch, 2 * batch)}
    limit = options.largest_batch
    largest = largest_batch(points, limit)
    part = {
        "model": model,
        "system": system.label,
        "limit_gb": limit,
        "points_gb": points,
        "largest": largest,
    }
    needed = limit * 1e9 + MEMORY_KEPT_BYTES
    if largest is None:
        part["unchecked"] = "the growth of the two sizes is no rising line"
    elif available_bytes() < needed:
        part["unchecked"] = f"{available_bytes() / 1e9:.1f} GB were free, {needed / 1e9:.1f} needed"
    else:
        try:
            part["checked_gb"] = growth_gb(system, model, options, largest)
        except WorkerError as error:
            part["unchecked"] = str(error)
    return part


def growth_gb(system: TrainingSystem, model: str, options: argparse.Namespace, batch: int) -> float:
    """The growth of the resident memory during a step of so many images, in a process of its own.

    Raises:
        WorkerError: it failed.
    """
    worker = open_worker(system, model, options, batch=batch)
    try:
        growth = worker.ask(f"{WARM_UP} 1 inf")[0]["growth_bytes"] / 1e9
    finally:
        worker.close()
    print(f"  {system.label}, {batch} images: {growth:.2f} GB", flush=True)
    return round(growth, 4)


def largest_batch(points: Mapping[int, float], limit_gb: float) -> int | None:
    """The most images at which the line through two points stays below the limit.

    None where the line does not rise; at least 1.
    """
    (few, low), (many, high) = sorted(points.items())
    slope = (high - low) / (many - few)
    if slope <= 0:
        return None
    return max(int((limit_gb - low) / slope + few), 1)

"""The workers of `training.py`: opened for a network, asked in turns, compared with our losses."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median

from training_systems import SYSTEMS, TrainingSystem, default_size
from workers import Worker, WorkerError

# How far the first and the second loss may be from ours, relative: the second follows a step whose
# gradients are long sums, which every system adds up in another order.
BOUNDS = {"float32": (1e-4, 0.05), "bfloat16": (0.03, 0.2)}
# A system that is so many times slower than the quickest has one round.
FAR_BEHIND = 6
WARM_UP = 1


def size_of(model: str, options: argparse.Namespace) -> tuple[int, int]:
    """The images of a step and their side, as asked for or as the network's default."""
    batch, side = default_size(model)
    return options.batch or batch, options.size or side


def open_worker(
    system: TrainingSystem,
    model: str,
    options: argparse.Namespace,
    *,
    batch: int | None = None,
    switches: str | None = None,
) -> Worker:
    """The system's process, whose network and optimiser are made.

    Args:
        system: whose environment is there, and which has the network.
        model: our name of the network.
        options: of the command line.
        batch: the images of a step, where they are not the options'.
        switches: of our network, where it is to be as another system has it.

    Raises:
        WorkerError: its process ended.
    """
    usual, side = size_of(model, options)
    command = system.command(system.job(model, options.threads, batch or usual, side))
    return Worker(command + ([switches] if switches else []), system.environment(options.threads))


def reference_losses(model: str, switches: str, options: argparse.Namespace) -> list[float]:
    """The first two losses of our plain network in float32.

    Raises:
        WorkerError: it failed.
    """
    plain = next(system for system in SYSTEMS if system.mode == "plain")
    worker = open_worker(plain, model, options, switches=switches)
    try:
        return worker.ask("0 2 inf")[0]["losses"]
    finally:
        worker.close()


def far_behind(found: dict[str, dict], label: str) -> bool:
    """Whether the system has had a turn, and needed `FAR_BEHIND` times the quickest's time."""
    first = {name: median(one["rounds"][0]) for name, one in found.items() if one["rounds"]}
    return label in first and first[label] > FAR_BEHIND * min(first.values())


class Field:
    """All systems of a network: their workers, what they measured, and why others did not.

    Attributes:
        found: of each system that took part, by its label: its rounds' milliseconds, its growth.
        failed: why the others did not.
    """

    def __init__(
        self, systems: Sequence[TrainingSystem], model: str, options: argparse.Namespace
    ) -> None:
        self.failed: dict[str, str] = {}
        self.found: dict[str, dict] = {}
        self._workers: dict[str, Worker] = {}
        self._systems, self._model, self._options = systems, model, options
        self._references: dict[str, list[float]] = {}

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def take_turns(self) -> None:
        """Let all systems have their turns in all rounds."""
        for i in range(self._options.rounds):
            for system in self._systems[:: -1 if i % 2 else 1]:
                label = system.label
                if label in self.failed or far_behind(self.found, label):
                    continue
                try:
                    self._take_turn(system)
                except WorkerError as error:
                    self._fail(label, str(error))

    def _take_turn(self, system: TrainingSystem) -> None:
        """One turn of the system, whose worker is opened for the first one.

        Raises:
            WorkerError: it failed, or its losses are not ours.
        """
        label = system.label
        if label not in self._workers:
            self._open(system)
        said, others = self._workers[label].ask(
            f"{WARM_UP} {self._options.steps} {self._options.seconds}"
        )
        found = self.found[label]
        if not found["rounds"]:
            found["first_s"] = round(said["warm_up_ms"][0] / 1e3, 2)
            found["loss_difference"] = self._compare(system, said["losses"])
        found["rounds"].append(said["ms"])
        found["growth_mb"].append(round(said["growth_bytes"] / 1e6, 1))
        found["others"].append(round(others, 3))
        print(f"  {label}: {median(said['ms']):.0f} ms, {found['growth_mb'][-1]} MB", flush=True)
        if far_behind(self.found, label):
            self._workers[label].close()

    def _open(self, system: TrainingSystem) -> None:
        """Open the system's worker.

        Raises:
            WorkerError: it failed.
        """
        start = time.monotonic()
        worker = open_worker(system, self._model, self._options)
        self._workers[system.label] = worker
        self.found[system.label] = {
            "precision": system.precision,
            "rounds": [],
            "growth_mb": [],
            "others": [],
            "opened_s": round(time.monotonic() - start, 1),
            "start_mb": round(worker.ready["start_bytes"] / 1e6, 1),
            "versions": worker.ready["versions"],
        }

    def _compare(self, system: TrainingSystem, losses: Sequence[float]) -> list[float]:
        """How far the first two losses are from those of our plain network, relative.

        Raises:
            WorkerError: too far.
        """
        switches = system.switches if self._model.startswith("dpn") else "catalogue"
        if switches not in self._references:
            self._references[switches] = reference_losses(self._model, switches, self._options)
        ours = self._references[switches]
        differences = [abs(a - b) / abs(b) for a, b in zip(losses, ours, strict=False)]
        for difference, bound in zip(differences, BOUNDS[system.precision], strict=True):
            if not difference <= bound:
                raise WorkerError(f"its first losses are {losses[:2]}, those of ours {ours}")
        return [float(f"{difference:.1e}") for difference in differences]

    def _fail(self, label: str, why: str) -> None:
        """Let the system have no more turns."""
        print(f"  {label}: {why}", flush=True)
        self.failed[label] = why
        self.found.pop(label, None)
        if label in self._workers:
            self._workers.pop(label).close()

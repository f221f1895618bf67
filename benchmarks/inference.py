"""Latency of a batch on a CPU: our engines, and what else runs these networks.

Each system is a process of its own with its network loaded (the formula's parameters in all of
them; their logits are compared with ours first). All systems of a model take turns, batch size by
batch size, several rounds (one for those that are far behind), every second one backwards, so that
whatever else the machine does meets all of them; a system whose turn it is not is stopped. Reported
is the median of all runs; nothing but the network is timed, from array to array.

Writes `benchmarks/results/DATE-inference.json` after each pair of model and batch size, from which
the same command goes on, and `.md` and `docs/images/inference.png` after each model.

Run: .venv/bin/python benchmarks/inference.py [--models densenet121,dpn92] [--batches 1,4,8]
     [--precisions float32,bfloat16] [--minutes 90] [--slow densenet121,dpn92]
     the peers' environments first: benchmarks/peers/install.sh timm|paddleclas|mindcv
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
from formula_bundle import choice_of, formula_bundle, formula_checkpoint
from harness import MODELS, Budget, Results, Spread, add_options, figure_path
from inference_report import draw, report
from systems import BOTH, SYSTEMS, System, find_systems
from workers import Worker, WorkerError

from densepath.weights.published import AS_CATALOGUE, Switches

# How far logits may be from ours, over the largest.
BOUNDS = {"float32": 1e-3, "bfloat16": 0.15}
# A system that is so many times slower than the quickest has one round.
FAR_BEHIND = 10


def is_done(part: dict | None, systems: Sequence[System]) -> bool:
    """Whether a pair has been measured with all of these systems."""
    tried = {*part["ms"], *part["failed"]} if part else set()
    return bool(part) and all(system.name in tried for system in systems)


def key(precision: str, model: str, batch: int) -> str:
    """The name of a pair in the results."""
    return f"{precision}/{model}/{batch}"


def measure(
    model: str, precision: str, results: Results, budget: Budget, options: argparse.Namespace
) -> None:
    """The results hold the model's pairs, as many as the minutes allow."""
    systems = find_systems(model, precision, slow=model in options.slow, named=options.systems)
    names = [key(precision, model, batch) for batch in options.batches]
    if all(is_done(results.parts.get(name), systems) for name in names) or budget.is_spent():
        return
    print(f"{model}, {precision}", flush=True)
    with (
        formula_bundle(model, options.bundles) as bundle,
        Field(systems, model, bundle, precision, options.threads) as field,
    ):
        default = f"densepath {choice_of(bundle, precision, options.threads).engine}"
        for batch, name in zip(options.batches, names, strict=True):
            if is_done(results.parts.get(name), systems) or budget.is_spent():
                continue
            part = field.take_turns(batch, options.rounds, options.seconds)
            place = {"model": model, "batch": batch, "precision": precision}
            results.add(name, {**place, "default": default, **part})
            print(f"  batch {batch}: {medians(part)}", flush=True)


def medians(part: dict) -> str:
    """One line of progress."""
    return ", ".join(f"{name} {ms['median']:.1f}" for name, ms in part["ms"].items())


class Field:
    """All systems of a model: their workers, and what became of those that failed."""

    def __init__(
        self, systems: Sequence[System], model: str, bundle: Path, precision: str, threads: int
    ) -> None:
        self.workers: dict[str, Worker] = {}
        self.failed: dict[str, str] = {}
        self.opened: dict[str, float] = {}
        self.logits: dict[str, float] = {}
        self._references: dict[Switches, np.ndarray] = {}
        self._systems, self._model, self._bundle = systems, model, bundle
        self._precision, self._threads = precision, threads

    def __enter__(self) -> Field:
        """Every system's process has loaded its network, or failed."""
        try:
            for system in self._systems:
                self._open(system)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()

    def _open(self, system: System) -> None:
        """The system's worker is ready and its logits are ours; or it has failed."""
        start = time.monotonic()
        command = system.command(self._model, self._bundle, self._precision, self._threads)
        try:
            worker = Worker(command, system.environment(self._threads))
        except WorkerError as error:
            self._fail(system.name, str(error))
            return
        self.workers[system.name] = worker
        seconds = round(time.monotonic() - start, 1)
        switches = system.dpn if self._model.startswith("dpn") else AS_CATALOGUE
        expected = self._expected(switches)
        found = np.array(worker.ready["logits"])
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        self.opened[system.name], self.logits[system.name] = seconds, difference
        print(f"  {system.name}: opened in {seconds} s, Δlogit {difference:.1e}", flush=True)
        if not difference <= BOUNDS[self._precision]:
            self._fail(system.name, f"its logits differ from ours by {difference:.1e}")

    def _expected(self, switches: Switches) -> np.ndarray:
        """The first image's logits: our network as PyTorch runs it, not rewritten, in float32."""
        if switches not in self._references:
            self._references[switches] = reference(self._model, switches)
        return self._references[switches]

    def _fail(self, name: str, why: str) -> None:
        """The system is left out from here on."""
        print(f"  {name} failed: {why}", flush=True)
        self.failed[name] = why
        if name in self.workers:
            self.workers.pop(name).close()

    def take_turns(self, batch: int, rounds: int, seconds: float) -> dict:
        """Every system's milliseconds with batches of this size."""
        ms: dict[str, list[list[float]]] = {name: [] for name in self.workers}
        alone: dict[str, float] = {}
        others: list[float] = []
        for i in range(rounds):
            for name in list(self.workers)[:: -1 if i % 2 else 1]:
                if is_far_behind(ms, name):
                    continue
                try:
                    turn = self.workers[name].take_turn(batch, seconds)
                except WorkerError as error:
                    self._fail(name, str(error))
                    continue
                ms[name].append(turn.ms)
                alone[name] = max(turn.difference, alone.get(name, 0))
                others.append(turn.others)
        left = list(self.workers)
        return {
            "ms": {name: asdict(Spread.of([x for run in ms[name] for x in run])) for name in left},
            "rounds": {name: [Spread.of(run).median for run in ms[name]] for name in left},
            "difference": {name: self.logits[name] for name in left},
            "difference_from_alone": {name: alone[name] for name in left},
            "opened_s": {name: self.opened[name] for name in left},
            "versions": {name: self.workers[name].ready["versions"] for name in left},
            "failed": dict(self.failed),
            "others": asdict(Spread.of(others)) if others else None,
        }


def is_far_behind(ms: dict[str, list[list[float]]], name: str) -> bool:
    """Whether the system has had a turn, and needed `FAR_BEHIND` times the quickest one's time."""
    first = {other: median(runs[0]) for other, runs in ms.items() if runs}
    return name in first and first[name] > FAR_BEHIND * min(first.values())


def reference(model: str, switches: Switches) -> np.ndarray:
    """Logits of the formula's first image by the formula's network."""
    import torch

    from densepath.weights.formula import formula_images

    thrown = {k: v for k, v in vars(switches).items() if v is not None}
    network = formula_checkpoint(model, **thrown).to_model()
    with torch.inference_mode():
        return network(torch.from_numpy(formula_images(1, 224, 224)))[0].numpy()


def parse() -> argparse.Namespace:
    """The options, their lists split."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, "inference")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batches", default="1,4,8", help="at most 8")
    parser.add_argument("--precisions", default=",".join(BOTH))
    parser.add_argument("--systems", default="", help="by their names; all by default")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one turn")
    parser.add_argument(
        "--slow",
        default="densenet121,dpn92",
        help="models (or none) that torch.compile and MindSpore are measured with: minutes each",
    )
    options = parser.parse_args()
    for name in ("models", "precisions", "systems", "slow"):
        setattr(options, name, [word.strip() for word in getattr(options, name).split(",") if word])
    options.slow = [] if options.slow == ["none"] else options.slow
    options.batches = [int(word) for word in options.batches.split(",")]
    wrong = {*options.models, *options.slow} - {*MODELS}
    wrong |= {*options.precisions} - {*BOTH}
    wrong |= {*options.systems} - {system.name for system in SYSTEMS}
    if wrong:
        parser.error(f"there is no {', '.join(sorted(wrong))}")
    return options


def main() -> None:
    """Measures the pairs that today's results do not have yet."""
    options = parse()
    results, budget = Results(options.output, options), Budget(options.minutes)
    order = [system.name for system in SYSTEMS]
    for precision in options.precisions:
        for model in options.models:
            measure(model, precision, results, budget, options)
            if results.parts:
                results.write_report(report(results, order))
    if results.parts:
        draw(list(results.parts.values()), order, figure_path(options.output))
        print(f"{report(results, order)}\n{options.output}.md")


if __name__ == "__main__":
    main()

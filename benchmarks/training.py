"""Images a second and memory of a training step on a CPU: ours, and whatever else can take it.

A step is: forget the gradients, forward, cross-entropy, backward, SGD with momentum, on the same
random batch in every system, whose networks have the same parameters (the formula's). Each system
is a process of its own; its first two losses are compared with those of our plain network, and it
is left out where they differ. All systems of a network take turns, several rounds (one for those
that are far behind), every second one backwards; a system whose turn it is not is stopped. A turn
begins with a step that is not counted.

Memory is the growth of the resident set: its peak during the counted steps, over what it was when
network and optimiser were made. So gradients, momentum and the batch are in it, weights are not.

--largest-batch GB: the largest batch whose growth stays below so many GB, by a line through the
growth at two batch sizes, checked by a step at that size. --layers: where the time of our step
with fused blocks goes, against the machine's own matrix products.

Writes `benchmarks/results/DATE-training.json` after each part, from which the same command goes
on, and `.md`.

Run: .venv/bin/python benchmarks/training.py [--models densenet121,dpn92] [--batch 16] [--size 224]
     [--systems timm,"densepath fused"] [--steps 3] [--rounds 3] [--seconds 20] [--threads 2]
     [--compile] [--largest-batch 16] [--layers] [--no-steps] [--results-name NAME]
     the peers' environments first: benchmarks/peers/install.sh timm|paddleclas|mindcv
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from harness import HERE, OUR_ENVIRONMENT, RESULTS, Budget, Results, Spread, add_options
from training_largest import find_largest
from training_report import report
from training_systems import NETWORKS, SYSTEMS, TrainingSystem, find_systems
from training_turns import Field, size_of
from workers import WorkerError


def measure_steps(
    model: str, systems: Sequence[TrainingSystem], results: Results, options: argparse.Namespace
) -> None:
    """The results hold the steps of a network by all systems."""
    batch, side = size_of(model, options)
    name = f"steps/{model}/{batch}/{side}"
    held = results.parts.get(name, {"systems": {}, "failed": {}})
    missing = {system.label: why for system in systems if (why := system.why_not(model))}
    there = [system for system in systems if system.label not in missing]
    if all(system.label in {*held["systems"], *held["failed"]} for system in there):
        return
    print(f"{model}, {batch} images of {side} × {side}", flush=True)
    with Field(there, model, options) as field:
        field.take_turns()
    place = {"kind": "steps", "model": model, "batch": batch, "side": side}
    found = {label: summarise(one) for label, one in field.found.items()}
    results.add(name, {**place, "systems": found, "failed": field.failed, "missing": missing})


def summarise(found: dict) -> dict:
    """What a system's turns come to: the spread of all its steps, and the most memory of a turn."""
    steps = [ms for turn in found["rounds"] for ms in turn]
    return {**found, "ms": asdict(Spread.of(steps)), "growth_mb": max(found["growth_mb"])}


def measure_largest(
    model: str, systems: Sequence[TrainingSystem], results: Results, options: argparse.Namespace
) -> None:
    """The results hold the largest batch of each system."""
    for system in systems:
        name = f"largest/{model}/{options.largest_batch:g}/{system.label}"
        if name in results.parts or system.why_not(model) is not None:
            continue
        try:
            results.add(name, {"kind": "largest", **find_largest(system, model, options)})
        except WorkerError as error:
            print(f"  {system.label}: {error}", flush=True)


def measure_layers(model: str, results: Results, options: argparse.Namespace) -> None:
    """The results hold where the time of our step goes, in each precision."""
    batch, side = size_of(model, options)
    for system in SYSTEMS:
        name = f"layers/{model}/{batch}/{side}/{system.precision}"
        if system.mode != "fused" or name in results.parts:
            continue
        if (why := system.why_not(model)) is not None:
            print(f"  {system.label}: {why}", flush=True)
            continue
        job = system.job(model, options.threads, batch, side)
        run = subprocess.run(
            [sys.executable, str(HERE / "training_layers.py"), *job.to_words()],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **OUR_ENVIRONMENT, "OMP_NUM_THREADS": str(options.threads)},
        )
        if run.returncode:
            print(f"  {system.label}: its layers could not be timed", flush=True)
            continue
        place = {"kind": "layers", "model": model, "batch": batch, "side": side}
        found = json.loads(run.stdout.splitlines()[-1])
        results.add(name, {**place, "precision": system.precision, **found})


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, their lists split."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, "training")
    parser.add_argument("--results-name", help="of the result files, behind the date")
    parser.add_argument("--models", default=",".join(NETWORKS))
    parser.add_argument("--batch", type=int, help="16, and 64 of 32 × 32, by default")
    parser.add_argument("--size", type=int, help="of the images: 224 or 32 by default")
    parser.add_argument("--systems", default="", help="by their names; all by default")
    parser.add_argument("--steps", type=int, default=3, help="of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of a turn, after which no step begins"
    )
    parser.add_argument("--compile", action="store_true", help="with timm compiled: minutes each")
    parser.add_argument("--largest-batch", type=float, metavar="GB", help="in so much memory")
    parser.add_argument("--layers", action="store_true", help="where our time goes")
    parser.add_argument("--no-steps", action="store_true", help="only what else is asked for")
    options = parser.parse_args(words)
    for name in ("models", "systems"):
        setattr(options, name, [word.strip() for word in getattr(options, name).split(",") if word])
    if options.results_name:
        today = datetime.date.today().isoformat()
        options.output = RESULTS / f"{today}-{options.results_name}"
    wrong = {*options.models} - {*NETWORKS}
    wrong |= {*options.systems} - {system.name for system in SYSTEMS}
    if wrong:
        parser.error(f"there is no {', '.join(sorted(wrong))}")
    return options


def main() -> None:
    """Measures what today's results do not have yet."""
    options = parse()
    results, budget = Results(options.output, options), Budget(options.minutes)
    systems = find_systems(options.systems, compiled=options.compile)
    order = [system.label for system in SYSTEMS]
    for model in options.models:
        if not options.no_steps and not budget.is_spent():
            measure_steps(model, systems, results, options)
        if options.largest_batch and not budget.is_spent():
            measure_largest(model, systems, results, options)
        if options.layers and not budget.is_spent():
            measure_layers(model, results, options)
        if results.parts:
            results.write_report(report(results, order))
    if results.parts:
        print(f"{report(results, order)}\n{options.output}.md")


if __name__ == "__main__":
    main()

"""Two checkouts of densepath against each other: has a change cost speed or memory?

Each checkout runs its own `latency_ours.py`, `predict_throughput.py`, `memory.py` and `densepath
predict` in its own `.venv`, on one bundle that the older one has made, so that a change of any file
that is read counts too. They take turns, every second round the other way about, so that whatever
else the machine does meets both. Reported is after ÷ before: the ratio of the medians of all
rounds, and between which values nine tenths of the rounds' own ratios lie.

Writes `benchmarks/results/DATE-before-after.json` after each part, from which the same command goes
on, and `.md`.

Run: .venv/bin/python benchmarks/before_after.py BEFORE AFTER IMAGES.zip|FOLDER [--rounds 7]
     [--models densenet121,dpn92] [--batches 1,4] [--engines native,openvino,onnxruntime,eager]
     BEFORE, AFTER: folders of checkouts in which `make install` has run
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

from harness import (
    OUR_ENVIRONMENT,
    Budget,
    Results,
    Spread,
    add_options,
    list_photos,
    photos,
    table,
)
from workers import Worker

SIDES = ("before", "after")
SECONDS_A_TURN = 3.0
IMAGES_WATCHED = 1000  # of memory.py, which reads the resident set after each 500

Measured = dict[str, list[float]]


class Checkout:
    """A checkout and what is run in it."""

    def __init__(self, folder: Path, threads: int) -> None:
        """
        Raises:
            SystemExit: nothing is installed in it.
        """
        self.folder, self.threads = folder.resolve(), threads
        self.python = self.folder / ".venv" / "bin" / "python"
        if not self.python.exists():
            sys.exit(f"{folder} has no .venv: make install there.")
        said = ["git", "-C", str(self.folder), "rev-parse", "--short", "HEAD"]
        self.commit = subprocess.run(said, capture_output=True, text=True).stdout.strip()
        # As an installation does: else a start would compile the files that are imported, each time
        # where PYTHONDONTWRITEBYTECODE is set, and the checkout with more files would look slower.
        compile_all = [str(self.python), "-m", "compileall", "-q", str(self.folder / "src")]
        subprocess.run(compile_all, check=True)

    def script(self, name: str, *words: str) -> list[str]:
        """The command of one of its benchmarks."""
        return [str(self.python), str(self.folder / "benchmarks" / name), *words]

    def worker(self, bundle: Path, engine: str) -> Worker:
        """Its engine on the bundle, waiting for its turns."""
        words = (str(bundle), engine, "float32", str(self.threads))
        return Worker(
            self.script("latency_ours.py", *words),
            {"OMP_NUM_THREADS": str(self.threads), **OUR_ENVIRONMENT},
        )

    def said(self, command: list[str]) -> str:
        """What the command prints.

        Raises:
            SystemExit: it failed.
        """
        run = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **OUR_ENVIRONMENT}
        )
        if run.returncode or not run.stdout.strip():
            sys.exit(f"{' '.join(command)} failed:\n{run.stderr[-1500:]}")
        return run.stdout

    def row(self, name: str, *words: str) -> dict:
        """The line of JSON that a benchmark prints last."""
        said = self.said(self.script(name, *words, "--threads", str(self.threads)))
        return json.loads([line for line in said.splitlines() if line.startswith("{")][-1])

    def seconds_to_answer(self, bundle: Path, photo: str) -> float:
        """From the shell to the end of `densepath predict` on one photo."""
        program = str(self.python.with_name("densepath"))
        start = time.perf_counter()
        self.said([program, "predict", str(bundle), photo, "--json"])
        return time.perf_counter() - start


def in_turns(rounds: int, measure: Callable[[str], float]) -> Measured:
    """`measure` of both sides in each round, every second round the other way about."""
    found: Measured = {side: [] for side in SIDES}
    for i in range(rounds):
        for side in SIDES[:: -1 if i % 2 else 1]:
            found[side].append(measure(side))
    return found


def measure_runs(
    sides: dict[str, Checkout], bundle: Path, engine: str, batch: int, rounds: int
) -> Measured:
    """Milliseconds of a batch, the median of each turn."""
    workers: dict[str, Worker] = {}
    try:
        for side, checkout in sides.items():
            workers[side] = checkout.worker(bundle, engine)
        return in_turns(
            rounds, lambda side: median(workers[side].take_turn(batch, SECONDS_A_TURN).ms)
        )
    finally:
        for worker in workers.values():
            worker.close()


def part_of(found: Measured, unit: str) -> dict:
    """A part of the results: both sides' figures, and after ÷ before."""
    pairs = [after / before for before, after in zip(found["before"], found["after"], strict=True)]
    ratio = median(found["after"]) / median(found["before"])
    return {
        "unit": unit,
        **{side: asdict(Spread.of(values)) for side, values in found.items()},
        "ratio": round(ratio, 4),
        "ratios": asdict(Spread.of(pairs)),
    }


def parts(
    sides: dict[str, Checkout], bundles: dict[str, Path], folder: Path, options: argparse.Namespace
) -> dict[str, tuple[str, Callable[[], Measured]]]:
    """All that is measured, by name: its unit, and what measures it."""
    made: dict[str, tuple[str, Callable[[], Measured]]] = {}
    for model, bundle in bundles.items():
        for engine in options.engines.split(","):
            for batch in options.batches:
                made[f"{model}, {engine}, batch {batch}"] = (
                    "ms",
                    lambda b=bundle, e=engine, n=batch: measure_runs(
                        sides, b, e, n, options.rounds
                    ),
                )
    model, bundle = next(iter(bundles.items()))
    photo, few = list_photos(folder)[0], max(options.rounds // 2, 3)
    one = ("--one", "native", "--bundle", str(bundle))

    def rate(side: str) -> float:
        return sides[side].row("predict_throughput.py", str(folder), *one)["seconds"]

    def resident(side: str) -> float:
        words = (*one, "--images", str(IMAGES_WATCHED))
        samples = sides[side].row("memory.py", str(folder), *words)["samples"]
        return max(size for _, size in samples) / 1e6

    made[f"{model}, files to five classes"] = ("s", lambda: in_turns(few, rate))
    made[f"{model}, shell to first answer"] = (
        "s",
        lambda: in_turns(
            2 * options.rounds, lambda side: sides[side].seconds_to_answer(bundle, photo)
        ),
    )
    made[f"{model}, most resident memory"] = ("MB", lambda: in_turns(3, resident))
    return made


def report(results: Results) -> str:
    """The whole page."""
    rows = []
    for name, part in results.parts.items():
        low, high = part["ratios"]["low"], part["ratios"]["high"]
        figures = [f"{part[side]['median']:.2f}" for side in SIDES]
        spread = f"{low:.3f}–{high:.3f}"
        rows.append([name, part["unit"], *figures, f"{part['ratio']:.3f}", spread])
    commits = " against ".join(results.place["checkouts"][side] for side in reversed(SIDES))
    lines = [
        "# After ÷ before",
        "",
        results.header(),
        "",
        f"Commit {commits}, in turns, on one bundle made by the older; medians.",
        "",
        table(["what", "unit", *SIDES, "after ÷ before", "of the rounds"], rows, names=2),
    ]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """The options, their lists split."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("images", type=Path, help="a folder, or a .zip of one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", default="densenet121,dpn92")
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--engines", default="native,openvino,onnxruntime,eager")
    add_options(parser, "before-after")
    options = parser.parse_args()
    options.batches = [int(word) for word in options.batches.split(",")]
    return options


def main() -> None:
    """Measures what the results lack, and writes the page after each part."""
    options = parse()
    sides = {side: Checkout(getattr(options, side), options.threads) for side in SIDES}
    results, budget = Results(options.output, options), Budget(options.minutes)
    results.place["checkouts"] = {side: sides[side].commit for side in SIDES}
    kept = (options.bundles or options.output.with_suffix(".bundles")).resolve()
    bundles = {model: kept / model for model in options.models.split(",")}
    for model, bundle in bundles.items():
        if not bundle.exists():
            command = sides["before"].script("formula_bundle.py", model, str(bundle))
            subprocess.run(command, check=True)
    with photos(options.images) as folder:
        for name, (unit, measure) in parts(sides, bundles, folder, options).items():
            if name in results.parts or budget.is_spent():
                continue
            results.add(name, part_of(measure(), unit))
            print(f"{name}: {results.parts[name]['ratio']:.3f}", flush=True)
            results.write_report(report(results))
    print(report(results))


if __name__ == "__main__":
    main()

"""Seconds from the shell to the first answer: one photo, DenseNet-121, a new process each time.

densepath's command line by several engines and its C++ program, PaddleClas's package and a script
on timm, all with the formula's parameters in files on disk, in turns. The files are in the
system's cache: each command has run once before.

Writes `benchmarks/results/DATE-cold-start.md` and `.json`.

Run: .venv/bin/python benchmarks/cold_start.py PHOTO [--repeats 7]; the peers' environments first:
     benchmarks/peers/install.sh NAME; the C++ program by `make cpp`
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from formula_bundle import formula_bundle
from predict_throughput import HERE, PEERS, hardware

OURS = "densepath predict"
ENGINES = ("native", "openvino", "onnxruntime")


def commands(photo: str, scratch: Path) -> dict[str, list[str]]:
    """What is run, by name; what is not installed is left out."""
    bundle = str(formula_bundle("densenet121", scratch / "bundle"))
    program = str(Path(sys.executable).with_name("densepath"))
    made = {OURS: [program, "predict", bundle, photo, "--json"]}
    made |= {f"{OURS} --engine {name}": [*made[OURS], "--engine", name] for name in ENGINES}
    cpp = HERE.parent / "build" / "cpp" / "densepath-predict"
    if cpp.exists():
        made["densepath-predict (C++)"] = [str(cpp), bundle, photo]
    for name, peer in (("PaddleClas", "paddleclas"), ("timm", "timm")):
        python = PEERS / peer / ".venv" / "bin" / "python"
        if python.exists():
            script = str(PEERS / peer / "first_answer.py")
            model = str(scratch / peer)
            subprocess.run([str(python), script, model, "--prepare"], check=True)
            made[name] = [str(python), script, model, photo]
    return made


def seconds(command: list[str]) -> float:
    """Of a run, from its start to its end, by when the answer has been printed."""
    start = time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True)
    taken = time.perf_counter() - start
    if run.returncode or not run.stdout.strip():
        sys.exit(f"{' '.join(command)} failed:\n{run.stderr[-1500:]}")
    return taken


def to_markdown(place: dict, runs: dict[str, list[float]]) -> str:
    """The table."""
    ours = median(runs[OURS])
    lines = [
        "# From the shell to the first answer",
        "",
        f"{place['date']}; {place['hardware']} at the start, load {place['load_after']:.1f} after.",
        f"`{place['command']}`",
        "",
        "One photo, DenseNet-121, a new process each; median seconds, in turns.",
        "",
        "| command | s | fastest–slowest | ÷ ours |",
        "|---|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {median(times):.2f} | {min(times):.2f}–{max(times):.2f} "
        f"| {median(times) / ours:.1f} |"
        for name, times in runs.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs every command once for the caches, then all in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    place = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "command": f"python benchmarks/cold_start.py PHOTO --repeats {options.repeats}",
    }
    with tempfile.TemporaryDirectory() as scratch:
        made = commands(str(Path(options.photo).resolve()), Path(scratch))
        runs: dict[str, list[float]] = {name: [] for name in made}
        for repeat in range(options.repeats + 1):
            for name, command in made.items():
                taken = seconds(command)
                if repeat:
                    runs[name].append(round(taken, 3))
                print(f"{repeat}/{options.repeats}  {name}: {taken:.2f} s", flush=True)
    place["load_after"] = os.getloadavg()[0]
    stem = HERE / "results" / f"{place['date']}-cold-start"
    stem.with_suffix(".json").write_text(json.dumps({**place, "seconds": runs}, indent=1) + "\n")
    stem.with_suffix(".md").write_text(to_markdown(place, runs))
    print(stem.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()

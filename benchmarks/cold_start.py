"""Seconds from the shell to the first answer: one photo, DenseNet-121, a new process each time.

densepath's command line by several engines and its C++ program, PaddleClas's package and a script
on timm, all with the formula's parameters in files on disk, in turns. The files are in the
system's cache: each command has run once before.

Writes `benchmarks/results/DATE-cold-start.json` after each round, from which the same command goes
on, and `.md`.

Run: .venv/bin/python benchmarks/cold_start.py PHOTO [--repeats 7]; the peers' environments first:
     benchmarks/peers/install.sh NAME; the C++ program by `make cpp`
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from formula_bundle import formula_bundle
from harness import PEERS, ROOT, Budget, Results, Spread, add_options, peer_python, table

OURS = "densepath predict"
ENGINES = ("native", "openvino", "onnxruntime")


def commands(photo: str, bundle: str, scratch: Path) -> dict[str, list[str]]:
    """What is run, by name; what is not installed is left out."""
    program = str(Path(sys.executable).with_name("densepath"))
    made = {OURS: [program, "predict", bundle, photo, "--json"]}
    made |= {f"{OURS} --engine {name}": [*made[OURS], "--engine", name] for name in ENGINES}
    cpp = ROOT / "build" / "cpp" / "densepath-predict"
    if cpp.exists():
        made["densepath-predict (C++)"] = [str(cpp), bundle, photo]
    for name, peer in (("PaddleClas", "paddleclas"), ("timm", "timm")):
        python = peer_python(peer)
        if python is not None:
            script, model = str(PEERS / peer / "first_answer.py"), str(scratch / peer)
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
    return round(taken, 3)


def report(results: Results) -> str:
    """The whole page."""
    rounds = [part["seconds"] for part in results.parts.values()]
    spreads = {name: Spread.of([part[name] for part in rounds]) for name in rounds[0]}
    ours = spreads[OURS].median
    rows = [
        [name, f"{s.median:.2f}", f"{s.low:.2f}–{s.high:.2f}", f"{s.median / ours:.1f}"]
        for name, s in spreads.items()
    ]
    lines = [
        "# From the shell to the first answer",
        "",
        results.header(),
        "",
        f"One photo, DenseNet-121, a new process each, {len(rounds)} rounds in turns; medians, and "
        "a tenth below and above.",
        "",
        table(["command", "s", "tenths", "÷ ours"], rows),
    ]
    return "\n".join(lines)


def main() -> None:
    """Runs every command once for the caches, then all in turns."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    add_options(parser, "cold-start")
    options = parser.parse_args()
    results, budget = Results(options.output, options), Budget(options.minutes)
    with (
        tempfile.TemporaryDirectory() as scratch,
        formula_bundle("densenet121", options.bundles) as bundle,
    ):
        made = commands(str(options.photo.resolve()), str(bundle), Path(scratch))
        for name, command in made.items():
            print(f"warm-up  {name}: {seconds(command):.2f} s", flush=True)
        for i in range(len(results.parts), options.repeats):
            if budget.is_spent():
                break
            taken = {name: seconds(command) for name, command in made.items()}
            results.add(f"round {i + 1}", {"seconds": taken})
            print(f"{i + 1}/{options.repeats}  {taken}", flush=True)
    if results.parts:
        results.write_report(report(results))
        print(report(results))


if __name__ == "__main__":
    main()

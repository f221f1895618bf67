"""Images per second from files to the five best classes: densepath, timm and PaddleClas.

DenseNet-121 with the same parameters (those of `densepath.weights.formula`) in all, ours from a
Bundle by several of its engines, in float32, in bfloat16 and in INT8, of which the peers have none;
the same folder of images, which the Bundle's report is of, too, the same number of threads; each
system goes its own way of prediction in a process of its own. The systems take turns, every second
round backwards, so that whatever else the machine does meets all of them. `seconds` runs from the
start of reading to the last answer; the process also has the interpreter, the imports and the
loading of the network.

Writes `benchmarks/results/DATE-predict-throughput.json` after each round, from which the same
command goes on, and `.md`.

Run: .venv/bin/python benchmarks/predict_throughput.py IMAGES.zip|FOLDER [--repeats 5]
     [--threads 2]; the peers' environments first: benchmarks/peers/install.sh
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from formula_bundle import formula_bundle, int8_bundle
from harness import (
    HERE,
    OUR_ENVIRONMENT,
    PEERS,
    Budget,
    Results,
    Spread,
    add_options,
    peer_python,
    photos,
    table,
)

MODEL = "densenet121"
OURS, OURS_INT8 = "densepath", "densepath, INT8"
# Our rows, by engine and precision that the bundle is opened with; the first is what a user gets.
OUR_ROWS = {
    OURS: ("auto", "auto"),
    "densepath, float32": ("auto", "float32"),
    "densepath, bfloat16": ("auto", "bfloat16"),
    "densepath, openvino": ("openvino", "float32"),
    "densepath, onnxruntime": ("onnxruntime", "float32"),
    "densepath, eager": ("eager", "float32"),
}
USES = {
    "native": (),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "eager": ("torch",),
}


def predict_ours(folder: str, threads: int, engine: str, precision: str, bundle: str) -> dict:
    """densepath's own way: a bundle is opened, the images found and answered."""
    import densepath
    from densepath.images.find import find_images

    start = time.perf_counter()
    predictor = densepath.load(bundle, engine=engine, precision=precision, threads=threads)
    load_seconds = time.perf_counter() - start
    start = time.perf_counter()
    answers = [p for p in predictor.predict(find_images([folder])) if p.error is None]
    seconds = time.perf_counter() - start
    info = predictor.engine.info
    return {
        "images": len(answers),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(answers) / seconds, 2),
        "load_seconds": round(load_seconds, 3),
        "options": {
            "engine": info.name,
            "precision": info.precision,
            "batch_size": info.batch_size,
        },
        "versions": {name: version(name) for name in ("densepath", "pillow", *USES[info.name])},
    }


@dataclass(frozen=True)
class System:
    """One way of prediction: its command, where it starts, and its environment beside ours."""

    command: list[str]
    folder: Path
    environment: dict[str, str]


def systems(folder: str, threads: int, bundle: str, int8: str) -> dict[str, System]:
    """What is measured; peers that are not installed are left out."""
    from densepath.engines.machine import missing_bfloat16

    made = {}
    for name, how in (*OUR_ROWS.items(), (OURS_INT8, ("auto", "auto"))):
        if how[1] == "bfloat16" and (missing := missing_bfloat16()):
            print(f"{name} is left out: {missing}", file=sys.stderr)
            continue
        command = [sys.executable, str(HERE / "predict_throughput.py"), folder, "--one", *how]
        command += ["--bundle", int8 if name == OURS_INT8 else bundle, "--threads", str(threads)]
        made[name] = System(command, HERE, OUR_ENVIRONMENT)
    for name, peer, more, environment in (
        ("timm", "timm", [], {}),
        ("timm, channels last, short spin", "timm", ["--channels-last"], OUR_ENVIRONMENT),
        ("PaddleClas (Paddle Inference, oneDNN)", "paddleclas", [], {}),
    ):
        python = peer_python(peer)
        if python is None:
            print(f"{name} is not installed: {PEERS}/install.sh {peer}", file=sys.stderr)
            continue
        command = [str(python), "predict.py", folder, "--threads", str(threads), *more]
        made[name] = System(command, PEERS / peer, environment)
    return made


def measure(system: System, threads: int) -> dict:
    """The row that the command prints last, with the seconds of the whole process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **system.environment}
    start = time.perf_counter()
    run = subprocess.run(
        system.command, cwd=system.folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if run.returncode:
        sys.exit(f"{' '.join(system.command)} failed:\n{run.stderr[-2000:]}")
    row = json.loads([line for line in run.stdout.splitlines() if line.startswith("{")][-1])
    return {**row, "process_seconds": round(seconds, 3)}


def report(results: Results) -> str:
    """The whole page."""
    rounds = list(results.parts.values())
    rows, said = [], []
    ours = _spread(rounds, OURS, "images_per_second").median
    for name, first in rounds[0]["systems"].items():
        rate = _spread(rounds, name, "images_per_second")
        seconds = _spread(rounds, name, "process_seconds")
        load = _spread(rounds, name, "load_seconds")
        rows.append(
            [
                name,
                str(first["images"]),
                f"{rate.median:.1f}",
                f"{rate.low:.1f}–{rate.high:.1f}",
                f"{ours / rate.median:.2f}",
                f"{load.median:.1f}",
                f"{seconds.median:.1f}",
            ]
        )
        words = {**first["options"], **first["versions"]}
        said.append(f"- {name}: " + ", ".join(f"{key} {word}" for key, word in words.items()))
    head = ["system", "answered", "images/s", "tenths", "ours ÷ this", "load s", "process s"]
    lines = [
        "# Prediction, from files to five classes: DenseNet-121",
        "",
        results.header(),
        "",
        f"{results.place['threads']} threads, {len(rounds)} rounds, the systems in turns; medians, "
        f"and a tenth below and above. {OURS}: what it takes by itself; the peers: float32.",
        "",
        table(head, rows),
        *said,
        "",
        "Short spin: GOMP_SPINCOUNT=1000, as `densepath` sets it; else waiting threads keep a "
        "core.",
    ]
    return "\n".join(lines) + "\n"


def _spread(rounds: list[dict], name: str, key: str) -> Spread:
    """Of a system's figure over the rounds."""
    return Spread.of([part["systems"][name][key] for part in rounds])


def main() -> None:
    """Measures all systems, or with --one this one, in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="a folder, or a .zip of one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--bundle", help=argparse.SUPPRESS)
    add_options(parser, "predict-throughput")
    options = parser.parse_args()
    if options.one:
        row = predict_ours(str(options.images), options.threads, *options.one, options.bundle)
        print(json.dumps(row))
        return
    results, budget = Results(options.output, options), Budget(options.minutes)
    with (
        photos(options.images) as folder,
        formula_bundle(MODEL, options.bundles, photos=options.images) as bundle,
        int8_bundle(MODEL, options.bundles, options.images, 16, "native") as int8,
    ):
        made = systems(str(folder), options.threads, str(bundle), str(int8))
        for i in range(len(results.parts), options.repeats):
            if budget.is_spent():
                break
            rows = {}
            for name in list(made)[:: -1 if i % 2 else 1]:
                rows[name] = measure(made[name], options.threads)
                print(f"{i + 1}/{options.repeats}  {name}: {rows[name]['images_per_second']}/s")
            results.add(f"round {i + 1}", {"systems": {name: rows[name] for name in made}})
    if results.parts:
        results.write_report(report(results))
        print(report(results))


if __name__ == "__main__":
    main()

"""Images per second from files to the five best classes: densepath, timm and PaddleClas.

DenseNet-121 with the same parameters (those of `densepath.weights.formula`) in all, ours from a
Bundle by several of its engines; the same folder of images, the same number of threads; each
system goes its own way of prediction in a process of its own. The systems take turns, so that
whatever else the machine does meets all of them. `seconds` runs from the start of reading to the
last answer; `wall_seconds` also has the interpreter, the imports and the loading of the network.

Writes `benchmarks/results/DATE-predict-throughput.md` and `.json`.

Run: .venv/bin/python benchmarks/predict_throughput.py IMAGES.zip|FOLDER [--repeats 5]
     [--threads 2]; the peers' environments first: benchmarks/peers/install.sh
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from formula_bundle import formula_bundle

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
MODEL = "densenet121"
OURS = "densepath"
# Our rows, by the engine that the bundle is opened with; the first is what a user gets.
OUR_ENGINES = {
    OURS: "auto",
    "densepath, openvino": "openvino",
    "densepath, onnxruntime": "onnxruntime",
    "densepath, eager": "eager",
}
USES = {
    "native": (),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "eager": ("torch",),
}
# As `densepath` sets it on the command line: waiting OpenMP threads sleep soon. timm gets it too,
# in a row of its own.
SPIN = {"GOMP_SPINCOUNT": "1000"}


def predict_ours(folder: str, threads: int, engine: str, precision: str, bundle: str) -> dict:
    """densepath's own way: a bundle is opened, the images found and answered."""
    import densepath
    from densepath.engines.image_paths import find_images

    start = time.perf_counter()
    predictor = densepath.load(bundle, engine=engine, precision=precision, threads=threads)
    load_seconds = time.perf_counter() - start
    start = time.perf_counter()
    answers = [p for p in predictor.predict(find_images([folder])) if p.error is None]
    seconds = time.perf_counter() - start
    info = predictor.engine.info
    return {
        "peer": OURS,
        "model": MODEL,
        "images": len(answers),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(answers) / seconds, 2),
        "load_seconds": round(load_seconds, 3),
        "options": {"engine": info.name, "batch_size": info.batch_size, "precision": precision},
        "versions": {name: version(name) for name in ("densepath", "pillow", *USES[info.name])},
    }


@dataclass(frozen=True)
class System:
    """One way of prediction: where it starts, its command, and its environment beside ours."""

    folder: Path
    command: list[str]
    environment: dict[str, str]


def systems(folder: str, threads: int, bundle: str) -> dict[str, System]:
    """What is measured; peers that are not installed are left out."""
    made = {}
    for name, engine in OUR_ENGINES.items():
        command = [sys.executable, str(HERE / "predict_throughput.py"), folder, "--one", engine]
        command += ["--bundle", bundle, "--threads", str(threads)]
        made[name] = System(HERE, command, SPIN)
    for name, peer, more, environment in (
        ("timm", "timm", [], {}),
        ("timm, channels last, short spin", "timm", ["--channels-last"], SPIN),
        ("PaddleClas (Paddle Inference, oneDNN)", "paddleclas", [], {}),
    ):
        python = PEERS / peer / ".venv" / "bin" / "python"
        if python.exists():
            command = [str(python), "predict.py", folder, "--threads", str(threads), *more]
            made[name] = System(PEERS / peer, command, environment)
        else:
            print(f"{name} is not installed: {PEERS}/install.sh", file=sys.stderr)
    return made


def measure(system: System, threads: int) -> dict:
    """The row that the command prints last, with the seconds of the whole process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **system.environment}
    command = system.command
    start = time.perf_counter()
    run = subprocess.run(
        command, cwd=system.folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if run.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{run.stderr[-2000:]}")
    row = json.loads([line for line in run.stdout.splitlines() if line.startswith("{")][-1])
    return {**row, "wall_seconds": round(seconds, 3)}


def summarise(rows: dict[str, list[dict]]) -> list[dict]:
    """Medians, spread and the ratio to ours, a system each."""
    mine = median(row["images_per_second"] for row in rows[OURS])
    summary = []
    for name, runs in rows.items():
        rates = [row["images_per_second"] for row in runs]
        summary.append(
            {
                "system": name,
                "images": runs[0]["images"],
                "images_per_second": median(rates),
                "slowest": min(rates),
                "fastest": max(rates),
                "ours_over_this": round(mine / median(rates), 2),
                "load_seconds": median(row["load_seconds"] for row in runs),
                "wall_seconds": median(row["wall_seconds"] for row in runs),
                "options": runs[0]["options"],
                "versions": runs[0]["versions"],
            }
        )
    return summary


def hardware() -> str:
    """The processor and what else it was doing."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.processor()
    load = os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores, {platform.system()}; load average {load:.1f}"


def write_results(summary: list[dict], rows: dict[str, list[dict]], place: dict) -> Path:
    """The Markdown and JSON files of today."""
    stem = HERE / "results" / f"{datetime.date.today().isoformat()}-predict-throughput"
    stem.with_suffix(".json").write_text(
        json.dumps({**place, "summary": summary, "runs": rows}, indent=2) + "\n"
    )
    lines = [
        "# Prediction, from files to five classes: DenseNet-121",
        "",
        f"{place['date']}; {place['hardware']} at the start, {place['load_after']:.1f} at the end.",
        f"{place['threads']} threads, {place['repeats']} repeats, the systems in turns; medians.",
        f"`{place['command']}`",
        "",
        "| system | answered | images/s | slowest–fastest | ours ÷ this | load s | process s |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['system']} | {row['images']} | {row['images_per_second']:.1f} "
        f"| {row['slowest']:.1f}–{row['fastest']:.1f} | {row['ours_over_this']:.2f} "
        f"| {row['load_seconds']:.1f} | {row['wall_seconds']:.1f} |"
        for row in summary
    ]
    lines += ["", "Options and versions:", ""]
    for row in summary:
        said = {**row["options"], **row["versions"]}
        lines.append(f"- {row['system']}: " + ", ".join(f"{k} {v}" for k, v in said.items()))
    lines += [
        "",
        "float32 everywhere; short spin: GOMP_SPINCOUNT=1000, as the verb sets it. Where the load",
        "average is above the cores, other work ran meanwhile: read the ratios, not the rates, and",
        "timm without the short spin loses most of its time to waiting threads that keep a core.",
    ]
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    return stem.with_suffix(".md")


def main() -> None:
    """Measures all systems, or with --one this one, in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", help="a folder, or a .zip of one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--bundle", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        row = predict_ours(options.images, options.threads, options.one, "float32", options.bundle)
        print(json.dumps(row))
        return
    given = Path(options.images).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        if given.suffix == ".zip":
            with zipfile.ZipFile(given) as archive:
                archive.extractall(Path(scratch) / "images")
        folder = f"{scratch}/images" if given.suffix == ".zip" else str(given)
        place = {
            "date": datetime.date.today().isoformat(),
            "hardware": hardware(),
            "threads": options.threads,
            "repeats": options.repeats,
            "command": f"python benchmarks/predict_throughput.py {given.name} "
            f"--repeats {options.repeats} --threads {options.threads}",
        }
        rows: dict[str, list[dict]] = {}
        bundle = str(formula_bundle(MODEL, Path(scratch) / "bundle"))
        for repeat in range(options.repeats):
            for name, system in systems(folder, options.threads, bundle).items():
                row = measure(system, options.threads)
                rows.setdefault(name, []).append(row)
                print(f"{repeat + 1}/{options.repeats}  {name}: {row['images_per_second']}/s")
    place["load_after"] = os.getloadavg()[0]
    print(write_results(summarise(rows), rows, place).read_text())


if __name__ == "__main__":
    main()

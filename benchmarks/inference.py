"""Latency of a batch on a CPU: our engines, and what else runs these networks.

Each system is a process of its own with its network loaded (the formula's parameters in all of
them; their logits are compared first). All systems of a model take turns, batch size by batch
size, several rounds, so that whatever else the machine does meets all of them. Reported is the
median of all runs; nothing but the network is timed, from array to array.

Writes `benchmarks/results/DATE-inference.json` after each model, from which a killed run goes on,
and `.md` and the figure at the end.

Run: .venv/bin/python benchmarks/inference.py [--models densenet121,dpn92] [--precision float32]
     [--rounds 3] [--threads 2]; the peers' environments first: benchmarks/peers/install.sh NAME
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
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from formula_bundle import formula_bundle
from predict_throughput import SPIN, hardware

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
MODELS = (
    *(f"densenet{depth}" for depth in (121, 161, 169, 201, 264)),
    *(f"dpn{depth}" for depth in (68, 92, 98, 107, 131)),
)
BATCHES = (1, 4, 8)
OURS = "densepath native"  # what `auto` takes on a CPU in float32
SECONDS = 0.8  # of one turn, about
PAUSE = 0.3  # until the threads of the system before have gone to sleep
AGREE = 1e-3  # max |Δlogit| as a share of the largest


@dataclass(frozen=True)
class System:
    """One way to run a network.

    Attributes:
        name: as the tables say it.
        peer: the folder of its environment; None for ours.
        mode: as its script calls it.
        models: our names of those that it has, and its own.
        precisions: that it can compute in.
        slow: left out unless it is asked for: it takes minutes to open.
    """

    name: str
    peer: str | None
    mode: str
    models: dict[str, str]
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    slow: bool = False


def _same(*without: str) -> dict[str, str]:
    return {name: name for name in MODELS if name not in without}


PADDLE = {name: name.replace("densenet", "DenseNet").replace("dpn", "DPN") for name in MODELS}
MINDCV = _same("densenet264", "dpn68", "dpn107")
SYSTEMS = (
    System(OURS, None, "native", _same(), ("float32",)),
    System("densepath openvino", None, "openvino", _same()),
    System("densepath onnxruntime", None, "onnxruntime", _same(), ("float32",)),
    System("densepath eager", None, "eager", _same()),
    System("plain OpenVINO", None, "plain-openvino", _same()),
    System("plain ONNX Runtime", None, "plain-onnxruntime", _same(), ("float32",)),
    System("timm eager", "timm", "eager", _same("densenet264")),
    System("timm eager, channels last", "timm", "channels_last", _same("densenet264")),
    System("timm compiled", "timm", "compiled", _same("densenet264"), slow=True),
    System("Paddle Inference, oneDNN", "paddleclas", "inference", PADDLE),
    System("MindSpore PyNative", "mindcv", "pynative", MINDCV, ("float32",)),
    System("MindSpore Graph", "mindcv", "graph", MINDCV, ("float32",)),
)


class Worker:
    """A system's process, its network loaded."""

    def __init__(self, system: System, model: str, bundle: Path, precision: str, threads: int):
        if system.peer is None:
            command = [sys.executable, str(HERE / "latency_ours.py"), str(bundle)]
        else:
            folder = PEERS / system.peer
            command = [str(folder / ".venv" / "bin" / "python"), str(folder / "latency.py")]
            command.append(system.models[model])
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the worker
        self.process = subprocess.Popen(
            [*command, system.mode, precision, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **(_own(system))},
        )
        self.ready = self.read()

    def read(self) -> dict:
        """The next line that is meant for us."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        self.errors.seek(0)
        raise RuntimeError(self.errors.read()[-1500:])

    def time(self, batch: int, repeats: int) -> list[float]:
        """Milliseconds of each run."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{batch} {repeats}\n")
        self.process.stdin.flush()
        return self.read()["ms"]

    def close(self) -> None:
        """The process has ended."""
        self.process.kill()
        self.process.wait()
        self.errors.close()


def _own(system: System) -> dict[str, str]:
    """What the command line of densepath sets for itself."""
    return SPIN if system.peer is None else {}


def available(model: str, precision: str, slow: bool) -> list[System]:
    """The systems that have the model and are installed."""
    return [
        system
        for system in SYSTEMS
        if model in system.models
        and precision in system.precisions
        and (slow or not system.slow)
        and (system.peer is None or (PEERS / system.peer / ".venv" / "bin" / "python").exists())
    ]


def measure(model: str, precision: str, options: argparse.Namespace) -> dict:
    """All systems on one model: milliseconds by system and batch size."""
    workers: dict[str, Worker] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        bundle = formula_bundle(model, Path(scratch) / "bundle")
        try:
            for system in available(model, precision, model in options.compiled):
                start = time.perf_counter()
                try:
                    worker = Worker(system, model, bundle, precision, options.threads)
                except RuntimeError as error:
                    failed[system.name] = str(error).strip().splitlines()[-1]
                    print(f"  {system.name} failed: {failed[system.name]}", flush=True)
                    continue
                workers[system.name] = worker
                seconds = time.perf_counter() - start
                print(f"  {system.name} opened in {seconds:.0f} s", flush=True)
            differences = compare(workers)
            times = take_turns(workers, options.rounds)
        finally:
            for worker in workers.values():
                worker.close()
    versions = {name: worker.ready["versions"] for name, worker in workers.items()}
    return {
        "ms": times,
        "max_relative_difference": differences,
        "versions": versions,
        "failed": failed,
        "load": os.getloadavg()[0],
    }


def compare(workers: dict[str, Worker]) -> dict[str, float]:
    """How far each system's logits of one image are from our eager network's."""
    logits = {name: np.array(worker.ready["logits"]) for name, worker in workers.items()}
    expected = logits["densepath eager"]
    return {
        name: float(np.abs(found - expected).max() / np.abs(expected).max())
        for name, found in logits.items()
    }


def take_turns(workers: dict[str, Worker], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of every run, by system and batch size."""
    times: dict[str, dict[str, list[float]]] = {name: {} for name in workers}
    for batch in BATCHES:
        repeats = {}
        for _ in range(rounds):
            for name, worker in workers.items():
                time.sleep(PAUSE)
                if name not in repeats:
                    once = worker.time(batch, 1)[0] / 1e3
                    repeats[name] = int(min(max(SECONDS / once, 2), 20))
                held = times[name].setdefault(str(batch), [])
                held += worker.time(batch, repeats[name])
    return times


def summarise(measured: dict) -> list[dict]:
    """A row for each model and batch size: medians, and ours over the best of the others."""
    rows = []
    for model, found in measured.items():
        for batch in BATCHES:
            medians = {
                name: median(times[str(batch)])
                for name, times in found["ms"].items()
                if times.get(str(batch))
            }
            ours = {name: ms for name, ms in medians.items() if name.startswith("densepath")}
            peers = {name: ms for name, ms in medians.items() if name not in ours}
            default = OURS if OURS in ours else "densepath openvino"
            best = min(peers, key=peers.__getitem__)
            rows.append(
                {
                    "model": model,
                    "batch": batch,
                    "ms": {name: round(ms, 2) for name, ms in medians.items()},
                    "default": default,
                    "best_peer": best,
                    "default_over_best_peer": round(ours[default] / peers[best], 3),
                    "peer_over_default": {
                        name: round(ms / ours[default], 2) for name, ms in peers.items()
                    },
                }
            )
    return rows


def to_markdown(place: dict, measured: dict) -> str:
    """The tables of one precision."""
    rows = summarise(measured)
    names = [s.name for s in SYSTEMS if any(s.name in row["ms"] for row in rows)]
    lines = [
        f"# Latency on a CPU, {place['precision']}",
        "",
        f"{place['date']}; {place['hardware']}.",
        f"`{place['command']}`",
        "",
        "Median milliseconds of a batch of 224 × 224 images, from array to array, 2 threads.",
        "",
        "| model | batch | " + " | ".join(names) + " | ours ÷ best other |",
        "|---|--:|" + "--:|" * (len(names) + 1),
    ]
    for row in rows:
        cells = [f"{row['ms'][name]:.1f}" if name in row["ms"] else "" for name in names]
        ratio = f"{row['default_over_best_peer']:.2f} ({row['best_peer']})"
        lines.append(f"| {row['model']} | {row['batch']} | " + " | ".join([*cells, ratio]) + " |")
    lines += ["", "Times of the others as multiples of ours, median over models:", ""]
    lines += ["| system | batch 1 | batch 4 | batch 8 |", "|---|--:|--:|--:|"]
    for name in names:
        ratios = [
            [
                row["peer_over_default"][name]
                for row in rows
                if row["batch"] == batch and name in row["peer_over_default"]
            ]
            for batch in BATCHES
        ]
        if all(ratios):
            lines.append(f"| {name} | " + " | ".join(f"{median(r):.2f}" for r in ratios) + " |")
    worst = max(d for found in measured.values() for d in found["max_relative_difference"].values())
    lines += ["", f"All systems agree: the largest |Δlogit| is {worst:.1e} of the largest logit."]
    loads = [f"{found['load']:.1f}" for found in measured.values()]
    lines.append(f"Load average after each model: {', '.join(loads)} (2 is one busy system).")
    for model, found in measured.items():
        lines += [f"{model}: {name} failed: {why}" for name, why in found["failed"].items()]
    versions = {k: v for found in measured.values() for k, v in found["versions"].items()}
    flat = {package: number for one in versions.values() for package, number in one.items()}
    lines += ["", "Versions: " + ", ".join(f"{k} {v}" for k, v in sorted(flat.items())) + "."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures the models that the results of today do not have yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compiled", default="densenet121,dpn92", help="models for timm compiled")
    options = parser.parse_args()
    options.compiled = options.compiled.split(",")
    date = datetime.date.today().isoformat()
    path = HERE / "results" / f"{date}-inference-{options.precision}.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    measured = held.get("models", {})
    place = held.get("place") or {
        "date": date,
        "hardware": hardware(),
        "precision": options.precision,
        "command": "python benchmarks/inference.py " + " ".join(sys.argv[1:]),
    }
    for model in options.models.split(","):
        if model in measured:
            continue
        print(model, flush=True)
        measured[model] = measure(model, options.precision, options)
        path.write_text(json.dumps({"place": place, "models": measured}, indent=1) + "\n")
        path.with_suffix(".md").write_text(to_markdown(place, measured))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()

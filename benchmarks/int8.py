"""INT8 against float32 on this CPU: one image, every form of ours and the peers' float networks.

Run: .venv/bin/python benchmarks/int8.py imagenet-photos-250.zip --bundles bundles

Weights are the formula's: times do not depend on them. Every system is a process of its own, of
which one runs while the others are stopped; they take turns. Peers of which `benchmarks/peers` has
no environment are left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from formula_bundle import formula_bundle, int8_bundle
from harness import HERE, MODELS, OUR_ENVIRONMENT, Budget, Results, Spread, add_options, table
from systems import find_systems
from workers import Worker, WorkerError

ENGINES = {
    "native": "native",
    "openvino": "openvino",
    "onnx": "onnxruntime",
    "executorch": "executorch",
    "litert": "litert",
}
OURS = "densepath"


def main() -> None:
    """Measures what the results lack, and writes the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="a zip archive of photographs to calibrate with")
    parser.add_argument(
        "--models", nargs="+", default=["densenet121", "dpn92"], choices=MODELS, metavar="MODEL"
    )
    parser.add_argument("--to", default=",".join(ENGINES), help="INT8 formats")
    parser.add_argument("--images", type=int, default=16, help="to calibrate with")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    add_options(parser, "int8")
    options = parser.parse_args()
    results, budget = Results(options.output, options), Budget(options.minutes)
    for model in options.models:
        if model not in results.parts and not budget.is_spent():
            results.add(model, measure(model, options))
            results.write_report(report(results))
    results.write_report(report(results))


def measure(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every system's milliseconds for one image."""
    wanted = options.photos, options.images, options.to
    with (
        formula_bundle(model, options.bundles) as bundle,
        int8_bundle(model, options.bundles, *wanted) as int8,
    ):
        workers, failed = open_workers(model, bundle, int8, options)
        try:
            runs: dict[str, list[float]] = {name: [] for name in workers}
            for number in range(options.rounds):
                for name in list(workers)[:: -1 if number % 2 else 1]:
                    runs[name] += workers[name].take_turn(1, options.seconds).ms
        finally:
            for worker in workers.values():
                worker.close()
        return {
            "ms": {name: vars(Spread.of(values)) for name, values in runs.items()},
            "failed": failed,
            "quantization": quantization_of(int8),
        }


def quantization_of(bundle: Path) -> dict[str, Any]:
    """What the bundle says of its forms."""
    from densepath.bundle.bundle import Bundle

    said = Bundle.open(bundle).manifest.quantization
    assert said is not None
    formats: dict[str, Any] = said["formats"]
    return formats


def open_workers(
    model: str, bundle: Path, int8: Path, options: argparse.Namespace
) -> tuple[dict[str, Worker], dict[str, str]]:
    """The systems that are ready, and why others are not."""
    threads = str(options.threads)
    commands = {
        f"float32, {system.name}": (
            system.command(model, bundle, "float32", options.threads),
            system.environment(options.threads),
        )
        for system in find_systems(model, "float32", slow=False)
    }
    environment = {"OMP_NUM_THREADS": threads} | OUR_ENVIRONMENT
    for format in quantization_of(int8):
        words = [str(int8), ENGINES[format], "float32", threads]
        command = [sys.executable, str(HERE / "latency_ours.py"), *words]
        commands[f"INT8, {OURS} {ENGINES[format]}"] = command, environment
    workers, failed = {}, {}
    for name, (command, variables) in commands.items():
        try:
            workers[name] = Worker(command, variables)
            print(f"{model}: {name} is ready", flush=True)
        except WorkerError as error:
            failed[name] = str(error)
            print(f"{model}: {name} failed: {error}", flush=True)
    return workers, failed


def report(results: Results) -> str:
    """The page."""
    lines = ["# One image in INT8 and in float32", "", results.header(), ""]
    for model, part in results.parts.items():
        times = {name: ms["median"] for name, ms in part["ms"].items()}
        floats = {name: ms for name, ms in times.items() if name.startswith("float32")}
        peers = {name: ms for name, ms in floats.items() if OURS not in name}
        best, best_peer = min(floats, key=floats.__getitem__), min(peers, key=peers.__getitem__)
        rows = []
        for name, ms in times.items():
            spread = part["ms"][name]
            form = next(
                (one for key, one in part["quantization"].items() if name.endswith(ENGINES[key])),
                None,
            )
            rows.append([name, f"{ms:.2f}", f"{spread['low']:.2f}–{spread['high']:.2f}"])
            own = times.get(name.replace("INT8", "float32"))
            int8 = name.startswith("INT8")
            rows[-1] += [
                f"{own / ms:.2f}" if int8 and own else "",
                f"{floats[best] / ms:.2f}" if int8 else "",
                f"{peers[best_peer] / ms:.2f}" if int8 else "",
                *(_quality(form) if int8 and form else ["", "", ""]),
            ]
        head = ["system", "ms", "10 %–90 %", "× its own float32", "× best float32"]
        head += ["× best peer's float32", "operators in INT8", "SNR dB", "MB"]
        lines += [f"## {model}", "", f"Best float32: {best}; of the peers: {best_peer}.", ""]
        lines += [table(head, rows), ""]
        lines += [f"- {name} failed: {why}" for name, why in part["failed"].items()]
    return "\n".join(lines) + "\n"


def _quality(form: dict[str, Any]) -> list[str]:
    """Operators in INT8, signal to noise, size."""
    operators, ratio = form["operators"], form["tried"][form["method"]]["snr_db"]
    return [
        "" if operators is None else f"{operators['share']:.1%}",
        f"{ratio:.1f}",
        f"{form['size_bytes'] / 1e6:.1f}",
    ]


if __name__ == "__main__":
    main()

"""What each rewriting of the exported network pays, on OpenVINO and ONNX Runtime.

The network is exported without rewriting, with each step of `densepath.exporting.rewrite` alone,
and with all; the forms take turns. Median milliseconds of a batch.

Writes `benchmarks/results/DATE-rewriting.json` after each model, from which the same command goes
on, and `.md`.

Run: .venv/bin/python benchmarks/rewriting.py [--models densenet121,dpn92] [--repeats 25]
"""

from __future__ import annotations

import argparse
import io
import time
import warnings
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from formula_bundle import formula_checkpoint
from harness import Budget, Results, add_options, table

from densepath.exporting.rewrite import ALL_STEPS, STEPS, rewrite
from densepath.weights.formula import formula_images

# After densepath, which switches their telemetry off.
import onnxruntime  # isort: skip
import openvino  # isort: skip

FORMS = {
    "as it is": (),
    **{step: (step,) for step in STEPS},
    "all": STEPS,
    "all, depthwise": ALL_STEPS,
}
BATCHES = (1, 8)
Run = Callable[[np.ndarray], object]


def runners(model: str, threads: int) -> dict[str, dict[str, Run]]:
    """Runtime → form → function of a batch."""
    network = formula_checkpoint(model).to_model()
    made: dict[str, dict[str, Run]] = {"OpenVINO": {}, "ONNX Runtime": {}}
    for form, steps in FORMS.items():
        with torch.no_grad():
            program = torch.export.export(
                rewrite(network, steps),
                (torch.zeros(2, 3, 224, 224),),
                dynamic_shapes=({0: torch.export.Dim("n")},),
            )
        graph = openvino.convert_model(program)
        graph.reshape([-1, 3, 224, 224])
        settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        compiled = openvino.Core().compile_model(
            graph, "CPU", {**settings, "INFERENCE_NUM_THREADS": threads}
        )
        made["OpenVINO"][form] = compiled.create_infer_request().infer
        file = io.BytesIO()
        torch.onnx.export(program, dynamo=True, verbose=False).save(file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file.getvalue(), options, ["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        made["ONNX Runtime"][form] = lambda x, s=session, n=name: s.run(None, {n: x})
        print(f"{model}, {form}: ready", flush=True)
    return made


def measure(made: dict[str, dict[str, Run]], repeats: int) -> list[dict]:
    """A row for each runtime and batch size."""
    rows = []
    for runtime, forms in made.items():
        for batch in BATCHES:
            images = np.repeat(formula_images(1, 224, 224), batch, axis=0)
            times: dict[str, list[float]] = {form: [] for form in forms}
            for _ in range(max(repeats // batch, 5) + 1):
                for form, run in forms.items():
                    start = time.perf_counter()
                    run(images)
                    times[form].append((time.perf_counter() - start) * 1e3)
            medians = {form: round(median(ms[1:]), 2) for form, ms in times.items()}
            rows.append({"runtime": runtime, "batch": batch, "ms": medians})
    return rows


def report(results: Results) -> str:
    """The whole page."""
    rows = []
    for model, part in results.parts.items():
        for row in part["rows"]:
            cells = [f"{row['ms'][form]:.1f}" for form in FORMS]
            ratio = row["ms"]["all"] / row["ms"]["as it is"]
            rows.append([model, row["runtime"], str(row["batch"]), *cells, f"{ratio:.2f}"])
    lines = [
        "# What each rewriting pays",
        "",
        results.header(),
        "",
        f"Median milliseconds, {results.place['threads']} threads; last, `all` over `as it is`.",
        "",
        table(["model", "runtime", "batch", *FORMS, "ratio"], rows, names=2),
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="densenet121,dpn92")
    parser.add_argument("--repeats", type=int, default=25)
    add_options(parser, "rewriting")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the exporters' own
    results, budget = Results(options.output, options), Budget(options.minutes)
    for model in options.models.split(","):
        if model not in results.parts and not budget.is_spent():
            rows = measure(runners(model, options.threads), options.repeats)
            results.add(model, {"rows": rows})
    if results.parts:
        results.write_report(report(results))
        print(report(results))


if __name__ == "__main__":
    main()

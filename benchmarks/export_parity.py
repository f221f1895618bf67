"""Every exported form of the ten models beside the model itself, from image file to five classes.

Each model has the parameters of `densepath.weights.formula`, but for a classifier bias that lets
the best class depend on the image, and timm's preprocessing (224 pixels out of 256, bicubic). It
is exported by `densepath.export` in a process of its own, into a folder that is removed
afterwards; the figures are those of the bundle's own parity report, the worst over engines and
batch sizes.

Writes `benchmarks/results/DATE-export-parity.json` after each model, from which the same command
goes on, and `.md`.

Run: .venv/bin/python benchmarks/export_parity.py IMAGES.zip|FOLDER [--num-images 50]
     [--to onnx,openvino,torch] [--models densenet121,dpn68]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import MODELS, Budget, Results, add_options, table

BATCH_SIZES = (1, 8)


def export_one(name: str, images: str, num_images: int, to: list[str]) -> dict:
    """The parity report of one model's bundle, and what the export took."""
    import densepath
    from densepath.errors import ParityError

    checkpoint = spread_answers(formula_checkpoint(name), images)
    with tempfile.TemporaryDirectory() as scratch:
        bundle, failed = Path(scratch) / "bundle", Path(scratch) / "failed"
        start = time.perf_counter()
        try:
            densepath.export(
                checkpoint,
                bundle,
                to=to,
                images=[images],
                num_images=num_images,
                batch_sizes=BATCH_SIZES,
                failed=failed,
            )
        except ParityError as error:
            print(error, file=sys.stderr)
        seconds = time.perf_counter() - start
        folder = bundle if bundle.exists() else failed
        report = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    return {"seconds": round(seconds, 1), "size_bytes": sizes, **report}


def formula_checkpoint(name: str):
    """The model with the formula's parameters and timm's preprocessing."""
    import torch

    from densepath.images.preprocess import Preprocess
    from densepath.models.build import build_model
    from densepath.weights.checkpoint import Checkpoint
    from densepath.weights.formula import formula_tensor

    model = build_model(name)
    state = {
        key: torch.from_numpy(formula_tensor(key, tuple(tensor.shape)))
        for key, tensor in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    model.load_state_dict(state, strict=False)
    return Checkpoint.of(model, preprocess=Preprocess((224, 224), 256, "bicubic"))


def spread_answers(checkpoint, images: str):
    """The checkpoint with a classifier bias that makes the mean logits of some images 0.

    With the formula's own bias two or three classes are the best of all images.
    """
    import numpy as np
    import torch

    from densepath.exporting.parity_images import collect_images
    from densepath.images.decode import open_image

    with collect_images([images], 8) as some:
        inputs = [checkpoint.preprocess(open_image(path)) for path in some.paths]
    with torch.inference_mode():
        mean = checkpoint.to_model()(torch.from_numpy(np.stack(inputs))).mean(0)
    checkpoint.tensors["classifier.bias"] -= mean
    return checkpoint


def in_own_process(name: str, options: argparse.Namespace) -> dict:
    """The report of one model; its memory is free afterwards."""
    command = [sys.executable, __file__, str(options.images), "--one", name]
    command += ["--num-images", str(options.num_images), "--to", options.to]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{name} failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def summarise(report: dict) -> list[dict]:
    """For each format and way of resizing the worst figures."""
    pixels = {row["format"]: row for row in report["pixels"]}
    rows = []
    for name, resizer in dict.fromkeys((r["format"], r["preprocess"]) for r in report["rows"]):
        same = [r for r in report["rows"] if (r["format"], r["preprocess"]) == (name, resizer)]
        rows.append(
            {
                "format": name,
                "engines": sorted({row["engine"] for row in same}),
                "resized_by": resizer,
                "max_difference": max(row["max_difference"] for row in same),
                "relative": max(row["relative"] for row in same),
                "top1": min(row["top1"] for row in same),
                "ties": max(row["ties"] for row in same),
                "top5": min(row["top5"] for row in same),
                "score": max(row["score"] for row in same),
                "pixels": pixels[name]["share"] if resizer == "graph" else None,
            }
        )
    return rows


def report(results: Results) -> str:
    """The whole page."""
    parts = results.parts
    best = ", ".join(f"{name} {part['num_best']}" for name, part in parts.items())
    head = ["model", "format", "engines", "resized by", "max abs Δlogit", "over the largest logit"]
    head += ["top-1", "ties", "top-5", "max abs Δscore", "values not Pillow's"]
    rows = []
    for name, part in parts.items():
        for row in summarise(part):
            about = [name, row["format"], ", ".join(row["engines"]), row["resized_by"]]
            figures = [f"{row['max_difference']:.1e}", f"{row['relative']:.1e}"]
            figures += [f"{row['top1']:.1%}", str(row["ties"]), f"{row['top5']:.1%}"]
            pixels = "" if row["pixels"] is None else f"{row['pixels']:.4%}"
            rows.append([*about, *figures, f"{row['score']:.1e}", pixels])
    lines = [
        "# Exported networks beside their checkpoints, from image file to answer",
        "",
        results.header(),
        "",
        f"{next(iter(parts.values()))['images']}; batches of "
        f"{', '.join(map(str, BATCH_SIZES))}; the worst of all.",
        f"Different best classes among the answers: {best}.",
        "",
        table(head, rows, names=4),
        f"Broken bounds: {'; '.join(broken(parts)) or 'none'}.",
        "",
        "The reference is the network in PyTorch, float32, not rewritten, on images resized by",
        "Pillow. Resized by the graph: from the file to the answer by what the bundle holds. Ties:",
        "images with another best class whose two best logits are nearer to each other than the",
        "bound; top-5: the same classes in the same order.",
    ]
    return "\n".join(lines) + "\n"


def broken(reports: dict[str, dict]) -> list[str]:
    """Every bound that does not hold."""
    return [f"{name}, {said}" for name, report in reports.items() for said in report["broken"]]


def main() -> None:
    """Exports all models, or with --one this one, in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="a folder or a .zip of images")
    parser.add_argument("--num-images", type=int, default=50)
    parser.add_argument("--to", default="onnx,openvino,torch")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--one", choices=MODELS, help=argparse.SUPPRESS)
    add_options(parser, "export-parity")
    options = parser.parse_args()
    if options.one:
        to = options.to.split(",")
        print(json.dumps(export_one(options.one, str(options.images), options.num_images, to)))
        return
    results, budget = Results(options.output, options), Budget(options.minutes)
    for name in options.models.split(","):
        if name in results.parts or budget.is_spent():
            continue
        part = in_own_process(name, options)
        worst = max(row["relative"] for row in summarise(part))
        wrong = f"; BROKEN: {part['broken']}" if part["broken"] else ""
        print(f"{name}: {part['seconds']} s, {worst:.1e} at most{wrong}", flush=True)
        results.add(name, part)
    if results.parts:
        results.write_report(report(results))
        print(report(results))
        sys.exit(1 if broken(results.parts) else 0)


if __name__ == "__main__":
    main()

"""Every exported form of the ten models beside the model itself, from image file to five classes.

Each model has the parameters of `densepath.weights.formula`, but for a classifier bias that lets
the best class depend on the image, and timm's preprocessing (224 pixels out of 256, bicubic). It
is exported by `densepath.export` in a process of its own, into a folder that is removed
afterwards; the figures are those of the bundle's own parity report, the worst over engines and
batch sizes.

Writes `benchmarks/results/DATE-export-parity.md` and `.json`.

Run: .venv/bin/python benchmarks/export_parity.py IMAGES.zip|FOLDER [--num-images 50]
     [--to onnx,openvino,torch] [--models densenet121 dpn68]
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
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = (
    *("densenet121", "densenet161", "densenet169", "densenet201", "densenet264"),
    *("dpn68", "dpn92", "dpn98", "dpn107", "dpn131"),
)
BATCH_SIZES = (1, 4, 8)
PACKAGES = ("densepath", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "pillow")


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

    from densepath.models.build import build_model
    from densepath.preprocess import Preprocess
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

    from densepath.data.decode import open_image
    from densepath.export.parity_images import collect_images

    with collect_images([images], 8) as some:
        inputs = [checkpoint.preprocess(open_image(path)) for path in some.paths]
    with torch.inference_mode():
        mean = checkpoint.to_model()(torch.from_numpy(np.stack(inputs))).mean(0)
    checkpoint.tensors["classifier.bias"] -= mean
    return checkpoint


def in_own_process(name: str, options: argparse.Namespace) -> dict:
    """The report of one model; its memory is free afterwards."""
    command = [sys.executable, str(HERE / "export_parity.py"), options.images, "--one", name]
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


def write_results(reports: dict[str, dict], place: dict) -> Path:
    """The Markdown and JSON files of today."""
    stem = HERE / "results" / f"{datetime.date.today().isoformat()}-export-parity"
    summary = {name: summarise(report) for name, report in reports.items()}
    kept = {**place, "summary": summary, "reports": reports}
    stem.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    best = ", ".join(f"{name} {report['num_best']}" for name, report in reports.items())
    lines = [
        "# Exported networks beside their checkpoints, from image file to answer",
        "",
        f"{place['date']}; {place['hardware']}.",
        f"{place['images']}; batches of {', '.join(map(str, BATCH_SIZES))}; the worst of all.",
        f"Different best classes among the answers: {best}.",
        f"`{place['command']}`",
        ", ".join(f"{name} {number}" for name, number in place["versions"].items()),
        "",
        "| model | format | engines | resized by | max abs Δlogit | over the largest logit | top-1 "
        "| ties | top-5 | max abs Δscore | values not Pillow's |",
        "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, rows in summary.items():
        for row in rows:
            pixels = "" if row["pixels"] is None else f"{row['pixels']:.4%}"
            lines.append(
                f"| {name} | {row['format']} | {', '.join(row['engines'])} | {row['resized_by']} "
                f"| {row['max_difference']:.1e} | {row['relative']:.1e} | {row['top1']:.1%} "
                f"| {row['ties']} | {row['top5']:.1%} | {row['score']:.1e} | {pixels} |"
            )
    lines += ["", "Broken bounds: " + ("; ".join(broken(reports)) or "none") + ".", ""]
    lines += [
        "The reference is the network in PyTorch, float32, not rewritten, on images resized by",
        "Pillow. Resized by the graph: from the file to the answer by what the bundle holds. Ties:",
        "images with another best class whose two best logits are nearer to each other than the",
        "bound; top-5: the same classes in the same order.",
    ]
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return stem.with_suffix(".md")


def broken(reports: dict[str, dict]) -> list[str]:
    """Every bound that does not hold."""
    return [f"{name}, {said}" for name, report in reports.items() for said in report["broken"]]


def hardware() -> str:
    """The processor."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def main() -> None:
    """Exports all models, or with --one this one, in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", help="a folder or a .zip of images")
    parser.add_argument("--num-images", type=int, default=50)
    parser.add_argument("--to", default="onnx,openvino,torch")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--one", choices=MODELS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        to = options.to.split(",")
        print(json.dumps(export_one(options.one, options.images, options.num_images, to)))
        return
    reports: dict[str, dict] = {}
    for name in options.models:
        reports[name] = in_own_process(name, options)
        worst = max(row["relative"] for row in summarise(reports[name]))
        wrong = f"; BROKEN: {reports[name]['broken']}" if reports[name]["broken"] else ""
        print(f"{name}: {reports[name]['seconds']} s, {worst:.1e} at most{wrong}", flush=True)
    place = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "images": next(iter(reports.values()))["images"],
        "command": f"python benchmarks/export_parity.py {Path(options.images).name} "
        f"--num-images {options.num_images} --to {options.to}",
        "versions": {name: version(name) for name in PACKAGES},
    }
    print(write_results(reports, place).read_text(encoding="utf-8"))
    sys.exit(1 if broken(reports) else 0)


if __name__ == "__main__":
    main()

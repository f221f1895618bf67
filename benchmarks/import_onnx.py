"""ONNX files and Caffe models of other programs → `densepath import` → logits, against their own.

Run: python benchmarks/import_onnx.py FOLDER, which the peers' scripts make:

    benchmarks/peers/timm/export_onnx.py FOLDER/pytorch
    benchmarks/peers/paddleclas/export_onnx.py MODELS FOLDER/paddle2onnx
    benchmarks/peers/opencv/save_caffe.py FOLDER/caffe

Besides it exports every model of ours, and fills the `onnx` package's `light_densenet121.onnx` at
random; both are compared with ONNX Runtime. A file that was compared before is left out. The
results stand in `benchmarks/results/`, as JSON and a table.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from parity import ROOT, SIZES

from densepath.exporting.onnx import write_onnx
from densepath.exporting.program import export_program
from densepath.files import write_json, write_text
from densepath.images.preprocess import Preprocess
from densepath.models.catalogue import find_spec
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.formula import formula_images, formula_tensor
from densepath.weights.import_file import import_weights
from densepath.weights.match import expected_shapes

BOUND = 1e-4
LIGHT = (
    Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_densenet121.onnx"
)
OURS = (
    "densenet121", "densenet161", "densenet169", "densenet201", "densenet264",
    "dpn68", "dpn92", "dpn98", "dpn107", "dpn131",
)  # fmt: skip
EXPORTERS = {"torchscript": "TorchScript exporter", "dynamo": "torch.export exporter"}
LOGITS = ROOT / "tests" / "parity" / "logits"
# A file to compare: what made it, the model, and its logits by the size of the formula's image.
Case = tuple[str, str, Path, Mapping[str, np.ndarray]]
ABOUT = """\
# ONNX files and Caffe models, imported, {date}

Networks filled with the formula of `src/densepath/weights/formula.py`, written by other programs.
`densepath.import_weights` finds model, switches and every tensor by the graph's structure; our
network answers the formula's image (height x width). The cells are max |Δlogit|; the bound is
{bound:g}. Compared with: the logits of the exporting framework's own network (PyTorch, Paddle);
OpenCV's for Caffe's files, which a writer of ours made, for Caffe has no package to write them;
ONNX Runtime's for our own exports and for `light_densenet121.onnx`, whose ConstantOfShape weights
are random ones here. A Caffe model gets images with blue first, as does that file, of Caffe2.

Read on PyTorch {torch}, NumPy {numpy}, onnx {onnx}, ONNX Runtime {onnxruntime}.
Command: `python benchmarks/import_onnx.py FOLDER`, whose first lines say how FOLDER is made.

| written by | model | MB | found | notes | largest logit | {sizes} |
|---|---|---|---|---|---|{rules}
"""


def peers(folder: Path) -> Iterator[Case]:
    """The files of other programs with their own logits."""
    for file in sorted((folder / "caffe").glob("*.caffemodel")):
        with np.load(folder / "caffe" / "logits.npz") as stored:
            logits = {SIZES[0]: stored[file.stem]}
            opencv = json.loads(str(stored["about"]))["opencv"]
        yield f"our writer of Caffe's form; answers of OpenCV {opencv}", file.stem, file, logits
    made = _versions(folder / "paddle2onnx" / "about.json")
    for file in sorted((folder / "paddle2onnx").glob("*.onnx")):
        model = file.stem.partition("-")[2]
        with np.load(LOGITS / "paddleclas.npz") as stored:
            logits = {size: stored[f"{model}/{size}"] for size in SIZES}
        yield f"PaddleClas's by Paddle2ONNX ({made})", model, file, logits
    made = _versions(folder / "pytorch" / "about.json")
    for exporter, word in EXPORTERS.items():
        for file in sorted((folder / "pytorch").glob(f"*.{exporter}.onnx")):
            peer, _, model = file.name.partition(".")[0].partition("-")
            # The two have the same weights: the second is compared at one size.
            sizes = SIZES if exporter == "torchscript" else SIZES[:1]
            with np.load(LOGITS / f"{peer}.npz") as stored:
                logits = {size: stored[f"{model}/{size}"] for size in sizes}
            yield f"{peer}'s by PyTorch's {word} ({made})", model, file, logits


def _versions(path: Path) -> str:
    """The versions in a file that a peer's script wrote."""
    versions = json.loads(path.read_text()) if path.is_file() else {}
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def own_exports(folder: Path) -> Iterator[Callable[[], Case]]:
    """Our own exports, each made when it is asked for, and ONNX Runtime's answers."""
    for name in OURS:

        def make(name: str = name) -> Case:
            """The file of one model."""
            spec = find_spec(name)
            shapes = expected_shapes(spec, 1000, 3)
            tensors = {key: torch.from_numpy(formula_tensor(key, shapes[key])) for key in shapes}
            labels = [str(number) for number in range(1000)]
            checkpoint = Checkpoint(spec, Preprocess((224, 224)), labels, tensors, 3, False, {})
            write_onnx(export_program(checkpoint, (224, 224)), checkpoint.preprocess, folder)
            file = folder / "model.onnx"
            return (
                "densepath export",
                name,
                file,
                {SIZES[0]: runtime_logits(file, formula(SIZES[0]))},
            )

        yield make


def light(folder: Path) -> Case:
    """The `onnx` package's DenseNet-121 with random weights, and ONNX Runtime's answers."""
    model, rng = onnx.load(str(LIGHT)), np.random.default_rng(0)
    shapes = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    uses = {
        name: (node, place) for node in model.graph.node for place, name in enumerate(node.input)
    }
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(int(side) for side in shapes[node.input[0]])
        user, place = uses[node.output[0]]
        values = rng.uniform(-1, 1, shape) * 0.2
        if user.op_type == "Conv" and place == 1:
            values *= 5 * np.sqrt(6 / np.prod(shape[1:]))
        elif (place in (1, 4) and user.op_type == "BatchNormalization") or "/bn_w" in node.output[
            0
        ]:
            values += 1
        made = numpy_helper.from_array(values.astype(np.float32), node.output[0])
        model.graph.initializer.append(made)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    file = folder / LIGHT.name
    onnx.save(model, str(file))
    return "onnx-caffe2, of the onnx package", "densenet121", file, {
        SIZES[0]: runtime_logits(file, formula(SIZES[0]))
    }  # fmt: skip


def formula(size: str) -> np.ndarray:
    """The formula's image of a size."""
    height, width = map(int, size.split("x"))
    return formula_images(1, height, width)


def runtime_logits(file: Path, images: np.ndarray) -> np.ndarray:
    """What ONNX Runtime answers for a file."""
    import onnxruntime  # behind densepath, which switches its telemetry off

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0].reshape(-1)


def compare(case: Case) -> dict[str, Any]:
    """One row: a file against its logits."""
    made_by, model, file, logits = case
    notes: list[str] = []
    checkpoint = import_weights(file, say=notes.append)
    network, deltas = checkpoint.to_model(), {}
    for size, theirs in logits.items():
        images = formula(size)
        if checkpoint.provenance["names"] == "caffe":
            images = images[:, ::-1].copy()
        with torch.inference_mode():
            ours = network(torch.from_numpy(images))[0].numpy()
        deltas[size] = float(np.abs(ours - theirs).max())
    if max(deltas.values()) > BOUND:
        raise SystemExit(f"{file}: {deltas}")
    beside = file.with_suffix(".onnx.data")
    return {
        "made_by": made_by,
        "model": model,
        "file": file.name,
        "size_bytes": sum(one.stat().st_size for one in (file, beside) if one.is_file()),
        "found": checkpoint.spec.name,
        "bn_eps": checkpoint.spec.arch.bn_eps,
        "notes": [note.partition(": ")[2] for note in notes],
        "largest_logit": float(np.abs(next(iter(logits.values()))).max()),
        "deltas": deltas,
    }


def cases(folder: Path, scratch: Path) -> Iterator[tuple[str, Callable[[], Case]]]:
    """All cases by a key of their own, made when they are called."""
    yield "light", lambda: light(scratch)
    for case in peers(folder):
        yield f"{case[0]}/{case[2].name}", lambda case=case: case
    for name, make in zip(OURS, own_exports(scratch), strict=True):
        yield f"own/{name}", make


def main() -> None:
    """Compares every file; what was compared before is left out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    date = datetime.date.today().isoformat()
    stem = ROOT / "benchmarks" / "results" / f"{date}-import-onnx"
    parser.add_argument("--output", type=Path, default=stem)
    given = parser.parse_args()
    kept = given.output.with_suffix(".json")
    rows = json.loads(kept.read_text())["rows"] if kept.is_file() else {}
    with TemporaryDirectory() as scratch:
        for key, make in cases(given.folder, Path(scratch)):
            if key not in rows:
                rows[key] = compare(make())
                print(key, rows[key]["deltas"], flush=True)
                write_json(kept, {"date": date, "rows": rows})
                write_text(given.output.with_suffix(".md"), page(list(rows.values()), date))


def page(rows: list[dict[str, Any]], date: str) -> str:
    """The table of all rows, with what was compared, and what was said of the files."""
    rows = sorted(rows, key=lambda row: (row["made_by"], row["model"]))
    packages = ("torch", "numpy", "onnx", "onnxruntime")
    text = ABOUT.format(
        date=date,
        bound=BOUND,
        sizes=" | ".join(SIZES),
        rules="---|" * len(SIZES),
        **{name: version(name) for name in packages},
    )
    said = list(dict.fromkeys(_without_numbers(note) for row in rows for note in row["notes"]))
    for row in rows:
        numbers = [str(said.index(_without_numbers(note)) + 1) for note in row["notes"]]
        cells = [
            row["made_by"],
            row["model"],
            f"{row['size_bytes'] / 1e6:.0f}",
            f"`{row['found']}`, ε {row['bn_eps']:g}",
            ", ".join(numbers),
            f"{row['largest_logit']:.1f}",
            *(f"{row['deltas'][size]:.1e}" if size in row["deltas"] else "" for size in SIZES),
        ]
        text += "| " + " | ".join(cells) + " |\n"
    largest = max((max(row["deltas"].values()) for row in rows), default=0.0)
    text += f"\n{len(rows)} files, the largest difference {largest:.1e}. What the import said:\n\n"
    return text + "".join(f"{number}. {note}\n" for number, note in enumerate(said, start=1))


def _without_numbers(note: str) -> str:
    """A note with its first count left open, so that it is listed once."""
    first, _, rest = note.partition(" ")
    return f"N {rest}" if first.isdigit() else note


if __name__ == "__main__":
    main()

"""Holds networks of PyTorch's libraries, read from their files, to what the libraries answered.

Run: benchmarks/peers/torchfam/.venv/bin/python benchmarks/peers/torchfam/networks.py FOLDER
     .venv/bin/python benchmarks/peers/torchfam/compare.py FOLDER
     (writes benchmarks/results/2026-11-28-import-torch.md and .json)
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch

from densepath.errors import DensepathError
from densepath.weights.formula import formula_images
from densepath.weights.import_file import import_weights

RESULTS = Path(__file__).resolve().parents[2] / "results" / "2026-11-28-import-torch"
BOUND = 1e-4


def compare(path: Path) -> dict[str, object]:
    """What a file became, and how far its answers are from the library's at most."""
    library, model, form = path.stem.split("_", 2)
    row: dict[str, object] = {"library": library, "model": model, "form": form, "file": path.name}
    said: list[str] = []
    try:
        checkpoint = import_weights(path, say=said.append)
    except DensepathError as error:
        return row | {"refused": str(error).replace(f"{path}: ", "")}
    network = checkpoint.to_model()
    is_backbone = bool(checkpoint.provenance.get("backbone"))
    distance = scale = 0.0
    with np.load(path.with_suffix(".npz")) as stored:
        for size in stored.files:
            height, width = map(int, size.split("x"))
            images = formula_images(1, height, width, checkpoint.in_channels)
            with torch.inference_mode():
                run = network.features if is_backbone else network
                ours = run(torch.from_numpy(images))[0].numpy()
            theirs = stored[size]
            if is_backbone:  # a DPN's features end in the ReLU in some, before it in others
                ours, theirs = np.maximum(ours, 0), np.maximum(theirs, 0)
            if ours.shape != theirs.shape:
                raise SystemExit(f"{path}: {ours.shape} instead of {theirs.shape}")
            distance = max(distance, float(np.abs(ours - theirs).max()))
            scale = max(scale, float(np.abs(theirs).max()))
    return row | {
        "became": checkpoint.spec.name,
        "kind": checkpoint.provenance["kind"],
        "compared": "features" if is_backbone else f"{checkpoint.num_classes} logits",
        "largest": scale,
        "distance": distance,
        "notes": [note.replace(f"{path}: ", "") for note in said],
    }


def to_markdown(rows: list[dict[str, object]], versions: dict[str, str]) -> str:
    """The results' page."""
    script = "benchmarks/peers/torchfam"
    lines = [
        "# Files of PyTorch's libraries, read without them",
        "",
        f"Made by `{script}/networks.py FOLDER` in the libraries' environment and "
        f"`{script}/compare.py FOLDER` in densepath's. Every network is the library's own class, "
        "filled by the formula (`densepath/weights/formula.py`), saved by the library, imported "
        "with no option, and run on the formula's image of 224 × 224 pixels. A "
        f"network without a classifier of ours is compared by its last features. The bound is "
        f"{BOUND:g}.",
        "",
        f"{', '.join(f'{name} {number}' for name, number in versions.items())}; "
        f"densepath's PyTorch {torch.__version__}, Python {platform.python_version()}.",
        "",
        "| library | its model | file | became | compared | largest value | max \\|Δ\\| |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['library']} | {row['model']} | {row['form']} | `{row['became']}` "
        f"| {row['compared']} | {row['largest']:.2f} | {row['distance']:.1e} |"
        for row in rows
        if "distance" in row
    ]
    lines += ["", "## Refused", "", "| library | its model | what is said |", "|---|---|---|"]
    lines += [
        f"| {row['library']} | {row['model']} | {row['refused']} |"
        for row in rows
        if "refused" in row
    ]
    notes = {note: row for row in rows for note in row.get("notes", [])}  # type: ignore[attr-defined]
    lines += ["", "## What was said", ""]
    lines += [f"- {row['library']} {row['form']}: {note}" for note, row in notes.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compare every file of the folder; 1 where one is beyond the bound."""
    folder = Path(sys.argv[1])
    versions = dict(line.split() for line in (folder / "versions.txt").read_text().splitlines())
    files = [p for p in sorted(folder.iterdir()) if p.suffix in (".pth", ".pt", ".pt2", ".ckpt")]
    rows = []
    for path in files:
        rows.append(compare(path))
        print(rows[-1]["file"], rows[-1].get("distance", rows[-1].get("refused")), flush=True)
    RESULTS.with_suffix(".json").write_text(
        json.dumps({"versions": versions, "bound": BOUND, "rows": rows}, indent=1) + "\n"
    )
    RESULTS.with_suffix(".md").write_text(to_markdown(rows, versions))
    beyond = [r["file"] for r in rows if float(str(r.get("distance", 0))) > BOUND]
    print(f"{len(rows)} files, {len(beyond)} beyond {BOUND:g}: {beyond}")
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())

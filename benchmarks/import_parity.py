"""Files that Keras and MXNet wrote → `densepath import` → logits, against their own logits.

Writes a table as Markdown and JSON. First let the frameworks save their networks (gigabytes):

    for peer in keras mxnet; do
        benchmarks/peers/install.sh $peer
        benchmarks/peers/$peer/.venv/bin/python benchmarks/peers/$peer/save.py FOLDER/$peer
    done
    python benchmarks/import_parity.py FOLDER OUTPUT

Beside each file stand the framework's logits for the formula's image of 224 × 224 pixels. No model
is named: the import finds it out.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from densepath.weights.formula import formula_images
from densepath.weights.import_file import import_weights

BOUND = 1e-4
FRAMEWORKS = {
    "keras3": "Keras 3.15.1 on TensorFlow 2.21.0",
    "keras2": "tf-keras 2.21.0 on TensorFlow 2.21.0",
    "mxnet": "MXNet 1.9.1",
}


def compare(path: Path, logits: Path, framework: str) -> dict[str, object]:
    """One row: what the file is taken for, and how far its logits are from the framework's."""
    theirs = np.load(logits)
    checkpoint = import_weights(path, say=lambda note: None)
    with torch.inference_mode():
        images = torch.from_numpy(formula_images(1, 224, 224))
        ours = checkpoint.to_model()(images)[0].numpy()
    difference = float(np.abs(ours - theirs).max())
    print(f"{path.name}: {difference:.1e}", file=sys.stderr, flush=True)
    return {
        "file": path.name,
        "framework": framework,
        "kind": checkpoint.provenance["kind"],
        "model": checkpoint.spec.name,
        "bn_eps": checkpoint.spec.arch.bn_eps,
        "largest_logit": float(np.abs(theirs).max()),
        "std": float(theirs.std()),
        "largest_difference": difference,
    }


def rows(folder: Path) -> list[dict[str, object]]:
    """A row for every file of both frameworks."""
    found = []
    for path in sorted(folder.glob("keras/*.keras")) + sorted(folder.glob("keras/*.h5")):
        model, keras = path.name.split(".")[:2]
        logits = path.with_name(f"{model}.{keras}.npy")
        found.append(compare(path, logits, FRAMEWORKS[keras]))
    for path in sorted(folder.glob("mxnet/*.params")):
        model = re.split(r"[.-]", path.name)[0]
        found.append(compare(path, path.with_name(f"{model}.npy"), FRAMEWORKS["mxnet"]))
    return found


def to_markdown(found: list[dict[str, object]]) -> str:
    """The table."""
    lines = [
        "| file | written by | taken for | ε | logits: max, std | max \\|Δlogit\\| |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row['file']}` | {row['framework']} | {row['model']} | {row['bn_eps']:g} | "
        f"{row['largest_logit']:.1f}, {row['std']:.1f} | {row['largest_difference']:.1e} |"
        for row in found
    ]
    return "\n".join(lines) + "\n"


def main(folder: Path, output: Path) -> int:
    """Write OUTPUT.json, print the table; 1 where a file is beyond the bound."""
    found = rows(folder)
    about = {"python": platform.python_version()}
    about |= {name: version(name) for name in ("torch", "numpy", "h5py")}
    output.with_suffix(".json").write_text(
        json.dumps({"bound": BOUND, "versions": about, "rows": found}, indent=1) + "\n"
    )
    print(to_markdown(found))
    return int(any(float(str(row["largest_difference"])) > BOUND for row in found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

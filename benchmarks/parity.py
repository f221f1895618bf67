"""Files that upstream wrote → `densepath import` → logits, against upstream's own logits.

Prints a Markdown table. First let the peers save their files (gigabytes) into a folder:

    for peer in paddleclas mindcv timm; do
        benchmarks/peers/install.sh $peer
        benchmarks/peers/$peer/.venv/bin/python benchmarks/peers/$peer/save.py FOLDER
    done
    python benchmarks/parity.py FOLDER

The upstream logits are those of `tests/parity/logits/`, which the peers' `logits.py` wrote.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from densepath.weights.checkpoint import Checkpoint
from densepath.weights.formula import formula_images

ROOT = Path(__file__).resolve().parents[1]
SIZES = ("224x224", "193x225", "160x127")


def import_file(path: Path, model: str) -> Checkpoint:
    """The checkpoint that the command line makes of the file."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "x.safetensors"
        command = ["-m", "densepath", "import", str(path), "--model", model, "-o", str(output)]
        subprocess.run([sys.executable, *command], check=True, stderr=subprocess.DEVNULL)
        return Checkpoint.load(output)


def differences(checkpoint: Checkpoint, upstream: dict[str, np.ndarray]) -> list[float]:
    """The largest |Δlogit| for each size."""
    model = checkpoint.to_model()
    found = []
    for size in SIZES:
        height, width = map(int, size.split("x"))
        with torch.inference_mode():
            ours = model(torch.from_numpy(formula_images(1, height, width)))[0].numpy()
        found.append(float(np.abs(ours - upstream[size]).max()))
    return found


def main(folder: Path) -> None:
    """One line of the table for each file."""
    print("| written by | file | logits: max, std | " + " | ".join(SIZES) + " |")
    print("|---|---|---|" + "---|" * len(SIZES))
    for peer in ("paddleclas", "mindcv", "timm", "torchvision"):
        stored = np.load(ROOT / "tests" / "parity" / "logits" / f"{peer}.npz")
        for path in sorted((folder / peer).iterdir()):
            name = path.name.partition(".")[0]
            upstream = {size: stored[f"{name}/{size}"] for size in SIZES}
            checkpoint = import_file(path, name.lower())
            deltas = differences(checkpoint, upstream)
            largest, spread = np.abs(upstream[SIZES[0]]).max(), upstream[SIZES[0]].std()
            cells = " | ".join(f"{delta:.1e}" for delta in deltas)
            print(f"| {peer} | {path.name} | {largest:.1f}, {spread:.1f} | {cells} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

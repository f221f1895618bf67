"""Saves PaddleClas's own networks, filled by formula, as Paddle writes them.

With the option --samples instead of FOLDER it writes the stem's tensors alone, as the small
files of `tests/parity/files/`.

Run: cd benchmarks/peers/paddleclas; .venv/bin/python save.py FOLDER | --samples
"""

from __future__ import annotations

import sys
from pathlib import Path

import paddle
from logits import MODELS, build

SAMPLES = Path(__file__).resolve().parents[3] / "tests" / "parity" / "files"
PROTOCOLS = {"DenseNet121": (2, 3, 4), "DPN68": (2, 3, 4)}


def save_samples() -> None:
    """The stem of DenseNet121 at each protocol."""
    SAMPLES.mkdir(exist_ok=True)
    state = build("DenseNet121").state_dict()
    stem = {name: tensor for name, tensor in state.items() if name.startswith("conv1_func.")}
    for protocol in (2, 3, 4):
        paddle.save(stem, str(SAMPLES / f"protocol{protocol}.pdparams"), protocol=protocol)


def save_all(folder: Path) -> None:
    """Every model in a file of its own, two of them at each protocol."""
    folder.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        state = build(model).state_dict()
        for protocol in PROTOCOLS.get(model, (4,)):
            path = folder / f"{model}.protocol{protocol}.pdparams"
            paddle.save(state, str(path), protocol=protocol)
            print(path.name, flush=True)


if __name__ == "__main__":
    save_samples() if sys.argv[1] == "--samples" else save_all(Path(sys.argv[1]) / "paddleclas")

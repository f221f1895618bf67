"""Saves MXNet's own networks, filled by formula, with MXNet's own savers, and their logits.

With the option --samples instead of FOLDER it writes the small files of `tests/parity/files/mxnet`.
With --logits it writes `tests/parity/logits/mxnet.npz`.

Run: benchmarks/peers/install.sh mxnet
     cd benchmarks/peers/mxnet; .venv/bin/python save.py FOLDER [MODEL ...] | --samples | --logits
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import mxnet as mx
import numpy as np
from networks import DENSENETS, DPNS, build, build_small

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import OUTPUT, write_logits

from densepath.weights.formula import formula_images

MODELS = [*DENSENETS, *DPNS]
SMALL_SIDE = 224


def save_samples(folder: Path) -> None:
    """Small networks in every form, each with its logits for one image of the formula's."""
    folder.mkdir(parents=True, exist_ok=True)
    images = formula_images(1, SMALL_SIDE, SMALL_SIDE)
    for kind in ("gluon", "authors", "authors-b"):
        network = build_small(kind)
        network.save(str(folder / kind))
        np.save(folder / f"{kind}.npy", network.run(images)[0])
    halves = mx.nd.load(str(folder / "gluon.places.params"))
    half = {name: value.astype("float16") for name, value in halves.items()}
    mx.nd.save(str(folder / "gluon.half.params"), half)


def save_all(folder: Path, models: list[str]) -> None:
    """Each model in a file of its own, or several, and beside them its logits."""
    folder.mkdir(parents=True, exist_ok=True)
    for model in models:
        network = build(model)
        network.save(str(folder / model))
        np.save(folder / f"{model}.npy", network.run(formula_images(1, 224, 224))[0])
        print(model, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--samples":
        save_samples(OUTPUT / "files" / "mxnet")
    elif sys.argv[1] == "--logits":
        versions = {name: version(name) for name in ("mxnet", "numpy")}
        script = "benchmarks/peers/mxnet/save.py"
        write_logits("mxnet", script, versions, MODELS, lambda model: build(model).run)
    else:
        save_all(Path(sys.argv[1]), sys.argv[2:] or MODELS)

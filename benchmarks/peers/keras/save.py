"""Saves Keras's own networks, filled by formula, with Keras's own savers, and their logits.

With the option --samples instead of FOLDER it writes the small files of `tests/parity/files/keras`.
With --logits it writes `tests/parity/logits/keras.npz`.

Run: benchmarks/peers/install.sh keras
     cd benchmarks/peers/keras; .venv/bin/python save.py FOLDER [MODEL ...] | --samples | --logits
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from networks import MODELS, PACKAGES, SMALL, build, build_small, package, run

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import OUTPUT, write_logits

from densepath.weights.formula import formula_images


def save(network: Any, prefix: str, keras: str) -> None:
    """Every form that a version of Keras writes; of tf-keras 2 the old form of weights, too."""
    network.save(f"{prefix}.keras")
    network.save_weights(f"{prefix}.weights.h5")
    network.save(f"{prefix}.h5")
    if keras == "keras2":
        network.save_weights(f"{prefix}.old.h5")


def save_samples(folder: Path) -> None:
    """Small networks in every form, each with its logits for one image of the formula's."""
    folder.mkdir(parents=True, exist_ok=True)
    images = formula_images(1, SMALL.input_size, SMALL.input_size)
    for keras in PACKAGES:
        save(build_small(keras, "softmax"), str(folder / f"plain.{keras}"), keras)
        build_small(keras, "sigmoid", tuned=True).save(folder / f"tuned.{keras}.keras")
    build_small("keras3", None, top=False).save(folder / "backbone.keras3.keras")
    np.save(folder / "plain.npy", run(build_small("keras3", None), images)[0])
    pixels = np.floor((images + 2) * 64)  # what a Rescaling in front of the network is for
    np.save(folder / "tuned.npy", run(build_small("keras3", None, tuned=True), pixels)[0])
    package("keras3").config.set_dtype_policy("float16")
    build_small("keras3", "softmax").save(folder / "half.keras3.keras")


def save_all(folder: Path, models: list[str]) -> None:
    """Each model in every form of both versions, and beside them the logits of each version."""
    folder.mkdir(parents=True, exist_ok=True)
    images = formula_images(1, 224, 224)
    for model in models:
        for keras in PACKAGES:
            save(build(keras, model, "softmax"), str(folder / f"{model}.{keras}"), keras)
            np.save(folder / f"{model}.{keras}.npy", run(build(keras, model, None), images)[0])
            package(keras).backend.clear_session()
            print(model, keras, flush=True)


def predict(model: str) -> Any:
    """Images → logits, by Keras 3."""
    package("keras3").backend.clear_session()
    whole = build("keras3", model, None)
    make = getattr(package("keras3").applications, model.replace("densenet", "DenseNet"))
    # The published input is 224 × 224; the same layers take any size.
    free = make(weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3))
    kernel, bias = whole.layers[-1].get_weights()
    free.set_weights(whole.get_weights()[:-2])
    return lambda images: run(free, images) @ kernel + bias


if __name__ == "__main__":
    if sys.argv[1] == "--samples":
        save_samples(OUTPUT / "files" / "keras")
    elif sys.argv[1] == "--logits":
        versions = {name: version(name) for name in ("keras", "tensorflow-cpu", "numpy")}
        write_logits("keras", "benchmarks/peers/keras/save.py", versions, list(MODELS), predict)
    else:
        save_all(Path(sys.argv[1]), sys.argv[2:] or list(MODELS))

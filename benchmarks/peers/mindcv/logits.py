"""Writes the logits of MindCV's own networks, filled by formula, for `tests/parity/`.

Run: benchmarks/peers/install.sh mindcv
     benchmarks/peers/mindcv/.venv/bin/python benchmarks/peers/mindcv/logits.py
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import mindcv.models
import mindspore
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import fill, write_logits

from densepath.models.catalogue import find_spec
from densepath.weights.mindspore import key_map

DEPTHS = (121, 161, 169, 201)
MODELS = [*(f"densenet{d}" for d in DEPTHS), *(f"dpn{d}" for d in (92, 98, 107, 131))]


def build(model: str) -> mindspore.nn.Cell:
    """MindCV's network with the formula's parameters, in evaluation mode."""
    network = getattr(mindcv.models, model)()
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    for name, value in fill(key_map(find_spec(model)), shapes).items():
        parameters[name].set_data(mindspore.Tensor(value))
    network.set_train(False)
    return network


def predict(model: str) -> Callable[[np.ndarray], np.ndarray]:
    """Images → logits."""
    network = build(model)
    return lambda images: network(mindspore.Tensor(images)).asnumpy()


if __name__ == "__main__":
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE, device_target="CPU")
    versions = {name: version(name) for name in ("mindspore", "mindcv", "numpy")}
    write_logits("mindcv", "benchmarks/peers/mindcv/logits.py", versions, MODELS, predict)
    sys.stdout.flush()
    os._exit(0)  # MindSpore's threads do not end by themselves

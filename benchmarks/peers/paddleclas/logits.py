"""Writes the logits of PaddleClas's own networks, filled by formula, for `tests/parity/`.

Run: benchmarks/peers/install.sh paddleclas
     benchmarks/peers/paddleclas/.venv/bin/python benchmarks/peers/paddleclas/logits.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import paddle
from paddleclas.ppcls.arch import backbone

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import fill, write_logits

from densepath.models.catalogue import find_spec
from densepath.weights.paddle import TRANSPOSED, key_map

DEPTHS = (121, 161, 169, 201, 264)
MODELS = [*(f"DenseNet{d}" for d in DEPTHS), *(f"DPN{d}" for d in (68, 92, 98, 107, 131))]


def build(model: str) -> paddle.nn.Layer:
    """PaddleClas's network with the formula's parameters, in evaluation mode."""
    # Parameter names are global in Paddle; the guard gives each network fresh ones.
    with paddle.utils.unique_name.guard():
        network = getattr(backbone, model)()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    values = fill(key_map(find_spec(model)), shapes, TRANSPOSED)
    missing, unexpected = network.set_state_dict(values)
    assert not missing, missing
    assert not unexpected, unexpected
    network.eval()
    return network


def predict(model: str) -> Callable[[np.ndarray], np.ndarray]:
    """Images → logits."""
    network = build(model)

    def run(images: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            return network(paddle.to_tensor(images)).numpy()

    return run


if __name__ == "__main__":
    versions = {name: version(name) for name in ("paddlepaddle", "paddleclas", "numpy")}
    write_logits("paddleclas", "benchmarks/peers/paddleclas/logits.py", versions, MODELS, predict)

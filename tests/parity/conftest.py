"""Our networks with the formula's parameters, and the logits that upstream gave for them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from densepath.models.build import build_model
from densepath.models.catalogue import find_spec
from densepath.weights.formula import formula_images, formula_tensor
from densepath.weights.match import expected_shapes, is_weight

LOGITS = Path(__file__).with_name("logits")


@lru_cache(maxsize=1)
def formula_state(name):
    """The formula's tensors of a network; upstream variants of it are tested one after another."""
    return {
        key: torch.from_numpy(formula_tensor(key, shape))
        for key, shape in expected_shapes(find_spec(name), 1000, 3).items()
    }


@pytest.fixture
def formula_model():
    """Builds a network of our own, filled by formula, in evaluation mode."""

    def build(name, **switches):
        with torch.device("meta"):
            model = build_model(name, **switches)
        counters = {
            key: torch.zeros((), dtype=torch.int64)
            for key in model.state_dict()
            if not is_weight(key)
        }
        model.load_state_dict(formula_state(name) | counters, assign=True)
        return model.eval()

    return build


@pytest.fixture
def formula_logits():
    """The logits of a network for the formula's image of `HEIGHTxWIDTH` pixels."""

    def run(model, size):
        height, width = map(int, size.split("x"))
        with torch.inference_mode():
            return model(torch.from_numpy(formula_images(1, height, width)))[0].numpy()

    return run


@pytest.fixture(scope="session")
def upstream():
    """The stored logits of one upstream system, as `MODEL/SIZE`."""
    files = {path.stem: np.load(path) for path in LOGITS.glob("*.npz")}
    yield files
    for file in files.values():
        file.close()

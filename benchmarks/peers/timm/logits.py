"""Writes the logits of timm's and torchvision's own networks, filled by formula.

Run: benchmarks/peers/install.sh timm
     benchmarks/peers/timm/.venv/bin/python benchmarks/peers/timm/logits.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import operators  # noqa: F401  before torchvision
import timm
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import formula_tensor, write_logits

TORCHVISION_MODELS = ["densenet121", "densenet161", "densenet169", "densenet201"]
TIMM_MODELS = [*TORCHVISION_MODELS, "dpn68", "dpn68b", "dpn92", "dpn98", "dpn107", "dpn131"]


def build(create: Callable[[str], torch.nn.Module], model: str) -> torch.nn.Module:
    """The peer's network with the formula's parameters, in evaluation mode."""
    network = create(model).eval()
    state = network.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            tensor.copy_(torch.from_numpy(value(name, state)))
    return network


def value(name: str, state: dict[str, torch.Tensor]) -> np.ndarray:
    """The formula's value of one of timm's tensors.

    Three names differ from ours: a DPN's projection, its last 1×1 convolution in DPN-68b, which
    is stored as two, and its classifier, which is stored as a convolution.
    """
    shape = tuple(state[name].shape)
    ours = re.sub(r"\.c1x1_w_s[12]\.", ".c1x1_w.", name)
    half = re.match(r"(.*\.c1x1_c)([12])\.weight$", ours)
    if half:
        first, second = (state[f"{half[1]}{part}.weight"] for part in "12")
        rows = first.shape[0]
        whole = formula_tensor(f"{half[1]}.conv.weight", (rows + second.shape[0], *shape[1:]))
        return whole[:rows] if half[2] == "1" else whole[rows:]
    if ours == "classifier.weight":
        return formula_tensor(ours, shape[:2]).reshape(shape)
    return formula_tensor(ours, shape)


def predict(
    create: Callable[[str], torch.nn.Module],
) -> Callable[[str], Callable[[np.ndarray], np.ndarray]]:
    """Model → (images → logits)."""

    def of(model: str) -> Callable[[np.ndarray], np.ndarray]:
        network = build(create, model)

        def run(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return network(torch.from_numpy(images)).numpy()

        return run

    return of


if __name__ == "__main__":
    script = "benchmarks/peers/timm/logits.py"
    versions = {name: version(name) for name in ("torch", "torchvision", "timm", "numpy")}
    write_logits("timm", script, versions, TIMM_MODELS, predict(timm.create_model))
    write_logits(
        "torchvision", script, versions, TORCHVISION_MODELS, predict(torchvision.models.get_model)
    )

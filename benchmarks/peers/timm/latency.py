"""timm's network as a worker to be timed: eager, channels last, or compiled; see inference.py.

In bfloat16 `eager` is timm's `--amp` (autocast); the two others are its `--model-dtype bfloat16`,
whose weights are converted once. `compiled` is channels last too, and compiled for each batch size,
as timm's own benchmark compiles for its one.

Run: benchmarks/peers/timm/.venv/bin/python benchmarks/peers/timm/latency.py
     densenet121 eager|channels_last|compiled float32|bfloat16 THREADS
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import operators  # noqa: F401  before torchvision
import timm
import torch
from logits import build

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from latency_worker import serve


def open_network(model: str, system: str, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """Images → logits."""
    network = build(timm.create_model, model)
    is_plain, in_bfloat16 = system == "eager", precision == "bfloat16"
    layout = torch.contiguous_format if is_plain else torch.channels_last
    weights = torch.bfloat16 if in_bfloat16 and not is_plain else torch.float32
    network = network.to(dtype=weights, memory_format=layout)
    if system == "compiled":
        network = torch.compile(network, dynamic=False)

    def run(images: np.ndarray) -> np.ndarray:
        amp = torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16 and is_plain)
        with torch.inference_mode(), amp:
            tensor = torch.from_numpy(images).to(dtype=weights, memory_format=layout)
            return network(tensor).float().numpy()

    return run


if __name__ == "__main__":
    name, system, precision, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    versions = {package: version(package) for package in ("timm", "torch")}
    serve(open_network(name, system, precision), versions)

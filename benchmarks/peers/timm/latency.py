"""timm's network as a worker to be timed: eager, channels last, or compiled; see inference.py.

Run: benchmarks/peers/timm/.venv/bin/python benchmarks/peers/timm/latency.py
     densenet121 eager|channels_last|compiled float32|bfloat16 THREADS
"""

from __future__ import annotations

import contextlib
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
    layout = torch.contiguous_format if system == "eager" else torch.channels_last
    network = network.to(memory_format=layout)
    if system == "compiled":
        network = torch.compile(network)

    def run(images: np.ndarray) -> np.ndarray:
        cast = (
            torch.autocast("cpu", torch.bfloat16)
            if precision == "bfloat16"
            else contextlib.nullcontext()
        )
        with torch.inference_mode(), cast:
            tensor = torch.from_numpy(images).contiguous(memory_format=layout)
            return network(tensor).float().numpy()

    return run


if __name__ == "__main__":
    name, system, precision, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    versions = {package: version(package) for package in ("timm", "torch")}
    serve(open_network(name, system, precision), versions)

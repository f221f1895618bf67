"""MindCV's network on MindSpore as a worker to be timed; see inference.py.

Run: benchmarks/peers/mindcv/.venv/bin/python benchmarks/peers/mindcv/latency.py
     densenet121 pynative|graph float32 THREADS
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import mindspore
import numpy as np
from logits import build

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from latency_worker import serve


def open_network(model: str) -> Callable[[np.ndarray], np.ndarray]:
    """Images → logits."""
    network = build(model)
    return lambda images: network(mindspore.Tensor(images)).asnumpy()


if __name__ == "__main__":
    name, system, _, threads = sys.argv[1:]
    mode = mindspore.GRAPH_MODE if system == "graph" else mindspore.PYNATIVE_MODE
    mindspore.set_context(mode=mode, device_target="CPU", runtime_num_threads=int(threads))
    versions = {package: version(package) for package in ("mindcv", "mindspore")}
    serve(open_network(name), versions)
    os._exit(0)  # MindSpore's threads do not end by themselves

"""MindCV's network as a training step on MindSpore that waits to be timed; see training.py.

Run: benchmarks/peers/mindcv/.venv/bin/python benchmarks/peers/mindcv/training.py
     densenet121 pynative|graph float32 THREADS BATCH SIDE CLASSES
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path

import mindspore
import numpy as np
from logits import build
from mindspore import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training_worker import LEARNING_RATE, MOMENTUM, Begin, Job, Step, serve_steps


def begin_on_mindspore(network: nn.Cell) -> Begin:
    """What begins the step of the network: MindSpore's own cell of a loss and an optimiser."""
    optimizer = nn.Momentum(network.trainable_params(), LEARNING_RATE, MOMENTUM)
    with_loss = nn.WithLossCell(network, nn.CrossEntropyLoss())
    cell = nn.TrainOneStepCell(with_loss, optimizer).set_train()

    def begin(images: np.ndarray, labels: np.ndarray) -> Step:
        x, y = mindspore.Tensor(images), mindspore.Tensor(labels.astype(np.int32))
        return lambda: float(cell(x, y).asnumpy())

    return begin


if __name__ == "__main__":
    job = Job.read(sys.argv[1:])
    mode = mindspore.GRAPH_MODE if job.mode == "graph" else mindspore.PYNATIVE_MODE
    mindspore.set_context(mode=mode, device_target="CPU", runtime_num_threads=job.threads)
    versions = {package: version(package) for package in ("mindcv", "mindspore")}
    serve_steps(job, begin_on_mindspore(build(job.model)), versions)
    os._exit(0)  # MindSpore's threads do not end by themselves

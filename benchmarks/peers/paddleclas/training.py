"""PaddleClas's network as a training step on Paddle that waits to be timed; see training.py.

The modes: `eager`, as PaddleClas trains; `onednn`, the same with Paddle's oneDNN switched on.
bfloat16 is Paddle's autocast, level O1.

Run: benchmarks/peers/paddleclas/.venv/bin/python benchmarks/peers/paddleclas/training.py
     DenseNet121 eager|onednn float32|bfloat16 THREADS BATCH SIDE CLASSES
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import paddle
from logits import build

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training_worker import LEARNING_RATE, MOMENTUM, Begin, Job, Step, serve_steps


def begin_on_paddle(network: paddle.nn.Layer, precision: str) -> Begin:
    """What begins the step of the network, whose optimiser is made here."""
    network.train()
    optimizer = paddle.optimizer.Momentum(LEARNING_RATE, MOMENTUM, parameters=network.parameters())

    def begin(images: np.ndarray, labels: np.ndarray) -> Step:
        x, y = paddle.to_tensor(images), paddle.to_tensor(labels)
        lower = precision == "bfloat16"

        def step() -> float:
            with paddle.amp.auto_cast(enable=lower, dtype="bfloat16", level="O1"):
                logits = network(x)
            if lower and logits.dtype == paddle.float32:
                sys.exit("Paddle's autocast stays in float32 on this processor")
            loss = paddle.nn.functional.cross_entropy(logits.astype("float32"), y)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            return float(loss)

        return step

    return begin


if __name__ == "__main__":
    job = Job.read(sys.argv[1:])
    paddle.set_device("cpu")
    paddle.set_flags({"FLAGS_use_mkldnn": job.mode == "onednn"})
    versions = {package: version(package) for package in ("paddleclas", "paddlepaddle")}
    serve_steps(job, begin_on_paddle(build(job.model), job.precision), versions)

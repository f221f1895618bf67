"""Our network as a training step that waits to be timed; see training.py.

The modes: `plain`, the modules on PyTorch; `channels_last`, the same in channels-last memory;
`fused` and `portable`, a block as one operation on the fastest there is or on PyTorch alone, with
the rest in channels-last memory; `recompute`, as `fused` with `compute.recompute`.

Run: .venv/bin/python benchmarks/training_ours.py
     MODEL MODE float32|bfloat16 THREADS BATCH SIDE CLASSES [catalogue|paddle|mindcv]
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from training_blocks import fuse_network
from training_torch import begin_on_torch
from training_worker import Job, serve_steps

from densepath.models.build import Model, build_model
from densepath.training.allocator import keep_freed_memory
from densepath.weights.formula import formula_tensor
from densepath.weights.published import AS_CATALOGUE, MINDCV_DPN, PADDLE_DPN, Switches

SWITCHES = {"catalogue": AS_CATALOGUE, "paddle": PADDLE_DPN, "mindcv": MINDCV_DPN}


def build(model: str, classes: int, switches: Switches = AS_CATALOGUE) -> Model:
    """Our network with the formula's parameters."""
    network = build_model(
        model, num_classes=classes, bn_eps=switches.bn_eps, stem_pool=switches.stem_pool
    )
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            tensor.copy_(torch.from_numpy(formula_tensor(name, tuple(tensor.shape))))
    return network


if __name__ == "__main__":
    job = Job.read(sys.argv[1:8])
    keep_freed_memory()  # as every training of ours does
    torch.set_num_threads(job.threads)
    network = build(job.model, job.classes, SWITCHES[(sys.argv[8:] or ["catalogue"])[0]])
    if job.mode in ("fused", "recompute", "portable"):
        check = fuse_network(network, job.mode, job.precision)
        begin = begin_on_torch(network, job, channels_last=True, check=check)
    else:
        begin = begin_on_torch(network, job, channels_last=job.mode == "channels_last")
    serve_steps(job, begin, {name: version(name) for name in ("densepath", "torch")})

"""timm's or torchvision's network as a training step that waits to be timed; see training.py.

The modes, each with `torchvision-` before it for torchvision's: `default`; `efficient`, the
DenseNets' `memory_efficient=True`; `efficient_channels_last`; `channels_last`; `compiled`, which is
channels last too. DenseNet-BC (L = 100, k = 12) is the peer's own DenseNet of that size, with one
3×3 convolution in place of its stem: neither has a stem for images of 32 pixels.

Run: benchmarks/peers/timm/.venv/bin/python benchmarks/peers/timm/training.py
     MODEL MODE float32|bfloat16 THREADS BATCH SIDE CLASSES
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import operators  # noqa: F401  before torchvision
import timm
import timm.models.densenet
import torch
import torchvision
from logits import build
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training_torch import begin_on_torch, give_small_stem
from training_worker import Job, serve_steps

SMALL = "densenet_bc_100_12"
NUMBERS = {"growth_rate": 12, "block_config": (16, 16, 16)}


def create(package: str, model: str, **options: Any) -> nn.Module:
    """The package's network of that name."""
    if model == SMALL:
        return create_small(package, **options)
    make = timm.create_model if package == "timm" else torchvision.models.get_model
    return make(model, **options)


def create_small(package: str, **options: Any) -> nn.Module:
    """The package's DenseNet of that size, its own from the first block on."""
    if package == "timm":  # whose first block has 2k channels by itself
        network = timm.models.densenet.DenseNet(**NUMBERS, **options)
    else:
        network = torchvision.models.DenseNet(**NUMBERS, num_init_features=24, **options)
    give_small_stem(network)
    return network


if __name__ == "__main__":
    job = Job.read(sys.argv[1:])
    torch.set_num_threads(job.threads)
    package = "torchvision" if job.mode.startswith("torchvision-") else "timm"
    mode = job.mode.removeprefix("torchvision-")
    options: dict[str, Any] = {"num_classes": job.classes}
    if mode.startswith("efficient"):
        options["memory_efficient"] = True
    network = build(lambda model: create(package, model, **options), job.model)
    begin = begin_on_torch(
        network,
        job,
        channels_last=mode.endswith("channels_last") or mode == "compiled",
        compiled=mode == "compiled",
    )
    serve_steps(job, begin, {name: version(name) for name in (package, "torch")})

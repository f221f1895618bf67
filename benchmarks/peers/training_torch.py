"""The step of a network on PyTorch, ours and PyTorch's peers' alike; see training_worker.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_worker import LEARNING_RATE, MOMENTUM, Begin, Job, Step


def begin_on_torch(
    network: nn.Module,
    job: Job,
    *,
    channels_last: bool,
    compiled: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Begin:
    """What begins the step of the network, whose optimiser is made here, on its device."""
    optimizer = prepare(network, channels_last=channels_last)
    run = torch.compile(network, dynamic=False) if compiled else network
    return lambda images, labels: make_step(
        run,
        optimizer,
        images,
        labels,
        precision=job.precision,
        channels_last=channels_last,
        check=check,
    )


def prepare(
    network: nn.Module, *, channels_last: bool, lr: float = LEARNING_RATE
) -> torch.optim.Optimizer:
    """The optimiser of the network, which is in training mode and in that memory layout then."""
    network.to(memory_format=layout_of(channels_last)).train()
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=MOMENTUM)


def make_step(
    run: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    precision: str,
    channels_last: bool,
    check: Callable[[], None] = lambda: None,
) -> Step:
    """A step of `run` on the batch, on the device of the optimiser's parameters.

    `check` is called after the forward pass.
    """
    device = optimizer.param_groups[0]["params"][0].device
    x = torch.from_numpy(images).to(device, memory_format=layout_of(channels_last))
    y = torch.from_numpy(labels).to(device)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = run(x)
        check()
        loss = F.cross_entropy(logits.float(), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def layout_of(channels_last: bool) -> torch.memory_format:
    """The memory layout, channels last or first."""
    return torch.channels_last if channels_last else torch.contiguous_format


def give_small_stem(network: nn.Module) -> None:
    """Let a DenseNet of timm or torchvision begin with one 3×3 convolution, as neither can."""
    features = network.features
    features.conv0 = nn.Conv2d(3, features.conv0.out_channels, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        if hasattr(features, name):
            delattr(features, name)

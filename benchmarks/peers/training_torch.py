"""The step of a network on PyTorch, ours and PyTorch's peers' alike; see training_worker.py."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from training_worker import LEARNING_RATE, MOMENTUM, Begin, Job, Step


def begin_on_torch(
    network: torch.nn.Module, job: Job, *, channels_last: bool, compiled: bool = False
) -> Begin:
    """What begins the step of the network, whose optimiser is made here."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(memory_format=layout).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    run = torch.compile(network, dynamic=False) if compiled else network

    def begin(images: np.ndarray, labels: np.ndarray) -> Step:
        x = torch.from_numpy(images).to(memory_format=layout)
        y = torch.from_numpy(labels)
        lower = job.precision == "bfloat16"

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=lower):
                logits = run(x)
            loss = F.cross_entropy(logits.float(), y)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    return begin

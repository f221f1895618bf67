"""An exponential moving average of the weights (arXiv:1907.04840 and earlier)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from densepath.models.build import Model


class Ema:
    """`model` is the average of the network that `update` sees; parameters and statistics.

    Average n uses the decay min(decay, (1 + n) / (10 + n)), so that the first weights, which
    are noise, are forgotten quickly. Source: TensorFlow `ExponentialMovingAverage(num_updates)`.
    """

    def __init__(self, network: Model, decay: float) -> None:
        self.model = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.num_updates = decay, 0

    @torch.no_grad()
    def update(self, network: Model) -> None:
        """Move the average towards the network's present state."""
        share = 1 - min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(_state(self.model), _state(network), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, share)


def _state(model: Model) -> list[Tensor]:
    """Parameters and buffers, always in the same order."""
    return [*model.parameters(), *model.buffers()]

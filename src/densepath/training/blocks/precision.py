"""Autocast and operations that choose the type of each product themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Backward = Callable[[Any, Tensor], tuple[Any, ...]]


def without_autocast(backward: Backward) -> Backward:
    """`backward` of an operation, the same within autocast as outside."""

    @wraps(backward)
    def outside(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """The gradients of the operation's inputs."""
        with torch.autocast(gradient.device.type, enabled=False):
            return backward(ctx, gradient)

    return outside

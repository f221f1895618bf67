"""A BatchNorm that is done learning: a factor and a summand a channel, wherever they go.

Everything that folds one comes here: the fused and the exported network, and the INT8 ones.
"""

from __future__ import annotations

from typing import Any, TypeVar

# float64 [C]: an array of NumPy or a tensor of PyTorch.
Values = TypeVar("Values", bound=Any)


def scale_and_shift(
    weight: Values, bias: Values, mean: Values, variance: Values, eps: float
) -> tuple[Values, Values]:
    """x → x · scale + shift, what a BatchNorm does with its running statistics; all [C]."""
    scale = weight / (variance + eps) ** 0.5
    return scale, bias - mean * scale

"""When `compute.block: auto` computes blocks as one operation: where that has been measured to pay.

The choice depends on the recipe, its images and the machine, never on what a cache holds, so that
the same training is computed the same way again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from densepath.kernels.compile import find_compiler, multiplies_bfloat16
from densepath.models.cost import count_cost
from densepath.training.sizes import sizes_by_epoch

if TYPE_CHECKING:
    from densepath.models.spec import ModelSpec
    from densepath.training.recipe import Recipe

# Compiling the kernels takes some 20 s, once; so many operations take a CPU's core a minute or two.
LEAST_FLOPS = 1e13


def why_not_worth(
    spec: ModelSpec, recipe: Recipe, device: torch.device, num_images: int
) -> str | None:
    """Why `auto` leaves blocks to their modules: a half-sentence; None: it does not.

    Args:
        spec: of the network.
        recipe: a resolved one.
        device: where the network is.
        num_images: that an epoch has.
    """
    if (reason := recipe.why_plain_blocks()) is not None:
        return reason
    if device.type != "cpu":
        return f"the kernels are for CPUs, and this is {device.type}"
    if recipe.compute.precision == "bfloat16" and not multiplies_bfloat16():
        return "compute.precision is bfloat16, and the kernels have only float32 on this processor"
    if find_compiler() is None:
        return "no C++ compiler is on the PATH: install g++, or name one in $CXX"
    if count_flops(spec, recipe, num_images) < LEAST_FLOPS:
        return "the training is short, and the kernels may have to be compiled first"
    return None


def count_flops(spec: ModelSpec, recipe: Recipe, num_images: int) -> float:
    """The floating-point operations of the whole training: a step takes three passes' worth."""
    channels = recipe.data.channels or 3
    macs = {s: count_cost(spec, s, in_channels=channels).macs for s in set(sizes_by_epoch(recipe))}
    return 6.0 * num_images * sum(macs[size] for size in sizes_by_epoch(recipe))

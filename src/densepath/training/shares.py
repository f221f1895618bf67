"""How the images of a step are computed: by which process, in which parts, and how few suffice.

BatchNorm in training needs two values a channel. Where the last maps are 1 × 1 that is two images
at a time: of a process, or with `distributed.sync_bn` of all processes together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from densepath.errors import RecipeError
from densepath.models.build import Model
from densepath.training.distributed import Ranks
from densepath.training.optimizer import train_mode
from densepath.training.recipe import Recipe


@dataclass(frozen=True)
class StepShare:
    """This process's part of one step.

    Attributes:
        num_images: that all processes train on together in this step; 0: the step is left out.
        num_parts: the passes that all processes make, one after the other.
        own_parts: the last so many of them have images of this process, the others none.
        left_out: readable images of this process that are too few to train on.
    """

    num_images: int
    num_parts: int
    own_parts: int
    left_out: int

    def split(self, tensor: Tensor) -> list[Tensor]:
        """`tensor` [N, ...] in `num_parts` parts of equal sizes; the first ones may be empty."""
        empty = [tensor[:0]] * (self.num_parts - self.own_parts)
        return [*empty, *(tensor.tensor_split(self.own_parts) if self.own_parts else ())]


def share_step(
    counts: Sequence[int], rank: int, *, num_parts: int, least_images: int, synced: bool
) -> StepShare:
    """How process `rank` computes a step of which each process could read `counts` images.

    Every process comes to the same `num_images` and `num_parts`.

    Args:
        counts: readable images by rank.
        rank: this process.
        num_parts: `distributed.accumulate`.
        least_images: the images that BatchNorm needs at a time.
        synced: whether BatchNorm counts those of all processes.
    """
    if synced and min(counts) >= num_parts:
        parts = [num_parts] * len(counts)  # each part has an image of every process
    elif synced:
        enough = sum(counts) >= least_images
        parts = [max(1, min(num_parts, n // least_images)) if n and enough else 0 for n in counts]
    else:
        parts = [min(num_parts, n // least_images) for n in counts]
    used = [n if k else 0 for n, k in zip(counts, parts, strict=True)]
    return StepShare(sum(used), max(parts), parts[rank], counts[rank] - used[rank])


def is_synced(recipe: Recipe, ranks: Ranks) -> bool:
    """Whether BatchNorm takes its statistics over the images of all processes."""
    return recipe.distributed.sync_bn and ranks.world_size > 1


def count_least_images(network: Model, frozen: list[nn.Module], size: tuple[int, int]) -> int:
    """The images that one pass needs at least: 2 where a BatchNorm that learns its statistics
    sees maps of one value a channel, else 1. The network is left in training mode.

    Raises:
        UsageError: the network cannot take images of `size`.
    """
    train_mode(network, frozen)
    areas: list[int] = []

    def look(_: nn.Module, inputs: Any) -> None:
        """Note how many values a channel has."""
        areas.append(inputs[0].shape[2:].numel())

    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    shapes = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
    try:
        functional_call(network, shapes, torch.empty(2, network.in_channels, *size, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return 2 if 1 in areas else 1


def check_batch(
    recipe: Recipe, ranks: Ranks, size: tuple[int, int], num_images: int, least_images: int
) -> None:
    """Raise unless every step of the training has the images that BatchNorm needs.

    Raises:
        RecipeError: a pass would see one image.
    """
    parts, synced = recipe.distributed.accumulate, recipe.distributed.sync_bn
    at_once = recipe.data.batch_size // (parts * (1 if synced else ranks.world_size))
    if min(at_once, num_images) >= least_images:
        return
    why = (
        f"BatchNorm cannot learn from one value a channel. At {size[0]} × {size[1]} pixels the "
        f"last maps of {recipe.model.name} are 1 × 1"
    )
    cures = [
        "larger images (--set preprocess.size=...)",
        "--freeze features, which keeps BatchNorm",
    ]
    if num_images < least_images:
        raise RecipeError(
            f"{why}, and {recipe.data.source} has {num_images} training image. Give it more "
            f"images, or choose {' or '.join(cures)}."
        )
    whose = [f"data.batch_size is {recipe.data.batch_size}"]
    whose += [f"distributed.accumulate is {parts}"] if parts > 1 else []
    whose += [f"there are {ranks.world_size} processes"] if ranks.world_size > 1 else []
    if ranks.world_size > 1:
        cures.insert(0, "--set distributed.sync_bn=true")
    if parts > 1:
        cures.insert(0, f"fewer parts (--set distributed.accumulate={max(parts // 2, 1)})")
    least = least_images * ranks.world_size * parts
    cures.insert(0, f"--batch-size {least} or more")
    raise RecipeError(
        f"{why}, and a pass would see {at_once} image: {', '.join(whose)}. "
        f"Choose {', '.join(cures[:-1])}, or {cures[-1]}."
    )

"""The loss of a recipe on its training images, with its weights by class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from densepath.data.balance import Weights, class_weights, positive_weights
from densepath.data.dataset import Dataset
from densepath.errors import RecipeError
from densepath.training.loss import Loss
from densepath.training.recipe_sections import LossSection
from densepath.wording import first_of


def build_loss(section: LossSection, data: Dataset, device: torch.device) -> Loss:
    """The loss.

    Raises:
        RecipeError: not one weight for each class, or weights without a use here.
    """
    if section.pos_weight is not None and not data.multi_label:
        raise RecipeError(
            "loss.pos_weight is of the yes of each class of a multi-label set; here each image has "
            "one class. loss.class_weights is for that."
        )
    return Loss(
        multi_label=data.multi_label,
        label_smoothing=section.label_smoothing,
        class_weights=_weights("class_weights", section.class_weights, class_weights, data, device),
        pos_weight=_weights("pos_weight", section.pos_weight, positive_weights, data, device),
        kind=section.kind,
        gamma=section.focal_gamma,
    )


def _weights(
    name: str,
    given: str | tuple[float, ...] | None,
    balanced: Callable[[Dataset], Weights],
    data: Dataset,
    device: torch.device,
) -> Tensor | None:
    """float32 [classes] as the recipe gives or asks for them.

    Raises:
        RecipeError: not one for each class.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return torch.tensor(balanced(data), dtype=torch.float32, device=device)
    if len(given) != len(data.class_names):
        raise RecipeError(
            f"loss.{name} has {len(given)} numbers for {len(data.class_names)} classes "
            f"({first_of(data.class_names)}); give one for each, in that order, or `balanced`."
        )
    return torch.tensor(given, dtype=torch.float32, device=device)


def describe_weights(section: LossSection, loss: Loss, labels: list[str]) -> list[str]:
    """What `balanced` came to, a line each; nothing of weights that the recipe itself has."""
    said = []
    for name, values in (("class_weights", loss.class_weights), ("pos_weight", loss.pos_weight)):
        if values is not None and getattr(section, name) == "balanced":
            each = [f"{label} {w:.3g}" for label, w in zip(labels, values.tolist(), strict=True)]
            said.append(f"loss.{name} balanced: {first_of(each, 20)}")
    return said

"""From a recipe to its step."""

from __future__ import annotations

import torch

from densepath.data.dataset import Dataset
from densepath.errors import LabelMismatchError
from densepath.models.build import Model
from densepath.training.recipe import Recipe
from densepath.training.steps.plain import PlainStep
from densepath.training.steps.quantised import QuantisedStep
from densepath.training.steps.step import Step
from densepath.weights.checkpoint import Checkpoint
from densepath.wording import first_of


def choose_step(
    recipe: Recipe,
    network: Model,
    *,
    start: Checkpoint | None,
    data: Dataset,
    device: torch.device,
) -> Step:
    """The step that the recipe asks for, around `network`.

    Args:
        recipe: a resolved one.
        network: on its device, not frozen and not synchronised yet.
        start: what it has its weights of; None: new ones, or those of a state.
        data: the training images.
        device: where the network is.

    Raises:
        LabelMismatchError: a quantisation-aware training would lose the classifier.
    """
    if recipe.quantization.target == "none":
        return PlainStep(network)
    _check_labels(recipe, start, data)
    return QuantisedStep(network, recipe.quantization, multi_label=data.multi_label, device=device)


def _check_labels(recipe: Recipe, start: Checkpoint | None, data: Dataset) -> None:
    """Raise unless the classifier of the first weights fits the data.

    Raises:
        LabelMismatchError: the weights know other classes than the data has.
    """
    if start is None:
        return
    if start.labels == data.class_names and start.multi_label == data.multi_label:
        return
    differing = sorted(set(start.labels) ^ set(data.class_names))
    shown = first_of(differing, 6)
    raise LabelMismatchError(
        f"{recipe.data.source} has other classes than {recipe.model.weights} "
        f"({shown or 'the same in another order or use'}). Quantisation-aware training goes on "
        "with the same classes; fine-tune in float first: densepath train --weights "
        f"{recipe.model.weights} --data {recipe.data.source}"
    )

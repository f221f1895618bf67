"""The network of a recipe with its first weights: new ones, or those of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from densepath.models.build import Model, build_model, resolve_spec
from densepath.training.recipe import Recipe
from densepath.training.recipe_sections import ModelSection
from densepath.weights.adapt import adapt_first_layer, first_layer
from densepath.weights.backbone import is_backbone
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.checkpoint_file import is_checkpoint
from densepath.weights.import_file import import_weights
from densepath.weights.match import is_weight
from densepath.weights.subject import open_checkpoint


def open_weights(section: ModelSection) -> Checkpoint | None:
    """The checkpoint to start from: published, of densepath, or a file of another system.

    Raises:
        WeightsError, UnknownNameError: it cannot be had or read.
    """
    if section.weights is None:
        return None
    path = Path(section.weights)
    if not path.is_file() or is_checkpoint(path):
        return open_checkpoint(section.weights, to_train=True)
    return import_weights(path, section.name)


def build_network(
    recipe: Recipe, checkpoint: Checkpoint | None, labels: list[str], device: torch.device
) -> Model:
    """The network of a resolved recipe on its device; first weights are drawn by its seed.

    Of a checkpoint everything is taken but the classifier, which is taken only when the
    classes are the same and in the same order.
    """
    section, channels = recipe.model, recipe.data.channels
    assert channels is not None
    torch.manual_seed(recipe.seed)
    spec = resolve_spec(
        checkpoint.spec if checkpoint is not None else str(section.name),
        stem=section.stem,
        bn_eps=section.bn_eps,
        stem_pool=section.stem_pool,
    )
    network = build_model(
        spec,
        num_classes=len(labels),
        in_channels=channels,
        drop_rate=section.drop_rate,
        drop_path_rate=section.drop_path_rate,
    )
    if checkpoint is not None:
        _load_weights(network, checkpoint, labels)
    layout = torch.channels_last if recipe.compute.channels_last else torch.contiguous_format
    return network.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def _load_weights(network: Model, checkpoint: Checkpoint, labels: list[str]) -> None:
    """Load the checkpoint's weights, with the first layer adapted to the network's channels."""
    state = network.state_dict()
    keep_classifier = checkpoint.labels == labels and not is_backbone(checkpoint.provenance)
    for name, tensor in checkpoint.tensors.items():
        if is_weight(name) and (keep_classifier or not name.startswith("classifier.")):
            state[name] = tensor.float()
    stem = first_layer(network.spec)
    state[stem] = adapt_first_layer(state[stem], network.in_channels)
    network.load_state_dict(state)

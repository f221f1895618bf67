"""From a gradient to new weights: SGD or AdamW, what decays, and what is frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densepath.errors import RecipeError
from densepath.models.build import Model
from densepath.models.plan import stage_of
from densepath.training.recipe_sections import OptimizerSection


def build_optimizer(model: nn.Module, section: OptimizerSection) -> torch.optim.Optimizer:
    """The optimiser of the parameters that are not frozen.

    Without `decay_norm_and_bias`, one-dimensional parameters (BatchNorm's and biases) keep
    their size: weight decay is 0 for them (arXiv:1812.01187, section 3.1).

    Raises:
        RecipeError: everything is frozen.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise RecipeError("model.freeze leaves nothing to train.")
    if section.decay_norm_and_bias:
        groups = [{"params": trained, "weight_decay": section.weight_decay}]
    else:
        groups = [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": section.weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
    if section.name == "adamw":
        return torch.optim.AdamW(groups, lr=section.lr, betas=section.betas, eps=section.eps)
    return torch.optim.SGD(
        groups, lr=section.lr, momentum=section.momentum, nesterov=section.nesterov
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group of the optimiser."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def freeze(model: Model, part: str | int) -> list[nn.Module]:
    """Freeze the parameters of `part`, and give its modules.

    `part` is `nothing`, `stem`, `features` (all but the classifier), or N: the stem and the
    first N stages. The caller keeps these modules in evaluation mode, so that their BatchNorm
    statistics stay too.

    Raises:
        RecipeError: more stages than the network has.
    """
    if part == "nothing":
        return []
    if part == "features":
        frozen: list[nn.Module] = [model.features]
    else:
        num_stages, last = (0 if part == "stem" else int(part)), len(model.spec.arch.blocks)
        if num_stages > last:
            raise RecipeError(
                f"model.freeze is {part}, but {model.spec.name} has {last} stages; "
                "to train the classifier alone: model.freeze=features."
            )
        children = model.features.named_children()
        frozen = [m for name, m in children if stage_of(model.spec, name) <= num_stages]
    for module in frozen:
        for parameter in module.parameters():
            parameter.requires_grad_(False)
    return frozen


def train_mode(model: nn.Module, frozen: list[nn.Module]) -> None:
    """Put the network into training mode, and its frozen parts into evaluation mode."""
    model.train()
    for module in frozen:
        module.eval()


def clip_gradients(model: nn.Module, largest_norm: float | None) -> None:
    """Shorten the gradient of all weights together to `largest_norm` at most; None: leave it."""
    if largest_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), largest_norm)


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())

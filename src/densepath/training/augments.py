"""The random changes of the training images in each epoch: those of its size (`sizes.py`)."""

from __future__ import annotations

from densepath.data.augment import Augment
from densepath.images.preprocess import Preprocess
from densepath.training.recipe import Recipe
from densepath.training.sizes import sizes_by_epoch


def augments_by_epoch(recipe: Recipe, preprocess: Preprocess) -> list[Augment]:
    """The random changes of training images in each epoch.

    Args:
        recipe: a resolved one.
        preprocess: of the evaluation, whose statistics the changes share.
    """
    section, sizes = recipe.augment, sizes_by_epoch(recipe)
    fields = section.model_dump(exclude={"mixup", "cutmix", "size", "first_sizes"})
    made = {}
    for size in dict.fromkeys(sizes):
        # As large a part of a small image.
        padding = round(section.padding * size[0] / sizes[-1][0])
        changed = preprocess if size == preprocess.size else preprocess.at_size(size)
        made[size] = Augment(preprocess=changed, **fields | {"padding": padding})
    return [made[size] for size in sizes]

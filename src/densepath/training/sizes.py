"""The size of the training images, which may be another in the first epochs.

Small images cost little, and teach a network what larger ones then refine (arXiv:2104.00298,
section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from densepath.training.recipe import Recipe

Size = tuple[int, int]


def sizes_by_epoch(recipe: Recipe) -> list[Size]:
    """Height and width of the training images in each epoch of a resolved recipe."""
    section, last = recipe.augment, recipe.augment.size or recipe.preprocess.size
    assert last is not None
    ends = [(round(share * recipe.epochs), side) for share, side in section.first_sizes]
    sides = [next((s for end, s in ends if e < end), last) for e in range(recipe.epochs)]
    return [(side, side) if isinstance(side, int) else side for side in sides]

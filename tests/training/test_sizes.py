"""training/sizes.py: the size of the training images in each epoch."""

from __future__ import annotations

import pytest

from densepath.training.augments import augments_by_epoch
from densepath.training.recipe_file import make_recipe
from densepath.training.resolve import build_preprocess, resolve
from densepath.training.sizes import sizes_by_epoch


def recipe(epochs, judged_at=32, **augment):
    values = {
        "epochs": epochs,
        "model": {"name": "densenet_bc_22_12"},
        "data": {"source": "cifar10"},
        "preprocess": {"size": judged_at},
        "augment": augment,
    }
    return resolve(make_recipe(values), None)


@pytest.mark.parametrize(
    ("epochs", "first", "sides"),
    [
        (4, [], [32] * 4),
        (4, [[0.5, 16]], [16, 16, 32, 32]),
        (8, [[0.6, 16], [0.85, 24]], [16] * 5 + [24] * 2 + [32]),
        (1, [[0.4, 16]], [32]),
        (1, [[0.6, 16]], [16]),
        (3, [[0.1, 16], [0.9, 40]], [40, 40, 40]),
    ],
)
def test_the_first_epochs_have_sizes_of_their_own(epochs, first, sides):
    assert sizes_by_epoch(recipe(epochs, first_sizes=first)) == [(s, s) for s in sides]


def test_the_last_size_is_that_of_the_recipe():
    assert sizes_by_epoch(recipe(2, (32, 40), first_sizes=[[0.5, 16]])) == [
        (16, 16),
        (32, 40),
    ]
    assert sizes_by_epoch(recipe(2, 40, size=32)) == [(32, 32)] * 2


def test_as_large_a_part_of_a_small_image_is_padded():
    found = recipe(4, first_sizes=[[0.25, 16], [0.5, 24]], padding=4)
    augments = augments_by_epoch(found, build_preprocess(found))
    assert [augment.padding for augment in augments] == [2, 3, 4, 4]
    assert [augment.preprocess.size[0] for augment in augments] == [16, 24, 32, 32]

"""weights/preprocess_changes.py: a size and a short side are each taken, alone and together."""

from __future__ import annotations

import pytest

from densepath.images.preprocess import Preprocess
from densepath.weights.preprocess_changes import PreprocessChanges

GUESSED = Preprocess((224, 224), 256)


@pytest.mark.parametrize(
    ("given", "size", "short"),
    [
        ({"size": 160, "resize_short": 180}, (160, 160), 180),
        ({"size": (96, 128), "resize_short": "none"}, (96, 128), None),
        ({"resize_short": 232}, (224, 224), 232),
        ({"resize_short": "none"}, (224, 224), None),
        ({"size": 112}, (112, 112), 128),
        ({}, (224, 224), 256),
    ],
)
def test_size_and_short_side_are_those_given_and_are_said_to_be(given, size, short):
    made, origin = PreprocessChanges(**given).apply(GUESSED, "of the paper")
    assert (made.size, made.resize_short) == (size, short)
    assert origin == "of the paper" + (f"; {', '.join(given)} as given" if given else "")

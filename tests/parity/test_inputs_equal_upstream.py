"""The preprocessing of published weights makes of a picture what its publisher's code makes.

The stored inputs were written by `benchmarks/peers/*/inputs.py` in upstream's environments: every
seventh pixel of pictures that a formula makes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densepath.weights.formula import formula_picture
from densepath.weights.published import find_published


def read(path):
    with np.load(path) as file:
        return {key: file[key] for key in file.files if key != "about"}


FILES = {path.stem: read(path) for path in Path(__file__).with_name("inputs").glob("*.npz")}
CASES = [(peer, key) for peer, file in FILES.items() for key in file]
STEP = 7
# One step of eight bits after division by the least deviation, 0.224: OpenCV's fixed-point
# arithmetic may round a pixel to the other side.
ONE_LEVEL = 1 / 255 / 0.224


def ours(name, size):
    height, width = map(int, size.split("x"))
    return find_published(name).preprocess(formula_picture(height, width))[:, ::STEP, ::STEP]


def test_each_publisher_is_compared():
    assert set(FILES) == {"timm", "torchvision", "paddleclas", "mindcv"}
    assert len(CASES) == 21


@pytest.mark.parametrize(("peer", "key"), CASES)
def test_a_picture_becomes_the_input_that_its_publisher_makes(peer, key):
    name, _, size = key.rpartition("/")
    difference = np.abs(ours(name, size) - FILES[peer][key])
    if peer in ("timm", "torchvision"):
        assert difference.max() < 1e-5
    else:
        assert difference.max() < 1.001 * ONE_LEVEL
        assert difference.mean() < ONE_LEVEL / 4


@pytest.mark.parametrize(("peer", "key"), CASES)
def test_the_comparison_tells_one_publisher_from_another(peer, key):
    size = key.rpartition("/")[2]
    other = "paddle/DenseNet121" if peer in ("timm", "torchvision") else "torchvision/densenet121"
    assert np.abs(ours(other, size) - FILES[peer][key]).max() > 10 * ONE_LEVEL

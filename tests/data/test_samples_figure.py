"""data/samples_figure.py: each row shows the images of its class, and no other's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from densepath.data.files_dataset import FilesDataset
from densepath.data.samples_figure import GAP, TILE, _members, draw_samples

NAMES = ["none", "one", "three", "two"]
GRAYS = [0, 40, 90, 200]
CLASSES = [2, 1, 3, 2, 3, 2]  # of the images in the order of their files


@pytest.fixture
def folder(tmp_path):
    for number, true in enumerate(CLASSES):
        Image.new("RGB", (TILE, TILE), (GRAYS[true],) * 3).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_row_shows_the_images_of_its_class_with_their_number(folder, multi_label):
    files = [f"{number}.png" for number in range(len(CLASSES))]
    targets = np.eye(4)[CLASSES] if multi_label else CLASSES
    dataset = FilesDataset(
        folder, files, targets, NAMES, description="grays", multi_label=multi_label
    )
    members = _members(dataset)
    assert [part.tolist() for part in members] == [[], [1], [0, 3, 5], [2, 4]]
    axes = draw_samples(dataset, members, range(4), "Grays").axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["none\n0 images", "one\n1 image", "three\n3 images", "two\n2 images"]
    (picture,) = axes.get_images()
    rows = np.asarray(picture.get_array()).reshape(4, TILE + GAP, -1, 3)
    for row, gray, count in zip(rows, GRAYS, (0, 1, 3, 2), strict=True):
        middles = row[TILE // 2, TILE // 2 :: TILE + GAP, 0]
        assert (middles[:count] == gray).all()
        assert (middles[count:] == 255).all()

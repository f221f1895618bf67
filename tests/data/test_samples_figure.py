"""data/samples_figure.py: each row shows the images of its class, and no other's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from densepath.data.files_dataset import FilesDataset
from densepath.data.samples_figure import (
    CROSS,
    GAP,
    TILE,
    UNREADABLE,
    _members,
    draw_samples,
    save_samples,
)

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


def test_the_images_of_a_class_keep_their_order_however_many_there_are(tmp_path):
    targets = [number * 7 % 3 for number in range(2000)]
    files = [f"{number}.png" for number in range(2000)]
    dataset = FilesDataset(tmp_path, files, targets, ["a", "b", "c"], description="many")
    for number, members in enumerate(_members(dataset)):
        assert members.tolist() == [at for at, true in enumerate(targets) if true == number]


def test_more_than_a_dozen_classes_make_pictures_that_are_numbered_from_one(tmp_path):
    names = [f"class{number}" for number in range(13)]
    for number in range(13):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    files = [f"{number}.png" for number in range(13)]
    dataset = FilesDataset(tmp_path, files, list(range(13)), names, description="many")
    written, reasons = save_samples(dataset, "Many", tmp_path / "out.png")
    assert [path.name for path in written] == ["out-1.png", "out-2.png"]
    assert all(path.is_file() for path in written)
    assert reasons == []


def test_an_image_that_cannot_be_read_is_a_gray_tile_with_a_cross(folder):
    (folder / "1.png").write_bytes(b"no image")
    files = [f"{number}.png" for number in range(len(CLASSES))]
    dataset = FilesDataset(folder, files, CLASSES, NAMES, description="grays")
    (picture,) = draw_samples(dataset, _members(dataset), [1], "Grays").axes[0].get_images()
    tile = np.asarray(picture.get_array())[GAP // 2 :, GAP // 2 :][:TILE, :TILE]
    assert tile.shape == (TILE, TILE, 3)
    for corner in (tile[0, 0], tile[0, -1], tile[-1, 0], tile[-1, -1], tile[TILE // 2, TILE // 2]):
        assert corner.tolist() == [CROSS] * 3
    assert tile[0, TILE // 2].tolist() == [UNREADABLE] * 3

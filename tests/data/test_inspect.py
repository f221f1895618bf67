"""What is held out, what an image's fingerprint tells, and what an inspection says."""

import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image as Pillow

from densepath.data.dataset import Subset, gather_targets
from densepath.data.fingerprint import fingerprint_array, fingerprint_file, fingerprints
from densepath.data.holdout import hold_out
from densepath.data.inspect import inspect_splits
from densepath.data.options import DataOptions
from densepath.data.splits import open_splits
from densepath.errors import DatasetError


class Labelled:
    """Images of these targets, all alike."""

    named, groups = True, None

    def __init__(self, targets, num_classes, groups=None):
        self.targets = np.array(targets)
        self.multi_label = self.targets.ndim == 2
        self.class_names = [f"c{i}" for i in range(num_classes)]
        self.groups = None if groups is None else np.array(groups)
        self.description = "made for the test"

    def __len__(self):
        return len(self.targets)

    def target(self, index):
        return self.targets[index] if self.multi_label else int(self.targets[index])


def counts(part):
    return np.bincount(gather_targets(part), minlength=len(part.class_names)).tolist()


def write(path, seed, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(path, "PNG")
    return path


# What cannot be opened.


def test_files_that_a_table_names_and_that_are_not_there_are_counted(tmp_path):
    """A CSV of names without an ending, or of another folder, is seen before anything runs."""
    rows = ["path,label,split"]
    for number in range(12):
        write(tmp_path / "im" / f"{number}.png", number)
        ending = "" if number % 4 == 0 else ".png"
        rows.append(f"im/{number}{ending},{'ab'[number % 2]},{'train' if number < 8 else 'test'}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    options = DataOptions(validation_fraction=0.0)
    found = inspect_splits(open_splits(tmp_path / "t.csv", options=options))
    assert found.to_dict()["cannot_be_opened"] == {"train": 2, "test": 1}
    text = found.to_text()
    assert f"2 of 8 training images cannot be opened: for example {tmp_path}/im/0." in text
    assert f"1 of 4 test images cannot be opened: {tmp_path}/im/8." in text
    assert not found.copies


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_dead_link_a_pipe_and_a_folder_cannot_be_opened_and_an_empty_file_can(tmp_path):
    for number in range(4):
        write(tmp_path / "a" / f"{number}.png", number)
        write(tmp_path / "b" / f"{number}.png", 9 + number)
    (tmp_path / "a" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "empty.png").write_bytes(b"")
    options = DataOptions(validation_fraction=0.0)
    found = inspect_splits(open_splits(tmp_path, options=options))
    assert found.to_dict()["cannot_be_opened"] == {"train": 2}
    assert "cannot be opened" not in "\n".join(found.notes)


# What is held out.


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_every_class_gives_its_share_and_keeps_an_image(seed, fraction):
    sizes = [100, 30, 7, 2, 1]
    dataset = Labelled(np.repeat(np.arange(5), sizes), 5)
    train, validation, rule = hold_out(dataset, fraction, seed)
    held = counts(validation)
    assert len(train) + len(validation) == sum(sizes)
    assert abs(len(validation) - fraction * sum(sizes)) <= 1.5
    for size, number in zip(sizes, held, strict=True):
        assert abs(number - min(size * fraction, size - 1)) <= 1
        assert number < size
    assert rule == f"{fraction * 100:g} % of the images, drawn by class with seed {seed}"


def test_what_is_held_out_is_drawn_by_the_seed_alone():
    dataset = Labelled(np.arange(200) % 4, 4)
    drawn = [hold_out(dataset, 0.1, seed)[1]._indices.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_nothing_is_held_out_where_the_share_is_0():
    dataset = Labelled([0, 1, 0, 1], 2)
    assert hold_out(dataset, 0.0, 0) == (dataset, None, "none: validation_fraction is 0")


def test_each_label_of_a_multi_label_set_gives_its_share():
    random = np.random.default_rng(0)
    targets = (random.random((2000, 6)) < (0.5, 0.3, 0.1, 0.05, 0.02, 0.01)).astype(np.float32)
    _, validation, _ = hold_out(Labelled(targets, 6), 0.2, 3)
    shares = gather_targets(validation).sum(0) / targets.sum(0)
    np.testing.assert_allclose(shares, 0.2, atol=0.05)
    assert abs(len(validation) - 400) <= 20


def test_groups_of_very_different_sizes_stay_whole_and_near_the_share():
    random = np.random.default_rng(1)
    groups = random.zipf(1.6, 3000) % 400
    targets = (groups * 7 + random.integers(0, 2, 3000)) % 5
    for seed in range(5):
        train, validation, _ = hold_out(Labelled(targets, 5, groups), 0.1, seed)
        assert set(train.groups).isdisjoint(validation.groups)
        assert 200 <= len(validation) <= 400
        assert min(counts(train)) > 0


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Labelled([0], 1), "one image cannot be divided"),
        (Labelled([0, 1, 0], 2, [5, 5, 5]), "one group cannot be divided"),
    ],
)
def test_what_cannot_be_divided_says_so_and_how_to_go_on(dataset, message):
    with pytest.raises(DatasetError, match=message) as raised:
        hold_out(dataset, 0.1, 0)
    assert "data.validation_fraction=0" in str(raised.value)


def test_validation_images_are_never_taken_from_the_test_images(tmp_path):
    for i in range(40):
        write(tmp_path / ("train" if i < 30 else "test") / f"c{i % 2}" / f"{i}.png", i)
    splits = open_splits(tmp_path)
    names = {
        split: {getattr(splits, split).path(i) for i in range(len(getattr(splits, split)))}
        for split in ("train", "validation", "test")
    }
    assert [len(names[s]) for s in ("train", "validation", "test")] == [27, 3, 10]
    assert all("/train/" in name for name in names["validation"])
    assert splits.rules["validation"] == "10 % of the training images, drawn by class with seed 0"


# Fingerprints.


def test_a_copied_or_renamed_file_has_the_same_fingerprint_and_another_has_not(tmp_path):
    one = write(tmp_path / "a.png", 1)
    shutil.copy(one, tmp_path / "other name.jpg")
    assert fingerprint_file(str(one)) == fingerprint_file(str(tmp_path / "other name.jpg"))
    assert fingerprint_file(str(one)) != fingerprint_file(str(write(tmp_path / "b.png", 2)))


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 70_000, 3_000_001])
def test_large_files_differ_where_their_first_middle_or_last_bytes_do(tmp_path, size):
    data = bytearray(np.random.default_rng(0).bytes(size))
    found = set()
    for name, place in (("a", None), ("b", 0), ("c", size // 2), ("d", size - 1)):
        changed = bytearray(data)
        if place is not None and size:
            changed[min(max(place, 0), size - 1)] ^= 1
        (tmp_path / name).write_bytes(changed)
        found.add(fingerprint_file(str(tmp_path / name)))
    # The middle of a large file is read where a block lies: at both ends always.
    assert len(found) >= {0: 1, 1: 2}.get(size, 3)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "nul"])
def test_what_cannot_be_read_has_the_fingerprint_of_its_name(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    name = "\0.png" if kind == "nul" else str(path)
    assert 0 <= fingerprint_file(name) == fingerprint_file(name) < 2**64
    assert fingerprint_file(name) != fingerprint_file(name + "x")


def test_pixels_of_another_shape_are_another_image():
    pixels = np.arange(24, dtype=np.uint8)
    assert fingerprint_array(pixels.reshape(4, 6, 1)) != fingerprint_array(pixels.reshape(6, 4, 1))


def test_all_fingerprints_are_those_of_the_samples_also_of_a_part(tmp_path):
    for i in range(600):
        (tmp_path / f"c{i % 2}").mkdir(exist_ok=True)
        (tmp_path / f"c{i % 2}" / f"{i}.png").write_bytes(b"%d" % i)
    dataset = pickle.loads(pickle.dumps(open_splits(tmp_path).test))
    found = fingerprints(dataset)
    assert found.dtype == np.uint64
    assert len(set(found.tolist())) == 600
    assert found[17] == dataset.fingerprint(17) == fingerprint_file(dataset.path(17))
    part = Subset(dataset, [5, 599, 17], "a part")
    np.testing.assert_array_equal(fingerprints(part), found[[5, 599, 17]])


# What an inspection says.


def test_copies_between_and_within_the_splits_are_counted_and_named(tmp_path):
    for i in range(24):
        write(tmp_path / ("train" if i < 16 else "test") / f"c{i % 2}" / f"{i}.png", i)
    shutil.copy(tmp_path / "train/c0/0.png", tmp_path / "test/c0/leaked.png")
    shutil.copy(tmp_path / "train/c1/1.png", tmp_path / "test/c0/leaked under another.jpg")
    shutil.copy(tmp_path / "train/c0/2.png", tmp_path / "train/c0/twice.png")
    found = inspect_splits(open_splits(tmp_path, options=DataOptions(validation_fraction=0)))
    between, within = found.copies
    assert (between.first, between.second, between.count) == ("train", "test", 2)
    assert between.other_labels == 1
    assert (within.first, within.second, within.count) == ("train", "train", 1)
    text = found.to_text()
    assert "2 test images are among the training images too, 1 under another label: for " in text
    assert "example test/c0/leaked under another.jpg = train/c1/1.png." in text
    assert "1 training image is a copy of another one: train/c0/twice.png = train/c0/2.png" in text


def test_all_images_as_test_images_are_no_copies(tmp_path):
    for i in range(10):
        write(tmp_path / f"c{i % 2}" / f"{i}.png", i)
    found = inspect_splits(open_splits(tmp_path))
    assert found.images == {"train": 9, "validation": 1, "test": 10}
    assert found.copies == ()
    assert "including those trained on" in found.rules["test"]
    assert "  test               -  none; in their place all images, " in found.to_text()
    assert "  class       train  validation\n" in found.to_text()


def test_imbalance_and_classes_without_held_out_images_are_said(tmp_path):
    for name, count in (("many", 40), ("few", 3), ("one", 1)):
        for i in range(count):
            write(tmp_path / name / f"{i}.png", hash((name, i)) % 2**32)
    (tmp_path / "none").mkdir()
    found = inspect_splits(open_splits(tmp_path))
    assert found.without("train") == ["none"]
    assert set(found.without("validation")) >= {"none", "one"}
    text = found.to_text()
    assert "imbalance: the largest class has 36.0 times the images of the smallest" in text
    assert "1 class has no images: none." in text
    assert re.search(r"no validation images: (few, )?one\.", text)
    assert "no test images" not in text  # they would be all images


def test_of_many_classes_the_largest_and_the_smallest_are_shown(tmp_path):
    rows = "".join(f"{c}-{i}.png,class{c:03}\n" for c in range(60) for i in range(c + 2))
    (tmp_path / "t.csv").write_text("path,label\n" + rows)
    lines = inspect_splits(open_splits(tmp_path / "t.csv")).to_text().splitlines()
    named = [line.split()[0] for line in lines if line.strip().startswith("class0")]
    assert named == [f"class{c:03}" for c in [*range(59, 49, -1), *range(9, -1, -1)]]
    assert any("40 classes between these" in line for line in lines)


def test_everything_an_inspection_knows_goes_into_json(tmp_path):
    write(tmp_path / "a" / "1.png", 1)
    shutil.copy(tmp_path / "a" / "1.png", tmp_path / "a" / "2.png")
    write(tmp_path / "b" / "3.png", 3)
    found = json.loads(json.dumps(inspect_splits(open_splits(tmp_path)).to_dict()))
    assert found["classes"] == ["a", "b"]
    assert found["images_per_class"]["test"] == {"a": 2, "b": 1}
    assert found["imbalance"] is not None
    assert set(found["rules"]) == {"train", "validation", "test"}


def test_a_class_name_with_line_ends_and_colours_stays_on_its_line(tmp_path):
    write(tmp_path / "a\n\x1b[31mred" / "1.png", 1)
    write(tmp_path / "猫" / "2.png", 2)
    lines = inspect_splits(open_splits(tmp_path)).to_text().splitlines()
    assert not any("\x1b" in line for line in lines)
    (row,) = (line for line in lines if line.startswith("  a") and "[31mred" in line)
    (cats,) = (line for line in lines if line.startswith("  猫"))
    # A Chinese character is two columns wide.
    assert len(row) == len(cats) + 1


def test_fingerprints_that_are_known_are_not_read_again(tmp_path):
    for i in range(6):
        write(tmp_path / f"c{i % 2}" / f"{i}.png", 1)
    splits = open_splits(tmp_path)
    marks = {"train": np.arange(5, dtype=np.uint64), "validation": np.array([3], np.uint64)}
    (one,) = inspect_splits(splits, known=marks).copies
    assert (one.first, one.second, one.count) == ("train", "validation", 1)

"""Labels that are not known, in tables and lists: masked or counted as the user says, and said."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from densepath.data.aligned import Aligned
from densepath.data.holdout import hold_out
from densepath.data.inspect import count_classes, inspect_splits
from densepath.data.open import open_dataset
from densepath.data.record import Record
from densepath.data.recorded_part import RecordedPart
from densepath.data.splits import DataOptions, open_splits
from densepath.errors import DatasetError, UsageError

NAN = np.nan
TABLE = "path,Edema,Mass\na.png,1.0,\nb.png,-1.0,0\nc.png,0,NaN\nd.png,-1,1\n"


def targets_of(dataset):
    return np.stack([dataset.target(i) for i in range(len(dataset))])


def split_table(tmp_path, text=TABLE, **options):
    (tmp_path / "t.csv").write_text(text)
    return open_splits(tmp_path / "t.csv", options=DataOptions(**options))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("mask", [[1, NAN], [NAN, 0], [0, NAN], [NAN, 1]]),
        ("zeros", [[1, NAN], [0, 0], [0, NAN], [0, 1]]),
        ("ones", [[1, NAN], [1, 0], [0, NAN], [1, 1]]),
    ],
)
def test_blank_and_nan_are_not_known_and_minus_one_is_as_the_policy_says(
    tmp_path, policy, expected
):
    dataset = split_table(tmp_path, uncertain=policy).test
    assert dataset.multi_label
    assert dataset.class_names == ["Edema", "Mass"]
    np.testing.assert_array_equal(targets_of(dataset), np.array(expected, np.float32))


def test_it_is_said_how_many_labels_are_not_known_and_what_counts_them(tmp_path):
    said = " ".join(split_table(tmp_path).notes)
    assert "4 of 8 labels are not known (2 blank; 2 of -1, which --set data.uncertain=" in said
    said = " ".join(split_table(tmp_path, uncertain="ones").notes)
    assert "2 of 8 labels are not known (2 blank)" in said
    assert "2 of 8 labels are -1 and count as 1 (data.uncertain=ones)" in said
    whole = split_table(tmp_path, "path,x,y\na.png,1,0\nb.png,0,1\n")
    assert "not known" not in " ".join(whole.notes)


def test_classes_are_counted_by_their_yeses_alone(tmp_path):
    splits = split_table(tmp_path)
    assert count_classes(splits.test).tolist() == [1, 1]
    assert "not known" in inspect_splits(splits, {}).to_text()


def test_one_label_an_image_must_be_known(tmp_path):
    with pytest.raises(DatasetError, match="line 2: Mass is '', which is not known; where each"):
        split_table(tmp_path, multi_label=False)


def test_a_column_without_any_0_or_1_is_no_class(tmp_path):
    dataset = split_table(tmp_path, "path,x,y,z\na.png,1,0,\nb.png,0,1,\n").test
    assert dataset.class_names == ["x", "y"]


def test_what_is_not_known_stays_so_under_other_class_numbers(tmp_path):
    dataset = split_table(tmp_path).test
    moved = Aligned(dataset, ["a", "Mass", "Edema"], {0: 2, 1: 1}, multi_label=True)
    np.testing.assert_array_equal(moved.target(0), np.array([0, NAN, 1], np.float32))


def test_images_with_labels_that_are_not_known_are_held_out_by_those_that_are(tmp_path):
    rows = [f"{i}.png,{i % 2},{'' if i % 3 else 1}" for i in range(60)]
    dataset = split_table(tmp_path, "\n".join(["path,x,y", *rows])).test
    train, held, _ = hold_out(dataset, 0.2, 1)
    assert held is not None
    assert len(held) == pytest.approx(12, abs=2)
    assert np.nansum(targets_of(held), 0).min() > 0
    assert len(train) + len(held) == 60


def test_a_record_of_such_labels_is_the_same_as_itself_and_differs_where_one_becomes_known(
    tmp_path,
):
    dataset = split_table(tmp_path).test
    marks = np.arange(4, dtype=np.uint64)
    part = RecordedPart.of(dataset, [tmp_path], marks)

    def record(targets):
        parts = {"train": RecordedPart(part.names, targets, marks)}
        return Record(dataset.class_names, True, {"source": "x"}, str(tmp_path), parts)

    record(part.targets).save(tmp_path / "images.npz")
    kept = Record.load(tmp_path / "images.npz")
    assert kept.find_differences(record(part.targets.copy())) == []
    now = np.where(np.isnan(part.targets), np.float32(0), part.targets)
    assert "a.png was Edema (Mass not known), is Edema" in kept.find_differences(record(now))


def test_a_list_of_paddleclas_has_a_0_or_1_for_each_class(tmp_path):
    (tmp_path / "train_list.txt").write_text("a b.png\t1,0,1\nc.png\t0,0,0\n")
    (tmp_path / "val_list.txt").write_text("d.png 0,1,\n")
    (tmp_path / "label_list.txt").write_text("0 cat\n1 dog\n2 cow\n")
    splits = open_splits(tmp_path / "train_list.txt")
    assert splits.train.multi_label
    assert splits.train.class_names == ["cat", "dog", "cow"]
    np.testing.assert_array_equal(targets_of(splits.train), [[1, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(
        targets_of(splits.validation), np.array([[0, 1, NAN]], np.float32)
    )


@pytest.mark.parametrize("lines", ["a.png 1,0\nb.png 1\n", "a.png 1,0\nb.png 1,0,1\n"])
def test_a_list_of_both_kinds_or_of_other_widths_is_refused_with_the_line(tmp_path, lines):
    (tmp_path / "list.txt").write_text(lines)
    with pytest.raises(DatasetError, match=r"line 2: b\.png .*: the first line has 2 cells"):
        open_dataset(tmp_path / "list.txt", split="test")


def make_scans(root):
    """Two classes; four patients of three images in each."""
    for kind in ("ill", "well"):
        for patient in range(4):
            for image in range(3):
                path = root / kind / f"p{patient}_{kind}_{image}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (patient, image, len(kind))).save(path)
    return root


def test_groups_are_found_in_names_and_are_on_one_side_alone(tmp_path):
    root = make_scans(tmp_path / "scans")
    splits = open_splits(
        root, options=DataOptions(group_pattern=r"(p\d)_", validation_fraction=0.3)
    )
    sides = [set(splits.of(side).groups.tolist()) for side in ("train", "validation")]
    assert len(sides[0] | sides[1]) == 4
    assert not sides[0] & sides[1]
    assert "whole groups" in splits.rules["validation"]
    assert inspect_splits(splits).groups["train"] == len(sides[0])


def test_the_pattern_is_searched_below_the_source(tmp_path):
    root = make_scans(tmp_path / "scans")
    dataset = open_splits(root, options=DataOptions(group_pattern="^[^/]+")).test
    assert len(set(dataset.groups.tolist())) == 2


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("p[", UsageError, "'p\\[' is no regular expression"),
        ("p(9)", DatasetError, "not found in 24 of 24 names: ill/p0_ill_0.png"),
    ],
)
def test_a_pattern_that_finds_nothing_names_the_images(tmp_path, pattern, error, message):
    root = make_scans(tmp_path / "scans")
    with pytest.raises(error, match=message):
        open_splits(root, options=DataOptions(group_pattern=pattern))


def test_a_column_of_groups_and_a_pattern_exclude_each_other(tmp_path):
    text = "path,label,patient\na.png,x,1\nb.png,y,2\n"
    with pytest.raises(DatasetError, match="has groups of its own"):
        split_table(tmp_path, text, group_column="patient", group_pattern="a")

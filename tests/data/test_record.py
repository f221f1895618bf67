"""The record of a training's images: kept as it is, and what differs is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densepath.data.options import DataOptions
from densepath.data.record import Record
from densepath.data.recorded_part import RecordedPart, _below, _prefixes
from densepath.errors import DatasetError
from densepath.weights.trained_on import TrainedOn

NAMES = ["ant/a.png", "ant/b c.png", "bee/ü-日本.png", "bee/\udcff.png"]


def part(names=NAMES, targets=(0, 0, 1, 1), fingerprints=(1, 2, 3, 2**64 - 1)):
    return RecordedPart(list(names), np.array(targets), np.array(fingerprints, np.uint64))


def record(train=None, judged=None, classes=("ant", "bee"), multi_label=False, **fields):
    parts = {"train": train or part(), "validation": judged or part(["ant/v.png"], [0], [9])}
    values = {"places": {"source": "/old/data"}, "folder": "/old/runs/x"} | fields
    return Record(list(classes), multi_label, parts=parts, **values)


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    before = np.array([5, 6], np.uint64)
    saved = record(before=before, unknown_start="timm/densenet121.ra_in1k")
    saved.save(tmp_path / "images.npz")
    read = Record.load(tmp_path / "images.npz")
    assert read.find_differences(saved) == saved.find_differences(read) == []
    assert read.parts["train"].names == NAMES
    assert read.parts["train"].fingerprints.tolist() == [1, 2, 3, 2**64 - 1]
    assert (read.places, read.folder, read.unknown_start) == (
        {"source": "/old/data"},
        "/old/runs/x",
        "timm/densenet121.ra_in1k",
    )
    assert read.before.tolist() == [5, 6]


def test_a_damaged_record_is_an_error_that_names_the_file(tmp_path):
    record().save(tmp_path / "images.npz")
    whole = (tmp_path / "images.npz").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(200):
        data = bytearray(whole[: len(whole) if number % 2 else rng.integers(1, len(whole))])
        for place in rng.integers(len(data), size=4):
            data[place] ^= int(rng.integers(1, 256))
        path = tmp_path / f"{number}.npz"
        path.write_bytes(bytes(data))
        refused += _is_refused(path)
    assert refused > 150


def _is_refused(path: Path) -> bool:
    try:
        Record.load(path)
    except DatasetError as error:
        return path.name in str(error)
    return False


def test_a_record_of_arrays_that_do_not_belong_together_is_refused(tmp_path):
    record(train=part(targets=(0, 0, 1))).save(tmp_path / "images.npz")
    with pytest.raises(DatasetError, match="different lengths"):
        Record.load(tmp_path / "images.npz")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("ant", "wasp"), "class bee is now wasp"),
        (("bee", "ant"), "the classes stand in another order: ant, bee before, bee, ant now"),
        (("ant", "bee", "elk"), "1 class is new: elk"),
        (("ant",), "1 class is gone: bee"),
        (("Ant", "Bee"), "class ant is now Ant"),
    ],
)
def test_other_classes_are_named_and_nothing_below_them(classes, said):
    differences = record().find_differences(record(classes=classes, train=part(["x"], [0], [1])))
    assert differences[0] == said
    assert not any("image" in one for one in differences)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (
            part(NAMES[1:], (0, 1, 1), (2, 3, 2**64 - 1)),
            ["1 training image is gone: ant/a.png"],
        ),
        (
            part(
                [*NAMES, "ant/n.png", "ant/o.png"], (0, 0, 1, 1, 0, 0), (1, 2, 3, 2**64 - 1, 7, 8)
            ),
            ["2 training images are new: ant/n.png, ant/o.png"],
        ),
        (part(targets=(0, 1, 1, 1)), ["ant/b c.png was ant, is bee"]),
        (
            part(fingerprints=(1, 2, 4, 2**64 - 1)),
            ["1 training image has other contents: bee/ü-日本.png"],
        ),
        (
            part([NAMES[1], NAMES[0], *NAMES[2:]], (0, 0, 1, 1), (2, 1, 3, 2**64 - 1)),
            ["the training images stand in another order"],
        ),
        (
            part([NAMES[0], *NAMES], (0, 0, 0, 1, 1), (1, 1, 2, 3, 2**64 - 1)),
            ["1 training image is new: ant/a.png"],
        ),
    ],
)
def test_each_kind_of_difference_is_named(now, said):
    assert record().find_differences(record(train=now)) == said


def drawn(classes_of, held):
    """The record of a set without splits: names → class, and those that are held out."""
    names = list(classes_of)
    marks = {name: 100 + number for number, name in enumerate(names)}
    parts = [[n for n in names if (n in held) == is_held] for is_held in (False, True)]
    made = [part(p, [classes_of[n] for n in p], [marks[n] for n in p]) for p in parts]
    return record(*made)


def test_an_image_that_draws_other_held_out_ones_is_named_and_they_are_not():
    before = {"ant/a.png": 0, "ant/b.png": 0, "bee/c.png": 1, "bee/d.png": 1}
    now = before | {"ant/new.png": 0}
    said = drawn(before, {"ant/a.png"}).find_differences(drawn(now, {"bee/d.png"}))
    assert said == ["1 training image is new: ant/new.png"]
    said = drawn(now, {"bee/d.png"}).find_differences(drawn(before, {"ant/a.png"}))
    assert said == ["1 training image is gone: ant/new.png"]


def test_an_image_under_another_name_is_recognised_by_its_contents():
    before = {"ant/a.png": 0, "ant/b.png": 0, "bee/c.png": 1}
    names = {"ant/a.png": 0, "ant/renamed.png": 0, "bee/c.png": 1}
    other_class = {"ant/a.png": 0, "bee/b.png": 1, "bee/c.png": 1}
    known = drawn(before, {"bee/c.png"})
    assert known.find_differences(drawn(names, {"ant/a.png"})) == [
        "ant/b.png is now ant/renamed.png"
    ]
    assert known.find_differences(drawn(other_class, {"ant/a.png"})) == [
        "ant/b.png was ant, is bee (as bee/b.png)"
    ]


def test_folders_that_were_swapped_are_told_by_whose_contents_they_have():
    before = record(part(["ant/1.png", "bee/1.png"], (0, 1), (1, 2)))
    now = record(part(["ant/1.png", "bee/1.png"], (0, 1), (2, 1)))
    assert before.find_differences(now) == [
        "2 training images have other contents: ant/1.png (now that of bee/1.png), "
        "bee/1.png (now that of ant/1.png)"
    ]


def test_images_that_change_sides_are_named_with_what_may_have_moved_them():
    before = {"ant/a.png": 0, "ant/b.png": 0, "bee/c.png": 1}
    said = drawn(before, {"ant/a.png"}).find_differences(drawn(before, {"bee/c.png"}))
    assert [one.split(" (another order")[0] for one in said] == [
        "1 training image is among the validation images now: bee/c.png",
        "1 validation image is among the training images now: ant/a.png",
    ]


def test_only_the_first_of_many_differences_are_named():
    names = [f"{i}.png" for i in range(50)]
    old = part(names, [0] * 50, range(50))
    new = part(names, [1] * 50, range(50))
    said = record(train=old).find_differences(record(train=new))
    assert said == [*(f"{i}.png was ant, is bee" for i in range(3)), "47 more labels differ"]


def test_several_labels_are_named_together():
    old = part(["a.png"], np.array([[1, 1]], np.float32), [1])
    new = part(["a.png"], np.array([[0, 0]], np.float32), [1])
    judged = part(["v.png"], np.array([[1, 0]], np.float32), [2])
    said = record(old, judged, multi_label=True).find_differences(
        record(new, judged, multi_label=True)
    )
    assert said == ["a.png was ant|bee, is of no class"]
    assert record().find_differences(record(old, judged, multi_label=True)) == [
        "an image has several labels now"
    ]


def test_a_place_is_followed_when_the_run_folder_moved_with_it(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    places = {
        "source": str(old / "data"),
        "train": "Training",
        "test": str(old / "other"),
        "root": str(tmp_path),
    }
    (new / "data").mkdir(parents=True)
    found = record(places=places, folder=str(old / "runs" / "x")).follow(new / "runs" / "x")
    assert found == places | {"source": str(new / "data")}


def trained_on(count=3):
    marks = np.arange(count, dtype=np.uint64) * np.uint64(2**40)
    options = DataOptions(root=Path("/data"), class_columns=("x", "y"), seed=4)
    rules = {"train": "all", "validation": "some"}
    return TrainedOn("/data", options, rules, "validation", (count, 1), marks, marks[:1], None)


def test_what_a_checkpoint_says_of_its_images_comes_back():
    read = TrainedOn.from_text(trained_on().to_text())
    assert read.options == DataOptions(root="/data", class_columns=("x", "y"), seed=4)
    assert read.trained.tolist() == [0, 2**40, 2**41]
    assert (read.num_images, read.judged_on, read.unknown_start) == ((3, 1), "validation", None)


def test_too_many_fingerprints_stay_out_of_a_checkpoint():
    assert TrainedOn.from_text(trained_on(200_001).to_text()).trained is None
    assert len(trained_on(199_999).to_text()) < 2_200_000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"seed": 4', '"sed": 4'),
        ('"num_images": [3, 1]', '"num_images": 3'),
        ('"trained": "', '"trained": "?'),
        ('"rules": {', '"rule": {'),
        ("{", "["),
    ],
)
def test_a_damaged_text_is_a_value_error(old, new):
    text = trained_on().to_text()
    assert old in text
    with pytest.raises(ValueError, match=r"."):
        TrainedOn.from_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("/sets/a/train/dark/1.png", "dark/1.png"),
        ("/sets/a/val/1.png", "val/1.png"),
        ("/sets/a.png", "/sets/a.png"),
        ("/sets/ab/1.png", "/sets/ab/1.png"),
        ("elsewhere/1.png", "elsewhere/1.png"),
        ("photos/1.png", "1.png"),
        ("photos.png", "photos.png"),
    ],
)
def test_a_name_is_kept_below_the_innermost_folder_or_whole_outside_of_all(name, kept):
    folders = [Path("/sets/a"), Path("/sets/a/train"), Path("photos"), Path()]
    assert _below(_prefixes(folders), name) == kept

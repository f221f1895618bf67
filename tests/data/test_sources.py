"""Folders, list files, tables and digits as data sets."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image as Pillow

from densepath.data.open import open_dataset
from densepath.errors import DatasetError, ImageError, UnknownNameError
from densepath.text import read_text


def write_image(path, color=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", (4, 3), color).save(path, "PNG")


def names_and_targets(dataset):
    return [
        (dataset.class_names[dataset.target(i)], os.path.basename(dataset.path(i)))  # noqa: PTH119
        for i in range(len(dataset))
    ]


@pytest.fixture
def flowers(tmp_path):
    """Three classes, one of them without images."""
    root = tmp_path / "flowers"
    for name in ("rose/b.png", "rose/a.PNG", "daisy/deep/er/c.jpg", ".hidden/x.png"):
        write_image(root / name)
    write_image(root / "rose" / ".thumbnail.png")
    (root / "rose" / "notes.txt").write_text("none")
    (root / "lily").mkdir()
    (root / "README.md").write_text("none")
    return root


def test_class_folders_are_sorted_nested_and_keep_empty_classes(flowers):
    dataset = open_dataset(flowers, split="test")
    assert dataset.class_names == ["daisy", "lily", "rose"]
    assert names_and_targets(dataset) == [("daisy", "c.jpg"), ("rose", "a.PNG"), ("rose", "b.png")]
    assert "1 other file passed over" in dataset.description
    assert not dataset.multi_label
    sample = dataset.load(0)
    assert sample.image.shape == (3, 4, 3)
    assert sample.target == 0
    assert sample.path == str(flowers / "daisy/deep/er/c.jpg")


def test_a_set_without_splits_holds_a_part_out_once_and_for_all(tmp_path):
    for i in range(20):
        write_image(tmp_path / f"class{i % 2}" / f"{i}.png")
    train, validation = (
        [open_dataset(tmp_path, split=split, validation_fraction=0.2, seed=s).path(i)
         for i in range(len(open_dataset(tmp_path, split=split, validation_fraction=0.2, seed=s)))]
        for split, s in (("train", 3), ("validation", 3))
    )  # fmt: skip
    assert len(validation) == 4
    assert sorted(train + validation) == sorted(
        open_dataset(tmp_path, split="test").path(i) for i in range(20)
    )
    other = open_dataset(tmp_path, split="validation", validation_fraction=0.2, seed=4)
    assert [other.path(i) for i in range(4)] != validation
    assert "20 % of the images, drawn by class with seed 4" in other.description


def test_a_class_folder_that_is_missing_in_the_test_split_shifts_no_label(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "train/c/3.png", "val/a/4.png", "val/c/5.png"):
        write_image(tmp_path / name)
    for split in ("validation", "test"):
        dataset = open_dataset(tmp_path, split=split)
        assert dataset.class_names == ["a", "b", "c"]
        assert names_and_targets(dataset) == [("a", "4.png"), ("c", "5.png")]


def test_a_class_that_the_training_images_lack_is_refused(tmp_path):
    for name in ("train/a/1.png", "val/a/2.png", "val/new/3.png"):
        write_image(tmp_path / name)
    with pytest.raises(DatasetError, match="classes that the training images do not have: new"):
        open_dataset(tmp_path, split="validation")


def test_a_class_called_test_is_no_split(tmp_path):
    write_image(tmp_path / "test" / "1.png")
    write_image(tmp_path / "exam" / "2.png")
    assert open_dataset(tmp_path, split="test").class_names == ["exam", "test"]


def test_a_training_folder_alone_has_no_test_images(tmp_path):
    for i in range(10):
        write_image(tmp_path / "train" / f"class{i % 2}" / f"{i}.png")
    assert len(open_dataset(tmp_path, split="train")) == 9
    assert len(open_dataset(tmp_path, split="validation")) == 1
    with pytest.raises(DatasetError, match="neither `test` nor `validation`"):
        open_dataset(tmp_path, split="test")


def test_links_that_lead_back_are_not_followed(tmp_path):
    write_image(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    dataset = open_dataset(tmp_path, split="test")
    assert names_and_targets(dataset) == [("a", "1.png"), ("b", "1.png")]


def test_broken_files_of_a_folder_are_samples_that_say_why_they_fail(tmp_path):
    write_image(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "3.jpg").symlink_to("nowhere")
    (tmp_path / "a" / "4.jpg").write_bytes(b"")
    dataset = open_dataset(tmp_path, split="test")
    assert len(dataset) == 3
    for index, reason in ((1, "no such file"), (2, "empty")):
        with pytest.raises(ImageError, match=reason):
            dataset.load(index)


def test_a_class_folder_whose_name_is_no_utf8_gives_a_class_that_every_file_can_hold(tmp_path):
    for name in (b"caf\xe9", b"\xff\xfe", "日本".encode()):
        write_image(tmp_path / os.fsdecode(name) / "1.png")
    dataset = open_dataset(tmp_path, split="test")
    assert dataset.class_names == ["\\xff\\xfe", "caf\\xe9", "日本"]
    assert os.fsencode(dataset.path(0)).endswith(b"/\xff\xfe/1.png")
    assert dataset.load(0).image.shape == (3, 4, 3)


def test_a_folder_that_is_called_like_an_image_is_a_folder(tmp_path):
    write_image(tmp_path / "a" / "set.png" / "1.png")
    dataset = open_dataset(tmp_path, split="test")
    assert [dataset.path(i) for i in range(len(dataset))] == [str(tmp_path / "a/set.png/1.png")]


@pytest.mark.parametrize(
    "name", ["ünïcödé 图像.png", "new\nline.png", os.fsdecode(b"\xff\xfe.png")]
)
def test_any_file_name_survives_in_a_data_set(tmp_path, name):
    try:
        write_image(tmp_path / "a" / name)
    except OSError:
        pytest.skip("the file system refuses this name")
    dataset = pickle.loads(pickle.dumps(open_dataset(tmp_path, split="test")))
    assert dataset.path(0) == str(tmp_path / "a" / name)
    assert dataset.load(0).image.shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: (root / "a.png").write_bytes(b"x"), "no class folders"),
        (lambda root: (root / "a").mkdir(), "no image in any of them. Images end in .apng"),
    ],
)
def test_a_folder_that_is_no_data_set_says_what_one_is(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path)


@pytest.mark.parametrize("source", ["nowhere", "digit", "cifar", "images.tar"])
def test_an_unknown_source_lists_the_known_ones(source):
    with pytest.raises(DatasetError, match=r"there is no data set .*`digits`, `cifar10`, a folder"):
        open_dataset(source)


def test_a_source_that_is_not_there_is_answered_with_what_is_called_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "animals").mkdir()
    (tmp_path / "birds.csv").touch()
    for source, near in (
        ("animal", "animals"),
        ("Animals", "animals"),
        ("birds", "birds.csv"),
        ("digit", "digits"),
        (tmp_path / "animls", str(tmp_path / "animals")),
    ):
        with pytest.raises(DatasetError) as caught:
            open_dataset(source)
        assert f"; did you mean {near}? A data set is `digits`" in str(caught.value)


def test_an_unknown_split_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="Did you mean test"):
        open_dataset("digits", split="tests")


def test_a_list_file_has_paths_with_blanks_and_numbers_as_labels(tmp_path):
    write_image(tmp_path / "a rose.png")
    (tmp_path / "list.txt").write_text(
        "a rose.png 2\r\n\nother\u2028.png\t0\n", encoding="utf-8-sig"
    )
    dataset = open_dataset(tmp_path / "list.txt", split="test")
    assert dataset.class_names == ["0", "1", "2"]
    assert [dataset.path(i) for i in (0, 1)] == [
        str(tmp_path / "a rose.png"),
        str(tmp_path / "other\u2028.png"),
    ]
    assert [dataset.target(0), dataset.target(1)] == [2, 0]
    assert dataset.load(0).image.shape == (3, 4, 3)


def test_the_lists_of_paddleclas_lie_beside_each_other(tmp_path):
    (tmp_path / "train_list.txt").write_text("a.png 0\nb.png 2\n")
    (tmp_path / "val_list.txt").write_text("c.png 1\n")
    (tmp_path / "label_list.txt").write_text("0 red rose\n1 lily\n2 daisy\n")
    train = open_dataset(tmp_path / "train_list.txt", data_root=tmp_path / "images")
    test = open_dataset(tmp_path / "train_list.txt", split="test")
    assert train.class_names == test.class_names == ["red rose", "lily", "daisy"]
    assert train.path(1) == str(tmp_path / "images" / "b.png")
    assert names_and_targets(test) == [("lily", "c.png")]


def test_paths_are_named_as_they_stand_in_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("photos/a.png 0\n/else/where.png 0\n")
    dataset = open_dataset("list.txt", split="test")
    assert [dataset.path(0), dataset.path(1)] == ["photos/a.png", "/else/where.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png 0\nb.png\n", r"line 2: 'b.png' is not `path label`"),
        ("a.png -1\n", "line 1"),
        ("a.png rose\n", "line 1"),
        ("7\n", "line 1"),
        ("\n\n", "no lines"),
    ],
)
def test_a_bad_line_of_a_list_is_named(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / "list.txt")


def test_a_list_that_cannot_be_opened_is_not_called_badly_encoded(tmp_path):
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(DatasetError, match=r"x\.txt cannot be read: Is a directory\.$"):
        read_text(tmp_path / "x.txt")
    with pytest.raises(DatasetError, match=r"y\.txt cannot be read: No such file"):
        read_text(tmp_path / "y.txt")


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="cannot be read as UTF-8 or UTF-16"):
        open_dataset(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("names", "message"), [("0 a\nb\n", "line 2"), ("0 a\n", "no name for class 1")]
)
def test_bad_label_names_are_refused(tmp_path, names, message):
    (tmp_path / "list.txt").write_text("a.png 1\n")
    (tmp_path / "label_list.txt").write_text(names)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / "list.txt")


def open_table(tmp_path, text, **options):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return open_dataset(path, **{"split": "test", **options})


def test_a_table_has_one_label_by_name(tmp_path):
    dataset = open_table(tmp_path, 'label,path\nrose,"a, b.png"\n\ndaisy,c.png\n')
    assert dataset.class_names == ["daisy", "rose"]
    assert names_and_targets(dataset) == [("rose", "a, b.png"), ("daisy", "c.png")]
    assert not dataset.multi_label


def test_a_table_has_several_labels_in_one_column(tmp_path):
    dataset = open_table(tmp_path, "file,labels\na.png,cat|dog\nb.png,\nc.png,dog\n")
    assert dataset.multi_label
    assert dataset.class_names == ["cat", "dog"]
    targets = np.stack([dataset.target(i) for i in range(3)])
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, [[1, 1], [0, 0], [0, 1]])


def test_a_table_has_several_labels_in_columns_of_0_and_1(tmp_path):
    dataset = open_table(tmp_path, "image,wet,cold\na.png,1,0\nb.png,0,0\n")
    assert dataset.multi_label
    assert dataset.class_names == ["wet", "cold"]
    np.testing.assert_array_equal([dataset.target(0), dataset.target(1)], [[1, 0], [0, 0]])


def test_a_table_may_name_the_split_of_each_row(tmp_path):
    text = "path,label,split\na.png,x,train\nb.png,y,val\nc.png,z,train\n"
    train = open_table(tmp_path, text, split="train")
    test = open_table(tmp_path, text, split="test")
    assert train.class_names == test.class_names == ["x", "y", "z"]
    assert len(train) == 2
    assert names_and_targets(test) == [("y", "b.png")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,x\n\nb.png\n", "line 4: 1 cells where the header has 2"),
        ("path,label\na.png,\n", "line 2: no label"),
        ("path,label\n,x\n", "line 2: no path"),
        ("path,a,b\nx.png,1,maybe\n", "there is only a \\(b is 'maybe' in line 2\\)"),
        ("path,label,split\na.png,x,exam\n", "line 2: unknown split 'exam'"),
        ("picture,label\na.png,x\n", "one of them must be called path, file"),
        ("path,size\na.png,1\n", "no classes"),
        ("path,label,label\na.png,x,y\n", "a name of its own"),
        ("path,label\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_a_bad_table_says_where(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        open_table(tmp_path, text)


def test_digits_are_split_the_same_way_for_ever():
    train, validation, test = (
        open_dataset("digits", split=split) for split in ("train", "validation", "test")
    )
    # 1,797 images; of the n of a class, n // 5 are for testing, a tenth of the rest validates.
    assert (len(train), len(validation), len(test)) == (1298, 144, 355)
    assert len(open_dataset("digits", validation_fraction=0)) == 1442
    assert train.class_names == list("0123456789")
    sample = test.load(0)
    assert sample.image.shape == (8, 8, 3)
    assert sample.image.dtype == np.uint8
    assert sample.image.max() == 255
    assert open_dataset("digits", channels=1).load(0).image.shape == (8, 8, 1)


def test_no_digit_is_both_for_training_and_testing():
    import collections

    from sklearn.datasets import load_digits

    everything = collections.Counter(
        np.rint(image * (255 / 16)).astype(np.uint8).tobytes() for image in load_digits().images
    )
    parts = [
        open_dataset("digits", split=split, channels=1) for split in ("train", "validation", "test")
    ]
    found = collections.Counter(
        part.load(i).image.tobytes() for part in parts for i in range(len(part))
    )
    assert found == everything

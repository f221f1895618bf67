"""Which folders are splits and which are classes, in the layouts that people have."""

import shutil

import pytest
from PIL import Image as Pillow

from densepath.data.open import open_dataset
from densepath.data.options import DataOptions
from densepath.data.splits import open_splits
from densepath.errors import DatasetError, LabelMismatchError, UsageError

PAIR = ("cat", "dog")


def write(root, *names):
    """An image of its own at each name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = sum(map(ord, str(name))) % 200
        Pillow.new("RGB", (4, 3), (seed, len(name) * 5 % 256, 7)).save(path, "PNG")


def write_classes(root, *folders, classes=PAIR, count=3):
    """`count` images of each class in each folder."""
    for folder in folders:
        write(root, *(f"{folder}/{name}/{i}.png" for name in classes for i in range(count)))


def sizes(root, **options):
    """Classes, and how many images each split has."""
    splits = open_splits(root, options=DataOptions(**options))
    parts = (splits.train, splits.validation, splits.test)
    names = next(part for part in parts if part is not None).class_names
    return names, [None if part is None else len(part) for part in parts]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        # The three, two and one split of people: any case, synonym or affix.
        (("train", "val", "test"), [6, 6, 6]),
        (("TRAIN", "Valid", "TEST"), [6, 6, 6]),
        (("Train", "dev"), [6, 6, 6]),
        (("trn", "validation", "tst"), [6, 6, 6]),
        (("train2017", "val2017"), [6, 6, 6]),
        (("training_set", "test_set"), [5, 1, 6]),
        (("train-set", "test-set"), [5, 1, 6]),
        (("TrainImages", "TestImages"), [5, 1, 6]),
        (("images_train", "images_val", "images_test"), [6, 6, 6]),
        (("trainset", "evaluation"), [6, 6, 6]),
        (("train",), [5, 1, None]),
        # Public data sets: brain tumours, Intel's scenes, fruits-360, fer2013, CINIC-10, Kaggle's.
        (("Training", "Testing"), [5, 1, 6]),
        (("seg_train/seg_train", "seg_test/seg_test"), [5, 1, 6]),
        (("Training", "Test"), [5, 1, 6]),
        (("train", "valid", "test"), [6, 6, 6]),
        (("flowers_train", "flowers_validation"), [6, 6, 6]),
        (("dataset/train", "dataset/test"), [5, 1, 6]),
        (("archive/Data/train", "archive/Data/valid", "archive/Data/test"), [6, 6, 6]),
        (("dataset/training_set/training_set", "dataset/test_set/test_set"), [5, 1, 6]),
        (("train/images", "val/images"), [6, 6, 6]),
    ],
)
def test_split_folders_are_recognised(tmp_path, folders, expected):
    write_classes(tmp_path, *folders)
    assert sizes(tmp_path) == (list(PAIR), expected)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["train/1.png", "bus/2.png", "car/3.png"], ["bus", "car", "train"]),
        (["test/1.png", "exam/2.png"], ["exam", "test"]),
        (["Valid/1.png", "invalid/2.png"], ["Valid", "invalid"]),
        (["bullet-train/1.png", "steam train/2.png", "tram/3.png"], None),
        (["test_tube/old/1.png", "flask/old/2.png"], ["flask", "test_tube"]),
        (["crash test/1.png", "street/2.png"], ["crash test", "street"]),
        (["contest/a/1.png", "trainer/b/2.png"], ["contest", "trainer"]),
        (["BACKGROUND_Google/1.png", "Faces/2.png"], ["BACKGROUND_Google", "Faces"]),
    ],
)
def test_classes_may_be_called_like_splits(tmp_path, names, classes):
    write(tmp_path, *names)
    expected = sorted(classes or {name.split("/")[0] for name in names})
    assert open_dataset(tmp_path, split="test").class_names == expected


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        (("train", "Training", "test"), "`Training`, `train` are each called like train"),
        (("train", "val", "dev"), "`dev`, `val` are each called like validation"),
        (("train", "test", "Testing"), "each called like test"),
        (("train", "old/train"), "could be splits"),
        (("Testing", "others"), "`Testing` could be splits"),
    ],
)
def test_two_meanings_are_refused_with_the_cure(tmp_path, folders, reason):
    write_classes(tmp_path, *folders)
    with pytest.raises(DatasetError, match=reason) as raised:
        open_dataset(tmp_path)
    assert "--set data.train=FOLDER" in str(raised.value)
    assert "--set data.train=." in str(raised.value)


def test_a_class_beside_a_training_folder_is_refused_and_either_option_cures_it(tmp_path):
    write_classes(tmp_path, "train")
    write(tmp_path, "bus/1.png", "car/2.png")
    with pytest.raises(DatasetError, match=r"`train` could be splits.*like `bus`, `car`"):
        open_dataset(tmp_path)
    assert sizes(tmp_path, train=".")[0] == ["bus", "car", "train"]
    assert sizes(tmp_path, train="train") == (list(PAIR), [5, 1, None])
    said = open_splits(tmp_path, options=DataOptions(train="train")).notes
    assert any("not used: `bus`, `car`" in note for note in said)


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "test"), ("train",)])
def test_testing_is_never_trained_against_training(tmp_path, names):
    write(tmp_path, *(f"{name}/{i}.png" for name in names for i in range(3)))
    with pytest.raises(DatasetError, match="no class folders in them") as raised:
        open_dataset(tmp_path)
    assert "--set data.train=." in str(raised.value)
    assert open_dataset(tmp_path, options=DataOptions(train=".")).class_names == sorted(names)


def test_what_lies_beside_sure_splits_is_named_and_not_used(tmp_path):
    # Kaggle's chest X-rays hold a second copy of themselves; Intel's scenes unlabelled images.
    write_classes(tmp_path, "train", "test", "val", "chest_xray/train")
    write(tmp_path, "seg_pred/1.png", "Meta/2.png")
    splits = open_splits(tmp_path)
    assert splits.train.class_names == list(PAIR)
    (note,) = (note for note in splits.notes if note.startswith("not used"))
    assert note.startswith("not used: `Meta`, `chest_xray`, `seg_pred` in ")


def test_test_images_without_class_folders_are_no_test_split(tmp_path):
    # GTSRB: Train has class folders, Test has images, Meta has icons.
    write_classes(tmp_path, "Train")
    write(tmp_path, "Test/1.png", "Meta/2.png")
    assert sizes(tmp_path) == (list(PAIR), [5, 1, None])


@pytest.mark.parametrize(
    "unlabelled",
    ["asl_alphabet_test/asl_alphabet_test/A.png", "asl_alphabet_test/images/A.png"],
)
def test_unlabelled_test_images_one_folder_deeper_are_no_test_split(tmp_path, unlabelled):
    """Kaggle's ASL alphabet: the folder that repeats its name is no class."""
    names = [f"asl_alphabet_train/asl_alphabet_train/{c}/{i}.png" for c in "AB" for i in range(9)]
    for name in [*names, unlabelled]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    splits = open_splits(tmp_path)
    assert splits.train.class_names == ["A", "B"]
    assert splits.test is None
    assert any("asl_alphabet_test" in said and "not used" in said for said in splits.notes)


def test_training_images_without_labels_one_folder_deeper_are_refused(tmp_path):
    for name in ("train/images/1.png", "test/images/2.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(name.encode())
    with pytest.raises(DatasetError, match="no class folders in them"):
        open_splits(tmp_path)


def test_a_folder_called_like_a_class_of_the_splits_is_refused(tmp_path):
    write_classes(tmp_path, "train", "test")
    write(tmp_path, "Cat/1.png")
    with pytest.raises(DatasetError, match="or classes, like `Cat`"):
        open_dataset(tmp_path)


def test_test_folders_alone_can_be_measured_and_not_trained_on(tmp_path):
    write_classes(tmp_path, "Testing")
    assert len(open_dataset(tmp_path, split="test")) == 6
    with pytest.raises(DatasetError, match="no train images: it has only test"):
        open_dataset(tmp_path, split="train")


def test_the_options_name_folders_that_speak_of_nothing(tmp_path):
    write_classes(tmp_path, "fold1", "fold2", "fold3")
    found = sizes(tmp_path, train="fold1", validation="fold2", test="fold3")
    assert found == (list(PAIR), [6, 6, 6])
    assert sizes(tmp_path, train="fold3") == (list(PAIR), [5, 1, None])


def test_one_named_folder_leaves_the_other_class_folders_for_training(tmp_path):
    write_classes(tmp_path, ".", "later")
    assert sizes(tmp_path, test="later") == (list(PAIR), [5, 1, 6])
    splits = open_splits(tmp_path, options=DataOptions(test="later"))
    assert not {splits.train.path(i) for i in range(5)} & {splits.test.path(i) for i in range(6)}


def test_two_train_folders_are_told_apart_by_an_option(tmp_path):
    write_classes(tmp_path, "train", "Training", "test")
    assert sizes(tmp_path, train="Training") == (list(PAIR), [5, 1, 6])


def test_each_split_may_be_a_source_of_its_own_kind(tmp_path):
    write_classes(tmp_path / "photos", ".")
    write_classes(tmp_path / "more", ".", classes=("dog", "cat"), count=2)
    write(tmp_path, "x.png", "y.png")
    (tmp_path / "test.csv").write_text("path,label\nx.png,dog\ny.png,dog\n")
    splits = open_splits(
        tmp_path / "photos",
        options=DataOptions(validation=str(tmp_path / "more"), test=str(tmp_path / "test.csv")),
    )
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [6, 4, 2]
    # The table knows only dogs: they are class 1 of the training images, not class 0.
    assert splits.test.class_names == ["cat", "dog"]
    assert [splits.test.target(i) for i in range(2)] == [1, 1]
    assert splits.test.load(0).target == 1
    assert "test.csv" in splits.rules["test"]


def test_a_split_of_other_classes_is_refused(tmp_path):
    write_classes(tmp_path / "a", ".")
    write_classes(tmp_path / "b", ".", classes=("cat", "horse"))
    with pytest.raises(LabelMismatchError, match="do not have: horse"):
        open_splits(tmp_path / "a", options=DataOptions(test=str(tmp_path / "b")))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train": "fold9"}, DatasetError, "not a folder in .*it has fold1, fold2"),
        ({"validation": "."}, UsageError, "data.validation is '.'"),
        ({"test": ""}, UsageError, "data.test is ''"),
        ({"label_column": "x"}, UsageError, "data.label_column belongs to a table"),
        ({"group_column": "x"}, UsageError, "data.group_column belongs to a table"),
        ({"root": "x"}, UsageError, "data.root belongs to a list or a table"),
    ],
)
def test_options_without_a_meaning_are_refused(tmp_path, options, error, message):
    write_classes(tmp_path, "fold1", "fold2")
    with pytest.raises(error, match=message):
        open_splits(tmp_path, options=DataOptions(**options))


def test_two_sources_of_training_images_are_refused(tmp_path):
    write_classes(tmp_path / "a", ".")
    write_classes(tmp_path / "b", ".")
    with pytest.raises(DatasetError, match="are both training images"):
        open_splits(tmp_path / "a", options=DataOptions(train=str(tmp_path / "b")))


@pytest.mark.parametrize(
    "folder", ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found",
               "#recycle", "@Recycle", "@tmp", "__pycache__", ".ipynb_checkpoints", ".git", "CVS"]
)  # fmt: skip
def test_folders_of_the_operating_system_and_of_tools_are_no_classes(tmp_path, folder):
    write_classes(tmp_path, ".")
    for place in (tmp_path / folder, tmp_path / "cat" / folder):
        write(place, "thumb.png")
        (place / "Entries").write_text("")
    write(tmp_path, "cat/._1.png")
    (tmp_path / "Thumbs.db").write_text("")
    (tmp_path / "dog" / ".DS_Store").write_text("")
    splits = open_splits(tmp_path)
    assert splits.test.class_names == list(PAIR)
    assert all(folder not in splits.test.path(i) for i in range(len(splits.test)))
    assert len(splits.test) == 6
    (note,) = (note for note in splits.notes if "the operating system" in note)
    for name in ("Thumbs.db", "._1.png", ".DS_Store"):
        assert repr(name) in note
    assert len(splits.notes) == 1


def test_a_class_may_be_called_as_the_version_control_cvs(tmp_path):
    write(tmp_path, "CVS/1.png", "Walgreens/2.png")
    assert open_dataset(tmp_path, split="test").class_names == ["CVS", "Walgreens"]


def test_names_in_either_unicode_form_are_one_class(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write_classes(tmp_path, "train", classes=(composed, "tea"))
    write_classes(tmp_path, "test", classes=(decomposed, "tea"))
    splits = open_splits(tmp_path)
    assert splits.train.class_names == splits.test.class_names == [composed, "tea"]
    assert [splits.test.target(i) for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert splits.test.load(0).image.shape == (3, 4, 3)


def test_two_folders_that_look_alike_are_refused_with_what_differs(tmp_path):
    write_classes(tmp_path, ".", classes=("caf\u00e9", "cafe\u0301"))
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("the file system makes them one")
    with pytest.raises(DatasetError, match=r"NFC.*NFD") as raised:
        open_dataset(tmp_path)
    assert all(name in str(raised.value) for name in (r"'caf\xe9'", r"'cafe\u0301'"))


def test_images_outside_class_folders_and_other_files_are_named(tmp_path):
    write_classes(tmp_path, ".")
    write(tmp_path, "stray.png", "other.jpg")
    (tmp_path / "cat" / "a.psd").write_bytes(b"x")
    (tmp_path / "cat" / "b.PSD").write_bytes(b"x")
    (tmp_path / "dog" / "a.xml").write_text("x")
    notes = open_splits(tmp_path).notes
    assert any("not used: 2 images directly in" in note for note in notes)
    assert any("2 pictures of kinds that are not read (2 .psd)" in note for note in notes)
    assert any("1 file that is no image (1 .xml)" in note for note in notes)


def test_a_set_that_was_packed_into_a_folder_of_its_own_is_said_to_be(tmp_path):
    write_classes(tmp_path, "flowers/train", "flowers/test")
    shutil.copytree(tmp_path / "flowers", tmp_path / "again" / "again")
    for root, inner in ((tmp_path / "again", "again/again"),):
        splits = open_splits(root)
        assert len(splits.test) == 6
        assert splits.notes[0] == f"read from {tmp_path / inner}, the only folder in {root}."


def test_one_class_folder_with_folders_in_it_is_doubtful(tmp_path):
    write_classes(tmp_path, "flowers")
    splits = open_splits(tmp_path)
    assert splits.test.class_names == ["flowers"]
    assert any(f"name {tmp_path / 'flowers'}" in note for note in splits.notes)

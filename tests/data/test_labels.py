"""Label files, lists and tables: every way in which people write what is in a picture."""

import codecs
import dataclasses

import numpy as np
import pytest

from densepath.data.aligned import align
from densepath.data.inspect import inspect_splits
from densepath.data.label_names import read_label_names
from densepath.data.open import open_dataset
from densepath.data.options import DataOptions
from densepath.data.splits import open_splits
from densepath.data.table_file import read_table
from densepath.errors import DatasetError, LabelMismatchError, UnknownNameError, UsageError

NAMES = ["cat", "red dog", "crème"]
NUMBERED = "0 cat\n1 red dog\n2 crème\n"


@pytest.mark.parametrize(
    "data",
    [
        "cat\nred dog\ncrème".encode(),
        "cat\nred dog\ncrème\n\n  \n\t\n".encode(),
        codecs.BOM_UTF8 + "cat\r\nred dog\r\ncrème\r\n".encode(),
        "cat\rred dog\rcrème\r".encode(),
        "  cat \nred dog\t\ncre\u0300me\n".encode(),
        NUMBERED.encode(),
        codecs.BOM_UTF8 + NUMBERED.replace("\n", "\r\n").encode() + b"\r\n",
        NUMBERED.encode("utf-16"),
        codecs.BOM_UTF16_BE + NUMBERED.encode("utf-16-be"),
        "2 crème\n\n0 cat\n1   red dog\n".encode(),
        "0\tcat\n1\tred dog\n2\tcrème\n".encode(),
        "0,cat\n1, red dog\n2 ,crème\n".encode(),
        "0: cat\n1: red dog\n2: crème\n".encode(),
        "0000 cat\n0001 red dog\n0002 crème\n".encode(),
    ],
)
def test_a_label_file_gives_the_same_names_however_it_is_written(tmp_path, data):
    (tmp_path / "labels.txt").write_bytes(data)
    assert read_label_names(tmp_path / "labels.txt") == NAMES


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0\n1\n2\n", ["0", "1", "2"]),
        ("7 up\nfanta\n", ["7 up", "fanta"]),
        ("n01440764 tench\nn01443537 goldfish\n", ["n01440764 tench", "n01443537 goldfish"]),
        ("0 0 degrees\n1 90 degrees\n", ["0 degrees", "90 degrees"]),
    ],
)
def test_numbers_that_belong_to_names_stay(tmp_path, text, names):
    (tmp_path / "labels.txt").write_text(text)
    assert read_label_names(tmp_path / "labels.txt") == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no class names"),
        (" \n\n", "no class names"),
        ("cat\n\ndog\n", "line 2 is blank: class 1 would have no name"),
        ("cat\ndog\ncat\n", "classes 0 and 2 are both called 'cat'"),
        ("caf\u00e9\ncafe\u0301\n", "classes 0 and 1 are both called"),
        ("0 cat\n1 cat\n", "classes 0 and 1 are both called 'cat'"),
        ("0 cat\n0 dog\n", "line 2: the number 0 is given twice, to 'cat' and 'dog'"),
        ("1 cat\n2 dog\n", "no name for class 0: its numbers go from 1 to 2"),
        ("0 cat\n2 dog\n", "no name for class 1"),
        ("0 cat\ndog\n", "line 2: 'dog' is not `number name`"),
        ("0 cat\n1\n", "line 2: '1' is not `number name`"),
        ('{"0": "cat"}', "looks like JSON"),
    ],
)
def test_a_doubtful_label_file_is_refused(tmp_path, text, message):
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_label_names(tmp_path / "labels.txt")


def test_mutated_label_files_and_tables_never_end_in_another_error(tmp_path):
    random = np.random.default_rng(0)
    seeds = [
        NUMBERED.encode(),
        b"path,label,split\na.png,cat|dog,train\nb.png,,val\n",
        b"a.png 0\n",
    ]
    for number in range(600):
        data = bytearray(seeds[number % 3])
        for _ in range(random.integers(1, 5)):
            place = int(random.integers(len(data)))
            data[place : place + int(random.integers(3))] = random.bytes(random.integers(3))
        for name, read in (
            ("labels.txt", read_label_names),
            ("list.txt", open_dataset),
            ("table.csv", open_dataset),
        ):
            (tmp_path / name).write_bytes(data)
            try:
                read(tmp_path / name)
            except (DatasetError, UsageError):
                continue


# Lists.


def test_a_list_of_database_ids_is_refused_and_small_gaps_are_said(tmp_path):
    (tmp_path / "ids.txt").write_text("a.png 300000\nb.png 17\nc.png 90211\n")
    with pytest.raises(DatasetError, match=r"3 different labels go up to 300,000.*ids of a data"):
        open_dataset(tmp_path / "ids.txt")
    (tmp_path / "gap.txt").write_text("a.png 1\nb.png 2\nc.png 3\nd.png 5\n")
    notes = open_splits(tmp_path / "gap.txt").notes
    assert any("there are 6 classes, 2 of them without images (such as 0)" in n for n in notes)


@pytest.mark.parametrize("names", [("train", "val", "test"), ("set-train", "set-dev", "set-test")])
def test_lists_called_alike_but_for_the_split_are_one_set(tmp_path, names):
    for number, name in enumerate(names):
        (tmp_path / f"{name}.txt").write_text(f"{number}.png 0\n{number}b.png 1\n")
    splits = open_splits(tmp_path / f"{names[0]}.txt")
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [2, 2, 2]
    assert splits.rules["validation"] == f"the list {names[1]}.txt"


def test_a_list_without_labels_beside_the_training_list_is_not_used(tmp_path):
    (tmp_path / "train.txt").write_text("a.png 0\nb.png 1\nc.png 0\nd.png 1\n")
    (tmp_path / "test.txt").write_text("e.png\nf.png\n")
    splits = open_splits(tmp_path / "train.txt")
    assert len(splits.test) == 4
    assert any("test.txt, whose lines are not `path label`" in note for note in splits.notes)


def test_a_file_with_two_labels_in_a_list_is_refused_or_added_up(tmp_path):
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 1\n./a.png 1\nb.png 1\n")
    with pytest.raises(DatasetError, match=r"lines 1 and 3: ./a.png is given two different"):
        open_dataset(tmp_path / "list.txt")
    dataset = open_dataset(tmp_path / "list.txt", split="test", multi_label=True)
    assert dataset.multi_label
    np.testing.assert_array_equal([dataset.target(0), dataset.target(1)], [[1, 1], [0, 1]])


# Tables.


def open_table(tmp_path, text, *, name="table.csv", **options):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return open_splits(path, options=DataOptions(**options))


def test_columns_that_are_no_classes_are_ignored_and_named(tmp_path):
    text = "patient_id,age,path,cat,dog,view\n" + "".join(
        f"p{i},{20 + i},{i}.png,{i % 2},{1 - i % 2},{'LR'[i % 2]}\n" for i in range(10)
    )
    splits = open_table(tmp_path, text)
    assert splits.train.class_names == ["cat", "dog"]
    notes = " ".join(splits.notes)
    assert "ignored in" in notes
    assert "the columns patient_id, age, view" in notes
    assert "every column of 0 and 1 is a class (cat, dog)" in notes
    assert "--set data.group_column=patient_id" in notes


def test_a_column_of_0_and_1_that_is_no_class_is_said_and_left_out_on_request(tmp_path):
    text = "path,male,cat,dog\na.png,1,1,0\nb.png,0,0,1\n"
    assert "is a class (male, cat, dog)" in " ".join(open_table(tmp_path, text).notes)
    splits = open_table(tmp_path, text, class_columns=("cat", "dog"))
    assert splits.test.class_names == ["cat", "dog"]
    np.testing.assert_array_equal(splits.test.target(0), [1, 0])
    assert any("the columns male." in note for note in splits.notes)


ONE_EACH = "path,MEL,NV,BCC\na.png,1.0,0.0,0.0\nb.png,0.0,1.0,0.0\nc.png,0.0,0.0,1.0\n"


def test_a_table_of_one_class_a_row_in_columns_of_0_and_1_says_how_to_answer_one(tmp_path):
    """The form in which ISIC's challenges give their truth."""
    splits = open_table(tmp_path, ONE_EACH)
    assert splits.train.multi_label
    assert any("--set data.multi_label=false" in note for note in splits.notes)
    for multi_label in (True, False):
        decided = open_table(tmp_path, ONE_EACH, multi_label=multi_label)
        assert not any("data.multi_label" in note for note in decided.notes)
    several = open_table(tmp_path, ONE_EACH.replace("a.png,1.0,0.0", "a.png,1.0,1.0"))
    assert not any("data.multi_label" in note for note in several.notes)


@pytest.mark.parametrize(
    ("column", "cells", "said"),
    [
        ("set", ("train", "test"), True),
        ("Subset", ("Training", "PublicTest"), False),
        ("phase", ("train", "dev", "test"), True),
        ("fold", ("0", "1", "2"), False),
        ("usage", ("train", "train"), False),
    ],
)
def test_an_ignored_column_that_looks_like_splits_is_said(tmp_path, column, cells, said):
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{cells[i % len(cells)]}\n" for i in range(12))
    notes = " ".join(open_table(tmp_path, f"path,label,{column}\n{rows}").notes)
    assert (f"--set data.split_column={column}" in notes) == said
    assert f"the columns {column}" in notes


def test_any_columns_can_be_named(tmp_path):
    text = "id,photo,diagnosis,fold\n" + "".join(
        f"{i},{i}.png,{'ab'[i % 2]},{['train', 'dev', 'test'][i % 3]}\n" for i in range(12)
    )
    splits = open_table(
        tmp_path, text, path_column="photo", label_column="diagnosis", split_column="fold"
    )
    assert splits.train.class_names == ["a", "b"]
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [4, 4, 4]
    assert splits.train.path(1) == str(tmp_path / "3.png")
    assert any("the columns id." in note for note in splits.notes)


@pytest.mark.parametrize(
    ("header", "path", "label"),
    [
        ("Path;Label", "Path", "Label"),
        ("FILENAME\tClass", "FILENAME", "Class"),
        (",image_path,class_name", "image_path", "class_name"),
        ("Category,Image File", "Image File", "Category"),
    ],
)
@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "TABLE.CSV"])
def test_headers_and_delimiters_come_as_they_come(tmp_path, header, path, label, name):
    delimiter = next(d for d in "\t;," if d in header)
    columns = header.split(delimiter)
    lines = [header]
    for i in range(4):
        cells = {path: f"{i}.png", label: "ab"[i % 2]}
        lines.append(delimiter.join(cells.get(column, str(i)) for column in columns))
    dataset = open_table(tmp_path, "\ufeff" + "\r\n".join(lines), name=name).test
    assert dataset.class_names == ["a", "b"]
    assert [dataset.path(i) for i in range(4)] == [str(tmp_path / f"{i}.png") for i in range(4)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_column": "lable"}, UnknownNameError, "Did you mean label"),
        ({"path_column": "photo"}, UnknownNameError, "data.path_column"),
        ({"class_columns": ("cat",)}, UnknownNameError, "data.class_columns"),
        ({"label_column": "label", "class_columns": ("a",)}, UsageError, "exclude each other"),
        ({"group_column": "g"}, DatasetError, "line 3: no g"),
        ({"class_columns": ("a", "g")}, DatasetError, "line 2: g is '7'; it must be 0 or 1"),
    ],
)
def test_a_wrong_option_of_a_table_says_what_there_is(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        open_table(tmp_path, "path,label,a,g\nx.png,c,1,7\ny.png,d,0,\n", **options)


def test_one_bad_cell_of_a_class_column_is_an_error_and_not_a_lost_class(tmp_path):
    rows = "".join(f"{i}.png,{i % 2},0,1\n" for i in range(8))
    with pytest.raises(DatasetError, match="line 10: b is 'O'; it must be 0 or 1, as most"):
        open_table(tmp_path, f"path,a,b,c\n{rows}x.png,1,O,1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,patient_id\na.png,7\nb.png,8\n", "there is none .patient_id is '7' in line 2"),
        ("path,sick\na.png,1\nb.png,0\n", "there is only sick"),
    ],
)
def test_a_table_without_classes_names_the_options(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message) as raised:
        open_table(tmp_path, text)
    assert "--set data.label_column=NAME" in str(raised.value)


def test_one_column_of_0_and_1_may_be_named_as_the_only_class(tmp_path):
    splits = open_table(tmp_path, "path,sick\na.png,1\nb.png,0\n", class_columns=("sick",))
    assert splits.test.class_names == ["sick"]
    assert splits.test.multi_label


@pytest.mark.parametrize("second", ["a.png", "./a.png", "x/../a.png"])
def test_one_file_with_two_labels_is_refused_or_read_as_multi_label(tmp_path, second):
    text = f"path,label\na.png,cat\nb.png,dog\n{second},dog\n"
    with pytest.raises(DatasetError, match=r"lines 2 and 4: .*a.png is given two different") as why:
        open_table(tmp_path, text)
    assert "--set data.multi_label=true" in str(why.value)
    dataset = open_table(tmp_path, text, multi_label=True).test
    np.testing.assert_array_equal([dataset.target(0), dataset.target(1)], [[1, 1], [0, 1]])


def test_two_labels_of_one_file_in_two_splits_are_refused(tmp_path):
    text = "path,label,split\na.png,cat,train\nb.png,dog,train\na.png,dog,test\n"
    with pytest.raises(DatasetError, match="two different labels"):
        open_table(tmp_path, text)


def test_a_row_that_is_there_twice_counts_once_and_is_said(tmp_path):
    splits = open_table(tmp_path, "path,label\na.png,x\nb.png,y\na.png,x\na.png,x\n")
    assert len(splits.test) == 2
    assert any("2 rows repeat a file of an earlier one and count once." in n for n in splits.notes)


def test_a_set_is_multi_label_on_request_though_no_row_shows_it(tmp_path):
    dataset = open_table(tmp_path, "path,label\na.png,cat\nb.png,dog\n", multi_label=True).test
    assert dataset.multi_label
    np.testing.assert_array_equal([dataset.target(0), dataset.target(1)], [[1, 0], [0, 1]])


def test_several_labels_are_refused_where_each_image_is_to_have_one(tmp_path):
    with pytest.raises(DatasetError, match="line 3: 2 labels, where each image has one"):
        open_table(tmp_path, "path,label\na.png,cat\nb.png,cat|dog\n", multi_label=False)
    splits = open_table(tmp_path, "path,a,b\nx.png,1,0\ny.png,0,1\n", multi_label=False)
    assert [splits.test.target(0), splits.test.target(1)] == [0, 1]


def test_groups_are_never_on_both_sides(tmp_path):
    text = "path,label,who\n" + "".join(f"{i}.png,{'abc'[i % 3]},p{i // 6}\n" for i in range(120))
    for seed in range(5):
        splits = open_table(tmp_path, text, group_column="who", validation_fraction=0.2, seed=seed)
        held = set(splits.validation.groups.tolist())
        assert len(held) == 4
        assert held.isdisjoint(splits.train.groups.tolist())
        assert len(splits.validation) == 24
        found = inspect_splits(splits)
        assert found.groups["validation"] == 4
        assert found.divided_groups == 0
        assert "whole groups" in splits.rules["validation"]


def test_groups_of_a_given_split_that_are_on_both_sides_are_counted(tmp_path):
    text = "path,label,who,split\n" + "".join(
        f"{i}.png,{'ab'[i % 2]},p{i % 5},{'train' if i < 10 else 'test'}\n" for i in range(13)
    )
    found = inspect_splits(open_table(tmp_path, text, group_column="who"))
    assert found.divided_groups > 0
    assert "in more than one split" in found.to_text()


def test_several_labels_are_refused_where_the_training_images_have_one(tmp_path):
    one = open_table(tmp_path, "path,label\na.png,a\nb.png,b\n", multi_label=False).test
    several = open_table(tmp_path, "path,a,b\nx.png,1,1\ny.png,0,1\n").test
    assert several.multi_label
    with pytest.raises(LabelMismatchError, match="has several labels an image, the training"):
        align(several, one)
    # The other way around each class is one of several that there could be.
    assert align(one, several).target(0).tolist() == [1, 0]


def test_a_list_without_names_has_numbers_for_classes_and_says_so(tmp_path):
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 1\n")
    assert not open_dataset(tmp_path / "list.txt", split="test").named
    (tmp_path / "label_list.txt").write_text("cat\ndog\n")
    assert open_dataset(tmp_path / "list.txt", split="test").named


@pytest.mark.parametrize(("count", "said"), [(9, True), (10, False)])
def test_a_column_of_many_different_words_is_not_looked_through_for_splits(tmp_path, count, said):
    words = ["train", "Train", "TRAIN", "training", "test", "Test", "TEST", "dev", "val", "valid"]
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{words[i % count]}\n" for i in range(20))
    notes = " ".join(open_table(tmp_path, f"path,label,part\n{rows}").notes)
    assert ("--set data.split_column=part" in notes) == said


def test_what_was_read_is_not_changed_any_more(tmp_path):
    (tmp_path / "table.csv").write_text("path,label\na.png,a\n")
    table = read_table(tmp_path / "table.csv")
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.rows = []
    sample = open_dataset("digits", split="test").load(0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.target = 1


def test_groups_are_held_out_by_the_square_of_what_each_class_lacks(tmp_path):
    # Of 100 a, 10 b and 3 c a fifth is wanted. The group `x` has 20 a and 5 b, three b too many:
    # b loses (9 − 4) / 10², a gains 20² / 100² and all images gain (22.6² − 2.4²) / 113², which
    # is more. `rest` is far too large, and `c` has all of its class.
    groups = {"x": "a" * 20 + "b" * 5, "rest": "a" * 80 + "b" * 5, "c": "ccc"}
    rows = [(label, group) for group, labels in groups.items() for label in labels]
    text = "path,label,who\n" + "".join(f"{i}.png,{a},{g}\n" for i, (a, g) in enumerate(rows))
    for seed in range(4):
        splits = open_table(tmp_path, text, group_column="who", validation_fraction=0.2, seed=seed)
        held = [splits.validation.target(i) for i in range(len(splits.validation))]
        assert held == [0] * 20 + [1] * 5


def test_numbers_above_those_of_the_training_images_are_refused(tmp_path):
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 2\n")
    numbers = open_dataset(tmp_path / "list.txt", split="test")
    named = open_table(tmp_path, "path,label\na.png,a\nb.png,b\n", multi_label=False).test
    with pytest.raises(LabelMismatchError, match="has the class 2; the training images end at 1"):
        align(numbers, named)
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 1\n")
    same = align(open_dataset(tmp_path / "list.txt", split="test"), named)
    assert [same.target(0), same.target(1)] == [0, 1]

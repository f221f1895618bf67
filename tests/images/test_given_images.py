"""What is one image and what are many: every form that a caller may hand in."""

from __future__ import annotations

import array
import io
import itertools
import mmap
import os
import re
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densepath.engines.null import NullEngine
from densepath.errors import DataError, UsageError
from densepath.images.given import images_in
from densepath.images.preprocess import Preprocess
from densepath.images.read_as import AS_PHOTOS
from densepath.images.reading import read_image
from densepath.predict.predictor import Predictor

PLAIN = Preprocess((8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


def predict(images, channels=3):
    """The answers: dark or light, by the null engine's mean."""
    preprocess = Preprocess((8, 8), mean=(0.5,) * channels, std=(0.5,) * channels)
    predictor = Predictor(NullEngine(preprocess, 2, batch_size=8), ["dark", "light"])
    return list(predictor.predict(images, top_k=1))


def shade(value, channels=3):
    return np.full((6, 9, channels), value, np.uint8)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(shade(255)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Four images in a folder and one below it, beside a text file."""
    for name in ("c.png", "a.png", "deep/er/b.png", "deep/x.PNG"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shade(255)).save(path)
    (tmp_path / "photos" / "notes.md").write_text("no image")
    return tmp_path / "photos"


class Named(os.PathLike):
    """A path of another library."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


class NamedInBytes(Named):
    def __fspath__(self):
        return os.fsencode(self.path)


class Stream(io.RawIOBase):
    """An answer from the network: read once, never back."""

    def __init__(self, content):
        self._rest = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._rest.readinto(buffer)


def written(content):
    """A file in memory as whoever wrote it leaves it: at its end."""
    file = io.BytesIO()
    file.write(content)
    return file


def mapped(content):
    memory = mmap.mmap(-1, len(content))
    memory.write(content)
    return memory


CONTENTS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "part of a memoryview": lambda content: memoryview(b"__" + content)[2:],
    "array": lambda content: array.array("B", content),
    "mmap": mapped,
    "BytesIO": io.BytesIO,
    "BytesIO at its end": written,
    "buffered": lambda content: io.BufferedReader(io.BytesIO(content)),
    "stream": Stream,
    "encoded array": lambda content: np.frombuffer(content, np.uint8),
    "encoded tensor": lambda content: torch.frombuffer(bytearray(content), dtype=torch.uint8),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: iter((x, x)), tuple])
def test_an_image_file_in_memory_is_one_image(photo, name, wrap):
    if wrap is tuple:
        images = (CONTENTS[name](photo.read_bytes()),)
    else:
        images = wrap(CONTENTS[name](photo.read_bytes()))
    answers = predict(images)
    if name == "stream" and len(answers) == 2:  # the second time there is nothing left in it
        assert answers.pop().error is not None
    assert {(answer.error, *answer.labels) for answer in answers} == {(None, "light")}
    assert [answer.path for answer in answers] == [f"image {i}" for i in range(len(answers))]


@pytest.mark.parametrize("form", [str, Path, Named, NamedInBytes, np.str_])
def test_a_path_of_any_kind_is_one_image_and_keeps_its_name(photo, form):
    for images in (form(photo), [form(photo)]):
        [answer] = predict(images)
        assert (answer.path, answer.labels) == (str(photo), ["light"])


def test_entries_of_scandir_are_paths(folder):
    with os.scandir(folder) as entries:
        names = [answer.path for answer in predict(e for e in entries if e.name.endswith("png"))]
    assert sorted(names) == [str(folder / "a.png"), str(folder / "c.png")]


def test_an_open_file_is_one_image_under_its_name(photo):
    with photo.open("rb") as file:
        [answer] = predict(file)
        [again] = predict([file])
    assert (answer.path, answer.labels) == (again.path, again.labels) == (str(photo), ["light"])


def test_files_that_are_closed_once_the_next_is_asked_for_are_read(photo):
    def opened():
        for _ in range(20):
            with photo.open("rb") as file:
                yield file

    assert [answer.labels for answer in predict(opened())] == [["light"]] * 20


def test_a_closed_file_and_a_temporary_one_in_text_are_answered_with_why(photo):
    with photo.open("rb") as closed:
        pass
    with tempfile.NamedTemporaryFile("w+") as text:
        text.write("a.png")
        first, second, good = predict([closed, text, photo])
    assert "closed file" in first.error
    assert "str, not bytes" in second.error
    assert good.labels == ["light"]


@pytest.mark.parametrize("wrap", [lambda file: file, lambda file: [file]])
def test_a_file_opened_as_text_is_refused_with_the_cure(tmp_path, wrap):
    (tmp_path / "names.txt").write_text("a.png\nb.png\n")
    with (tmp_path / "names.txt").open() as file, pytest.raises(UsageError, match="'rb'"):
        predict(wrap(file))


# Arrays and tensors


def test_arrays_and_tensors_of_pixels_are_one_image_and_batches_several():
    light = shade(255)
    first = torch.from_numpy(light).permute(2, 0, 1)
    one = (light, light[:, :, 0], first, first.contiguous(), torch.from_numpy(light), first[0])
    for image in one:
        assert [answer.labels for answer in predict(image)] == [["light"]]
    assert [answer.labels for answer in predict(memoryview(light))] == [["light"]]
    for images in (
        np.stack([light] * 3),
        torch.stack([first] * 3),
        memoryview(np.stack([light] * 3)),
    ):
        assert [answer.labels for answer in predict(images)] == [["light"]] * 3


@pytest.mark.parametrize(
    "make",
    [
        lambda paths: np.array(paths),
        lambda paths: np.array([Path(path) for path in paths], object),
        lambda paths: np.array(paths, "T"),
        lambda paths: (path for path in paths),
        lambda paths: tuple(map(Path, paths)),
        lambda paths: dict.fromkeys(paths),
        lambda paths: dict.fromkeys(paths).keys(),
        lambda paths: dict(enumerate(paths)).values(),
        lambda paths: map(Named, paths),
    ],
    ids=["str", "object", "StringDtype", "generator", "tuple", "dict", "keys", "values", "map"],
)
def test_many_paths_are_many_images_whatever_holds_them(photo, make):
    held = make([str(photo)] * 3)
    if isinstance(held, dict):
        with pytest.raises(UsageError, match=r"values: predict\(x\.values\(\)\)"):
            predict(held)
        return
    assert {answer.path for answer in predict(held)} == {str(photo)}


class Column:
    """What a column of pandas or polars is to others: an array, and iterable."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, object)

    def __iter__(self):
        return iter(range(len(self.values)))


class Frame(Column):
    columns = ("path", "label")


def test_a_column_of_a_table_is_many_paths_and_the_table_is_refused(photo):
    assert [answer.path for answer in predict(Column([str(photo)] * 2))] == [str(photo)] * 2
    with pytest.raises(UsageError, match=r"a column, as frame\['path'\]"):
        predict(Frame([str(photo)]))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 of 8 × 8 × 3.*\* 255\)\.round\(\)\.astype"),
        (np.zeros((2, 8, 8, 3)), "float64 of 2 × 8 × 8 × 3"),
        (np.zeros((8, 8), bool), "the image is bool"),
        (np.zeros((8, 8, 3), np.uint16), "the image is uint16"),
        (torch.zeros(3, 8, 8), r"float32.*\.to\(torch\.uint8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16), "bfloat16 of 2 × 3 × 8 × 8"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), "an array of 5 sides"),
        (np.zeros((2, 2), object), "2 sides of names or objects"),
        (np.array(7, np.uint8), "an array of 0 sides"),
        (7, "a int is no image"),
        (None, "a NoneType is no image"),
        ({"a": 1}, "a dict is no list of images"),
        ([["a.png"]], "item 0 is a list"),
        ([(shade(0), 3)], "item 0 is a tuple"),
        ([{"path": "a"}], "item 0 is a dict"),
    ],
)
def test_what_is_neither_an_image_nor_images_is_refused(images, reason):
    with pytest.raises(UsageError, match=reason):
        predict(images)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (7, "a int is not a path"),
        (None, "a NoneType is not a path"),
        (np.zeros((8, 8, 3)), "float64 of 8 × 8 × 3"),
        (shade(0).transpose(2, 0, 1), r"its channels first.*x\.transpose\(1, 2, 0\)"),
        (torch.zeros(3, 8, 3, dtype=torch.uint8), "either end may be the channels"),
        (torch.zeros(5, 8, 5, dtype=torch.uint8), "no end can be the channels"),
        (np.stack([shade(0)] * 2), r"uint8 \(2, 6, 9, 3\)"),
        ("", "an empty name"),
        ("-", "no such file"),
        ("x" * 5000, "file name too long"),
        ("https://example.org/a.png", r"Url\(ADDRESS\)"),
        ("nowhere/*.png", "nothing matches this pattern"),
        (b"", "no bytes"),
        (bytearray(), "no bytes"),
        (b"photos", "not an image"),
    ],
)
def test_one_item_that_is_no_image_leaves_the_others_alone(photo, item, reason):
    with_it = predict([photo, item, photo])
    assert [answer.error is None for answer in with_it] == [True, False, True]
    assert predict(iter([item]))[0].error is not None
    assert re.search(reason, with_it[1].error), with_it[1].error


# Names


def test_a_folder_is_all_images_below_it_alone_and_among_others(folder):
    expected = [str(folder / name) for name in ("a.png", "c.png", "deep/er/b.png", "deep/x.PNG")]
    for images in (folder, str(folder), Named(folder)):
        with pytest.warns(UserWarning, match=r"photos: passed over: 1 .*\.md"):
            assert [answer.path for answer in predict(images)] == expected
    (folder / "notes.md").unlink()
    assert [a.path for a in predict([folder, folder / "a.png"])] == [*expected, expected[0]]


def test_a_pattern_and_a_list_are_read_as_on_the_command_line(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert [answer.path for answer in predict("**/*.png")] == ["a.png", "c.png", "deep/er/b.png"]
    (folder / "deep/list.txt").write_bytes(
        b"\xef\xbb\xbfx.PNG\r\n\r\n  er/b.png 17 \r\n../deep\r\nnone.png 3\r\nhttp://a/b.png\r\n"
    )
    with pytest.warns(UserWarning, match=r"passed over: 1 .*\.txt"):
        answers = predict("deep/list.txt")
    names = ["x.PNG", "er/b.png", "../deep/er/b.png", "../deep/x.PNG", "none.png"]
    assert [answer.path for answer in answers] == [*(f"deep/{n}" for n in names), "http://a/b.png"]
    assert [answer.error is None for answer in answers] == [True] * 4 + [False] * 2


def test_a_list_that_names_itself_ends(tmp_path):
    (tmp_path / "list.txt").write_text("list.txt\n")
    [answer] = predict(tmp_path / "list.txt")
    assert "not an image" in answer.error


@pytest.mark.parametrize(
    ("name", "reason"), [("empty", "no images in this folder"), ("list.txt", "names no images")]
)
def test_a_folder_or_list_without_images_is_an_error_alone_and_an_answer_among_others(
    tmp_path, photo, name, reason
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n\n")
    with pytest.raises(DataError, match=reason):
        predict(tmp_path / name)
    bad, good = predict([tmp_path / name, photo])
    assert reason in bad.error
    assert bad.path == str(tmp_path / name)
    assert good.error is None


def test_an_endless_iterable_is_taken_one_by_one():
    first = itertools.islice(images_in(itertools.repeat(shade(0))), 3)
    assert [name for name, _ in first] == ["image 0", "image 1", "image 2"]


def test_a_folder_in_a_list_that_may_not_be_read_is_an_answer_with_the_reason(
    photo, folder, monkeypatch
):
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "er":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    (folder / "notes.md").unlink()
    monkeypatch.setattr(os, "scandir", refuse)
    answers = predict([folder, photo])
    [bad] = [answer for answer in answers if answer.error]
    assert bad.path == str(folder / "deep" / "er")
    assert "ermission denied" in bad.error
    assert len(answers) == 5


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_file_of_more_pixels_than_allowed_is_an_answer_with_the_number(photo, as_bytes):
    image = photo.read_bytes() if as_bytes else str(photo)
    count = shade(255).shape[0] * shade(255).shape[1]
    read = partial(read_image, image, "photo", AS_PHOTOS, Preprocess((8, 8)).fit)
    assert read(max_pixels=count).error is None
    assert f"more than the {count - 1} pixels" in read(max_pixels=count - 1).error

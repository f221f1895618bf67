"""The figures of the parity report by arithmetic, its bounds, and which images it is taken on."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from densepath.errors import DataError, ParityError
from densepath.exporting.parity import EngineRow, Parity, PixelRow, check_parity, compare
from densepath.exporting.parity_images import PHOTOGRAPHS, collect_images
from densepath.images.decode import open_image

EXPECTED = np.array([[4.0, 1.0, 0.0], [-8.0, 3.0, 2.0], [1.0, 0.996, 0.0]], np.float32)


def figures(found, expected=EXPECTED, multi_label=False, bound=1e-3):
    return compare(np.array(found, np.float32), expected, multi_label=multi_label, bound=bound)


def test_equal_logits_agree_in_everything():
    assert figures(EXPECTED) == {
        **{"max_difference": 0.0, "relative": 0.0, "top1": 1.0, "ties": 0, "top5": 1.0},
        "score": 0.0,
    }


def test_scores_are_compared_as_they_are_answered():
    """A network with a temperature answers sharper ones, or flatter."""
    two = np.array([[0.1, -0.1], [-0.2, 0.2]], np.float32)
    kind = {"multi_label": False, "bound": 1e-3}
    found = {
        t: compare(two + np.float32([[0.2, 0]]), two, temperature=t, **kind)
        for t in (None, 0.2, 5.0)
    }
    assert found[0.2]["score"] > 2 * found[None]["score"] > 4 * found[5.0]["score"] > 0
    assert found[0.2]["relative"] == found[None]["relative"]


def test_the_difference_is_set_against_the_largest_logit_of_all():
    found = EXPECTED.copy()
    found[0, 1] += 0.5
    assert figures(found)["max_difference"] == 0.5
    assert figures(found)["relative"] == 0.5 / 8


def test_another_best_class_is_a_disagreement():
    found = EXPECTED[:, [0, 2, 1]]
    measured = figures(found)
    # Only of the second image is it another one.
    assert measured["top1"] == pytest.approx(2 / 3)
    assert measured["ties"] == 0
    assert measured["top5"] == 0.0


def test_a_best_class_that_the_reference_could_hardly_tell_counts_as_a_tie():
    found = EXPECTED.copy()
    found[2] = [0.996, 1.0, 0.0]
    # The reference's margin is 0.004; the bound is 0.001 · 8 = 0.008.
    assert (figures(found)["top1"], figures(found)["ties"]) == (1.0, 1)
    strict = figures(found, bound=1e-4)
    assert (strict["top1"], strict["ties"]) == (pytest.approx(2 / 3), 0)


def test_only_the_order_of_the_five_best_classes_counts():
    expected = np.array([[9, 8, 7, 6, 5, 1, 2]], np.float32)
    assert figures([[9, 8, 7, 6, 5, 2, 1]], expected)["top5"] == 1.0
    assert figures([[9, 8, 7, 5, 6, 1, 2]], expected)["top5"] == 0.0


def test_scores_are_those_of_the_answers():
    expected = np.zeros((1, 2), np.float32)
    # Softmax of (ln 3, 0) is (3/4, 1/4); the sigmoid of ln 3 is 3/4.
    found = [[np.log(3), 0]]
    assert figures(found, expected)["score"] == pytest.approx(0.25)
    assert figures(found, expected, multi_label=True)["score"] == pytest.approx(0.25)
    assert figures([[np.log(3), 5]], expected, multi_label=True)["score"] > 0.49


def test_a_network_of_one_class_has_no_ties():
    expected = np.array([[2.0], [-1.0]], np.float32)
    assert figures(expected, expected)["top1"] == 1.0
    assert figures(-expected, expected)["relative"] == 2.0


def test_logits_that_are_all_zero_must_be_met_exactly():
    zero = np.zeros((1, 3), np.float32)
    assert figures(zero, zero)["relative"] == 0
    assert figures(zero + 1e-9, zero)["relative"] == np.inf


def row(**changes) -> EngineRow:
    values = {
        **{"format": "onnx", "engine": "onnxruntime", "preprocess": "Pillow", "size": "32 × 32"},
        **{"batch_size": 4, "max_difference": 1e-6, "relative": 1e-7, "top1": 1.0, "ties": 0},
        **{"top5": 1.0, "score": 1e-7},
    }
    return EngineRow(**{**values, **changes})


def report(*rows: EngineRow, pixels: tuple[PixelRow, ...] = ()) -> Parity:
    return Parity("tiny", "2 images: a.zip", ["a.jpg", "b.jpg"], 2, list(rows), list(pixels))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (
            row(relative=2e-3),
            r"onnx on onnxruntime, 32 × 32 pixels, batch 4: max \|Δlogit\| is 2.0",
        ),
        (row(relative=2e-3), "2.0e-03 of the largest logit, the bound is 1e-03"),
        (row(relative=float("nan")), "is nan of the largest logit"),
        (row(top1=0.5), "the best class is the same on 50.0 %, not on all"),
        (row(preprocess="graph", relative=0.1), "with the bundle's preprocess graph: max"),
        (PixelRow("onnx", 0.2, 0.0, 1), "graph of onnx: 20.0 % of the values differ from Pillow's"),
        (PixelRow("onnx", 0.01, 0.01, 9), "1.00 % of the values differ from Pillow's by more than"),
    ],
)
def test_each_broken_bound_is_named_with_its_value(broken, reason):
    sound, pixels = (row(), ()) if isinstance(broken, PixelRow) else (broken, ())
    made = report(sound, pixels=(broken,) if isinstance(broken, PixelRow) else pixels)
    with pytest.raises(ParityError, match=reason):
        check_parity(made)
    assert "BROKEN: " in made.to_markdown()
    json.dumps(made.to_dict(), allow_nan=False)


def test_a_report_without_broken_bounds_says_so():
    made = report(
        row(), row(preprocess="graph", relative=0.019), pixels=(PixelRow("onnx", 0.05, 0, 1),)
    )
    check_parity(made)
    assert "All bounds hold." in made.to_markdown()
    worst = made.summary()["formats"]["onnx"]
    assert (worst["Pillow"]["relative"], worst["graph"]["relative"]) == (1e-7, 0.019)
    assert worst["pixels"] == {"share": 0.05, "share_beyond_one": 0, "largest": 1}


def test_the_summary_keeps_the_worst_of_engines_and_batches():
    made = report(row(relative=1e-7, top5=0.9), row(batch_size=8, relative=3e-7, ties=2))
    assert made.summary()["formats"]["onnx"]["Pillow"] == {
        **{"max_difference": 1e-6, "relative": 3e-7, "top1": 1.0, "ties": 2, "top5": 0.9},
        "score": 1e-7,
    }


def test_by_default_there_are_photographs_of_many_sizes():
    with collect_images(None, 50) as images:
        sizes = {open_image(path).shape[:2] for path in images.paths}
        suffixes = {path.suffix for path in images.paths}
        names = images.names
    assert len(sizes) >= 9
    assert len(names) == 18
    assert suffixes == {".jpg", ".png"}
    assert set(PHOTOGRAPHS) <= set(names)
    assert (
        images.description
        == "18 images: scikit-learn's china.jpg and flower.jpg, whole and in crops"
    )
    assert not any(path.exists() for path in images.paths)


@pytest.fixture
def folder(tmp_path):
    """Eight small images below `photos`, and a hidden one."""
    for name in ("a/0.png", "a/1.png", "b/2.jpg", "b/c/3.png", "4.png", "5.png", "6.png", "7.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / ".hidden.png")
    return tmp_path / "photos"


def names_of(*sources, count=50):
    with collect_images(list(sources), count) as images:
        assert all(path.is_file() for path in images.paths)
        return [name.rpartition("/")[2] for name in images.names], images.description


def test_images_of_a_folder_are_taken_in_equal_steps(folder):
    everything = ["4.png", "5.png", "6.png", "7.png", "0.png", "1.png", "2.jpg", "3.png"]
    assert names_of(folder) == (everything, "8 images: photos")
    assert names_of(folder, count=4) == (everything[::2], "4 of 8 images: photos")
    assert names_of(folder, count=3)[0] == ["4.png", "6.png", "1.png"]


def test_a_zip_is_unpacked_without_its_folders(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for inside in ("../../out.png", "deep/in.PNG", "__MACOSX/._in.png", ".h.png", "read.me"):
            archive.write(folder / "4.png", inside)
    names, description = names_of(tmp_path / "x.zip")
    assert names == ["in.PNG"]
    assert description == "1 image: x.zip"
    assert not list(tmp_path.parent.rglob("out.png"))


def test_a_text_file_names_images_from_its_own_folder_on(folder):
    (folder / "list.txt").write_text("a/0.png\n\nb/2.jpg\n")
    assert names_of(folder / "list.txt")[0] == ["0.png", "2.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none", None, "none: no such file or folder of images."),
        ("empty.txt", b"\n", "empty.txt has no lines; it must name an image on each"),
        ("bytes.txt", b"\xff\xfe\x00", "cannot be read as UTF-8 or UTF-16 text"),
        ("x.zip", b"no zip", "x.zip cannot be read as a zip archive"),
        ("empty.zip", b"PK\x05\x06" + b"\0" * 18, "empty.zip: no images in this archive"),
    ],
)
def test_a_source_without_images_is_named(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason), collect_images([tmp_path / name], 5):
        pass


def test_a_source_that_is_not_there_is_answered_with_what_is_called_alike(tmp_path):
    (tmp_path / "noise").mkdir()
    missing = rf"nosie: no such file or folder of images; did you mean {tmp_path}/noise\?"
    with pytest.raises(DataError, match=missing), collect_images([tmp_path / "nosie"], 5):
        pass


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match="no images in this folder"), collect_images([tmp_path], 5):
        pass

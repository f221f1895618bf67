"""`densepath data inspect`: what it prints, draws and refuses; names that are also folders."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image as Pillow

from densepath.data.open import open_dataset
from densepath.errors import DatasetError, RecipeError, UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.training.recipe_file import make_recipe
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint
from fixtures.networks import new_network


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    """The program, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run


def write_classes(root, names, count=6, split=""):
    for name in names:
        for i in range(count):
            path = root / split / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            seed = sum(map(ord, str(path.relative_to(root))))
            pixels = np.random.default_rng(seed).integers(0, 256, (9, 14, 3), dtype=np.uint8)
            Pillow.fromarray(pixels).save(path)


def test_the_splits_the_classes_and_what_is_left_out_are_printed(run, tmp_path):
    write_classes(tmp_path / "flowers", ("rose", "daisy"), split="Training")
    write_classes(tmp_path / "flowers", ("rose", "daisy"), count=2, split="Testing")
    (tmp_path / "flowers" / "__MACOSX").mkdir()
    code, out, err = run("data", "inspect", "flowers", "--seed", 3)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "data: flowers (2 classes)"
    assert "train 11 the folder Training, without the validation images" in lines
    assert "validation 1 10 % of the training images, drawn by class with seed 3" in lines
    assert "test 4 the folder Testing" in lines
    assert "class train validation test" in lines
    assert any("__MACOSX" in line for line in lines)


def test_json_is_one_object(run, tmp_path):
    write_classes(tmp_path / "flowers", ("rose", "daisy"))
    code, out, _ = run("data", "inspect", "flowers", "--json")
    assert code == 0
    assert json.loads(out)["images"] == {"train": 11, "validation": 1, "test": 12}


@pytest.mark.parametrize("names", [("$x^2$", "\\frac{", "猫", "a" * 120), ("rose", "daisy")])
def test_samples_of_each_class_are_drawn(run, tmp_path, names):
    write_classes(tmp_path / "flowers", names)
    (tmp_path / "flowers" / names[0] / "broken.jpg").write_bytes(b"x")
    (tmp_path / "flowers" / "none").mkdir()
    code, _, err = run("data", "inspect", "flowers", "--output", "flowers.png")
    assert code == 0
    assert "samples of each class in flowers.png" in err
    picture = np.asarray(Pillow.open(tmp_path / "flowers.png").convert("RGB"))
    assert picture.shape[1] > 1500
    # Noise is drawn: many colours.
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 300


def test_many_classes_make_several_pictures(run, tmp_path):
    write_classes(tmp_path / "flowers", [f"c{i}" for i in range(25)], count=1)
    code, _, err = run("data", "inspect", "flowers", "--output", "pictures")
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == [
        f"samples-{i}.png" for i in (1, 2, 3)
    ]
    assert err.count("samples of each class in") == 3


def test_multi_label_and_gray_samples_are_drawn(run, tmp_path):
    write_classes(tmp_path, ("photos",), count=4)
    (tmp_path / "t.csv").write_text(
        "path,label\n" + "".join(f"photos/{i}.png,{'a|b' if i else 'a'}\n" for i in range(4))
    )
    code, out, _ = run("data", "inspect", "t.csv", "--output", "t.png")
    assert code == 0
    assert "several an image" in out
    code, _, _ = run("data", "inspect", "builtin:digits", "--output", "d.png")
    assert code == 0
    assert (tmp_path / "d.png").stat().st_size > 10_000


def test_a_picture_that_cannot_be_written_is_a_reason_and_exit_code_1(run, tmp_path):
    write_classes(tmp_path / "flowers", ("rose", "daisy"))
    (tmp_path / "file").write_text("")
    code, out, err = run("data", "inspect", "flowers", "--output", "file/x.png")
    assert code == 1
    assert out.startswith("data: flowers")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["nowhere"], 1, "there is no data set 'nowhere'"),
        (["flowers", "--set", "optimizer.lr=1"], 2, "only those are read here"),
        (["flowers", "--set", "data.trian=a"], 2, "Did you mean data.train"),
        (["flowers", "--set", "data.train=Trainig"], 1, "it has daisy, rose"),
        (["flowers", "--set", "data.label_column=x"], 2, "belongs to a table"),
    ],
)
def test_a_mistake_is_told(run, tmp_path, arguments, code, reason):
    write_classes(tmp_path / "flowers", ("rose", "daisy"))
    found, out, err = run("data", "inspect", *arguments)
    assert (found, out) == (code, "")
    assert reason in " ".join(err.split())


def test_the_same_options_as_in_training_say_what_is_what(run, tmp_path):
    write_classes(tmp_path / "flowers", ("a", "b"), split="one")
    write_classes(tmp_path / "flowers", ("a", "b"), split="two")
    arguments = ["--set", "data.train=one", "--set", "data.test=two", "--json"]
    code, out, _ = run("data", "inspect", "flowers", *arguments)
    assert code == 0
    assert json.loads(out)["images"] == {"train": 11, "validation": 1, "test": 12}
    data = make_recipe({"data": {"train": "one"}}).data
    assert (data.source, data.train) == ("one", None)
    options = make_recipe({"data": {"class_columns": ["a"]}}).data.to_options(7)
    assert (options.seed, options.class_columns) == (7, ("a",))
    with pytest.raises(RecipeError):
        make_recipe({"data": {"class_columns": "a"}})


@pytest.mark.parametrize(("name", "mark"), [("t.csv", ","), ("t.tsv", "\t"), ("T.CSV", ";")])
def test_a_multi_label_checkpoint_reads_a_table_as_multi_label(run, tmp_path, name, mark):
    write_classes(tmp_path, ("photos",), count=4)
    rows = "".join(f"photos/{i}.png{mark}{'ab'[i % 2]}\n" for i in range(4))
    (tmp_path / name).write_text(f"path{mark}label\n{rows}")
    model = new_network(num_classes=2)
    preprocess = Preprocess(size=(32, 32))
    Checkpoint.of(model, preprocess=preprocess, labels=["a", "b"], multi_label=True).save(
        tmp_path / "net.safetensors"
    )
    code, out, err = run("evaluate", "net.safetensors", "--data", name, "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["images"] == 4


# Names that are also folders here.


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_a_built_in_name_that_is_a_folder_here_is_refused_with_both_cures(run, tmp_path, name):
    write_classes(tmp_path / name, ("rose", "daisy"))
    code, _, err = run("data", "inspect", name)
    assert code == 1
    assert f"./{name}" in err
    assert f"builtin:{name}" in err
    with pytest.raises(DatasetError, match="is a folder here"):
        open_dataset(name)
    for source in (f"./{name}", f"{name}/", tmp_path / name):
        assert open_dataset(source).class_names == ["daisy", "rose"]
    if name == "digits":
        assert len(open_dataset("builtin:digits", split="test")) == 355


@pytest.mark.parametrize("verb", ["train", "evaluate", "quantize", "ladder"])
def test_every_verb_refuses_a_name_with_two_meanings(run, tmp_path, verb):
    write_classes(tmp_path / "digits", ("rose", "daisy"))
    model = new_network(num_classes=10)
    Checkpoint.of(model, preprocess=Preprocess(size=(32, 32))).save(tmp_path / "net.safetensors")
    arguments = {
        "train": ["densenet_bc_22_12", "--data", "digits", "--epochs", "1"],
        "evaluate": ["net.safetensors", "--data", "digits"],
        "quantize": ["net.safetensors", "--data", "digits", "-o", "out"],
        "ladder": ["net.safetensors", "--data", "digits"],
    }[verb]
    code, _, err = run(verb, *arguments)
    assert code == 1
    assert "`digits` is a folder here" in " ".join(err.split())


def test_an_unknown_built_in_name_names_the_known_ones():
    with pytest.raises(UnknownNameError, match="builtin:digits"):
        open_dataset("builtin:digit")


def test_a_folder_called_like_published_weights_is_taken_only_when_it_has_a_checkpoint(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shipped = "cifar10/densenet_bc_22_12"
    (tmp_path / shipped).mkdir(parents=True)
    expected = open_checkpoint(shipped)
    assert expected.labels[0] == "airplane"
    model = new_network()
    checkpoint = Checkpoint.of(model, preprocess=Preprocess(size=(32, 32)), labels=["a", "b", "c"])
    checkpoint.save(tmp_path / shipped / "best.safetensors")
    with pytest.raises(UsageError, match=r"Name the folder as \./cifar10"):
        open_checkpoint(shipped)
    assert open_checkpoint(f"./{shipped}").labels == ["a", "b", "c"]
    shutil.rmtree(tmp_path / "cifar10")
    assert open_checkpoint(shipped).labels == expected.labels

"""What a subject may be, and what is said of one that is not there or is part of something else."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import densepath
from densepath.bundle.bundle import Bundle
from densepath.cli.app import VERBS
from densepath.engines.null import NullEngine
from densepath.errors import (
    BundleError,
    CheckpointError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from densepath.exporting.export import export
from densepath.images.preprocess import Preprocess
from densepath.images.reading import ReadImage
from densepath.models.build import build_model
from densepath.predict.answers import Prediction
from densepath.predict.predictor import Explanation, Predictor
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint

TINY = "densenet_bc_22_12"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with `runs/cifar`, `runs/pets`, `bundles/cifar` and `weights/best.safetensors`."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    model = build_model(TINY, num_classes=1000)
    checkpoint = Checkpoint.of(model, preprocess=Preprocess((32, 32)))
    for name in ("runs/cifar/best", "runs/pets/last", "weights/best"):
        checkpoint.save(folder / f"{name}.safetensors")
    (folder / "runs/cifar/recipe.yaml").write_text("epochs: 1\n")
    export(checkpoint, folder / "bundles/cifar", to=["torch"], batch_sizes=[1], num_images=1)
    (folder / "bundles/cifar/model.onnx").write_bytes(b"a graph")
    (folder / "alone.onnx").write_bytes(b"a graph")
    return folder


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("runs/cfiar", "runs/cifar"),
        ("run/cifar", "runs/cifar"),
        ("Runs/CIFAR", "runs/cifar"),
        ("./weights/bset.safetensors", "weights/best.safetensors"),
        ("weights/best", "weights/best.safetensors"),
        ("weights/best.pt", "weights/best.safetensors"),
        ("weigths/best.safetensors", "weights/best.safetensors"),
        ("bundle/cifar", "bundles/cifar"),
    ],
)
@pytest.mark.parametrize("verb", ["load", "evaluate", "export", "quantize", "create", "ladder"])
def test_a_mistyped_path_is_answered_with_the_nearest_one_that_there_is(here, typed, meant, verb):
    calls = {
        "load": lambda: densepath.load(typed),
        "evaluate": lambda: densepath.evaluate(typed, "digits"),
        "export": lambda: densepath.export(typed, "out", to=["torch"]),
        "quantize": lambda: densepath.quantize(typed, "out", data="digits"),
        "create": lambda: densepath.create_model(TINY, weights=typed),
        "ladder": lambda: densepath.measure_ladder([typed], "digits"),
    }
    with pytest.raises(CheckpointError) as caught:
        calls[verb]()
    message = str(caught.value)
    assert message.startswith(f"{Path(typed)}: no such file")
    assert f"did you mean {meant}" in message
    assert "timm/" not in message


@pytest.mark.parametrize("verb", ["predict", "evaluate", "export", "quantize", "train"])
def test_every_verb_answers_a_mistyped_path_in_one_short_line(here, run, verb, tmp_path):
    options = {
        "predict": ["a.png"],
        "evaluate": ["--data", "digits"],
        "export": ["-o", tmp_path / "x", "--to", "torch"],
        "quantize": ["-o", tmp_path / "x", "--data", "digits"],
        "train": ["--data", "digits", "--output", tmp_path / "x"],
    }
    code, out, err = run(verb, "runs/cfiar", *options[verb])
    assert (code, out) == (1, "")
    assert "runs/cfiar: no such file or folder; did you mean runs/cifar?" in err
    assert len(err) < 500


@pytest.mark.parametrize("typed", ["nowhere/at/all", "x.pth", "/nonexistent/y", "a/" + "b" * 5000])
def test_a_path_that_is_like_nothing_is_said_not_to_be_there(here, typed):
    with pytest.raises(CheckpointError, match=r"no such file or folder\.$"):
        densepath.load(typed)


def test_a_home_that_was_not_expanded_is_recognised(made, monkeypatch):
    monkeypatch.setenv("HOME", str(made))
    with pytest.raises(CheckpointError, match=r"did you mean .*made\d*/runs/cifar\?"):
        densepath.load("~/runs/cifar")


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("cifar", "runs/cifar"),
        ("cfiar", "runs/cifar"),
        ("densnet121", "densenet121"),
        ("DPN-92", "DPN92|dpn92"),
        ("paddle/DPN-92", "paddle/DPN92"),
        ("timm/densenet121", "timm/densenet121.ra_in1k"),
        ("cifar10/densenet_bc_22", "cifar10/densenet_bc_22_12"),
    ],
)
def test_a_name_that_is_none_is_answered_with_few_near_ones(here, typed, near):
    with pytest.raises(UnknownNameError, match=rf"Did you mean .*({near})") as caught:
        open_checkpoint(typed)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "parity.md"])
@pytest.mark.parametrize("engine", ["auto", "onnxruntime", "eager"])
def test_a_file_of_a_bundle_is_answered_with_the_bundle(here, name, engine):
    with pytest.raises(BundleError, match=r"is a file of the bundle bundles/cifar: name that"):
        densepath.load(f"bundles/cifar/{name}", engine=engine)
    with pytest.raises(BundleError, match=r"is a file of the bundle bundles/cifar: name that"):
        Bundle.open(f"bundles/cifar/{name}")


def test_the_checkpoint_inside_a_bundle_is_one(here):
    assert open_checkpoint("bundles/cifar/model.safetensors").num_classes == 1000


def test_integer_weights_of_a_bundle_are_answered_with_the_bundle(here):
    inside = Path("bundles/cifar/model-int8.safetensors")
    save_file({"x": torch.ones(1)}, inside, {"densepath": '{"format": "int8-1"}'})
    with pytest.raises(CheckpointError, match=r"is a file of the bundle bundles/cifar: name that"):
        open_checkpoint(inside)
    alone = Path("elsewhere.safetensors")
    alone.write_bytes(inside.read_bytes())
    inside.unlink()
    with pytest.raises(CheckpointError, match=r"is of checkpoint format 'int8-1'"):
        open_checkpoint(alone)


def test_a_folder_of_runs_or_bundles_is_answered_with_what_is_in_it(here):
    with pytest.raises(CheckpointError, match=r"In it are runs/cifar, runs/pets: name one\.$"):
        densepath.load("runs")
    with pytest.raises(CheckpointError, match=r"In it are bundles/cifar: name one\.$"):
        densepath.load("bundles")
    with pytest.raises(BundleError, match=r"In it are bundles/cifar: name one\.$"):
        Bundle.open("bundles")
    with pytest.raises(BundleError, match=r"not a folder.*Did you mean bundles/cifar\?$"):
        Bundle.open("bundles/cfiar")


def test_other_files_of_runs_and_graphs_alone_say_what_to_name(here):
    with pytest.raises(CheckpointError, match="a file of the run folder runs/cifar: name that"):
        densepath.load("runs/cifar/recipe.yaml")
    with pytest.raises(CheckpointError, match=r"alone\.onnx is an exported graph without its"):
        densepath.load("alone.onnx")


@pytest.mark.parametrize("subject", [None, 7, b"runs/cifar", ["runs/cifar"]])
def test_a_subject_of_another_type_is_refused(subject):
    with pytest.raises(UsageError, match="name it by a path or name"):
        densepath.load(subject)


def test_an_open_checkpoint_or_bundle_is_loaded_as_its_file_is(here):
    image = np.zeros((32, 32, 3), np.uint8)
    answers = []
    opened = (open_checkpoint("runs/cifar"), Bundle.open("bundles/cifar"), "runs/cifar")
    for subject in opened:
        with densepath.load(subject, engine="eager") as predictor:
            answers += [answer.labels for answer in predictor.predict(image)]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": "32"}, r"size is '32'; name a side in whole pixels, as 224"),
        ({"size": 32.0}, r"size is 32\.0"),
        ({"size": (32,)}, r"size is \(32,\)"),
        ({"size": ("32", 32)}, "or height and width"),
        ({"size": True}, "size is True"),
        ({"threads": "2"}, "threads is '2'; it must be a whole number"),
        ({"num_images": 0}, "num_images is 0; it must be at least 1"),
        ({"num_images": 2.5}, "num_images is 2.5; it must be a whole number"),
        ({"size": 32, "crop_share": "0.9"}, "crop_share is '0.9'"),
        ({"test_pooling": "max"}, "unknown test pooling 'max'"),
    ],
)
def test_numbers_and_words_of_another_kind_are_refused(here, options, reason):
    with pytest.raises(UsageError, match=reason):
        densepath.load("runs/cifar", **options)


@pytest.mark.parametrize("size", [48, (48, 48), [48, 48]])
def test_sizes_of_every_usual_kind_are_taken(here, size):
    with densepath.load("runs/cifar", engine="eager", size=size) as predictor:
        assert predictor.preprocess.size == (48, 48)


@pytest.mark.parametrize("value", ["3", 2.5, True, None, -1])
@pytest.mark.parametrize(
    ("verb", "name"),
    [("quantize", "num_images"), ("quantize", "num_held_out"), ("export", "num_images")],
)
def test_counts_of_another_kind_are_refused_by_every_verb(here, verb, name, value):
    data = {"data": "photos"} if verb == "quantize" else {}
    with pytest.raises(UsageError, match=rf"{name} is .*; it must be (a whole number|at least)"):
        getattr(densepath, verb)("runs/cifar", "nowhere", **data, **{name: value})
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("options", [{"top_k": "3"}, {"top_k": 1.5}, {"batch_size": "8"}])
def test_counts_of_another_kind_are_refused(options):
    predictor = Predictor(NullEngine(Preprocess((8, 8)), 2), ["a", "b"])
    with pytest.raises(UsageError, match="must be a whole number"):
        predictor.predict(np.zeros((8, 8, 3), np.uint8), **options)


# Weights that are no numbers


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("verb", ["load", "evaluate", "export", "quantize"])
def test_weights_that_are_no_numbers_are_refused_by_name(here, tmp_path, verb, value):
    good = open_checkpoint("runs/cifar")
    tensors = good.tensors | {
        "features.conv0.weight": good.tensors["features.conv0.weight"] * value
    }
    broken = dataclasses.replace(good, tensors=tensors)
    broken.save(tmp_path / "x.safetensors")
    for subject in (broken, tmp_path / "x.safetensors"):
        calls = {
            "load": lambda subject=subject: densepath.load(subject),
            "evaluate": lambda subject=subject: densepath.evaluate(subject, "digits"),
            "export": lambda subject=subject: densepath.export(subject, "out", to=["torch"]),
            "quantize": lambda subject=subject: densepath.quantize(subject, "out", data="digits"),
        }
        with pytest.raises(WeightsError, match=r"features\.conv0\.weight holds NaN or infinite"):
            calls[verb]()


# Names and texts in Python


def test_every_verb_that_makes_or_measures_has_a_public_function():
    functions = {
        **{"import": "import_weights", "predict": "load", "models": "CATALOGUE"},
        **{"ladder": "measure_ladder", "data": "inspect_splits", "demo": "train"},
        **{"lr-find": "find_learning_rate", "runs": "find_runs"},
    }
    own = {"npu", "serve"}  # programs of their own, documented with their pages
    for verb in set(VERBS) - own:
        assert functions.get(verb, verb) in densepath.__all__, verb
    assert densepath.__version__ == densepath.version.__version__


def test_export_and_quantize_can_be_called_whatever_was_imported_before(tmp_path):
    code = (
        "import densepath.quantize.layers, densepath.exporting.graph, densepath;"
        "assert callable(densepath.quantize) and callable(densepath.export);"
        "from densepath.errors import UsageError\n"
        "calls = {densepath.quantize: {'data': 'digits'}, densepath.export: {'to': ['torch']}}\n"
        "for call, named in calls.items():\n"
        "    try: call(7, 'out', **named)\n"
        "    except UsageError as error: assert 'path or name' in str(error)\n"
        "    else: raise SystemExit('it was taken')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_texts_of_what_a_user_holds_are_one_short_line(here):
    checkpoint = open_checkpoint("runs/cifar")
    bundle = Bundle.open("bundles/cifar")
    data = densepath.open_dataset("digits", split="test")
    splits = densepath.open_splits("digits")
    predictor = Predictor(NullEngine(checkpoint.preprocess, 1000), checkpoint.labels)
    prediction = Prediction("a.png", [1], ["cat"], [0.5])
    heat = np.zeros((7, 7), np.float32)
    held = [
        (checkpoint, (f"{TINY}, 1,000 classes: tench", "32 × 32 × 3")),
        (bundle, ("bundles/cifar", TINY, "float32", "torch>")),
        (bundle.manifest, (TINY, "1,000 classes")),
        (predictor, ("engine null in float32 on cpu", "1,000 classes")),
        (data, ("images, 10 classes: 0, 1, 2 and 7 more", data.description)),
        (splits, ("Splits of digits:", "test")),
        (densepath.inspect_splits(splits), ("Inspection of digits", "10 classes")),
        (Explanation(prediction, np.zeros((99, 99, 3), np.uint8), heat), ("a.png", "7 × 7")),
        (ReadImage("a.png", np.zeros((99, 98, 3), np.uint8)), ("a.png", "99 × 98 × 3")),
    ]
    for value, parts in held:
        text = repr(value)
        assert len(text) < 400, text
        assert "\n" not in text
        assert all(part in text for part in parts), text


def test_the_texts_of_a_recipe_and_a_report_are_one_short_line(here):
    from densepath.training.recipe_file import make_recipe

    recipe = make_recipe({"model": {"name": TINY}, "data": {"source": "digits"}, "epochs": 12})
    assert f"{TINY} on digits, 12 epochs" in repr(recipe)
    checkpoint = open_checkpoint("runs/cifar")
    ten = Checkpoint.of(
        build_model(TINY, num_classes=10),
        preprocess=checkpoint.preprocess,
        labels=list("0123456789"),
    )
    report = densepath.evaluate(ten, "digits")
    assert len(repr(report)) < 400
    assert "top1 0." in repr(report)
    assert os.linesep not in repr(report)


def test_a_name_given_alone_is_not_taken_letter_by_letter(here, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        Image.fromarray(np.full((40, 40, 3), 90 * i, np.uint8)).save(photos / f"{i}.png")
    bundle = densepath.export(
        "runs/cifar", tmp_path / "b", to="torch", images=str(photos), batch_sizes=[1]
    )
    assert list(bundle.manifest.formats) == ["torch"]
    assert "2 images: photos" in (tmp_path / "b/parity.md").read_text()
    with pytest.raises(UnknownNameError, match="unknown INT8 format 'onxx'"):
        densepath.quantize("runs/cifar", tmp_path / "q", data=photos, to="onxx")
    with pytest.raises(UnknownNameError, match=r"unknown layer 'features\.conv9'"):
        densepath.quantize(
            "runs/cifar", tmp_path / "q", data=photos, to="native", keep_float="features.conv9"
        )
    with pytest.raises(CheckpointError, match="did you mean runs/cifar"):
        densepath.measure_ladder("runs/cfiar", "digits")
    with pytest.raises(UsageError, match="labels is the text 'abc'"):
        densepath.import_weights(here / "weights/best.safetensors", TINY, labels="abc")


PADDLE = Path(__file__).parents[1] / "parity" / "files" / "paddle_inference"


def test_a_file_of_another_system_is_a_subject_and_what_is_guessed_is_said(caplog, tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save(build_model(TINY, num_classes=2).state_dict(), path)
    opened = open_checkpoint(path)
    assert (opened.spec.name, opened.num_classes) == (TINY, 2)
    assert f"{path}: PyTorch weights, {TINY}, 2 classes." in caplog.messages
    assert f"{path}: preprocessing guessed: the model's own size" in caplog.text


def test_a_folder_of_another_system_is_a_subject(caplog):
    opened = open_checkpoint(PADDLE / "dpn")
    assert opened.labels == ["ant", "bee", "cat", "dog", "elk"]
    assert "a PaddleClas inference model of Paddle 3" in caplog.text
    assert "guessed" not in caplog.text
    images = np.zeros((1, 64, 64, 3), np.uint8)
    assert densepath.load(PADDLE / "dpn" / "inference.pdmodel", engine="eager").predict(images)


def test_tensors_that_are_not_called_like_their_program_are_named(tmp_path):
    program = shutil.copy(PADDLE / "dpn" / "inference.pdmodel", tmp_path / "a.pdmodel")
    tensors = shutil.copy(PADDLE / "dpn" / "inference.pdiparams", tmp_path / "b.pdiparams")
    assert open_checkpoint(program, weights=tensors).num_classes == 5

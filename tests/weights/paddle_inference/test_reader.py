"""Paddle's inference models become checkpoints, from any of their files; wrong ones are refused.

The files are small ones that Paddle wrote (`tests/parity/files/paddle_inference`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from densepath.errors import KeyMismatchError, WeightsError
from densepath.weights.import_file import import_weights

FILES = Path(__file__).parents[2] / "parity" / "files" / "paddle_inference"
DENSENET, DPN, MULTI = FILES / "densenet", FILES / "dpn", FILES / "multi_label"


def quietly(path, *arguments, **options):
    return import_weights(path, *arguments, say=lambda note: None, **options)


@pytest.fixture
def folder(tmp_path):
    """A copy of the DPN's folder, to be changed."""
    return shutil.copytree(DPN, tmp_path / "model")


def test_every_file_of_a_model_and_its_folder_name_the_same_network():
    whole = quietly(DPN)
    for name in ("inference.json", "inference.pdmodel", "inference.pdiparams"):
        one = quietly(DPN / name)
        assert one.spec == whole.spec
        assert all(torch.equal(one.tensors[key], tensor) for key, tensor in whole.tensors.items())
    assert whole.provenance["kind"] == (
        "a PaddleClas inference model of Paddle 3 (inference.json, inference.pdiparams)"
    )


def test_two_files_that_are_not_called_alike_are_named_both(tmp_path):
    program = shutil.copy(DENSENET / "inference.pdmodel", tmp_path / "a.pdmodel")
    tensors = shutil.copy(DENSENET / "inference.pdiparams", tmp_path / "b.bin")
    expected = quietly(DENSENET).tensors
    for file, other in ((program, tensors), (tensors, program)):
        found = quietly(file, weights=other).tensors
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    with pytest.raises(WeightsError, match=r"the program alone; its tensors, a\.pdiparams, are"):
        quietly(program)
    with pytest.raises(WeightsError, match=r"the tensors alone; its program, b\.json or b\.pdmod"):
        quietly(tensors)
    with pytest.raises(WeightsError, match="are both files of tensors: name the program"):
        quietly(tensors, weights=tensors)
    with pytest.raises(WeightsError, match="no such file"):
        quietly(program, weights=tmp_path / "none")


def test_a_folder_of_several_models_is_asked_which(tmp_path):
    for name in ("a", "b"):
        for ending in ("pdmodel", "pdiparams"):
            shutil.copy(DENSENET / f"inference.{ending}", tmp_path / f"{name}.{ending}")
    with pytest.raises(WeightsError, match=r"several models: a\.pdmodel, b\.pdmodel\. Name"):
        quietly(tmp_path)
    assert quietly(tmp_path / "a.pdmodel").num_classes == 5


def test_inference_yml_says_preprocessing_and_labels():
    checkpoint = quietly(DPN)
    way = checkpoint.preprocess
    assert checkpoint.labels == ["ant", "bee", "cat", "dog", "elk"]
    assert (way.size, way.resize_short, way.interpolation) == ((64, 64), 72, "cv2_bilinear")
    assert (way.side_rounding, way.crop_rounding) == ("round", "floor")
    assert way.mean == (0.485, 0.456, 0.406)
    assert checkpoint.provenance["preprocess"] == "what its inference.yml says"
    assert not checkpoint.multi_label


def test_a_multi_label_model_brings_its_thresholds_and_its_list_of_labels(tmp_path):
    said = []
    checkpoint = import_weights(MULTI, say=said.append)
    assert (checkpoint.multi_label, checkpoint.labels) == (True, list("01234"))
    assert checkpoint.thresholds == (0.4,) * 5
    assert said == [f"{MULTI}: inference.yml: its list of labels, labels.txt, is not beside it."]
    way = checkpoint.preprocess
    assert (way.resize_short, way.interpolation, way.std) == (None, "bicubic", (0.25,) * 3)
    copy = shutil.copytree(MULTI, tmp_path / "model")
    (copy / "labels.txt").write_text("0 red rose\n1 bee\n2 cat\n3 dog\n4 elk\n")
    assert quietly(copy).labels == ["red rose", "bee", "cat", "dog", "elk"]


def test_a_model_without_inference_yml_has_the_habit_at_its_own_size():
    checkpoint = quietly(DENSENET)
    assert checkpoint.preprocess.size == (64, 64)
    assert checkpoint.provenance["preprocess"].startswith("guessed: what PaddleClas's weights")


def test_blue_first_is_turned_to_red_first(folder):
    text = (folder / "inference.yml").read_text()
    decode = "transform_ops:\n  - DecodeImage: {to_rgb: false}"
    (folder / "inference.yml").write_text(text.replace("transform_ops:", decode))
    turned, plain = quietly(folder), quietly(DPN)
    stem = "features.conv1_1.conv.weight"
    assert torch.equal(turned.tensors[stem], plain.tensors[stem].flip(1))
    assert turned.preprocess.mean == plain.preprocess.mean[::-1]
    assert "blue first" in turned.provenance["notes"][-1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("CropImage", "FlipImage", "its FlipImage has no counterpart here and is left out"),
        ("resize_short: 72", "resize_short: 72, interpolation: lanczos", "lanczos of cv2 has no"),
        ("Topk: {", "ThreshOutput: {threshold: 0.9, ", r"ThreshOutput (threshold 0.9) has no"),
        ("dog, elk]", "dog]", "its list of 4 labels is not one of 5 classes"),
    ],
)
def test_what_has_no_counterpart_is_said(folder, old, new, said):
    text = (folder / "inference.yml").read_text()
    assert old in text
    (folder / "inference.yml").write_text(text.replace(old, new))
    assert any(said in note for note in quietly(folder).provenance["notes"])


@pytest.mark.parametrize(
    "text",
    ["a: [", "- 1", "PreProcess: 3", "PreProcess: {transform_ops: [[]]}", "\x00", "x: \ud800"],
)
def test_a_damaged_inference_yml_is_refused(folder, text):
    (folder / "inference.yml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(WeightsError, match=r"inference\.yml"):
        quietly(folder)


def test_aliases_that_unfold_without_end_are_refused(folder):
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 64)
    )
    for text in (f"{bomb}PostProcess: {{Topk: {{label_list: *a63}}}}", "PreProcess: &a [*a]"):
        (folder / "inference.yml").write_text(text)
        with pytest.raises(WeightsError, match="its aliases unfold to more than"):
            quietly(folder)


def test_impossible_values_of_inference_yml_are_refused(folder):
    text = (folder / "inference.yml").read_text()
    for old, new in (("scale: 0.00392157", "scale: 1/0"), ("size: 64", "size: -3")):
        (folder / "inference.yml").write_text(text.replace(old, new))
        with pytest.raises(WeightsError, match=r"inference\.yml"):
            quietly(folder)


# Wrong files


def test_tensors_of_another_model_are_refused(tmp_path):
    shutil.copy(DENSENET / "inference.pdmodel", tmp_path / "x.pdmodel")
    shutil.copy(DPN / "inference.pdiparams", tmp_path / "x.pdiparams")
    with pytest.raises(WeightsError, match=r"does not fit .*x\.pdmodel: it holds \d+ tensors"):
        quietly(tmp_path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("name", ["inference.json", "inference.pdmodel", "inference.pdiparams"])
def test_a_cut_off_file_is_refused(folder, name, share):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])
    program = "inference.pdmodel" if name == "inference.pdiparams" else name
    with pytest.raises(WeightsError):
        quietly(folder / program)


def changed_json(folder, change):
    """The folder with its program changed as a JSON document."""
    path = folder / "inference.json"
    document = json.loads(path.read_text())
    change(document["program"]["regions"][0]["blocks"][0]["ops"])
    path.write_text(json.dumps(document, separators=(",", ":")))
    return path


def test_an_operator_that_no_network_here_has_is_named(folder):
    def change(operators):
        next(one for one in operators if one["#"] == "1.relu")["#"] = "1.gelu"

    with pytest.raises(KeyMismatchError, match="gelu"):
        quietly(changed_json(folder, change))


def test_a_program_that_was_optimised_for_one_processor_is_refused(folder):
    def change(operators):
        next(one for one in operators if one["#"] == "1.relu")["#"] = "onednn_op.relu"

    with pytest.raises(WeightsError, match=r"one kind of processor \(onednn_op\.relu\); name the"):
        quietly(changed_json(folder, change))


def test_a_tensor_that_no_layer_uses_is_refused(folder):
    def change(operators):
        place = next(i for i, one in enumerate(operators) if one["#"] == "1.matmul")
        del operators[place]

    with pytest.raises((KeyMismatchError, WeightsError)):
        quietly(changed_json(folder, change))


def test_a_model_that_is_named_is_checked():
    with pytest.raises(KeyMismatchError, match="does not fit densenet121: it holds a densenet_k4"):
        quietly(DENSENET, "densenet121")

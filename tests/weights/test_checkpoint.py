"""Checkpoints: what is written comes back, and damaged files are refused with the reason."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file as save_numpy_file
from safetensors.torch import load_file, save_file

import densepath
from densepath.engines.native import read_tensors as read_without_torch
from densepath.errors import (
    CheckpointError,
    DensepathError,
    KeyMismatchError,
    OutputError,
    UsageError,
)
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.checkpoint_file import METADATA_KEY
from densepath.weights.state_dicts import read_tensors

TINY = "densenet_bc_22_12"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(TINY, num_classes=4, in_channels=1).eval()


@pytest.fixture
def checkpoint(model):
    return Checkpoint.of(
        model,
        preprocess=Preprocess(size=(32, 32), mean=(0.5,), std=(0.25,)),
        labels=["a", "b", "ç", "日本"],
        multi_label=True,
        provenance={"from": "a test"},
    )


def rewrite(path, change):
    """The file again, with its description changed by `change`."""
    with safe_open(str(path), framework="pt") as file:
        values = json.loads(file.metadata()[METADATA_KEY])
    change(values)
    save_file(load_file(str(path)), str(path), metadata={METADATA_KEY: json.dumps(values)})


def test_a_loaded_checkpoint_has_the_fields_and_logits_of_the_saved_one(
    model, checkpoint, tmp_path
):
    checkpoint.save(tmp_path / "x.safetensors")
    loaded = Checkpoint.load(tmp_path / "x.safetensors")
    assert loaded.spec.arch == model.spec.arch
    assert (loaded.preprocess, loaded.labels) == (checkpoint.preprocess, checkpoint.labels)
    assert (loaded.num_classes, loaded.in_channels, loaded.multi_label) == (4, 1, True)
    assert loaded.provenance == {"from": "a test"}
    images = torch.randn(2, 1, 32, 32)
    network = loaded.to_model()
    assert not network.training
    with torch.inference_mode():
        assert torch.equal(network(images), model(images))


def test_thresholds_and_temperature_come_back_and_are_not_written_where_there_are_none(
    checkpoint, tmp_path
):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path)
    with safe_open(str(path), framework="pt") as file:
        assert not {"thresholds", "temperature"} & json.loads(file.metadata()[METADATA_KEY]).keys()
    chosen = dataclasses.replace(checkpoint, thresholds=(0.1, 0.5, 0.25, 1.0), temperature=1.5)
    chosen.save(path)
    loaded = Checkpoint.load(path)
    assert (loaded.thresholds, loaded.temperature) == ((0.1, 0.5, 0.25, 1.0), 1.5)


def test_a_checkpoint_in_float16_takes_half_the_bytes_and_answers_alike(
    model, checkpoint, tmp_path
):
    paths = [tmp_path / "whole.safetensors", tmp_path / "half.safetensors"]
    checkpoint.save(paths[0])
    checkpoint.in_float16().save(paths[1])
    sizes = [path.stat().st_size for path in paths]
    assert sizes[1] < 0.65 * sizes[0]
    loaded = Checkpoint.load(paths[1])
    kinds = {tensor.dtype for tensor in loaded.tensors.values() if tensor.dim() == 1}
    assert kinds == {torch.float32}
    images = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        found, expected = loaded.to_model()(images), model(images)
    assert not torch.equal(found, expected)
    assert torch.allclose(found, expected, atol=2e-3 * float(expected.abs().max()))
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 1), np.uint8)
    answers = [densepath.load(path, precision="float32").predict(list(pixels)) for path in paths]
    for one, other in zip(*answers, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=2e-3)


def test_a_weight_that_float16_cannot_hold_is_named(checkpoint):
    name = next(name for name, tensor in checkpoint.tensors.items() if tensor.dim() > 1)
    tensors = {**checkpoint.tensors, name: checkpoint.tensors[name] * 1e7}
    with pytest.raises(UsageError, match=rf"{name} has weights up to .*Keep this checkpoint"):
        dataclasses.replace(checkpoint, tensors=tensors).in_float16()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"thresholds": (0.5,)}, "1 thresholds for 4 classes"),
        ({"thresholds": (0.5, 0.5, 0.5, 1.5)}, r"a threshold lies in 0 … 1, not at 1\.5"),
        ({"thresholds": (0.5,) * 4, "multi_label": False}, "multi_label is false"),
        ({"temperature": 0.0}, "temperature lies above 0"),
        ({"temperature": float("nan")}, "temperature lies above 0"),
    ],
)
def test_thresholds_and_temperatures_that_cannot_be_are_refused(change, reason, checkpoint):
    with pytest.raises(UsageError, match=reason):
        dataclasses.replace(checkpoint, **change)


def test_the_same_checkpoint_is_written_as_the_same_bytes(checkpoint, tmp_path):
    checkpoint.save(tmp_path / "a.safetensors")
    Checkpoint.load(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_checkpoint_does_not_follow_the_network_it_was_taken_of(model, checkpoint):
    before = checkpoint.tensors["classifier.bias"].clone()
    with torch.no_grad():
        model.classifier.bias.add_(1)
    assert torch.equal(checkpoint.tensors["classifier.bias"], before)
    network = checkpoint.to_model()
    with torch.no_grad():
        network.classifier.bias.add_(1)
    assert torch.equal(checkpoint.tensors["classifier.bias"], before)


def test_a_network_made_of_a_checkpoint_can_be_trained(checkpoint):
    network = checkpoint.to_model().train()
    network(torch.randn(2, 1, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_weights_of_half_precision_run_in_float32(checkpoint):
    halved = {name: tensor.bfloat16() for name, tensor in checkpoint.tensors.items()}
    network = Checkpoint(
        checkpoint.spec, checkpoint.preprocess, checkpoint.labels, halved, in_channels=1
    ).to_model()
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_values_of_a_type_that_numpy_lacks_are_refused_where_torch_is_not_there(
    checkpoint, tmp_path
):
    halved = {name: tensor.bfloat16() for name, tensor in checkpoint.tensors.items()}
    dataclasses.replace(checkpoint, tensors=halved).save(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="bfloat16"):
        read_without_torch(tmp_path / "x.safetensors")
    assert Checkpoint.load(tmp_path / "x.safetensors").tensors.keys() == halved.keys()


def test_labels_are_numbers_or_imagenets_where_none_are_given(model):
    preprocess = Preprocess(size=(32, 32), mean=(0.5,), std=(0.25,))
    assert Checkpoint.of(model, preprocess=preprocess).labels == ["0", "1", "2", "3"]
    thousand = build_model(TINY, num_classes=1000, in_channels=1)
    assert Checkpoint.of(thousand, preprocess=preprocess).labels[0] == "tench, Tinca tinca"


def test_as_many_labels_as_classes_are_asked_for(model):
    preprocess = Preprocess(size=(32, 32), mean=(0.5,), std=(0.25,))
    with pytest.raises(UsageError, match="3 labels for a network of 4 classes"):
        Checkpoint.of(model, preprocess=preprocess, labels=["a", "b", "c"])


def test_a_preprocessing_of_other_channels_is_refused(model):
    with pytest.raises(UsageError, match=r"makes 3 channels; the network takes 1"):
        Checkpoint.of(model, preprocess=Preprocess(size=(32, 32)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file"):
        Checkpoint.load(tmp_path / "none.safetensors")


def test_what_stands_in_the_place_of_a_file_is_said(tmp_path):
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "best.safetensors").symlink_to(tmp_path / "gone")
    for name, what in (
        ("run", "a folder"),
        ("pipe", "a pipe"),
        ("best.safetensors", rf"a link to {tmp_path}/gone, which is not there"),
    ):
        for load in (Checkpoint.load, read_tensors):
            with pytest.raises(DensepathError, match=rf"/{name} is {what}; name a file\.$"):
                load(tmp_path / name)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_off_file_is_refused(share, checkpoint, tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="cannot be read as a safetensors file"):
        Checkpoint.load(path)


def test_tensors_without_our_description_are_refused_with_the_way_to_import_them(tmp_path):
    save_file({"a": torch.zeros(1)}, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match=r"densepath import x\.safetensors -o x"):
        Checkpoint.load(tmp_path / "x.safetensors")


def test_a_later_format_is_refused(checkpoint, tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path)
    for number in (2, "1", True, 1.0, None):
        rewrite(path, lambda values, number=number: values.update(format=number))
        message = f"format {number!r}; this densepath reads format"
        cure = "Make it again, or install the densepath that wrote it"
        with pytest.raises(CheckpointError, match=f"{message} 1. {cure}"):
            Checkpoint.load(path)
        with pytest.raises(CheckpointError, match=f"{message}s 1 and 'int8-1'. {cure}"):
            read_without_torch(path)


def test_int8_weights_are_no_checkpoint_and_the_bundle_around_them_is_named(checkpoint, tmp_path):
    path = tmp_path / "model-int8.safetensors"
    checkpoint.save(path)
    rewrite(path, lambda values: values.update(format="int8-1"))
    assert read_without_torch(path)[1] == 1
    with pytest.raises(CheckpointError, match="format 'int8-1'; this densepath reads format 1"):
        Checkpoint.load(path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match=rf"is a file of the bundle {tmp_path}: name that"):
        Checkpoint.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("spec"),
        lambda values: values.pop("labels"),
        lambda values: values["labels"].append("one more"),
        lambda values: values["spec"]["arch"].update(growth_rate=13),
        lambda values: values["spec"]["arch"].update(growth="12"),
        lambda values: values["spec"].update(family="resnet"),
        lambda values: values["preprocess"].update(interpolation="nearest"),
        lambda values: values.update(in_channels="three"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change, checkpoint, tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path)
    rewrite(path, change)
    for load in (Checkpoint.load, read_without_torch):
        with pytest.raises(CheckpointError, match="damaged checkpoint"):
            load(path)


def test_a_folder_that_cannot_be_made_is_an_output_error(checkpoint, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        checkpoint.save(tmp_path / "file" / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tensors_of_another_network_are_counted_and_named(checkpoint):
    tensors = dict(checkpoint.tensors)
    tensors["extra"] = tensors.pop("classifier.bias")
    tensors["features.conv0.weight"] = torch.zeros(1)
    broken = Checkpoint(
        checkpoint.spec, checkpoint.preprocess, checkpoint.labels, tensors, in_channels=1
    )
    with pytest.raises(KeyMismatchError) as caught:
        broken.to_model()
    message = str(caught.value)
    assert "1 missing (classifier.bias)" in message
    assert "1 unexpected (extra)" in message
    assert "features.conv0.weight [1] instead of [24, 1, 3, 3]" in message


def test_a_checkpoint_has_the_permissions_of_any_new_file(checkpoint, tmp_path):
    (tmp_path / "other").touch()
    checkpoint.save(tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_equal_contents_make_equal_bytes_in_every_process(tmp_path):
    """safetensors writes metadata in the order of a hash table, another one in each process."""
    code = """
import sys, torch
from densepath.weights.checkpoint import write_tensors
metadata = {f"key{n}": 'ä \\x7f \\u2028 "quoted" / \\n' * n for n in range(6)}
write_tensors(sys.argv[1], {"a": torch.arange(3.0), "b": torch.zeros(2)}, metadata)
"""
    for number in range(3):
        command = [sys.executable, "-c", code, str(tmp_path / str(number))]
        subprocess.run(command, check=True)
    first, *others = ((tmp_path / str(number)).read_bytes() for number in range(3))
    assert all(other == first for other in others)
    with safe_open(str(tmp_path / "0"), framework="pt") as file:
        assert file.metadata()["key1"] == 'ä \x7f \u2028 "quoted" / \n'
        assert file.get_tensor("a").tolist() == [0, 1, 2]


def test_the_same_checkpoint_has_the_same_bytes_with_what_it_was_trained_on(tmp_path):
    """safetensors writes several metadata in any order; names with escapes are among them."""
    import numpy as np

    from densepath.data.options import DataOptions
    from densepath.weights.trained_on import TrainedOn

    marks = np.arange(5, dtype=np.uint64)
    known = TrainedOn(
        'C:\\a "b"\n\t\x01/ü-日本',
        DataOptions(),
        {"train": "all of it"},
        "validation",
        (5, 1),
        marks,
        marks[:1],
    )
    model = build_model("densenet_bc_22_12", num_classes=2)
    checkpoint = Checkpoint.of(
        model, preprocess=Preprocess((32, 32)), labels=['"\x02é', "b"], trained_on=known
    )
    saved = set()
    for number in range(12):
        path = tmp_path / f"{number}.safetensors"
        checkpoint.save(path)
        saved.add(path.read_bytes())
    assert len(saved) == 1
    read = Checkpoint.load(path)
    assert read.labels == checkpoint.labels
    assert read.trained_on.source == known.source
    assert read.trained_on.trained.tolist() == marks.tolist()
    for name, tensor in checkpoint.tensors.items():
        assert torch.equal(tensor, read.tensors[name])


def test_a_file_that_the_library_cannot_write_is_an_error_of_output(
    checkpoint, tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("densepath.weights.checkpoint.save_file", refuse)
    path = tmp_path / "x.safetensors"
    with pytest.raises(OutputError, match=r"cannot write .* No space left on device"):
        checkpoint.save(path)
    assert not path.exists()


def test_weights_are_not_the_best_epochs_unless_that_is_said():
    from densepath.data.options import DataOptions
    from densepath.weights.trained_on import TrainedOn

    known = TrainedOn("/photos", DataOptions(), {}, "validation", (2, 1), None, None)
    assert not known.is_chosen
    assert not TrainedOn.from_text(known.to_text()).is_chosen


def test_what_weights_were_trained_on_is_shown_without_its_fingerprints():
    from densepath.data.options import DataOptions
    from densepath.weights.trained_on import TrainedOn

    marks = np.arange(3, dtype=np.uint64)
    known = TrainedOn("/photos", DataOptions(), {}, "validation", (2, 1), marks, marks)
    for shown in (repr(known), repr(TrainedOn.from_text(known.to_text()))):
        assert "source='/photos'" in shown
        assert "trained=" not in shown
        assert "judged=" not in shown


def unaligned(path):
    """The file again with its tensors at odd addresses, as other writers leave them."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip()
    header += b" " * (1 - len(header) % 2)  # an odd length, so that no tensor's address is even
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


@pytest.mark.parametrize("change", [lambda path: None, unaligned])
def test_tensors_read_without_torch_are_the_saved_ones_wherever_they_stand(
    checkpoint, tmp_path, change
):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path)
    change(path)
    _, _, tensors = read_without_torch(path)
    assert set(tensors) == set(checkpoint.tensors)
    for name, tensor in checkpoint.tensors.items():
        assert tensors[name].flags.aligned
        np.testing.assert_array_equal(tensors[name], tensor.numpy())


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint16, np.int64, np.bool_])
def test_every_type_of_numpy_is_read_as_it_is_written(checkpoint, tmp_path, dtype):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path)
    values = {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()}
    values["classifier.bias"] = np.array([0, 1, 1, 0], dtype)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    save_numpy_file(values, str(path), metadata=metadata)
    _, _, tensors = read_without_torch(path)
    assert tensors["classifier.bias"].dtype == dtype
    np.testing.assert_array_equal(tensors["classifier.bias"], values["classifier.bias"])


def test_a_file_that_shrinks_while_it_is_read_is_an_error(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-100])
    opened = type(path).open
    monkeypatch.setattr(type(path), "open", lambda _, mode: opened(cut, mode))
    with pytest.raises(CheckpointError, match="written anew while it was read"):
        read_without_torch(path)

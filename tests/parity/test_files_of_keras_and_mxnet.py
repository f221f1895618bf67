"""Small files that Keras and MXNet wrote give, imported, the logits that they gave themselves.

`benchmarks/peers/keras/save.py --samples` and `benchmarks/peers/mxnet/save.py --samples` wrote them
with Keras 3.15.1, tf-keras 2.21.0 and MXNet 1.9.1: networks of their own layers, filled by formula.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from densepath.errors import KeyMismatchError
from densepath.predict.load import load
from densepath.weights.backbone import is_backbone
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.formula import formula_images
from densepath.weights.import_file import import_weights

FILES = Path(__file__).with_name("files")
KERAS = sorted(path.name for path in FILES.glob("keras/*.*") if path.suffix in (".h5", ".keras"))
MXNET = sorted(path.name for path in FILES.glob("mxnet/*.params"))
BOUND = 1e-4


def import_file(path):
    """The checkpoint, and what was said of it."""
    notes = []
    return import_weights(path, say=notes.append), notes


def answer(checkpoint, inputs):
    """The logits for one image, already normalised."""
    with torch.inference_mode():
        return checkpoint.to_model()(torch.from_numpy(inputs))[0].numpy()


@pytest.mark.parametrize("name", [name for name in KERAS if name.startswith("plain")])
def test_every_form_of_keras_gives_its_logits(name):
    pytest.importorskip("h5py")
    checkpoint, _ = import_file(FILES / "keras" / name)
    assert checkpoint.spec.arch.bn_eps == 1.001e-5
    theirs = np.load(FILES / "keras" / "plain.npy")
    ours = answer(checkpoint, formula_images(1, 64, 64))
    assert np.abs(theirs).max() > 1
    assert np.abs(ours - theirs).max() <= BOUND


@pytest.mark.parametrize("name", [name for name in KERAS if name.startswith("tuned")])
def test_a_tuned_keras_model_brings_its_rescaling_and_its_sigmoid(name):
    pytest.importorskip("h5py")
    checkpoint, _ = import_file(FILES / "keras" / name)
    assert checkpoint.multi_label
    assert checkpoint.provenance["preprocess"] == "its own layers"
    assert checkpoint.preprocess.size == (64, 64)
    pixels = np.floor((formula_images(1, 64, 64)[0] + 2) * 64).astype(np.uint8)
    inputs = checkpoint.preprocess.normalise(pixels.transpose(1, 2, 0))
    theirs = np.load(FILES / "keras" / "tuned.npy")
    assert np.abs(answer(checkpoint, inputs[None]) - theirs).max() <= BOUND


def test_keras_s_epsilon_travels_into_the_kernels(tmp_path):
    pytest.importorskip("h5py")
    imported, _ = import_file(FILES / "keras" / "plain.keras3.keras")
    imported.save(tmp_path / "x.safetensors")
    checkpoint = Checkpoint.load(tmp_path / "x.safetensors")
    assert checkpoint.spec.arch.bn_eps == 1.001e-5
    network = load(tmp_path / "x.safetensors", engine="native")
    pixels = np.zeros((1, 64, 64, 3), np.uint8)
    inputs = checkpoint.preprocess.normalise(pixels)
    ours = network.engine.run(pixels)[0]
    assert np.abs(ours - answer(checkpoint, inputs)).max() <= BOUND


def test_a_keras_model_without_its_top_is_a_backbone_with_the_same_features():
    pytest.importorskip("h5py")
    backbone, _ = import_file(FILES / "keras" / "backbone.keras3.keras")
    whole, _ = import_file(FILES / "keras" / "plain.keras3.keras")
    assert is_backbone(backbone.provenance)
    features = [name for name in whole.tensors if name.startswith("features.")]
    assert all(torch.equal(backbone.tensors[name], whole.tensors[name]) for name in features)


def test_a_keras_model_in_half_precision_is_the_same_up_to_rounding():
    pytest.importorskip("h5py")
    half, _ = import_file(FILES / "keras" / "half.keras3.keras")
    whole, _ = import_file(FILES / "keras" / "plain.keras3.keras")
    for name, tensor in whole.tensors.items():
        assert half.tensors[name].dtype == torch.float32
        assert torch.equal(half.tensors[name], tensor.half().float())


@pytest.mark.parametrize("name", [name for name in MXNET if "half" not in name])
def test_every_form_of_mxnet_gives_its_logits(name):
    checkpoint, notes = import_file(FILES / "mxnet" / name)
    kind = re.split(r"\.|-0000", name)[0]
    theirs = np.load(FILES / "mxnet" / f"{kind}.npy")
    assert np.abs(theirs).max() > 1
    assert np.abs(answer(checkpoint, formula_images(1, 224, 224)) - theirs).max() <= BOUND
    assert any("symbol.json" in note for note in notes)
    assert checkpoint.spec.family == ("densenet" if kind == "gluon" else "dpn")


def test_an_mxnet_file_in_half_precision_is_the_same_up_to_rounding():
    half, _ = import_file(FILES / "mxnet" / "gluon.half.params")
    whole, _ = import_file(FILES / "mxnet" / "gluon.places.params")
    for name, tensor in whole.tensors.items():
        assert torch.equal(half.tensors[name], tensor.half().float())


def test_a_file_of_another_model_than_is_named_is_refused():
    with pytest.raises(KeyMismatchError, match=r"does not fit densenet121: .*densenet_k4_2_2_2_2"):
        import_weights(FILES / "mxnet" / "gluon.places.params", "densenet121")

"""Keras's files: made here by h5py and JSON in the layouts of Keras 2 and 3, read, and refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from densepath.errors import (
    KeyMismatchError,
    MissingPackageError,
    UnsafeFileError,
    WeightsError,
)
from densepath.models.spec import DenseNetArch, ModelSpec
from densepath.weights import hdf5_process, keras, keras_config
from densepath.weights.backbone import is_backbone
from densepath.weights.formula import formula_tensor
from densepath.weights.hdf5 import read_hdf5
from densepath.weights.hdf5_process import read_apart
from densepath.weights.import_file import import_weights
from densepath.weights.keras_names import key_map
from densepath.weights.match import expected_shapes

h5py = pytest.importorskip("h5py")

SPEC = ModelSpec("small", DenseNetArch(2, (1, 2), 4, bn_eps=1.001e-5), 64, "a test's")
CLASSES = 3
AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
KINDS = {"conv": "conv2d", "bn": "batch_normalization", "predictions": "dense"}
NUMBERS = {"kernel": 0, "bias": 1, "gamma": 0, "beta": 1, "moving_mean": 2, "moving_variance": 3}


def keras_arrays():
    """The formula's values of a network under Keras's names, as `conv1_conv/kernel`."""
    shapes = expected_shapes(SPEC, CLASSES, 3)
    return {
        theirs: np.ascontiguousarray(
            formula_tensor(ours, shapes[ours]).transpose(AXES[len(shapes[ours])])
        )
        for ours, (theirs,) in key_map(SPEC).items()
    }


def is_the_formula_s(checkpoint):
    """Whether a checkpoint's tensors are those that were saved."""
    return all(
        np.array_equal(checkpoint.tensors[name], formula_tensor(name, shape))
        for name, shape in expected_shapes(SPEC, CLASSES, 3).items()
    )


def write_legacy(file, arrays, root=""):
    """The old layout: a group a layer, the whole name of each array inside."""
    for name, array in arrays.items():
        file[f"{root}{name.rpartition('/')[0]}/{name}:0"] = array


def write_numbered(file, arrays, home="layers", names=False):
    """The new layout: layers numbered by kind in the order in which they run, with names or not."""
    counts, places = {}, {}
    for name, array in arrays.items():
        layer, _, leaf = name.rpartition("/")
        if layer not in places:
            kind = KINDS[layer.rpartition("_")[2]]
            number = counts[kind] = counts.get(kind, -1) + 1
            places[layer] = f"{home}/{kind}" + (f"_{number}" if number else "") + "/vars"
        file[f"{places[layer]}/{NUMBERS[leaf]}"] = array
        if names:
            file[places[layer]].attrs["name"] = layer


def layer(kind, **options):
    return {"class_name": kind, "config": options}


def config(*behind, before=(), inside=(), epsilon=1.001e-5, size=64):
    """A configuration with the layers that matter: input, a convolution, BatchNorm, and a head."""
    layers = [
        layer("InputLayer", batch_shape=[None, size, size, 3], name="images"),
        *before,
        layer("Conv2D", name="conv1_conv"),
        layer("BatchNormalization", name="conv1_bn", epsilon=epsilon),
        *inside,
        layer("BatchNormalization", name="bn", epsilon=epsilon),
        *behind,
    ]
    return json.dumps({"class_name": "Functional", "config": {"name": "x", "layers": layers}})


DENSE = layer("Dense", name="predictions", activation="softmax")


@pytest.fixture
def write(tmp_path):
    """Writes an HDF5 file by a function of it."""

    def write_file(fill, name="x.h5"):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            fill(file)
        return path

    return write_file


@pytest.fixture
def read(monkeypatch):
    """Imports a file, without another process for each; gives the checkpoint and what was said."""
    monkeypatch.setattr(keras, "read_apart", read_hdf5)

    def import_it(path, **options):
        notes = []
        return import_weights(path, say=notes.append, **options), notes

    return import_it


@pytest.mark.parametrize("root", ["", "model_weights/", "model_weights/densenet121/"])
def test_the_old_layout_is_read_by_names(write, read, root):
    checkpoint, notes = read(write(lambda file: write_legacy(file, keras_arrays(), root)))
    assert is_the_formula_s(checkpoint)
    assert checkpoint.spec.arch == SPEC.arch
    assert "weights alone; taken: softmax" in notes[0]
    assert "weights alone do not say ε; taken: 1.001e-05" in notes[1]


@pytest.mark.parametrize("home", ["layers", "layers/functional/layers"])
@pytest.mark.parametrize("names", [False, True])
def test_the_new_layout_is_read_by_names_or_else_by_order(write, read, home, names):
    path = write(lambda file: write_numbered(file, keras_arrays(), home, names))
    checkpoint, _ = read(path)
    assert is_the_formula_s(checkpoint)


def test_what_a_training_leaves_is_said(write, read):
    def fill(file):
        write_legacy(file, keras_arrays())
        file["optimizer_weights/adam/iter:0"] = np.ones(1)

    _, notes = read(write(fill))
    assert any("left aside optimizer_weights/adam/iter:0." in note for note in notes)


def test_a_dense_layer_without_bias_gets_one_of_zeros(write, read):
    arrays = keras_arrays()
    del arrays["predictions/bias"]
    checkpoint, _ = read(write(lambda file: write_legacy(file, arrays)))
    assert torch.equal(checkpoint.tensors["classifier.bias"], torch.zeros(CLASSES))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bn/gamma": None}, r"1 missing \(bn/gamma\)"),
        ({"bn/other": np.ones(3)}, r"1 unexpected \(bn/other\)"),
        ({"conv1_conv/kernel": np.ones((5, 5, 3, 4, 1))}, "no DenseNet of keras.applications"),
        ({"bn/gamma": np.ones(3)}, r"of the wrong shape \(features.norm5.weight \[3\]"),
    ],
)
def test_what_does_not_fit_is_named(write, read, change, reason):
    arrays = {name: one for name, one in (keras_arrays() | change).items() if one is not None}
    with pytest.raises(KeyMismatchError, match=reason):
        read(write(lambda file: write_legacy(file, arrays)))


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"predictions/kernel": None, "predictions/bias": None}, "include_top=False"),
        ({"dense/kernel": np.ones((4, 3))}, "a head of dense, predictions is left aside"),
        ({"attention/weight": np.ones(3)}, "a head of attention, predictions is left aside"),
    ],
)
def test_without_a_classifier_of_one_layer_it_is_a_backbone(write, read, change, left):
    arrays = {name: one for name, one in (keras_arrays() | change).items() if one is not None}
    checkpoint, notes = read(write(lambda file: write_legacy(file, arrays)))
    assert is_backbone(checkpoint.provenance)
    assert left in notes[0]
    assert torch.equal(checkpoint.tensors["classifier.weight"], torch.zeros(1, 7))


def test_two_networks_are_refused(write, read):
    def fill(file):
        write_legacy(file, keras_arrays(), "a/")
        write_legacy(file, keras_arrays(), "b/")

    with pytest.raises(KeyMismatchError, match="more than one network"):
        read(write(fill))


def test_numbered_layers_of_another_network_are_refused(write, read):
    def fill(file):
        file["layers/conv2d/vars/0"] = np.ones((3, 3, 3, 4))
        file["layers/conv2d_1/vars/0"] = np.ones((3, 3, 4, 4))

    with pytest.raises(KeyMismatchError, match="2 convolutions and 0 BatchNorms"):
        read(write(fill))


def test_an_external_link_is_refused_and_not_followed(write, read, tmp_path):
    other = write(lambda file: write_legacy(file, keras_arrays()), "other.h5")
    path = write(lambda file: file.__setitem__("bn", h5py.ExternalLink(str(other), "/bn")))
    with pytest.raises(UnsafeFileError, match="bn points into another file"):
        read(path)


def test_values_in_another_file_are_refused(write, read, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(400))

    def external(file):
        file.create_dataset("a", (100,), "f4", external=[(str(tmp_path / "raw"), 0, 400)])

    def virtual(file):
        layout = h5py.VirtualLayout((100,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "raw"), "a", (100,))
        file.create_virtual_dataset("a", layout)

    for fill in (external, virtual):
        with pytest.raises(UnsafeFileError, match="values in another file"):
            read(write(fill))


def test_an_array_that_the_file_does_not_have_is_refused_before_it_is_made(write, read):
    def huge(file):
        file.create_dataset("a", (1 << 40,), "f4", chunks=(1 << 16,), compression="gzip")

    with pytest.raises(WeightsError, match=r"a needs \d+ bytes and has 0"):
        read(write(huge))


def test_another_process_gives_the_same(write):
    content = write(lambda file: write_numbered(file, keras_arrays(), names=True)).read_bytes()
    here, there = read_hdf5(content, "x.h5"), read_apart(content, "x.h5")
    assert (here.names, here.texts) == (there.names, there.texts)
    assert here.arrays.keys() == there.arrays.keys()
    assert all(np.array_equal(one, there.arrays[place]) for place, one in here.arrays.items())


def test_what_is_refused_there_is_refused_here(write, tmp_path):
    path = write(lambda file: file.__setitem__("bn", h5py.ExternalLink("/x.h5", "/bn")))
    with pytest.raises(UnsafeFileError, match=r"x\.h5: bn points into another file"):
        read_apart(path.read_bytes(), "x.h5")
    with pytest.raises(WeightsError, match="cannot be read as an HDF5 file"):
        read_apart(path.read_bytes()[:200], "x.h5")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 11)", "ended with status -11"),
        ("import time; time.sleep(60)", "gave no answer in"),
        ("print('F' + chr(0) * 9)", "its reader's answer was cut off"),
    ],
)
def test_a_library_that_crashes_hangs_or_babbles_is_a_damaged_file(monkeypatch, code, reason):
    run = subprocess.run
    monkeypatch.setattr(hdf5_process, "SECONDS", 1)
    monkeypatch.setattr(
        hdf5_process.subprocess,
        "run",
        lambda words, **options: run([sys.executable, "-c", code], **options),
    )
    with pytest.raises(WeightsError, match=rf"x.h5 cannot be read as an HDF5 file \(.*{reason}"):
        read_apart(b"", "x.h5")


def test_without_h5py_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(hdf5_process, "find_missing", dict)
    with pytest.raises(MissingPackageError, match="h5py"):
        read_apart(b"", "x.h5")


def keras_archive(path, text, fill=lambda file: write_legacy(file, keras_arrays())):
    """A `.keras` file."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        fill(file)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", text)
        archive.writestr("model.weights.h5", weights.getvalue())
    return path


def test_a_whole_model_says_epsilon_size_and_sigmoid(tmp_path, read):
    head = layer("Dense", name="predictions", activation="sigmoid")
    text = config(layer("Dropout", name="d"), head, epsilon=1e-3, size=96)
    checkpoint, notes = read(keras_archive(tmp_path / "x.keras", text))
    assert checkpoint.spec.arch.bn_eps == 1e-3
    assert checkpoint.preprocess.size == (96, 96)
    assert checkpoint.multi_label
    assert notes == []


def test_numbered_layers_get_the_configuration_s_names(tmp_path, read):
    names = dict.fromkeys(key.rpartition("/")[0] for key in keras_arrays())
    layers = [
        layer("Conv2D" if name.endswith("conv") else "BatchNormalization", name=name, epsilon=1e-5)
        for name in names
        if name != "predictions"
    ]
    layers += [layer("GlobalAveragePooling2D", name="p"), DENSE]
    text = json.dumps({"class_name": "Functional", "config": {"layers": layers}})
    path = keras_archive(
        tmp_path / "x.keras", text, lambda file: write_numbered(file, keras_arrays())
    )
    assert is_the_formula_s(read(path)[0])


def layers_of(*args, **options):
    return keras_config.read_config(config(*args, **options), "x")


def test_rescaling_and_normalization_become_the_preprocessing():
    before = (
        layer("Rescaling", name="r", scale=1 / 127.5, offset=-1.0),
        layer("Normalization", name="n", mean=[0.0, 0.5, -0.5], variance=[1.0, 4.0, 0.25]),
    )
    layers = layers_of(DENSE, before=before)
    found = keras_config.own_preprocess(layers, {}, (64, 64), 3, "x")
    pixels = np.arange(30, dtype=np.uint8).reshape(2, 5, 3)
    theirs = (pixels / 127.5 - 1 - np.array([0.0, 0.5, -0.5])) / np.array([1.0, 2.0, 0.5])
    assert np.allclose(found.normalise(pixels).transpose(1, 2, 0), theirs, atol=1e-6)
    assert keras_config.check_parts(layers, "x") == ([], [])


def test_a_lambda_in_front_is_said_and_not_run(tmp_path, read):
    code = layer("Lambda", name="l", function=["raise SystemExit"])
    checkpoint, notes = read(keras_archive(tmp_path / "x.keras", config(DENSE, before=[code])))
    assert "what l (Lambda) makes of the images is not read, nor run" in notes[0]
    assert checkpoint.provenance["preprocess"].startswith("guessed")


@pytest.mark.parametrize(
    "odd",
    [
        layer("Lambda", name="x"),
        layer("Activation", name="x", activation="swish"),
        layer("Conv2DTranspose", name="x"),
    ],
)
def test_a_layer_inside_that_is_no_part_of_a_densenet_is_refused(odd):
    layers = layers_of(DENSE, inside=[odd])
    with pytest.raises(KeyMismatchError, match=rf"x \({odd['class_name']}\) is no part of"):
        keras_config.check_parts(layers, "x")


def test_a_layer_behind_makes_a_backbone_of_it(tmp_path, read):
    text = config(layer("GlobalMaxPooling2D", name="m"), DENSE)
    checkpoint, notes = read(keras_archive(tmp_path / "x.keras", text))
    assert is_backbone(checkpoint.provenance)
    assert "a head of predictions, m (GlobalMaxPooling2D) is left aside" in notes[0]


@pytest.mark.parametrize(
    ("behind", "sigmoid"),
    [
        ([DENSE], False),
        ([layer("Dense", name="d", activation="sigmoid")], True),
        ([layer("Dense", name="d", activation="linear")], None),
        ([layer("Dense", name="d"), layer("Activation", name="a", activation="sigmoid")], True),
        ([layer("Dense", name="d"), layer("Softmax", name="s")], False),
    ],
)
def test_how_the_last_layer_ends_says_whether_classes_exclude_each_other(behind, sigmoid):
    assert keras_config.multi_label(layers_of(*behind)) is sigmoid


def test_batchnorms_of_different_epsilon_are_refused():
    layers = layers_of(DENSE, inside=[layer("BatchNormalization", name="b", epsilon=0.5)])
    with pytest.raises(KeyMismatchError, match=r"different ε \(1.001e-05, 0.5\)"):
        keras_config.epsilon(layers, "x")


@pytest.mark.parametrize("text", ["[]", "{", '{"config": {"layers": [3]}}', "[" * 100_000])
def test_a_damaged_configuration_is_refused(text):
    with pytest.raises(WeightsError, match="configuration cannot be read"):
        keras_config.read_config(text, "x")


def test_a_member_that_grows_too_much_is_refused(tmp_path, read):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config(DENSE))
        archive.writestr("model.weights.h5", bytes(1 << 20))
    with pytest.raises(WeightsError, match=r"model.weights.h5 grows to 1048576 bytes"):
        read(path)

"""Whole files of other systems become checkpoints, and wrong ones are refused with the cause.

The files are written here as their systems write them; the numbers come from the formula.
"""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from densepath.bundle.formats import named
from densepath.errors import (
    KeyMismatchError,
    UnknownNameError,
    UnsafeFileError,
    UsageError,
    WeightsError,
)
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model
from densepath.models.catalogue import find_spec
from densepath.weights import paddle
from densepath.weights.formula import formula_tensor
from densepath.weights.import_file import import_weights
from densepath.weights.imported import Imported
from densepath.weights.match import expected_shapes
from densepath.weights.origins import ORIGINS, Origin
from densepath.weights.published import habit_of

SMALL = "densenet_bc_22_12"


def tensors_of(model, num_classes=5, in_channels=3):
    """The formula's tensors of a network under our names."""
    shapes = expected_shapes(find_spec(model), num_classes, in_channels)
    return {name: torch.from_numpy(formula_tensor(name, s)) for name, s in shapes.items()}


def paddle_state(model, num_classes=5):
    """What `layer.state_dict()` of PaddleClas holds, as `paddle.save` pickles it."""
    ours = tensors_of(model, num_classes)
    state = {}
    for name, (theirs,) in paddle.key_map(find_spec(model)).items():
        array = ours[name].numpy()
        state[theirs] = np.ascontiguousarray(array.T) if name == "classifier.weight" else array
    names = {name: f"{name}_0" for name in state}
    return state | {"StructuredToParameterName@@": names}


def assert_same(checkpoint, tensors):
    assert set(checkpoint.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(checkpoint.tensors[name], tensor)
    checkpoint.to_model()


@pytest.fixture(scope="module")
def small():
    return tensors_of(SMALL)


def with_counters(tensors):
    """BatchNorm's counters, which PyTorch's state dicts have since 0.4.1."""
    counters = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7)
        for name in tensors
        if name.endswith("running_var")
    }
    return tensors | counters


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pdparams_file_becomes_our_tensors(tmp_path, protocol):
    path = tmp_path / "DPN68.pdparams"
    path.write_bytes(pickle.dumps(paddle_state("dpn68"), protocol))
    checkpoint = import_weights(path, "dpn68")
    assert_same(checkpoint, tensors_of("dpn68"))
    assert checkpoint.spec.arch.bn_eps == 1e-5
    assert checkpoint.preprocess.interpolation == "cv2_bilinear"
    assert checkpoint.provenance["imported_from"] == "DPN68.pdparams"
    assert checkpoint.labels == ["0", "1", "2", "3", "4"]


def test_paddles_bfloat16_is_read_as_the_upper_half_of_float32(tmp_path):
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps({"a": np.array([0x3F80, 0xC020], dtype=np.uint16)}, 4))
    assert paddle.read_pdparams(path)["a"].tolist() == [1.0, -2.5]


def test_paddles_slices_of_large_arrays_are_joined(tmp_path):
    path = tmp_path / "x.pdparams"
    slices = {"a@@.0": np.arange(4, dtype=np.float32), "a@@.1": np.arange(4, 6, dtype=np.float32)}
    info = {"a": {"OriginShape": (2, 3), "slices": list(slices)}}
    path.write_bytes(pickle.dumps(slices | {"UnpackBigParamInfor@@": info}, 4))
    found = paddle.read_pdparams(path)
    assert list(found) == ["a"]
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: collections.OrderedDict(state),
        lambda state: {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"state_dict": {f"model.net.{k}": v for k, v in state.items()}},
    ],
    ids=["state dict", "ordered", "timm's trainer", "DataParallel", "Lightning"],
)
def test_a_pth_file_becomes_our_tensors_however_it_is_wrapped(tmp_path, small, wrap, zipped):
    path = tmp_path / "x.pth"
    torch.save(wrap(with_counters(small)), path, _use_new_zipfile_serialization=zipped)
    assert_same(import_weights(path, SMALL, say=lambda note: None), small)


def test_the_average_of_weights_is_taken_where_a_trainer_saved_one(tmp_path, small):
    other = {name: tensor + 1 for name, tensor in small.items()}
    torch.save({"state_dict": other, "state_dict_ema": small}, tmp_path / "x.pth")
    with pytest.warns(UserWarning, match=r"took state_dict_ema, an average|aside state_dict\."):
        assert_same(import_weights(tmp_path / "x.pth", SMALL), small)


def test_torchvisions_first_names_are_known(tmp_path, small):
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): tensor
        for name, tensor in small.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "x.pth")
    assert_same(import_weights(tmp_path / "x.pth", SMALL), small)


def test_a_classifier_inside_a_sequential_is_found(tmp_path, small):
    chexnet = {
        f"module.densenet121.{name.replace('classifier.', 'classifier.0.')}": tensor
        for name, tensor in small.items()
    }
    torch.save({"state_dict": chexnet}, tmp_path / "x.pth")
    checkpoint = import_weights(tmp_path / "x.pth", SMALL, multi_label=True)
    assert_same(checkpoint, small)
    assert checkpoint.multi_label


@pytest.mark.parametrize("model", ["dpn68", "dpn68b"])
def test_timms_names_of_a_dpn_are_known(tmp_path, model):
    ours, theirs = tensors_of(model), {}
    for name, tensor in ours.items():
        stride = 1 if ".conv2_1." in name else 2
        name = name.replace(".c1x1_w.", f".c1x1_w_s{stride}.")
        if name == "classifier.weight":
            theirs[name] = tensor[:, :, None, None].clone()
        elif model == "dpn68b" and name.endswith(".c1x1_c.conv.weight"):
            start = name.removesuffix(".conv.weight")
            theirs[f"{start}1.weight"] = tensor[:64].clone()
            theirs[f"{start}2.weight"] = tensor[64:].clone()
        else:
            theirs[name] = tensor
    save_file(theirs, str(tmp_path / "model.safetensors"))
    checkpoint = import_weights(tmp_path / "model.safetensors", model)
    assert_same(checkpoint, ours)
    assert checkpoint.spec.arch.bn_eps == 1e-3
    assert checkpoint.preprocess.mean == (124 / 255, 117 / 255, 104 / 255)


def test_half_precision_becomes_float32(tmp_path, small):
    torch.save({name: tensor.half() for name, tensor in small.items()}, tmp_path / "x.pth")
    checkpoint = import_weights(tmp_path / "x.pth", SMALL)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {torch.float32}


def test_a_network_for_gray_images_gets_a_gray_preprocessing(tmp_path):
    torch.save(tensors_of(SMALL, in_channels=1), tmp_path / "x.pth")
    checkpoint = import_weights(tmp_path / "x.pth", SMALL)
    assert (checkpoint.in_channels, checkpoint.preprocess.channels) == (1, 1)


def test_labels_are_the_users_or_imagenets(tmp_path, small):
    torch.save(small, tmp_path / "x.pth")
    assert import_weights(tmp_path / "x.pth", SMALL, labels=list("abcde")).labels == list("abcde")
    with pytest.raises(UsageError, match=r"2 labels, but .* has 5 classes"):
        import_weights(tmp_path / "x.pth", SMALL, labels=["a", "b"])
    torch.save(tensors_of(SMALL, num_classes=1000), tmp_path / "y.pth")
    assert import_weights(tmp_path / "y.pth", SMALL).labels[999].startswith("toilet tissue")


def test_a_source_brings_its_preprocessing_and_must_be_of_the_model(tmp_path):
    save_file(tensors_of("dpn68"), str(tmp_path / "x.safetensors"))
    path = tmp_path / "x.safetensors"
    assert (
        import_weights(path, "dpn68", source="timm/dpn68b.ra_in1k").preprocess.resize_short == 235
    )
    with pytest.raises(UsageError, match=r"timm/dpn92\.mx_in1k is a dpn92, not a dpn68"):
        import_weights(path, "dpn68", source="timm/dpn92.mx_in1k")
    with pytest.raises(UnknownNameError, match="published weights"):
        import_weights(path, "dpn68", source="timm/dpn68")


# Wrong files


def test_another_depth_is_named(tmp_path):
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps(paddle_state("densenet169"), 4))
    with pytest.raises(KeyMismatchError) as caught:
        import_weights(path, "densenet121")
    message = str(caught.value)
    assert "240 unexpected (db_conv_4.conv4_25." in message
    assert message.endswith("These are the weights of densenet169: name that model.")


def test_another_depth_is_named_for_pytorchs_names_too(tmp_path, small):
    torch.save(small, tmp_path / "x.pth")
    with pytest.raises(KeyMismatchError, match=rf"\d+ missing .*weights of {SMALL}: name that"):
        import_weights(tmp_path / "x.pth", "densenet_bc_40_12")


def test_missing_and_misshapen_tensors_are_counted_and_named(tmp_path, small):
    broken = dict(small)
    del broken["features.norm5.bias"]
    broken["features.transition1.conv.weight"] = torch.zeros(2, 2)
    torch.save(broken, tmp_path / "x.pth")
    with pytest.raises(KeyMismatchError) as caught:
        import_weights(tmp_path / "x.pth", SMALL)
    assert "1 missing (features.norm5.bias)" in str(caught.value)
    assert "1 of the wrong shape (features.transition1.conv.weight [2, 2] instead of [" in str(
        caught.value
    )


def test_two_networks_in_one_file_are_refused(tmp_path, small):
    both = {f"{part}.{name}": t * n for n, part in ((1, "student"), (2, "teacher"))
            for name, t in small.items()}  # fmt: skip
    torch.save(both, tmp_path / "x.pth")
    with pytest.raises(KeyMismatchError, match="more than one network"):
        import_weights(tmp_path / "x.pth", SMALL)


def test_another_kind_of_network_is_said_to_be_one(tmp_path):
    save_file({"layer1.0.conv1.weight": torch.zeros(1)}, str(tmp_path / "x.safetensors"))
    with pytest.raises(KeyMismatchError, match=r"\(layer1\.0\.conv1\.weight\).*another kind of"):
        import_weights(tmp_path / "x.safetensors", SMALL)


def test_an_optimisers_file_is_recognised(tmp_path):
    state = {"conv1_func.conv2d_0.w_0_velocity_0": np.zeros(1, np.float32)}
    (tmp_path / "x.pdopt").write_bytes(pickle.dumps(state, 4))
    with pytest.raises(KeyMismatchError, match="an optimiser's state"):
        import_weights(tmp_path / "x.pdopt", "densenet121")


def test_weights_of_a_diverged_training_are_refused(tmp_path, small):
    broken = small | {"classifier.bias": torch.tensor([0, 1, float("nan"), 3, 4])}
    torch.save(broken, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"classifier\.bias holds NaN or infinite"):
        import_weights(tmp_path / "x.pth", SMALL)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0", "gzip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
        (b"\0\0\0\0\1\0\0\0\0\0", "Paddle's binary form"),
        (b"%PDF-1.7 and so on", "none of the kinds of weights files"),
        (b"PK\x03\x04 not a zip", "cannot be read as a PyTorch file"),
        (b"\x80\x04\x95", "damaged or incomplete"),
        (b"\x80\x04K\x01.", "holds no table of arrays"),
    ],
)
def test_what_is_no_weights_file_is_said_to_be_what_it_is(tmp_path, content, reason):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(WeightsError, match=reason):
        import_weights(tmp_path / "x", "densenet121")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pth: no such file"):
        import_weights(tmp_path / "none.pth", "densenet121")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_cut_off_pth_file_is_refused(tmp_path, small, share, zipped):
    path = tmp_path / "x.pth"
    torch.save(small, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError):
        import_weights(path, SMALL)


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pth_file_that_asks_for_code_is_refused_and_nothing_runs(tmp_path, small, zipped):
    mark = tmp_path / "ran"
    path = tmp_path / "x.pth"
    torch.save(small | {"x": Runs(f"touch {mark}")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFileError, match=r"asks for (posix|nt)\.system"):
        import_weights(path, SMALL)
    assert not mark.exists()


def test_a_pdparams_file_that_asks_for_code_is_refused_and_nothing_runs(tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps({"x": Runs(f"touch {mark}")}, 4))
    with pytest.raises(UnsafeFileError, match=r"asks for (posix|nt)\.system"):
        import_weights(tmp_path / "x.pdparams", "densenet121")
    assert not mark.exists()


def test_a_whole_pickled_model_of_another_kind_is_said_to_be_one(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(KeyMismatchError, match=r"2 tensors \(weight, bias\).*another kind of"):
        import_weights(tmp_path / "x.pth", SMALL)


def test_a_file_without_its_classifier_is_measured_against_1000_classes_and_3_channels(tmp_path):
    """What is there is not called wrong for what is missing."""
    values = build_model("densenet121").state_dict()
    for missing in ("classifier.weight", "features.conv0.weight"):
        torch.save({k: v for k, v in values.items() if k != missing}, tmp_path / "x.pth")
        with pytest.raises(KeyMismatchError) as caught:
            import_weights(tmp_path / "x.pth", "densenet121")
        assert missing in str(caught.value)
        assert "classifier.bias" not in str(caught.value)


# The table of origins


def test_a_model_that_is_not_named_is_found_by_its_tensors(tmp_path, small):
    torch.save(small, tmp_path / "dpn92.pth")
    assert import_weights(tmp_path / "dpn92.pth").spec.name == SMALL
    for model in ("dpn68", "densenet161"):
        path = tmp_path / "x.pdparams"
        path.write_bytes(pickle.dumps(paddle_state(model), 4))
        checkpoint = import_weights(path)
        assert checkpoint.spec.name == model
        assert checkpoint.provenance["kind"] == "PaddlePaddle weights"


def test_a_network_of_no_model_is_measured_against_the_nearest(tmp_path, small):
    broken = {name: t for name, t in small.items() if "denselayer2.norm1" not in name}
    torch.save(broken, tmp_path / "x.pth")
    with pytest.raises(KeyMismatchError, match=rf"does not fit {SMALL}: 12 missing \(features"):
        import_weights(tmp_path / "x.pth")
    state = paddle_state("densenet169")
    del state["out.bias"]
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(state, 4))
    with pytest.raises(KeyMismatchError, match=r"fit densenet169: 1 missing \(out\.bias\)"):
        import_weights(tmp_path / "x.pdparams")
    save_file({"layer1.0.conv1.weight": torch.zeros(1)}, str(tmp_path / "x.safetensors"))
    with pytest.raises(KeyMismatchError, match=r"holds no DenseNet or DPN: it has 1 tensors"):
        import_weights(tmp_path / "x.safetensors")


def test_every_row_names_a_reader_that_is_there_and_a_habit():
    for name, row in ORIGINS.items():
        assert row.name == name
        assert callable(named(row.reader))
        assert all(ending.startswith(".") for ending in row.endings)
    for habit in ("paddle", "mindcv", "pytorch"):
        assert habit_of(habit, find_spec("dpn68")).endswith("weights usually take")


def test_a_made_up_origin_is_met_along_the_whole_line(tmp_path, small, monkeypatch):
    """A row is enough: the importer, its checks and the error's list go through the table."""
    row = Origin(
        "made-up",
        "a made-up file",
        (".made",),
        "nobody",
        lambda path, start: start.startswith(b"MADE"),
        f"{__name__}:read_made_up",
        "a test",
    )
    monkeypatch.setitem(ORIGINS, row.name, row)
    (tmp_path / "x").write_bytes(b"MADE UP")
    said = []
    checkpoint = import_weights(tmp_path / "x", say=said.append)
    assert_same(checkpoint, small)
    assert said == [f"{tmp_path / 'x'}: half of it was guessed."]
    assert checkpoint.provenance["kind"] == "a made-up file"
    assert (checkpoint.labels, checkpoint.multi_label) == (list("abcde"), True)
    assert checkpoint.thresholds == (0.5,) * 5
    assert checkpoint.provenance["preprocess"] == "its own"
    with pytest.raises(KeyMismatchError, match=f"does not fit densenet121: it holds a {SMALL}"):
        import_weights(tmp_path / "x", "densenet121")
    (tmp_path / "y").write_bytes(b"%PDF-1.7")
    with pytest.raises(WeightsError, match=r"read: .*; \.made \(nobody\)\.$"):
        import_weights(tmp_path / "y")


def read_made_up(path, request):
    """What the made-up row's reader answers."""
    return Imported(
        "pytorch",
        find_spec(SMALL),
        tensors_of(SMALL),
        5,
        3,
        labels=list("abcde"),
        preprocess=Preprocess(size=(32, 32)),
        preprocess_from="its own",
        multi_label=True,
        thresholds=[0.5] * 5,
        notes=["half of it was guessed."],
    )

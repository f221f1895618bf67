"""Weights files with what trainers leave in them are read, and what was left aside is named."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import os
import pathlib
import pickle
import random
import re
import types

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

import densepath
from densepath.errors import KeyMismatchError, UnsafeFileError, WeightsError
from densepath.models.build import build_model
from densepath.weights import paddle
from densepath.weights.import_file import import_weights
from densepath.weights.match import check_finite
from densepath.weights.plain_data import STAND_INS
from densepath.weights.state_dicts import read_tensors

SMALL = "densenet_bc_22_12"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(SMALL, num_classes=5)


@pytest.fixture(scope="module")
def state(model):
    return model.state_dict()


def read(path):
    """The checkpoint, and what was said of it."""
    said = []
    return import_weights(path, SMALL, say=said.append), " ".join(said)


def saved(tmp_path, value, **options):
    torch.save(value, tmp_path / "x.pth", **options)
    return tmp_path / "x.pth"


def assert_is(checkpoint, state):
    for name, tensor in checkpoint.tensors.items():
        assert torch.equal(tensor, state[name].float()), name
    assert len(checkpoint.tensors) == sum("num_batches" not in name for name in state)


def test_an_averaged_model_is_read_and_its_count_named(tmp_path, model, state):
    checkpoint, said = read(saved(tmp_path, AveragedModel(model).state_dict()))
    assert_is(checkpoint, state)
    assert "left aside n_averaged" in said
    assert checkpoint.provenance["notes"] == ["x.pth: left aside n_averaged."]


@pytest.mark.parametrize(
    ("stray", "named"),
    [
        ({"criterion.weight": torch.ones(5)}, "criterion.weight"),
        ({"loss_fn.pos_weight": torch.ones(5)}, "loss_fn.pos_weight"),
        ({"val_acc.tp": torch.tensor(3), "val_acc.fp": torch.tensor(1)}, "val_acc.* (2 tensors)"),
        ({"best_metric.value": torch.tensor(float("-inf"))}, "best_metric.value"),
        ({"total_ops": torch.zeros(1), "total_params": torch.zeros(1)}, "total_ops, total_params"),
        ({"model.features.conv0.total_ops": torch.zeros(1)}, "model.features.conv0.total_ops"),
        ({"criterion.vgg.features.0.weight": torch.ones(2, 2)}, "criterion.vgg.features.0.weight"),
        ({"criterion.classifier.weight": torch.ones(9)}, "criterion.classifier.weight"),
        ({"centers": torch.ones(5, 7)}, "centers"),
    ],
)
def test_a_stray_tensor_is_left_aside_and_named(tmp_path, state, stray, named):
    lightning = {f"model.{name}": tensor for name, tensor in state.items()}
    checkpoint, said = read(saved(tmp_path, {"state_dict": lightning | stray}))
    assert_is(checkpoint, state)
    assert f"left aside {named}" in said
    assert "answers without" not in said


def test_a_learned_layer_beside_the_network_is_said_to_be_missing_from_its_answers(tmp_path, state):
    _, said = read(saved(tmp_path, state | {"attention.weight": torch.ones(3, 3)}))
    assert "if the network's answers went through attention.weight, this checkpoint" in said


@pytest.mark.parametrize("name", ["model_ema", "ema", "swa_model", "ema_state_dict", "averaged"])
def test_an_average_is_taken_before_the_network_itself(tmp_path, state, name):
    other = {key: tensor + 1 for key, tensor in state.items()}
    file = {"model": other, name: {"module": state, "decay": 0.999}, "optimizer": {"state": {}}}
    checkpoint, said = read(saved(tmp_path, file))
    assert_is(checkpoint, state)
    assert f"took {name}.module, an average of the weights" in said
    assert "model, optimizer" in said


def test_an_average_under_a_prefix_of_the_same_table_is_taken(tmp_path, state):
    both = {f"net.{key}": tensor + 1 for key, tensor in state.items()}
    both |= {f"ema_model.module.{key}": tensor for key, tensor in state.items()}
    checkpoint, said = read(saved(tmp_path, {"state_dict": both}))
    assert_is(checkpoint, state)
    assert f"net.* ({len(checkpoint.tensors)} tensors)" in said


def test_an_average_without_running_statistics_gives_way_to_the_network(tmp_path, state):
    shadow = {key: tensor for key, tensor in state.items() if "running" not in key}
    checkpoint, _ = read(saved(tmp_path, {"model": state, "ema": {"shadow": shadow}}))
    assert_is(checkpoint, state)


@pytest.mark.parametrize("wrap", [list, tuple])
def test_a_list_of_network_and_optimiser_is_read(tmp_path, state, wrap):
    checkpoint, said = read(saved(tmp_path, wrap([state, {"state": {}, "param_groups": []}])))
    assert_is(checkpoint, state)
    assert "left aside 1" in said


def test_counters_may_be_there_or_not(tmp_path, state):
    without = {key: tensor for key, tensor in state.items() if "num_batches" not in key}
    assert_is(read(saved(tmp_path, without))[0], state)


def test_a_head_kept_apart_from_the_features_is_joined(tmp_path, state):
    apart = {
        ("head." if key.startswith("classifier") else "backbone.") + key: tensor
        for key, tensor in state.items()
    }
    assert_is(read(saved(tmp_path, apart))[0], state)


OPTIONS = argparse.Namespace(lr=0.1, path=pathlib.Path("a/b"), mean=[0.5])
PLAIN = {
    "numpy float": np.float64(0.91),
    "numpy int": np.int64(7),
    "numpy bool": np.bool_(True),
    "array": np.arange(6.0).reshape(2, 3),
    "names": np.array(["cat", "dog"]),
    "objects": np.array([None, "a"], dtype=object),
    "options": OPTIONS,
    "simple": types.SimpleNamespace(a=1),
    "ordered": collections.OrderedDict(a=1),
    "counter": collections.Counter("abb"),
    "smoothed": collections.deque([np.float32(0.5), 1.0], maxlen=20),
    "queue": collections.deque(["a"]),
    "default": collections.defaultdict(list, {"loss": [np.float32(1.5)]}),
    "path": pathlib.PurePosixPath("/data/train"),
    "windows": pathlib.PureWindowsPath("C:/data"),
    "date": datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC),
    "took": datetime.timedelta(seconds=5),
    "size": torch.Size([3, 4]),
    "device": torch.device("cpu"),
    "dtype": torch.float16,
    "range": range(3),
    "frozen": frozenset({1}),
    "set": {1, 2},
    "complex": 1 + 2j,
    "rng": np.random.get_state(),
    "random state": np.random.RandomState(0),
    "generator": np.random.default_rng(0),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("zipped", [True, False])
def test_plain_data_beside_the_network_is_no_obstacle(tmp_path, state, name, zipped):
    file = saved(tmp_path, {"state_dict": state, name: PLAIN[name]},
                 _use_new_zipfile_serialization=zipped)  # fmt: skip
    checkpoint, said = read(file)
    assert_is(checkpoint, state)
    assert f"left aside {name}" in said


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_weights_in_a_plain_pickle_are_read_with_all_beside_them(tmp_path, state, protocol):
    arrays = {key: tensor.numpy() for key, tensor in state.items()}
    plain = {k: v for k, v in PLAIN.items() if k not in ("size", "device", "dtype")}
    file = tmp_path / "x.pkl"
    file.write_bytes(pickle.dumps({"model": arrays, "epoch": np.int64(3), **plain}, protocol))
    checkpoint, said = read(file)
    assert_is(checkpoint, state)
    assert "left aside epoch" in said


def test_numpy_weights_saved_by_torch_are_read(tmp_path, state):
    arrays = {key: tensor.numpy() for key, tensor in state.items()}
    assert_is(read(saved(tmp_path, arrays))[0], state)


def test_paddles_stray_arrays_are_left_aside_and_its_layers_are_not(tmp_path):
    spec = densepath.CATALOGUE["dpn68"]
    model = build_model(spec, num_classes=3)
    ours = model.state_dict()
    theirs = {}
    for name, (key,) in paddle.key_map(spec).items():
        array = ours[name].numpy()
        theirs[key] = array.T.copy() if name == "classifier.weight" else array
    stray = {"criterion.weight": np.ones(3, np.float32), "global_step": np.int64(9)}
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(theirs | stray, 4))
    said = []
    checkpoint = import_weights(tmp_path / "x.pdparams", "dpn68", say=said.append)
    assert_is(checkpoint, ours)
    assert "criterion.weight, global_step" in said[0]
    larger = theirs | {"dpn99.c1x1_a_func._conv.weight": np.ones(3, np.float32)}
    (tmp_path / "y.pdparams").write_bytes(pickle.dumps(larger, 4))
    with pytest.raises(KeyMismatchError, match=r"1 unexpected \(dpn99\."):
        import_weights(tmp_path / "y.pdparams", "dpn68")


# What stays an error


@pytest.mark.parametrize(
    "inner",
    ["features.se.fc.weight", "features.denseblock1.scale", "classifier.3.weight"],
)
def test_a_tensor_inside_the_network_that_is_no_layer_of_it_is_an_error(tmp_path, state, inner):
    with pytest.raises(KeyMismatchError, match=rf"1 unexpected \({inner}\)"):
        read(saved(tmp_path, state | {inner: torch.ones(4)}))


def test_a_missing_tensor_is_named_whatever_stands_beside_the_network(tmp_path, state):
    broken = {key: tensor for key, tensor in state.items() if key != "features.norm5.bias"}
    stray = {"n_averaged": torch.tensor(3), "criterion.weight": torch.ones(5)}
    with pytest.raises(KeyMismatchError) as caught:
        read(saved(tmp_path, broken | stray))
    assert "1 missing (features.norm5.bias)" in str(caught.value)
    assert "another" not in str(caught.value)


@pytest.mark.parametrize("nested", [True, False])
def test_two_networks_without_a_sign_of_which_is_meant_are_refused(tmp_path, state, nested):
    parts = ("student", "teacher")
    file = dict.fromkeys(parts, state)
    if nested:
        file = {part: {k: v.clone() for k, v in state.items()} for part in parts}
    else:
        file = {
            f"{part}.{key}": tensor + place
            for place, part in enumerate(parts)
            for key, tensor in state.items()
        }
    path = saved(tmp_path, file)
    said = rf"{re.escape(str(path))}.* more than one network: student(,| and) teacher"
    with pytest.raises(KeyMismatchError, match=said):
        read(path)


def test_nan_in_a_metric_is_no_reason_to_refuse_and_in_a_layer_it_is(tmp_path, state):
    nan = torch.tensor(float("nan"))
    read(saved(tmp_path, state | {"metric.value": nan}))
    broken = state | {"features.norm5.bias": torch.full_like(state["features.norm5.bias"], nan)}
    with pytest.raises(WeightsError, match=r"features\.norm5\.bias holds NaN.*earlier epoch"):
        read(saved(tmp_path, broken))


def test_the_number_of_broken_tensors_is_said():
    broken = {name: torch.tensor([float("inf")]) for name in "abc"} | {"d": torch.ones(1)}
    with pytest.raises(WeightsError, match="a holds NaN or infinite values, and 2 more of 4"):
        check_finite(broken, "x")


# Hostile files


class Calls:
    """Pickles as a call of `function` with `arguments`, and a state set on what it gives."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


class Mine:
    """A class of the user's own program."""


HOSTILE = {
    "system": Calls(os.system, "touch MARK"),
    "in a namespace": argparse.Namespace(a=Calls(os.system, "touch MARK")),
    "as a default": Calls(collections.defaultdict, Calls(eval, "open('MARK', 'w')")),
    "eval": Calls(eval, "open('MARK', 'w')"),
    "exec": Calls(exec, "open('MARK', 'w')"),
    "open": Calls(open, "MARK", "w"),
    "getattr": Calls(getattr, "a", "upper"),
    "numpy loads": Calls(np.load, "MARK"),
    "path writes": Calls(pathlib.Path.touch, pathlib.Path("MARK")),
    "own class": Mine(),
    "partial": Calls(__import__("functools").partial, os.system, "touch MARK"),
}


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_asks_for_code_is_refused_and_nothing_runs(
    tmp_path, monkeypatch, state, name, form
):
    monkeypatch.chdir(tmp_path)
    if form == "pickle":
        arrays = {key: tensor.numpy() for key, tensor in state.items()}
        path = tmp_path / "x.pkl"
        path.write_bytes(pickle.dumps({"model": arrays, "x": HOSTILE[name]}, 4))
    else:
        path = saved(tmp_path, {"model": state, "x": HOSTILE[name]},
                     _use_new_zipfile_serialization=form == "zip")  # fmt: skip
    with pytest.raises(UnsafeFileError, match="is refused"):
        read(path)
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize("name", sorted(STAND_INS))
@pytest.mark.parametrize(
    "setting", [b"}X\x01\x00\x00\x00aK\x01sb", b"N}X\x01\x00\x00\x00aK\x01s\x86b"]
)
def test_no_pickle_changes_a_stand_in_itself(tmp_path, name, setting):
    """GLOBAL name, a state for it, BUILD; the second one is for slots."""
    module, _, attribute = name.rpartition(".")
    stand_in = STAND_INS[name]
    before = set(dir(stand_in))
    content = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + setting + b"."
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(WeightsError):
        read(tmp_path / "x.pkl")
    assert set(dir(stand_in)) == before


def test_the_stand_ins_keep_nothing_and_are_never_the_thing_itself():
    for name, stand_in in STAND_INS.items():
        assert stand_in.__module__ == "densepath.weights.plain_data", name
    made = STAND_INS["pathlib.PosixPath"]("a", "b", key=1)
    made.__setstate__({"x": 1})
    assert not hasattr(made, "__dict__")


class Shadowed:
    """Pickles as a table whose methods are hidden by attributes."""

    def __init__(self, table):
        self.table = table

    def __reduce__(self):
        hidden = {"items": None, "keys": 3, "values": 3, "get": "a"}
        return collections.OrderedDict, (), hidden, None, iter([("model", self.table)])


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_a_table_with_attributes_of_its_own_is_read_by_its_entries(tmp_path, state, form):
    if form == "zip":
        path = saved(tmp_path, Shadowed(state))
    else:
        path = tmp_path / "x.pkl"
        arrays = {key: tensor.numpy() for key, tensor in state.items()}
        path.write_bytes(pickle.dumps(Shadowed(arrays), 4))
    assert_is(read(path)[0], state)


def test_tables_that_hold_themselves_or_one_another_a_million_times_end(tmp_path, state):
    ring: dict = {"state_dict": state}
    ring["self"] = ring
    inner: list = []
    for _ in range(40):
        inner = [inner] * 10
    ring["deep"] = inner
    assert_is(read(saved(tmp_path, ring))[0], state)


@pytest.mark.parametrize(
    "call",
    [
        Calls(np.float64(1).__reduce__()[0], np.dtype("f8"), b"short"),
        Calls(np.float64(1).__reduce__()[0], "f8", b"\0" * 8),
        Calls(np.float64(1).__reduce__()[0]),
        Calls(np.dtype, "f8", state=(3, "?", None)),
    ],
)
def test_a_number_in_an_impossible_form_is_an_error_and_no_traceback(tmp_path, state, call):
    with pytest.raises(WeightsError, match=r"x\.pth"):
        read(saved(tmp_path, {"model": state, "x": call}))


NETWORK = {
    "features.denseblock1.denselayer1.conv1.weight": np.ones((2, 2), np.float32),
    "features.norm5.running_mean": np.ones(2, np.float32),
}


def files_of_a_trainer():
    """A small network with plain data beside it, as every program would write it."""
    beside = {
        name: value for name, value in PLAIN.items() if name not in ("size", "device", "dtype")
    }
    made = [pickle.dumps({"ema": {"module": NETWORK}, **beside}, protocol) for protocol in (2, 4)]
    tensors = {name: torch.from_numpy(array) for name, array in NETWORK.items()}
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save({"model": tensors, **beside}, file, _use_new_zipfile_serialization=zipped)
        made.append(file.getvalue())
    return made


@pytest.mark.parametrize("form", range(4))
def test_files_changed_anywhere_are_read_or_refused_and_never_end_in_a_traceback(tmp_path, form):
    """Bytes changed, cut out, and put in: opcodes that name, call, build and set among them."""
    whole, draw = files_of_a_trainer()[form], random.Random(form)
    path, refused = tmp_path / "x.pth", 0
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 4))):
            at = draw.randrange(len(changed))
            if draw.random() < 0.6:
                changed[at] = draw.randrange(256)
            elif draw.random() < 0.5:
                del changed[at : at + draw.randrange(1, 9)]
            else:
                changed[at:at] = bytes(draw.choices(b"c\x93Rb\x81}]()us.\x94K", k=3))
        path.write_bytes(changed)
        try:
            read_tensors(path)
        except WeightsError:
            refused += 1
    assert 0 < refused <= 300


def test_the_names_of_strangers_are_shown_with_80_characters_at_most(tmp_path, state):
    for length, shown in ((80, "y" * 80), (81, f"{'y' * 79}…")):
        _, said = read(saved(tmp_path, state | {"y" * length: torch.ones(5)}))
        assert f"left aside {shown}" in said
        assert "y" * 81 not in said


def test_of_many_networks_of_one_rank_two_are_named(tmp_path, state):
    file = {name: dict(state) for name in ("one", "two", "three")}
    with pytest.raises(KeyMismatchError, match=r"more than one network: \w+ and \w+\. Save the"):
        read(saved(tmp_path, file))


def test_dpn68bs_convolutions_of_two_halves_are_one(tmp_path):
    """timm keeps the last convolution of a block of DPN-68b in two: `c1x1_c1` and `c1x1_c2`."""
    model = build_model("dpn68b", num_classes=3)
    whole = model.state_dict()
    name = "features.conv2_1.c1x1_c.conv.weight"
    parts = enumerate(whole[name].split(50), start=1)
    halves = {name.replace("c.conv", f"c{number}"): part for number, part in parts}
    rest = {key: tensor for key, tensor in whole.items() if key != name}
    checkpoint = import_weights(saved(tmp_path, rest | halves), "dpn68b")
    assert_is(checkpoint, whole)

"""PyTorch's pickles: whatever they ask for, nothing is imported or run."""

from __future__ import annotations

import copy
import functools
import io
import os
import pickle
import pickletools
import struct
import sys
import zipfile

import pytest
import torch
from torch import nn

from densepath.errors import DensepathError, UnsafeFileError, WeightsError
from densepath.models.build import build_model
from densepath.weights.import_file import import_weights
from densepath.weights.pytorch import read_pth
from densepath.weights.stand_ins import ModuleTable
from densepath.weights.torch_zip import Archive

SMALL = "densenet_bc_22_12"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(SMALL, num_classes=3)


def archive(pickled, storages=(), folder="archive/", compress=zipfile.ZIP_STORED):
    """A `torch.save` archive with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as made:
        made.writestr(f"{folder}data.pkl", pickled)
        for name, content in storages:
            made.writestr(f"{folder}data/{name}", content)
        made.writestr(f"{folder}byteorder", "little")
        made.writestr(f"{folder}version", "3\n")
    return file.getvalue()


def read(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    return read_pth(tmp_path / "x.pt")


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def storage(numel, kind="FloatStorage", key="0"):
    return (
        b"(" + text("storage") + named("torch", kind) + text(key) + text("cpu")
        + b"\x8a\x08" + struct.pack("<q", numel) + b"tQ"
    )  # fmt: skip


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def tensor(numel, size, stride, offset=0, kind="FloatStorage"):
    sides = b"(" + b"".join(map(number, size)) + b"t"
    steps = b"(" + b"".join(map(number, stride)) + b"t"
    return (
        named("torch._utils", "_rebuild_tensor_v2") + b"(" + storage(numel, kind)
        + number(offset) + sides + steps + b"\x89" + named("collections", "OrderedDict")
        + b")RtR"
    )  # fmt: skip


def table(**values):
    return b"\x80\x02}(" + b"".join(text(k) + v for k, v in values.items()) + b"u."


# Whole networks


def whole(model, **options):
    file = io.BytesIO()
    torch.save(model, file, **options)
    return file.getvalue()


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_network_is_read_at_every_protocol(tmp_path, model, protocol, zipped):
    if not zipped and protocol < 2:
        pytest.skip("such a file begins like no other")
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    found = read(tmp_path, whole(model, **options))
    assert isinstance(found, ModuleTable)
    assert list(found) == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(found[name], value)
    assert found.parts["features.norm5"].values["eps"] == 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_every_type_are_read(tmp_path, model, dtype):
    value = model.state_dict()["features.conv0.weight"].to(dtype)
    assert torch.equal(read(tmp_path, whole({"a": value}))["a"], value)
    turned = value.permute(1, 0, 2, 3)
    assert torch.equal(read(tmp_path, whole({"a": turned}))["a"], turned)


def test_a_class_of_the_users_own_program_is_read_and_not_imported(tmp_path, model):
    source = whole(model).replace(b"densepath.models.densenet", b"my_own_program.densenet_x")
    assert b"my_own_program" in source
    found = read(tmp_path, source)
    assert torch.equal(found["classifier.weight"], model.classifier.weight)
    assert found.parts[""].kind == "my_own_program.densenet_x.DenseNet"
    assert "my_own_program" not in sys.modules


class Setter(nn.Module):
    """A module that would act when its state is set."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __setstate__(self, state):
        raise AssertionError("the file's class was used")


def test_a_module_s_own_way_to_take_its_state_is_not_used(tmp_path, model):
    found = read(tmp_path, whole(Setter(model)))
    assert torch.equal(found["inner.classifier.weight"], model.classifier.weight)


def test_a_buffer_that_is_not_saved_is_not_of_the_state(tmp_path):
    network = nn.BatchNorm2d(3)
    network.register_buffer("mask", torch.ones(3), persistent=False)
    assert list(read(tmp_path, whole(network))) == list(network.state_dict())


# What is refused


class Calls:
    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


EVIL = {
    "system": Calls(os.system, "touch MARK"),
    "eval": Calls(eval, "open('MARK', 'w')"),
    "exec": Calls(exec, "open('MARK', 'w')"),
    "import": Calls(__import__, "os"),
    "getattr of a text": Calls(getattr, "a", "upper"),
    "getattr of a class": Calls(getattr, nn.Linear, "forward"),
    "chain": Calls(getattr, Calls(__import__, "os"), "system"),
    "partial": Calls(functools.partial, os.system, "touch MARK"),
    "torch.load": Calls(torch.load, "MARK"),
    "torch.hub": Calls(torch.hub.load, "a", "b"),
    "a class with arguments": Calls(nn.Linear, 2, 2),
    "open": Calls(open, "MARK", "w"),
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["attribute", "beside"])
def test_a_network_that_asks_for_code_is_refused_and_nothing_runs(
    tmp_path, monkeypatch, name, protocol, place
):
    monkeypatch.chdir(tmp_path)
    network = nn.Linear(2, 2)
    if place == "attribute":
        network.evil = EVIL[name]
    value = network if place == "attribute" else {"model": network, "evil": EVIL[name]}
    with pytest.raises(UnsafeFileError, match="is refused"):
        read(tmp_path, whole(value, pickle_protocol=protocol))
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (named("os", "system") + text("touch MARK") + b"\x85R.", r"asks for os\.system"),
        (b"(" + text("touch MARK") + b"ios\nsystem\n.", r"asks for os\.system"),
        (b"(" + named("os", "system") + text("touch MARK") + b"o.", r"asks for os\.system"),
        (named("os", "system") + text("touch MARK") + b"\x85\x81.", r"asks for os\.system"),
        (named("os", "system") + b")\x81.", r"asks for os\.system"),
        (named("os", "system") + b"}" + text("a") + b"K\x01sb.", "change a function"),
        (named("torch.nn", "Linear") + b"}" + text("a") + b"K\x01sb.", "change a function"),
        (named("torch._utils", "_rebuild_tensor_v2") + b"}b.", "change a function"),
        (text("a") + b")R.", "calls what is no function"),
        (text("a") + b")\x81.", "of what is no class"),
        (named("torch", "FloatStorage") + b")R.", r"asks for torch\.FloatStorage"),
        (b"(" + text("other") + b"K\x01tQ.", "outside the file"),
        (text("a") + b"Q.", "outside the file"),
    ],
)
def test_every_way_of_a_pickle_to_act_is_refused(tmp_path, monkeypatch, content, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeFileError, match=reason):
        read(tmp_path, archive(b"\x80\x02" + content))
    assert not (tmp_path / "MARK").exists()


def test_every_opcode_in_front_of_a_name_ends_in_a_value_or_an_error(tmp_path):
    """Each opcode on a stack of a name, a table and a tuple: none finds a way out."""
    before = b"\x80\x02" + named("os", "system") + b"}" + text("touch MARK") + b"\x85"
    for opcode in pickletools.opcodes:
        for argument in (b"", b"\x00", b"\x01\x00\x00\x00a", b"os\nsystem\n"):
            content = before + opcode.code.encode("latin1") + argument + b"."
            try:
                read(tmp_path, archive(content))
            except DensepathError:
                continue
    assert not (tmp_path / "MARK").exists()


# What is too much


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (tensor(4, (1 << 40,), (1,)), "not in it whole"),
        (tensor(4, (2, 2), (2, 2)), "not in it whole"),
        (tensor(4, (4,), (1,), offset=1), "not in it whole"),
        (tensor(1 << 40, (4,), (1,)), "has 16 of"),
        (tensor(4, (2, 2), (1,)), "2 sides with 1 strides"),
        (tensor(4, (-1,), (1,)), "a tensor of the shape"),
        (tensor(4, (4,), (-1,)), "a tensor of the shape"),
        (tensor(4, (4,), (1,), kind="StrangeStorage"), "unknown type 'Strange'"),
    ],
)
def test_a_tensor_that_claims_more_than_there_is_is_refused(tmp_path, made, reason):
    content = archive(table(a=made), [("0", bytes(16))])
    with pytest.raises(WeightsError, match=reason):
        read(tmp_path, content)


def test_a_tensor_that_repeats_its_numbers_without_end_takes_no_memory(tmp_path):
    content = archive(table(a=tensor(4, (1 << 40,), (0,))), [("0", bytes(16))])
    assert not isinstance(read(tmp_path, content)["a"], torch.Tensor)


def test_many_names_of_the_same_numbers_take_no_memory(tmp_path):
    stretch = torch.zeros(20_000)
    state = {f"features.denseblock1.denselayer1.x{n}": stretch for n in range(2000)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"40,000,000 numbers: they\s+repeat one another"):
        import_weights(tmp_path / "x.pth")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    bomb = archive(table(), [("0", bytes(1 << 24))], compress=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 16
    with pytest.raises(WeightsError, match="is compressed, which PyTorch never does"):
        read(tmp_path, bomb)


@pytest.mark.parametrize("claimed", [1 << 20, 0xFFFFFFF0])
def test_a_part_that_claims_more_bytes_than_the_file_has_is_refused(tmp_path, claimed):
    content = archive(table(a=tensor(4, (4,), (1,))), [("0", bytes(16))])
    place = content.rindex(b"archive/data/0") - 46 + 20  # sizes in the archive's directory
    content = content[:place] + struct.pack("<II", claimed, claimed) + content[place + 8 :]
    with pytest.raises(WeightsError, match="larger than the file"):
        read(tmp_path, content)


def test_parts_that_overlap_are_read_no_further_than_the_file_is_long(tmp_path):
    """Fifty names of one stretch of bytes, as zip bombs have them."""
    file = io.BytesIO(archive(table(), [("s0", bytes(5000))]))
    with zipfile.ZipFile(file, "a") as made:
        for number in range(1, 50):
            twin = copy.copy(made.getinfo("archive/data/s0"))
            twin.filename = f"archive/data/s{number}"
            made.filelist.append(twin)
        made.writestr("archive/end", "")
    content = file.getvalue()
    assert len(content) < 3 * 5000
    reader = Archive(io.BytesIO(content), len(content))
    assert len(reader.names("data/")) == 50
    with pytest.raises(WeightsError, match="claims too much"):
        list(map(reader.read, reader.names("data/")))


def test_a_key_that_takes_for_ever_to_hash_is_refused(tmp_path):
    key = b"K\x01" + b"\x85" + b"2\x86" * 60  # TUPLE1, then DUP and TUPLE2 again and again
    for ending in (b"K\x01s.", b"("):
        content = b"\x80\x02}" + key + ending
        content += b"" if ending.endswith(b".") else b"K\x01K\x01u."
        with pytest.raises(WeightsError):
            read(tmp_path, archive(content))
    for made in (b"\x80\x04\x8f(" + key + b"\x90.", b"\x80\x04(" + key + b"\x91."):
        with pytest.raises(WeightsError, match="made of many others"):
            read(tmp_path, archive(made))


def test_lists_that_hold_one_another_a_billion_times_end(tmp_path):
    rows: list = []
    for _ in range(60):
        rows = [rows] * 10
    assert "a" in read(tmp_path, archive(pickle.dumps({"a": rows}, 2)))
    nested = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    assert isinstance(read(tmp_path, archive(nested)), list)


def test_networks_that_hold_one_another_a_billion_times_are_refused(tmp_path):
    network: nn.Module = nn.Linear(1, 1)
    for _ in range(40):
        network = nn.Sequential(network, network)
    with pytest.raises(WeightsError, match="more parts than any has"):
        read(tmp_path, whole(network))
    ring = nn.Sequential()
    ring.add_module("self", nn.Sequential())
    ring._modules["self"]._modules["up"] = ring
    with pytest.raises(WeightsError, match="more parts than any has"):
        read(tmp_path, whole(ring))


def test_numbers_of_another_byte_order_are_refused(tmp_path):
    content = archive(table()).replace(b"little", b"big\n\n\n")
    with pytest.raises(WeightsError, match="big-endian"):
        read(tmp_path, content)

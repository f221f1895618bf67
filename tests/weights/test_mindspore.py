"""MindSpore's checkpoint files: read from bytes that this test writes itself, and refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densepath.errors import WeightsError
from densepath.models.catalogue import find_spec
from densepath.weights.mindspore import key_map, read_ckpt


def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def value(tag, dims, kind, content, packed=False):
    """One `Value` of a checkpoint, after MindSpore's checkpoint.proto."""
    if packed:
        shape = field(1, b"".join(map(varint, dims)))
    else:
        shape = b"".join(varint(1 << 3) + varint(side) for side in dims)
    tensor = shape + field(2, kind.encode()) + field(3, content)
    return field(1, field(1, tag.encode()) + field(2, tensor))


def with_crc(content):
    return content + b"crc_num" + zlib.crc32(content).to_bytes(10, "big")


FLOATS = np.arange(6, dtype="<f4").reshape(2, 3)
PLAIN = value("a.weight", (2, 3), "Float32", FLOATS.tobytes())


@pytest.fixture
def read(tmp_path):
    def read_content(content):
        path = tmp_path / "x.ckpt"
        path.write_bytes(content)
        return read_ckpt(path)

    return read_content


@pytest.mark.parametrize("packed", [False, True])
def test_a_tensor_comes_back(read, packed):
    content = value("a.weight", (2, 3), "Float32", FLOATS.tobytes(), packed)
    assert np.array_equal(read(content)["a.weight"], FLOATS)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("Float64", "<f8"), ("Float16", "<f2"), ("Int64", "<i8"), ("UInt8", "u1"), ("Bool", "?")],
)
def test_every_number_type_is_read(read, kind, dtype):
    array = np.array([0, 1, 1], dtype=dtype)
    found = read(value("a", (3,), kind, array.tobytes()))["a"]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_bfloat16_is_the_upper_half_of_float32(read):
    # 1.0 is 0x3F80, -2.5 is 0xC020
    found = read(value("a", (2,), "BFloat16", b"\x80\x3f\x20\xc0"))["a"]
    assert found.tolist() == [1.0, -2.5]


@pytest.mark.parametrize("dims", [(), (0,)])
def test_scalars_are_written_with_no_side_or_with_a_zero(read, dims):
    found = read(value("a", dims, "Float32", np.float32(3).tobytes()))["a"]
    assert found.shape == ()
    assert found == 3


def test_a_tensor_in_consecutive_parts_is_joined(read):
    halves = FLOATS.tobytes()[:8], FLOATS.tobytes()[8:]
    content = b"".join(value("a", (2, 3), "Float32", half) for half in halves)
    assert np.array_equal(read(content + PLAIN)["a"], FLOATS)


def test_the_state_of_training_and_text_are_left_out(read):
    content = PLAIN + value("note", (1,), "str", "x".encode("utf-32-le"))
    for tag in ("moments.a.weight", "accum.a.weight", "stat.a.weight", "ema.a.weight"):
        content += value(tag, (2, 3), "Float32", FLOATS.tobytes())
    for tag in ("global_step", "learning_rate", "momentum"):
        content += value(tag, (), "Float32", np.float32(1).tobytes())
    assert list(read(content)) == ["a.weight"]


def test_a_right_checksum_is_taken_off(read):
    assert list(read(with_crc(PLAIN))) == ["a.weight"]


def test_unknown_fields_are_passed_over(read):
    extra = varint(9 << 3 | 0) + varint(300) + varint(9 << 3 | 1) + bytes(8)
    extra += varint(9 << 3 | 5) + bytes(4) + field(9, b"later")
    assert list(read(extra + PLAIN)) == ["a.weight"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_crc(PLAIN).replace(b"a.weight", b"b.weight"), "checksum does not fit"),
        (PLAIN[:-1], "runs past the end"),
        (PLAIN + b"\x0a", "a number is cut off"),
        (b"\x0a" + b"\xff" * 11, "longer than 10 bytes"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "runs past the end"),
        (b"\x0b", "wire type 3"),
        (varint(1 << 3) + b"\x01", "holds a number"),
        (PLAIN + PLAIN, "comes twice"),
        (field(1, field(1, b"a")), "no name or no tensor"),
        (field(1, field(1, b"\xff") + field(2, b"")), "not text"),
        (value("a", (2, 3), "Float32", bytes(28)), "28 bytes instead of 24"),
        (value("a", (2, 3), "Float32", bytes(20)), "a is cut off"),
        (value("a", (2,), "Float32", bytes(4)) + PLAIN, "a is cut off"),
        (value("a", (1 << 40, 1 << 40), "Float32", bytes(4)), "a is cut off"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(read, content, reason):
    with pytest.raises(WeightsError, match=reason) as caught:
        read(content)
    assert "x.ckpt cannot be read as a MindSpore checkpoint" in str(caught.value)


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_changed_byte_gives_arrays_or_a_weights_error(tmp_path_factory, position, byte):
    content = bytearray(PLAIN + PLAIN.replace(b"a.weight", b"b.weight"))
    content[position % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "changed.ckpt"
    path.write_bytes(content)
    try:
        found = read_ckpt(path)
    except WeightsError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())


def test_names_are_mindcvs():
    """Source: MindCV 0.3 `mindcv/models/densenet.py` and `dpn.py`."""
    densenet = key_map(find_spec("densenet121"))
    name = "features.denseblock4.denselayer16.norm2.running_var"
    assert densenet[name] == ("features.denseblock4.cell_list.15.norm2.moving_variance",)
    assert densenet["features.transition3.conv.weight"] == (
        "features.transition3.features.conv.weight",
    )
    dpn = key_map(find_spec("dpn92"))
    assert dpn["features.conv3_1.c1x1_w.conv.weight"] == (
        "features.conv3_1.c1x1_w_r.weight",
        "features.conv3_1.c1x1_w_d.weight",
    )
    assert dpn["features.conv5_bn_ac.bn.weight"] == ("conv5_x.norm.gamma",)

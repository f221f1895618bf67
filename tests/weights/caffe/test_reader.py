"""Caffe models of both versions of the format, and what their data layers say."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from densepath.errors import KeyMismatchError, WeightsError
from densepath.weights.caffe.graph import graph_of
from densepath.weights.caffe.model import read_model
from densepath.weights.caffe.start import is_caffe
from densepath.weights.import_file import import_weights
from densepath.weights.origins import find_origin

FILES = Path(__file__).parents[2] / "parity" / "files" / "caffe"
DENSENET = FILES / "densenet.caffemodel"


def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, content):
    """A field of bytes, text, a float or a number."""
    if isinstance(content, float):
        return varint(number << 3 | 5) + struct.pack("<f", content)
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def test_a_caffe_model_is_known_and_read_as_one():
    assert find_origin(DENSENET).name == "caffe"
    said = []
    checkpoint = import_weights(DENSENET, say=said.append)
    assert checkpoint.spec.arch.growth_rate == 4
    assert checkpoint.provenance["kind"] == "a Caffe model"
    assert checkpoint.preprocess.mean == pytest.approx((123.68 / 255, 116.78 / 255, 103.94 / 255))
    assert "red first" in " ".join(said)


def test_a_mindspore_checkpoint_is_none():
    assert not is_caffe(b"\x0a\x30\x0a\x10features.weight_" + b"\x12\x10" + b"x" * 40)


def test_what_a_data_layer_says_is_the_preprocessing(tmp_path):
    mean = b"".join(field(5, one) for one in (104.0, 117.0, 124.0))
    transform = field(1, 0.5) + field(3, 64) + mean
    data = field(1, "in") + field(2, "Data") + field(4, "data") + field(4, "label")
    content = DENSENET.read_bytes()
    model = field(1, "net") + field(100, data + field(100, transform))
    loss = field(1, "l") + field(2, "SigmoidCrossEntropyLoss") + field(3, "fc6") + field(3, "label")
    rest = b"".join(field(100, bytes(value)) for number, value in _fields(content) if number == 100)
    (tmp_path / "x.caffemodel").write_bytes(model + rest + field(100, loss + field(4, "loss")))
    checkpoint = import_weights(tmp_path / "x.caffemodel", say=lambda note: None)
    assert checkpoint.preprocess.size == (64, 64)
    assert checkpoint.preprocess.mean == pytest.approx((124 / 255, 117 / 255, 104 / 255))
    assert checkpoint.preprocess.std == pytest.approx((2 / 255,) * 3)
    assert "data layer" in checkpoint.provenance["preprocess"]
    assert checkpoint.multi_label


def _fields(content):
    from densepath.weights.protobuf_wire import fields

    return fields(memoryview(content))


def test_the_first_version_s_layers_are_the_second_s():
    weight = field(1, 2) + field(2, 3) + field(3, 1) + field(4, 1)
    weight += field(5, np.arange(6, dtype="<f4").tobytes())
    settings = field(1, 2) + field(2, 0) + field(9, 1) + field(10, 1) + field(6, 2)
    layer = field(2, "data") + field(3, "out") + field(4, "conv") + field(5, 4)
    layer += field(6, weight) + field(10, settings)
    graph = graph_of(read_model(field(3, "data") + field(2, layer)))
    (node,) = graph.nodes
    assert (node.kind, node.inputs, graph.images) == ("convolution", ("data",), "data")
    assert node.tensors["weight"].shape == (2, 3, 1, 1)
    assert (node.attributes["padding"], node.attributes["stride"]) == ((1, 1), (2, 2))


def test_pools_round_up_unless_they_say_otherwise():
    for more, rounds_up in ((b"", True), (field(13, 0), False), (field(13, 1), False)):
        pool = field(1, 0) + field(2, 3) + field(3, 2) + more
        layer = field(1, "p") + field(2, "Pooling") + field(3, "data") + field(4, "p")
        graph = graph_of(read_model(field(3, "data") + field(100, layer + field(121, pool))))
        assert graph.nodes[0].attributes["ceil_mode"] is rounds_up
        assert bool(graph.notes) is not rounds_up


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xa2\x06\x7f", "runs past the end"),
        (field(1, "net") + field(100, field(7, field(7, field(1, 9)))), "shape \\[9\\] has 0"),
        (field(1, "net") + field(100, field(7, field(5, b"abc"))), "cut off"),
    ],
)
def test_damage_is_an_error(content, said, tmp_path):
    (tmp_path / "x.caffemodel").write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        import_weights(tmp_path / "x.caffemodel")


def test_a_file_without_weights_says_what_it_lacks(tmp_path):
    layer = field(1, "c") + field(2, "Convolution") + field(3, "data") + field(4, "c")
    (tmp_path / "x.caffemodel").write_bytes(field(1, "net") + field(3, "data") + field(100, layer))
    with pytest.raises((KeyMismatchError, WeightsError), match="weight"):
        import_weights(tmp_path / "x.caffemodel")

"""Both forms of a program say the same, and what no network here has is refused by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densepath.errors import WeightsError
from densepath.weights.paddle_inference import pdmodel, pir
from densepath.weights.paddle_inference.graph import graph_of
from densepath.weights.paddle_inference.pdiparams import is_pdiparams, read_tensors
from densepath.weights.paddle_inference.program import PaddleOperator, PaddleProgram

FILES = Path(__file__).parents[2] / "parity" / "files" / "paddle_inference"
READERS = {"inference.json": pir, "inference.pdmodel": pdmodel}


def program_of(sample, name):
    return READERS[name].read_program((FILES / sample / name).read_bytes())


@pytest.mark.parametrize("sample", ["densenet", "dpn"])
def test_both_forms_of_a_program_make_the_same_graph(sample):
    content = (FILES / sample / "inference.pdiparams").read_bytes()
    graphs = []
    for name in READERS:
        program = program_of(sample, name)
        graphs.append(graph_of(program, read_tensors(content, program.parameters)))
    one, other = graphs
    assert (one.size, one.loose) == (other.size, other.loose) == ((64, 64), ())
    assert [node.kind for node in one.nodes] == [node.kind for node in other.nodes]
    for ours, theirs in zip(one.nodes, other.nodes, strict=True):
        assert ours.tensors.keys() == theirs.tensors.keys()
        assert all(np.array_equal(ours.tensors[k], theirs.tensors[k]) for k in ours.tensors)
        assert ours.attributes == theirs.attributes


def test_both_forms_name_the_same_parameters():
    one, other = (program_of("dpn", name) for name in READERS)
    assert dict(one.parameters) == dict(other.parameters)
    assert len(one.fetches) == len(other.fetches) == 1


@pytest.mark.parametrize("number", [b"Infinity", b"NaN", b"null", b'"a"', b"[]", b"1e999"])
def test_a_value_whose_number_is_none_is_refused(number):
    content = (FILES / "dpn" / "inference.json").read_bytes()
    with pytest.raises(WeightsError, match="its program is damaged"):
        pir.read_program(content.replace(b'"%":1,', b'"%":' + number + b",", 1))


def operator(kind, inputs, outputs, **attributes):
    return PaddleOperator(kind, inputs, outputs, attributes)


def nodes(*operators, tensors=None, shapes=None):
    program = PaddleProgram(operators, {}, shapes or {}, ["x"], ["y"])
    return graph_of(program, tensors or {}).nodes


def test_a_name_that_is_written_again_is_another_value():
    made = nodes(
        operator("relu", {"X": ["x"]}, {"Out": ["x"]}),
        operator("sigmoid", {"X": ["x"]}, {"Out": ["y"]}),
    )
    assert [(node.inputs, node.outputs) for node in made] == [
        (("x",), ("x@1",)),
        (("x@1",), ("y",)),
    ]


def test_dropout_that_scales_when_it_answers_is_in_the_weights_before_it():
    weight = np.ones((2, 3, 1, 1), np.float32)
    convolution = operator("conv2d", {"Input": ["x"], "Filter": ["w"]}, {"Output": ["a"]})
    ways = {"downgrade_in_infer": 0.75, "upscale_in_train": 1.0}
    for way, factor in ways.items():
        dropout = operator(
            "dropout",
            {"X": ["a"]},
            {"Out": ["y"]},
            dropout_prob=0.25,
            dropout_implementation=way,
        )
        one, other = nodes(convolution, dropout, tensors={"w": weight})
        assert other.kind == "identity"
        assert np.array_equal(one.tensors["weight"], weight * np.float32(factor))


def test_parts_of_a_split_are_slices_and_minus_one_is_what_is_left():
    for sections in ([2, 3], [2, -1], [-1, 3]):
        split = operator("split", {"X": ["x"]}, {"Out": ["a", "y"]}, axis=1, sections=sections)
        made = nodes(split, shapes={"x": (-1, 5, 8, 8)})
        places = [(node.attributes["start"], node.attributes["stop"]) for node in made]
        assert places == [(0, 2), (2, 5)]
    halves = nodes(operator("split", {"X": ["x"]}, {"Out": ["a", "y"]}, axis=1, num=2))
    assert [node.attributes for node in halves] == [
        {"parts": 2, "part": 0},
        {"parts": 2, "part": 1},
    ]


def test_padding_of_four_sides_and_of_names_is_ours():
    weight = {"w": np.ones((2, 3, 1, 1), np.float32)}
    inputs, outputs = {"Input": ["x"], "Filter": ["w"]}, {"Output": ["y"]}
    for given, wanted in (
        ({"paddings": [1, 2, 3, 4]}, [1, 3, 2, 4]),
        ({"padding_algorithm": "SAME"}, "same"),
        ({"padding_algorithm": "VALID", "paddings": [1, 1]}, 0),
    ):
        (made,) = nodes(operator("conv2d", inputs, outputs, **given), tensors=weight)
        assert made.attributes["padding"] == wanted


@pytest.mark.parametrize(
    ("kind", "attributes", "said"),
    [
        ("concat", {"axis": 2}, "concat goes along axis 2"),
        ("split", {"axis": 3}, "split goes along axis 3"),
        ("pool2d", {"data_format": "NHWC"}, "laid out as NHWC"),
        ("conv2d", {}, "has no tensor as Filter"),
        ("slice", {"axes": [1, 2], "starts": [0], "ends": [1]}, r"the axes \[1, 2\]"),
    ],
)
def test_what_no_network_here_has_is_refused_in_words(kind, attributes, said):
    read = {"X": ["x"], "Input": ["x"]}
    with pytest.raises(WeightsError, match=said):
        nodes(operator(kind, read, {"Out": ["y"], "Output": ["y"]}, **attributes))


def test_a_program_of_several_inputs_is_refused():
    with pytest.raises(WeightsError, match="it has 2 inputs and 1 results"):
        graph_of(PaddleProgram([], {}, {}, ["a", "b"], ["y"]), {})


# Files of tensors


def tensor(shape, code, data, levels=()):
    """A tensor as Paddle serialises it."""
    sides = b"".join(b"\x10" + bytes([side]) for side in shape)
    described = b"\x08" + bytes([code]) + sides
    out = bytes(4) + len(levels).to_bytes(8, "little")
    for level in levels:
        out += len(level).to_bytes(8, "little") + level
    return out + bytes(4) + len(described).to_bytes(4, "little") + described + data


def test_tensors_are_in_the_order_of_their_names_and_of_every_type():
    content = tensor((2,), 5, np.float32([1, 2]).tobytes())
    content += tensor((1,), 22, b"\x80\x3f", levels=[bytes(16)])
    content += tensor((), 3, np.int64(7).tobytes())
    assert is_pdiparams(content[:64])
    found = read_tensors(content, {"c": (), "a": (2,), "b": (1,)})
    assert {name: array.tolist() for name, array in found.items()} == {
        "a": [1, 2],
        "b": [1.0],
        "c": 7,
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tensor((2,), 5, bytes(7)), "cut off"),
        (tensor((2,), 99, bytes(8)), "type number 99"),
        (tensor((3,), 5, bytes(12)), r"a is \[3\], and its program asks for \[2\]"),
        (tensor((2,), 5, bytes(8)) * 2, "holds 2 tensors, and its program asks for 1"),
        (b"\1" + tensor((2,), 5, bytes(8))[1:], "of version 1"),
        (bytes(4) + b"\xff" * 8, "cut off"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(content, said):
    with pytest.raises(WeightsError, match=said):
        read_tensors(content, {"a": (2,)})

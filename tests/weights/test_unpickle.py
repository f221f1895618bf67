"""Pickles of arrays are read; everything else that a pickle can ask for is refused."""

from __future__ import annotations

import collections
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densepath.errors import UnsafeFileError, WeightsError
from densepath.weights.plain_data import Unread
from densepath.weights.unpickle import read_pickle

ARRAYS = {
    "float32": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big endian": np.arange(5, dtype=">f4"),
    "half": np.array([1.5, -2], dtype=np.float16),
    "integer": np.array([[1], [2]], dtype=np.int64),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "scalar": np.array(7.0, dtype=np.float32),
}


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def run_and_mark(path):
    """What a hostile pickle would call."""
    Path(path).touch()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_every_layout_are_read_at_every_protocol(protocol):
    found = read_pickle(pickle.dumps(ARRAYS, protocol), "file")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array)
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_names_of_numpys_core_are_known(module):
    content = pickle.dumps(ARRAYS["float32"], 2)
    own = b"numpy._core.multiarray" if b"numpy._core" in content else b"numpy.core.multiarray"
    assert np.array_equal(read_pickle(content.replace(own, module), "file"), ARRAYS["float32"])


def test_ordered_dicts_and_pairs_of_name_and_array_are_read():
    table = collections.OrderedDict(a=("a_0", ARRAYS["half"]))
    assert np.array_equal(read_pickle(pickle.dumps(table, 4), "file")["a"], ARRAYS["half"])


def test_paddles_eval_of_a_raw_tensor_is_answered_without_eval():
    content = pickle.dumps({"a": Calls(eval, "data", {"data": ARRAYS["half"]})}, 4)
    assert np.array_equal(read_pickle(content, "file")["a"], ARRAYS["half"])


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Calls(os.system, "true"), "system"),
        (Calls(eval, "1 + 1"), "evaluate an expression"),
        (Calls(eval, "data", {"data": 1, "more": 2}), "evaluate an expression"),
        (Calls(exec, "1"), "exec"),
        (Calls(getattr, "a", "upper"), "getattr"),
        (Calls(__import__, "os"), "__import__"),
        (Calls(np.load, "a.npy"), "numpy.load"),
        (Calls(bytes.fromhex, "00"), "getattr"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_call_outside_the_table_is_refused_by_name(value, named, protocol):
    with pytest.raises(UnsafeFileError, match=named) as caught:
        read_pickle(pickle.dumps({"a": value}, protocol), "x.pdparams")
    assert str(caught.value).startswith("x.pdparams is refused")


def test_nothing_is_run_before_the_refusal(tmp_path):
    mark = tmp_path / "ran"
    content = pickle.dumps({"a": ARRAYS["half"], "b": Calls(run_and_mark, str(mark))}, 4)
    with pytest.raises(UnsafeFileError):
        read_pickle(content, "file")
    assert not mark.exists()


def test_a_state_set_on_a_function_of_the_table_is_refused():
    # GLOBAL _codecs encode, {"x": 1}, BUILD
    content = b"\x80\x02c_codecs\nencode\n}X\x01\x00\x00\x00xK\x01sb."
    with pytest.raises(UnsafeFileError, match="change a function"):
        read_pickle(content, "file")


def test_objects_outside_the_file_are_refused():
    with pytest.raises(UnsafeFileError, match="outside the file"):
        read_pickle(b"\x80\x02X\x01\x00\x00\x00aQ.", "file")


@pytest.mark.parametrize(
    "array",
    [
        np.array([None], dtype=object),
        np.array(["a"]),
        np.array([b"a"]),
        np.zeros(1, dtype=[("x", "f4")]),
        np.array([1 + 2j]),
        np.array(["2026-11-23"], dtype="datetime64[D]"),
    ],
)
def test_arrays_of_anything_but_numbers_are_left_unread(array):
    assert isinstance(read_pickle(pickle.dumps({"a": array}, 4), "file")["a"], Unread)


def test_a_shape_that_its_bytes_do_not_fill_is_refused():
    content = pickle.dumps(ARRAYS["float32"], 2)
    shape = pickle.dumps((3, 4), 2)[2:-3]
    huge = shape.replace(b"K\x03", b"J" + struct.pack("<i", 2**30))
    assert shape in content
    with pytest.raises(WeightsError, match="48 bytes instead of"):
        read_pickle(content.replace(shape, huge), "file")


LARGE = 2**31 - 1
GREEDY = {
    "a memo of a large number": b"\x80\x02]r" + LARGE.to_bytes(4, "little") + b".",
    "a bytearray that is not there": b"\x80\x05\x96" + (2**36).to_bytes(8, "little") + b"x.",
    "bytes that are not there": b"\x80\x05\x8e" + (2**36).to_bytes(8, "little") + b"x.",
    "text that is not there": b"\x80\x05\x8d" + (2**36).to_bytes(8, "little") + b"x.",
    "a frame that is not there": b"\x80\x05\x95" + (2**36).to_bytes(8, "little") + b"].",
}


@pytest.mark.parametrize("content", GREEDY.values(), ids=GREEDY)
def test_a_file_takes_no_more_memory_than_it_has_bytes_for(content):
    tracemalloc.start()
    try:
        assert read_pickle(content, "file") == []
    except WeightsError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1_000_000


@given(st.integers(min_value=0, max_value=10_000))
def test_a_file_cut_anywhere_is_refused(length):
    content = pickle.dumps(ARRAYS, 4)
    with pytest.raises(WeightsError):
        read_pickle(content[: length % len(content)], "file")


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255), st.sampled_from([2, 4]))
def test_a_changed_byte_gives_arrays_or_a_weights_error(position, byte, protocol):
    content = bytearray(pickle.dumps(ARRAYS, protocol))
    content[position % len(content)] = byte
    try:
        found = read_pickle(bytes(content), "file")
    except WeightsError:
        return
    assert not callable(found)


@given(st.binary(max_size=200))
def test_random_bytes_after_a_pickles_start_never_get_through_as_code(tail):
    try:
        found = read_pickle(b"\x80\x04" + tail, "file")
    except WeightsError:
        return
    assert not callable(found)

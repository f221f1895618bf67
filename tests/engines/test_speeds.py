"""What `--engine auto` takes where the bundle was made: the engine that was the fastest there."""

from __future__ import annotations

import dataclasses

import pytest

from densepath.bundle.speeds import Speeds
from densepath.engines import machine, measured
from densepath.engines.choose import choose
from densepath.engines.machine import describe_kind
from densepath.engines.request import EngineRequest
from densepath.kernels import compile as compiling

from .test_precision import bundle as float_bundle

HERE = "EPYC (0123abcd), 2 cores"
OPENVINO_AHEAD = {"native": 0.030, "openvino": 0.020, "onnxruntime": 0.040}


def stand_here(monkeypatch):
    """This machine has no GPU and compiled kernels, and is of the kind `HERE`."""
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    monkeypatch.setattr(machine, "lacks_bfloat16", lambda: False)
    monkeypatch.setattr(compiling, "find_compiler", lambda: ["c++"])
    monkeypatch.setattr(compiling, "library_path", lambda compiler: compiling.Path(__file__))
    monkeypatch.setattr(machine, "failing_kernels", lambda: None)
    monkeypatch.setattr(measured, "describe_kind", lambda: HERE)


@pytest.fixture(autouse=True)
def this_machine(monkeypatch):
    stand_here(monkeypatch)


def bundle(seconds, machine=HERE, **options):
    opened = float_bundle(**options)
    speeds = {"machine": machine, "batch_size": 4, "seconds": seconds}
    parity = {**(opened.manifest.parity or {}), "speeds": speeds}
    return dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, parity=parity))


def taken(opened, **options):
    return choose(EngineRequest(**{"precision": "float32", **options}), opened)


def test_the_fastest_where_the_bundle_was_made_is_taken_and_the_times_are_said():
    choice = taken(bundle(OPENVINO_AHEAD))
    assert choice.engine == "openvino"
    assert choice.reason == (
        "by the bundle's measurement on such a machine: openvino 20 ms, native 30 ms, onnxruntime "
        "40 ms for 4 images"
    )


def test_a_measurement_on_another_kind_of_machine_counts_nothing():
    choice = taken(bundle(OPENVINO_AHEAD, machine="EPYC (0123abcd), 4 cores"))
    assert (choice.engine, choice.reason) == ("native", "the fastest on a CPU")


def test_as_fast_within_the_noise_is_no_reason_for_another_engine():
    assert taken(bundle({"native": 0.104, "openvino": 0.1})).engine == "native"
    assert taken(bundle({"native": 0.106, "openvino": 0.1})).engine == "openvino"


def test_an_engine_that_was_not_measured_keeps_its_place():
    """There was no compiler then: nothing says that our kernels are slower."""
    assert taken(bundle({"openvino": 0.2, "onnxruntime": 0.1})).engine == "native"
    without = bundle({"openvino": 0.2, "onnxruntime": 0.1}, formats=("onnx", "openvino"))
    assert taken(without).engine == "onnxruntime"


def test_what_is_measured_decides_nothing_else():
    """Few images are for what is ready soonest, and a name is a name."""
    assert taken(bundle(OPENVINO_AHEAD), num_images=3).engine == "native"
    assert taken(bundle(OPENVINO_AHEAD), engine="onnxruntime").engine == "onnxruntime"
    gone = bundle(OPENVINO_AHEAD, formats=("onnx", "torch"))
    assert taken(gone).engine == "native"


@pytest.mark.parametrize(
    "speeds",
    [
        None,
        {},
        {"machine": HERE, "batch_size": 4},
        {"machine": HERE, "batch_size": 4, "seconds": {"native": 0}},
        {"machine": HERE, "batch_size": 4, "seconds": {"native": "fast"}},
        {"machine": HERE, "batch_size": 4, "seconds": [1]},
        {"machine": HERE, "batch_size": "4", "seconds": {}},
        {"machine": HERE, "batch_size": 4, "seconds": {}, "more": 1},
    ],
    ids=str,
)
def test_what_is_no_measurement_is_passed_over(speeds):
    assert Speeds.of({"speeds": speeds}) is None


@pytest.mark.parametrize("seconds", [{}, {"gone": 0.1}])
def test_engines_that_there_are_not_change_nothing(seconds):
    assert taken(bundle(seconds)).engine == "native"


def test_a_kind_of_machine_is_its_processor_and_its_cores(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(compiling, "describe_cpu", lambda: "flags\t: avx2|model name\t: EPYC 7763")
    kind = describe_kind()
    assert kind.startswith("EPYC 7763 (")
    assert kind.endswith("), 2 cores")
    monkeypatch.setattr(compiling, "describe_cpu", lambda: "flags\t: avx|model name\t: EPYC 7763")
    assert describe_kind() != kind
    monkeypatch.setattr(compiling, "describe_cpu", lambda: "")
    assert describe_kind().endswith("), 2 cores")

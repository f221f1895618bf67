"""What `auto` takes where engines were measured in bfloat16, too: the fastest that is right."""

from __future__ import annotations

import dataclasses

import pytest

from densepath.bundle.speeds import Speeds
from densepath.engines import choose as choosing
from densepath.engines import measured
from densepath.engines import precision as judging
from densepath.engines.choose import choose
from densepath.engines.request import EngineRequest

from .test_precision import GOOD
from .test_precision import bundle as float_bundle
from .test_speeds import HERE, stand_here

WRONG = {**GOOD, "top1": 0.99}
FLOAT = {"native": 0.080, "openvino": 0.090, "onnxruntime": 0.100}
# As DPN-68 was on a processor with AVX512_BF16.
OPENVINO_AHEAD = {"native": 0.059, "openvino": 0.050}


@pytest.fixture(autouse=True)
def this_machine(monkeypatch):
    stand_here(monkeypatch)
    for module in (judging, choosing):
        monkeypatch.setattr(module, "missing_bfloat16", lambda: "")
    monkeypatch.setattr(judging, "has_amx", lambda: False)


def bundle(lower=OPENVINO_AHEAD, *, seconds=FLOAT, made_on=HERE, openvino=GOOD, **options):
    """A bundle in memory with times in both precisions, and a report on OpenVINO."""
    opened = float_bundle(**options)
    speeds = Speeds(made_on, 4, seconds, lower).to_dict()
    parity = {**opened.manifest.parity, "speeds": speeds, "bfloat16_others": {"openvino": openvino}}
    return dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, parity=parity))


def pair(opened, **options):
    choice = choose(EngineRequest(**options), opened)
    return choice.engine, choice.precision


def test_the_fastest_of_all_pairs_is_taken_and_both_reasons_are_said():
    choice = choose(EngineRequest(), bundle())
    assert (choice.engine, choice.precision) == ("openvino", "bfloat16")
    assert str(choice) == (
        "engine openvino: by the bundle's measurement on such a machine: openvino in bfloat16 "
        "50 ms, native in bfloat16 59 ms, native 80 ms, openvino 90 ms, onnxruntime 100 ms for "
        "4 images; in bfloat16: by the bundle's report on openvino in bfloat16 the best class is "
        "the same on all of 200 images (1 tie), the five best on all but 2"
    )
    assert pair(bundle({"native": 0.05, "openvino": 0.059})) == ("native", "bfloat16")


def test_as_fast_within_the_noise_our_kernels_stay():
    assert pair(bundle({"native": 0.0520, "openvino": 0.050})) == ("native", "bfloat16")
    assert pair(bundle({"native": 0.0530, "openvino": 0.050})) == ("openvino", "bfloat16")


def test_bfloat16_that_was_slower_is_not_taken_and_that_is_said():
    choice = choose(EngineRequest(), bundle({"native": 0.085, "openvino": 0.095}))
    assert (choice.engine, choice.precision) == ("native", "float32")
    assert choice.precision_reason == (
        "on such a machine native in bfloat16 took 85 ms, native in float32 80 ms"
    )
    assert "in bfloat16" not in choice.reason
    other = {"native": 0.085, "openvino": 0.060}
    assert pair(bundle({"native": 0.061, "openvino": 0.095}, seconds=other)) == (
        "openvino",
        "float32",
    )


def test_of_a_faster_pair_that_answers_otherwise_the_reason_is_said():
    choice = choose(EngineRequest(), bundle(openvino=WRONG))
    assert (choice.engine, choice.precision) == ("native", "bfloat16")
    assert choice.reason.endswith(
        "(not openvino: by the bundle's report on openvino in bfloat16 the best class is the same "
        "on all but 2 of 200 images (1 tie), the five best on all but 2)"
    )


def test_each_engine_answers_for_itself():
    """OpenVINO may be right where our kernels are not."""
    assert pair(bundle(report=WRONG)) == ("openvino", "bfloat16")
    neither = choose(EngineRequest(), bundle(report=WRONG, openvino=WRONG))
    assert (neither.engine, neither.precision) == ("native", "float32")
    assert "report on openvino in bfloat16" in neither.precision_reason


def test_without_our_kernels_openvino_is_taken_in_bfloat16(monkeypatch):
    no_torch = bundle(formats=("onnx", "openvino"), report=None)
    assert pair(no_torch) == ("openvino", "bfloat16")
    monkeypatch.setattr(judging, "missing_bfloat16", lambda: "the C++ compiler failed")
    ahead = {"native": 0.04, "openvino": 0.05}
    choice = choose(EngineRequest(), bundle(ahead))
    assert (choice.engine, choice.precision) == ("openvino", "bfloat16")
    assert choice.reason.endswith("(not native: the C++ compiler failed)")


def test_on_another_kind_of_machine_only_our_kernels_are_taken_in_bfloat16():
    elsewhere = bundle(made_on="Xeon (0), 2 cores")
    choice = choose(EngineRequest(), elsewhere)
    assert (choice.engine, choice.precision) == ("native", "bfloat16")
    assert choice.reason == "the fastest on a CPU"
    choice = choose(EngineRequest(engine="openvino"), elsewhere)
    assert str(choice) == (
        "engine openvino: as asked; in float32: openvino was compared in bfloat16 on another kind "
        "of machine"
    )


@pytest.mark.parametrize(
    ("lower", "openvino", "precision"),
    [
        (OPENVINO_AHEAD, GOOD, "bfloat16"),
        (OPENVINO_AHEAD, WRONG, "float32"),
        ({"native": 0.05, "openvino": 0.095}, GOOD, "float32"),
    ],
)
def test_openvino_that_is_named_is_in_bfloat16_by_its_own_report_and_times(
    lower, openvino, precision
):
    """How our kernels did says nothing of it."""
    choice = choose(
        EngineRequest(engine="openvino"), bundle(lower, openvino=openvino, report=WRONG)
    )
    assert (choice.engine, choice.precision) == ("openvino", precision)
    assert choice.reason == "as asked"
    assert "openvino" in choice.precision_reason


def test_native_that_is_named_is_in_bfloat16_where_that_was_faster_than_its_float32():
    assert pair(bundle(), engine="native") == ("native", "bfloat16")
    assert pair(bundle({"native": 0.085}), engine="native") == ("native", "float32")
    assert pair(bundle(), engine="onnxruntime") == ("onnxruntime", "float32")


def test_bfloat16_that_is_named_is_the_fastest_engine_in_it():
    choice = choose(EngineRequest(precision="bfloat16"), bundle(openvino=WRONG))
    assert str(choice) == (
        "engine openvino: by the bundle's measurement on such a machine: openvino in bfloat16 "
        "50 ms, native in bfloat16 59 ms for 4 images"
    )
    assert pair(bundle({"native": 0.051, "openvino": 0.05}), precision="bfloat16")[0] == "native"
    elsewhere = bundle(made_on="Xeon (0), 2 cores")
    assert pair(elsewhere, precision="bfloat16") == ("native", "bfloat16")


def test_float32_that_is_named_is_as_if_there_were_no_bfloat16():
    choice = choose(EngineRequest(precision="float32"), bundle())
    assert str(choice) == (
        "engine native: by the bundle's measurement on such a machine: native 80 ms, openvino "
        "90 ms, onnxruntime 100 ms for 4 images"
    )


def test_for_few_images_the_engine_is_the_one_that_is_ready_soonest():
    choice = choose(EngineRequest(num_images=3), bundle())
    assert (choice.engine, choice.precision) == ("native", "bfloat16")
    assert choice.reason == "ready soonest for 3 images"
    assert pair(bundle({"native": 0.085}), num_images=3) == ("native", "float32")
    only_graphs = bundle(formats=("onnx", "openvino"))
    assert pair(only_graphs, num_images=3) == ("onnxruntime", "float32")
    assert pair(bundle(formats=("openvino",)), num_images=3) == ("openvino", "bfloat16")
    assert pair(only_graphs, num_images=3, precision="bfloat16") == ("openvino", "bfloat16")


def test_few_images_in_float32_do_not_ask_what_machine_this_is(monkeypatch):
    monkeypatch.setattr(measured, "describe_kind", lambda: pytest.fail("asked"))
    assert pair(bundle({}), num_images=3) == ("native", "bfloat16")
    assert pair(bundle(), num_images=3, precision="float32") == ("native", "float32")


def test_an_older_bundle_with_times_in_float32_alone_is_as_it_was():
    for seconds in (FLOAT, {"native": 0.08, "openvino": 0.05}):
        assert pair(bundle({}, seconds=seconds)) == ("native", "bfloat16")
    assert pair(bundle({}), precision="bfloat16") == ("native", "bfloat16")
    assert pair(bundle({}, seconds={"native": 0.08, "openvino": 0.05}), precision="float32") == (
        "openvino",
        "float32",
    )


def test_engines_in_bfloat16_that_there_are_not_change_nothing():
    assert pair(bundle({"gone": 0.01})) == ("native", "bfloat16")
    assert pair(bundle({"onnxruntime": 0.01})) == ("native", "bfloat16")


@pytest.mark.parametrize("others", [None, [], {"openvino": None}, {"openvino": {}}], ids=str)
def test_what_is_no_report_on_openvino_counts_as_none(others):
    opened = bundle()
    parity = {**opened.manifest.parity, "bfloat16_others": others}
    manifest = dataclasses.replace(opened.manifest, parity=parity)
    choice = choose(
        EngineRequest(engine="openvino"), dataclasses.replace(opened, manifest=manifest)
    )
    assert str(choice) == "engine openvino: as asked"


@pytest.mark.parametrize("lower", [None, [], {"native": 0}, {"native": "fast"}], ids=str)
def test_times_in_bfloat16_that_are_none_make_no_measurement(lower):
    speeds = {"machine": HERE, "batch_size": 4, "seconds": FLOAT, "seconds_bfloat16": lower}
    assert Speeds.of({"speeds": speeds}) is None


def test_times_are_read_back_as_they_were_kept():
    for lower in ({}, OPENVINO_AHEAD):
        made = Speeds(HERE, 4, FLOAT, lower)
        assert Speeds.of({"speeds": made.to_dict()}) == made
    assert set(Speeds(HERE, 4, FLOAT).to_dict()) == {"machine", "batch_size", "seconds"}

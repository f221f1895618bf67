"""What `--precision auto` takes: bfloat16 only where it is quick, right and verified; and why."""

import dataclasses
from pathlib import Path

import pytest

from densepath.bundle.bfloat16 import BFloat16Report
from densepath.bundle.bundle import Bundle
from densepath.bundle.manifest import Manifest, Tensor
from densepath.engines import choose as choosing
from densepath.engines import machine, native
from densepath.engines import precision as judging
from densepath.engines.choose import choose
from densepath.engines.machine import missing_bfloat16
from densepath.engines.request import EngineRequest
from densepath.errors import EngineError, UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.kernels import compile as compiling

GOOD = {"num_images": 200, "top1": 1.0, "ties": 1, "top5": 0.99}
GOOD |= {"max_difference": 0.04, "relative": 0.003, "score": 0.01}


LABELS = ("cat", "dog", "fox", "hen", "owl", "yak")


def bundle(
    report=GOOD,
    precision="float32",
    formats=("onnx", "openvino", "torch"),
    labels=LABELS,
    multi_label=False,
):
    """A bundle in memory whose manifest has this report on bfloat16, or none."""
    graph = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.safetensors"}
    graph |= {"native": "model-int8.safetensors"}
    manifest = Manifest(
        model={"name": "densenet121", "family": "densenet", "num_parameters": 1},
        labels=list(labels),
        multi_label=multi_label,
        preprocess=Preprocess((32, 32)),
        input=Tensor("images", "float32", (None, 3, 32, 32), "NCHW"),
        output=Tensor("logits", "float32", (None, len(labels))),
        precision=precision,
        formats={name: {"model": graph[name]} for name in formats},
        files={},
        source={"subject": None, "sha256": None, "provenance": {}},
        tools={},
        parity={"formats": {}} if report is None else {"formats": {}, "bfloat16": report},
        created="2026-11-29T08:00:00Z",
    )
    return Bundle(Path("bundles/x"), manifest, "0" * 64)


@pytest.fixture(autouse=True)
def machine_of_ours(monkeypatch):
    """No GPU; our kernels are compiled."""
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    monkeypatch.setattr(compiling, "find_compiler", lambda: ["c++"])
    monkeypatch.setattr(compiling, "library_path", lambda compiler: Path(compiling.__file__))
    monkeypatch.setattr(machine, "failing_kernels", lambda: None)


def has_bfloat16(monkeypatch, missing=""):
    """Let the processor have its instructions, or lack them for this reason."""
    for module in (judging, choosing):
        monkeypatch.setattr(module, "missing_bfloat16", lambda: missing)
    monkeypatch.setattr(judging, "has_amx", lambda: False)


def auto(**options):
    return EngineRequest(**options)


@pytest.mark.parametrize("options", [{}, {"engine": "native"}, {"num_images": 3}], ids=str)
def test_a_good_report_and_the_instructions_take_bfloat16(monkeypatch, options):
    has_bfloat16(monkeypatch)
    choice = choose(auto(**options), bundle())
    assert (choice.engine, choice.precision) == ("native", "bfloat16")
    assert "in bfloat16: by the bundle's report on bfloat16 the best class is the same on " in str(
        choice
    )
    assert str(choice).endswith("all of 200 images (1 tie), the five best on all but 2")


def test_without_instructions_it_is_float32_and_the_reason_is_said(monkeypatch):
    has_bfloat16(monkeypatch, "this processor has no instructions for bfloat16")
    choice = choose(auto(), bundle())
    assert (choice.engine, choice.precision) == ("native", "float32")
    assert str(choice) == (
        "engine native: the fastest on a CPU; in float32: this processor has no instructions for "
        "bfloat16"
    )


def test_an_older_bundle_without_a_report_stays_in_float32(monkeypatch):
    has_bfloat16(monkeypatch)
    for older in (bundle(None), dataclasses.replace(bundle(), manifest=without_parity())):
        choice = choose(auto(), older)
        assert (choice.engine, choice.precision) == ("native", "float32")
        assert "has no report on bfloat16; exported anew it has one" in str(choice)


def without_parity():
    return dataclasses.replace(bundle().manifest, parity=None)


@pytest.mark.parametrize("of_amx", [True, False])
@pytest.mark.parametrize("here", [True, False])
def test_with_amx_a_report_from_without_it_does_not_hold(monkeypatch, here, of_amx):
    has_bfloat16(monkeypatch)
    monkeypatch.setattr(judging, "has_amx", lambda: here)
    choice = choose(auto(), bundle({**GOOD, "amx": True} if of_amx else GOOD))
    assert choice.precision == ("bfloat16" if of_amx or not here else "float32")
    assert ("from a processor without AMX" in str(choice)) == (here and not of_amx)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top1": 0.995}, "the same on all but 1 of 200 images (1 tie)"),
        ({"top5": 0.985}, "the five best on all but 3"),
        ({"num_images": 0}, "of 0 images"),
        ({"max_difference": None}, "the five best on all but 2"),
    ],
)
def test_a_report_that_is_not_good_enough_stays_in_float32(monkeypatch, change, said):
    has_bfloat16(monkeypatch)
    choice = choose(auto(), bundle({**GOOD, **change}))
    assert (choice.engine, choice.precision) == ("native", "float32")
    assert said in choice.precision_reason


@pytest.mark.parametrize("options", [{"labels": LABELS[:2]}, {"multi_label": True}], ids=str)
def test_of_few_classes_or_several_an_image_the_scores_decide(monkeypatch, options):
    has_bfloat16(monkeypatch)
    choice = choose(auto(), bundle(**options))
    assert "does not look at what decides for its classes; exported anew" in str(choice)
    by_score = {**GOOD, "by_score": True}
    choice = choose(auto(), bundle(by_score, **options))
    assert choice.precision == "bfloat16"
    assert str(choice).endswith("every score within 0.02 on all but 2")
    assert choose(auto(), bundle({**by_score, "top5": 0.9}, **options)).precision == "float32"
    assert choose(auto(), bundle(by_score)).precision == "float32"


def test_images_of_another_size_than_the_reports_stay_in_float32(monkeypatch):
    has_bfloat16(monkeypatch)
    assert choose(auto(size=(32, 32)), bundle()).precision == "bfloat16"
    choice = choose(auto(size=(32, 48)), bundle())
    assert (choice.engine, choice.precision) == ("native", "float32")
    assert choice.precision_reason.endswith("report on bfloat16 is of images of 32 × 32 pixels")


@pytest.mark.parametrize(
    "report",
    [
        {},
        [],
        {"top1": 1.0},
        {**GOOD, "top1": None},
        {**GOOD, "max_difference": "0.1"},
        {**GOOD, "more": 1},
        {**GOOD, "amx": 1},
    ],
    ids=str,
)
def test_what_is_no_report_counts_as_none(report):
    assert BFloat16Report.of({"bfloat16": report}) is None


def test_a_figure_that_is_not_finite_is_read_back_as_none():
    made = BFloat16Report(1, 1.0, 0, 1.0, float("inf"), float("inf"), float("nan"))
    again = BFloat16Report.of({"bfloat16": made.to_dict()})
    assert again == BFloat16Report(1, 1.0, 0, 1.0, None, None, None)
    assert "on all of 1 image, the five best on all" in "\n".join(again.to_markdown())


def test_float32_and_bfloat16_are_taken_when_they_are_named(monkeypatch):
    has_bfloat16(monkeypatch)
    choice = choose(auto(precision="float32"), bundle())
    assert (choice.precision, choice.precision_reason) == ("float32", "")
    choice = choose(auto(precision="bfloat16"), bundle(None))
    assert (choice.engine, choice.precision) == ("native", "bfloat16")
    assert choice.precision_reason == ""


def test_bfloat16_that_is_named_where_it_is_slow_is_taken_and_that_is_said(monkeypatch):
    has_bfloat16(monkeypatch, "this processor has no instructions for bfloat16")
    for subject in (bundle(), None):
        choice = choose(auto(precision="bfloat16"), subject)
        assert (choice.engine, choice.precision) == ("native", "bfloat16")
        assert str(choice).endswith(
            "in bfloat16: as asked; this processor has no instructions for bfloat16, so that it is "
            "slower than float32"
        )


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "eager"])
def test_another_engine_answers_in_float32_unless_bfloat16_is_named(monkeypatch, engine):
    has_bfloat16(monkeypatch)
    choice = choose(auto(engine=engine), bundle())
    assert str(choice) == f"engine {engine}: as asked"
    assert choice.precision == "float32"


def test_a_checkpoint_has_no_report_and_stays_in_float32(monkeypatch):
    has_bfloat16(monkeypatch)
    choice = choose(auto(), None)
    assert (choice.engine, choice.precision, choice.precision_reason) == ("native", "float32", "")


def test_without_our_kernels_there_is_no_bfloat16(monkeypatch):
    has_bfloat16(monkeypatch)
    monkeypatch.setattr(compiling, "find_compiler", lambda: None)
    choice = choose(auto(), bundle())
    assert (choice.engine, choice.precision) == ("openvino", "float32")
    choice = choose(auto(), bundle(formats=("onnx",)))
    assert (choice.engine, choice.precision) == ("onnxruntime", "float32")


def test_explanations_are_pytorchs_in_float32(monkeypatch):
    has_bfloat16(monkeypatch)
    choice = choose(auto(explains=True), bundle())
    assert (choice.engine, choice.precision) == ("eager", "float32")


def test_an_int8_bundle_stays_as_it_is_stored(monkeypatch):
    has_bfloat16(monkeypatch)
    int8 = bundle(precision="int8", formats=("native",))
    for precision in ("auto", "float32"):
        assert choose(auto(precision=precision), int8).precision == "int8"
    with pytest.raises(UsageError, match="quantised to int8, and cannot be run in bfloat16"):
        choose(auto(precision="bfloat16"), int8)


def test_float32_that_an_int8_bundle_lacks_is_said():
    int8 = bundle(precision="int8", formats=("native",))
    assert choose(auto(), int8).precision_reason == ""
    choice = choose(auto(precision="float32", engine="native"), int8)
    assert str(choice) == (
        "engine native: as asked; in int8: as the bundle is stored; the one that it was made of "
        "answers in float32"
    )


def test_of_int8_forms_ours_comes_first():
    int8 = bundle(precision="int8", formats=("native", "openvino"))
    assert choose(auto(), int8).engine == "native"


def test_bfloat16_that_nothing_here_multiplies_is_worth_compiling_our_kernels(monkeypatch):
    """Else OpenVINO would be taken, which refuses it when it is opened."""
    monkeypatch.setattr(compiling, "library_path", lambda compiler: Path("not compiled"))
    monkeypatch.setattr(machine, "lacks_bfloat16", lambda: True)
    for number in (3, 100, None):
        choice = choose(auto(precision="bfloat16", num_images=number), bundle())
        assert (choice.engine, choice.precision) == ("native", "bfloat16")
        assert "so that it is slower than float32" in str(choice)
    monkeypatch.setattr(compiling, "find_compiler", lambda: None)
    choice = choose(auto(precision="bfloat16"), None)
    assert choice.engine == "eager"
    assert "no instructions for bfloat16, so that it is slower than float32" in str(choice)


def test_kernels_that_do_not_compile_leave_many_images_to_another_engine(monkeypatch):
    failed = EngineError("the C++ compiler failed. Install another.")
    monkeypatch.setattr(machine, "failing_kernels", lambda: failed)
    choice = choose(auto(precision="float32"), bundle())  # compiled, but they cannot be opened
    assert choice.engine == "openvino"
    monkeypatch.setattr(machine, "lacks_bfloat16", lambda: True)
    assert choose(auto(precision="bfloat16"), None).engine == "eager"
    monkeypatch.setattr(compiling, "library_path", lambda compiler: Path("not compiled"))
    choice = choose(auto(precision="float32", num_images=1000), bundle())
    assert choice.engine == "openvino"
    assert "(not native: the C++ compiler failed)" in choice.reason


def test_another_precision_is_refused_with_the_choices():
    with pytest.raises(UnknownNameError, match="auto, bfloat16, float32"):
        choose(auto(precision="float8"), bundle())


# What this machine says of itself.


def test_the_system_says_first_whether_there_are_instructions(monkeypatch):
    monkeypatch.setattr(compiling, "describe_cpu", lambda: "flags: avx2 fma")
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(native, "has_bfloat16", lambda: pytest.fail("nothing is compiled for it"))
    assert missing_bfloat16() == "this processor has no instructions for bfloat16"


@pytest.mark.parametrize(
    ("has", "right", "said"),
    [
        (True, True, ""),
        (False, True, "this processor has no instructions for bfloat16"),
        (True, False, "this processor's bfloat16 does not give the product of the numbers"),
    ],
)
def test_the_kernels_say_whether_they_are_quick_and_right(monkeypatch, has, right, said):
    monkeypatch.setattr(compiling, "describe_cpu", lambda: "flags: avx512_bf16")
    monkeypatch.setattr(native, "has_bfloat16", lambda: has)
    monkeypatch.setattr(native, "bfloat16_is_right", lambda: right)
    assert missing_bfloat16() == said


def test_kernels_that_cannot_be_compiled_are_the_reason(monkeypatch):
    def fail():
        raise EngineError("the C++ compiler c++ failed on the kernels. Try another.")

    monkeypatch.setattr(compiling, "describe_cpu", lambda: "flags: avx512_bf16")
    monkeypatch.setattr(native, "has_bfloat16", fail)
    assert missing_bfloat16() == "the C++ compiler c++ failed on the kernels"

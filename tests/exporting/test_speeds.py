"""exporting/speeds.py: the engines that `auto` may take, in turns."""

from __future__ import annotations

import dataclasses
import json

import pytest

from densepath.bundle.bfloat16 import reports_in
from densepath.bundle.bundle import Bundle
from densepath.bundle.speeds import Speeds
from densepath.engines.choose import choose
from densepath.engines.machine import describe_kind, missing_bfloat16
from densepath.engines.opening import open_runtime
from densepath.engines.request import EngineRequest
from densepath.exporting import parity_bfloat16 as in_bfloat16
from densepath.exporting import speeds as measuring
from densepath.exporting.export import export


@pytest.fixture
def exported(tmp_path):
    def make(*formats):
        made = export("cifar10/densenet_bc_22_12", tmp_path / "b", to=formats)
        return Bundle.open(made.folder)

    return make


@pytest.fixture
def opened(monkeypatch):
    """The engines and precisions that an export opens for what `auto` goes by.

    OpenVINO, which has no bfloat16 on every processor, computes in float32 all the same.
    """
    pairs = []

    def spy(row, opening):
        pairs.append((row.name, opening.precision))
        if row.name == "openvino" and missing_bfloat16():
            opening = dataclasses.replace(opening, precision="float32")
        return open_runtime(row, opening)

    for module in (measuring, in_bfloat16):
        monkeypatch.setattr(module, "open_runtime", spy)
    return pairs


def test_without_bfloat16_only_our_kernels_are_compared_and_float32_is_measured(
    exported, opened, monkeypatch
):
    monkeypatch.setattr(in_bfloat16, "missing_bfloat16", lambda: "it has none")
    made = exported("openvino", "torch")
    assert opened == [("native", "bfloat16"), ("native", "float32"), ("openvino", "float32")]
    assert list(reports_in(made.manifest.parity)) == ["native"]
    speeds = made.manifest.parity["speeds"]
    assert sorted(speeds) == ["batch_size", "machine", "seconds"]
    assert sorted(speeds["seconds"]) == ["native", "openvino"]


def test_with_bfloat16_each_engine_is_compared_and_measured_in_it(exported, opened, monkeypatch):
    monkeypatch.setattr(in_bfloat16, "missing_bfloat16", lambda: "")
    made = exported("onnx", "openvino", "torch")
    pairs = [("native", "float32"), ("native", "bfloat16"), ("openvino", "float32")]
    pairs += [("openvino", "bfloat16"), ("onnxruntime", "float32")]
    assert opened == [("native", "bfloat16"), ("openvino", "bfloat16"), *pairs]
    reports = reports_in(made.manifest.parity)
    assert list(reports) == ["native", "openvino"]
    for engine, report in reports.items():
        assert report.num_images == made.manifest.parity["num_images"]
        rounds = engine == "native" or not missing_bfloat16()
        assert (1e-5 if rounds else 0) < report.relative < 0.05
    speeds = Speeds.of(made.manifest.parity)
    assert sorted(speeds.seconds) == ["native", "onnxruntime", "openvino"]
    assert sorted(speeds.seconds_bfloat16) == ["native", "openvino"]
    report = json.loads((made.folder / "parity.json").read_text())
    assert report["speeds"] == speeds.to_dict()
    page = (made.folder / "parity.md").read_text()
    assert f"Measured in turns, in float32 and bfloat16: {speeds}." in page
    assert f"In bfloat16, on openvino: {reports['openvino']}" in page
    choice = choose(EngineRequest(engine="openvino"), made)
    faster = speeds.seconds_bfloat16["openvino"] < speeds.seconds["openvino"]
    assert (choice.precision == "bfloat16") == (faster and reports["openvino"].is_enough)


def test_an_export_measures_the_engines_and_the_bundle_keeps_it(exported, monkeypatch):
    monkeypatch.setattr(in_bfloat16, "missing_bfloat16", lambda: "it has none")
    made = exported("onnx", "openvino")
    speeds = Speeds.of(made.manifest.parity)
    assert speeds is not None
    assert speeds.machine == describe_kind()
    assert sorted(speeds.seconds) == ["onnxruntime", "openvino"]
    report = json.loads((made.folder / "parity.json").read_text())
    assert report["speeds"] == speeds.to_dict()
    assert f"Measured in turns, in float32: {speeds}." in (made.folder / "parity.md").read_text()


def test_where_there_is_no_choice_nothing_is_measured(exported, monkeypatch):
    monkeypatch.setattr(measuring, "_time_runs", lambda engine, batch: pytest.fail("measured"))
    made = exported("onnx")
    assert Speeds.of(made.manifest.parity) is None
    assert "Measured in turns" not in (made.folder / "parity.md").read_text()


def test_engines_take_turns_and_the_first_run_of_a_turn_is_not_counted(monkeypatch):
    class Slow:
        """The clock goes on by 10 at a first run and by 1 at others."""

        runs = 0

        def run_tensor_share(self, batch):
            clock[0] += 10 if self.runs % (1 + measuring.RUNS) == 0 else 1
            self.runs += 1

    clock = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock[0])
    engine = Slow()
    taken = [list(measuring._time_runs(engine, None)) for _ in range(2)]
    assert taken == [[1.0] * measuring.RUNS] * 2

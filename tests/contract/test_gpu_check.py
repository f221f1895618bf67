"""`benchmarks/gpu_check.py` runs from end to end on a CPU, with PyTorch and NumPy alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_check.py"
SMALLEST = ("--device", "cpu", "--models", "densenet_bc_22_12")
# Those of densepath's dependencies that PyTorch does not bring.
NOT_BROUGHT = (
    "PIL",
    "huggingface_hub",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "packaging",
    "pydantic",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "timm",
    "torchmetrics",
    "typer",
    "yaml",
)
# Runs the script as on a machine that has none of these.
BARE = """
import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))
sys.argv.pop(0)
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_bare(*words, timeout=300):
    command = [sys.executable, "-c", BARE, ",".join(NOT_BROUGHT), SCRIPT, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
    )


def values_in(path):
    """The page, and the values at its end."""
    page = path.read_text(encoding="utf-8")
    return page, json.loads(re.search(r"```json\n(.*)\n```", page, re.DOTALL)[1])


@pytest.fixture
def check(monkeypatch):
    """A module of the check by its name."""
    folders = [str(SCRIPT.parent), str(SCRIPT.parent / "peers")]
    monkeypatch.setattr(sys, "path", [*folders, *sys.path])
    return import_module


def test_with_pytorch_alone_it_trains_resumes_and_writes_what_it_found(tmp_path):
    out = tmp_path / "found.md"
    run = run_bare(*SMALLEST, "--parts", "losses,resume", "--out", out)
    assert run.returncode == 0, run.stdout + run.stderr
    page, values = values_in(out)
    losses, resumed = values["parts"].values()
    assert losses["plain"]["state"] == "ok"
    assert losses["plain"]["losses"] == losses["on the CPU"]["losses"]
    assert losses["bfloat16"]["losses"] != losses["plain"]["losses"]
    assert resumed["plain"]["same_bits"]
    assert " 0 failed, " in page
    assert re.findall(r"- skipped: .*", page) == []


@pytest.mark.slow
def test_all_that_needs_no_compiler_runs_on_a_cpu(tmp_path):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "found.md"
    parts = "losses,resume,engines,training,inference,bundle"
    run = subprocess.run(
        [sys.executable, SCRIPT, *SMALLEST, "--parts", parts, "--out", out],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    _, values = values_in(out)
    found = {name.partition(",")[0]: part for name, part in values["parts"].items()}
    assert list(found) == parts.split(",")
    assert found["bundle"]["onnxruntime"]["state"] == "ok"
    assert found["engines"]["evaluate"]["images"] == 16
    top1, of_the_cpu = found["engines"]["evaluate"]["figures"]["top1"]
    assert top1 == of_the_cpu == 0.5
    assert found["training"]["plain"]["batch"] == 4
    assert found["inference"]["rewritten, float32"]["images_per_second"] > 0


def test_without_a_gpu_it_ends_with_a_plain_sentence():
    run = run_bare("--device", "cuda")
    assert run.returncode == 1
    assert re.fullmatch(
        r"PyTorch \S+ sees no GPU here: .*\. Run this check on a .*\.\n", run.stderr
    )


def say_and_end(say):
    say("first", {"state": "ok"})
    os._exit(3)


def say_and_hang(say):
    say("first", {"state": "ok"})
    time.sleep(60)


def say_and_raise(say):
    say("first", {"state": "ok"})
    raise ValueError("not that")


@pytest.mark.parametrize(
    ("work", "seconds", "name", "last"),
    [
        (say_and_end, 60, "the rest", {"state": "failed", "why": "ended with 3"}),
        (say_and_hang, 1, "the rest", {"state": "skipped", "why": "not done after 1 s"}),
        (say_and_raise, 60, "all", {"state": "failed", "why": "ValueError: not that"}),
    ],
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the work is handed to a forked process")
def test_a_part_that_ends_hangs_or_fails_leaves_what_it_had_found(check, work, seconds, name, last):
    found = {}
    check("gpu_check").run_apart(work, (), seconds, found)
    assert found == {"first": {"state": "ok"}, name: last}


def test_when_the_time_is_over_what_is_left_is_said(check, tmp_path):
    gpu_check = check("gpu_check")
    options = gpu_check.parse(["--seconds", "0", "--out", str(tmp_path / "found.md")])
    place = {
        "date": "x", "kind": "cuda", "device": {"name": "x"}, "processor": "x", "cores": 1,
        "python": "3", "torch": "2", "packages": {}, "command": "x",
        "commit": "x",
    }  # fmt: skip
    run = gpu_check.Run(options, place)
    run.do(gpu_check.PARTS[0], "dpn68", None)
    page, values = values_in(tmp_path / "found.md")
    assert values["parts"] == {
        "losses, dpn68": {"all": {"state": "skipped", "why": "0 s were left of 0"}}
    }
    assert "- skipped: losses, dpn68, all: 0 s were left of 0" in page
    assert (run.count("skipped"), run.count("failed")) == (1, 0)


def test_a_batch_is_halved_while_memory_is_short(check):
    tried = []

    def measure(batch):
        tried.append(batch)
        if batch > 64:
            raise torch.OutOfMemoryError
        return {"batch": batch}

    parts = check("gpu_check_parts")
    assert parts.halving(measure, 256) == {"batch": 64}
    assert tried == [256, 128, 64]
    with pytest.raises(torch.OutOfMemoryError):
        parts.halving(lambda batch: measure(100), 2)


def test_a_difference_beyond_its_bound_fails(check):
    parts = check("gpu_check_parts")
    assert parts.relative([1.1, 2.0], [1.0, 4.0]) == pytest.approx([0.1, 0.5])
    assert parts.judge([0.1, 0.5], [0.2, 0.5])["state"] == "ok"
    assert parts.judge([0.1, 0.5], [0.2, 0.4])["state"] == "failed"
    assert parts.judge([float("nan")], [1.0])["state"] == "failed"


def test_speed_and_memory_are_told_over_timm(check):
    def one(speed, memory):
        return {"state": "ok", "batch": 256, "images_per_second": speed, "memory_mb": memory}

    found = {"training, dpn68": {"plain": one(300.0, 500.0), "timm": one(200.0, 2000.0)}}
    lines = check("gpu_check_report")._timed(found)
    assert "| training, dpn68, plain | 256 | 300.0 | 1.50 | 500 | 0.25 |  |" in "\n".join(lines)

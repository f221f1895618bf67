"""Ctrl-C while `densepath train` loads, steps or evaluates: answered at once, nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from safetensors import safe_open

from densepath.training.signals import REPEAT_SECONDS

# The command, which says where it is and waits there for its signals.
WAITING = """
import sys, time

place = sys.argv.pop(1)

def wait():
    print("here", flush=True)
    time.sleep(0.5 if place == "evaluation" else 120)

from densepath.training import loop, train

if place == "loading":
    train.assemble = lambda *_, **__: wait()
if place == "step":
    loop.take_step = lambda *_: wait()
if place == "evaluation":
    from densepath.data.loader import EvalLoader
    batches = EvalLoader.__iter__
    def slow(loader):
        for batch in batches(loader):
            wait()
            yield batch
    EvalLoader.__iter__ = slow

from densepath.cli.app import main
main()
"""
SMALL = [
    "train",
    "densenet_bc_22_12",
    "--data",
    "digits",
    "--batch-size",
    "64",
    "--device",
    "cpu",
    "--set",
    "data.channels=1",
    "--set",
    "preprocess.size=8",
    "--epochs",
    "1",
    "--set",
    "augment.padding=1",
    "--progress",
    "none",
]


@contextmanager
def waiting(place, *arguments):
    """The command once it is at `place`."""
    command = [sys.executable, "-c", WAITING, place, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "here\n", process.stderr.read()
        yield process


def read_until(stream, part):
    """The line of `stream` with `part` in it."""
    for line in stream:
        if part in line:
            return line
    raise AssertionError(f"{part!r} was not said")


def test_one_signal_while_it_loads_ends_it_and_leaves_nothing(tmp_path):
    with waiting("loading", *SMALL, "--output", tmp_path / "run") as process:
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, "SIGINT: stopping now")
        assert process.wait(60) == 130
        assert "Traceback" not in process.stderr.read()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_a_step_with_workers_at_once(number, code, tmp_path):
    run = tmp_path / "run"
    with waiting("step", *SMALL, "--workers", 2, "--output", run) as process:
        process.send_signal(number)
        said = read_until(process.stderr, "stopping after this step; again to stop now")
        assert said.startswith(signal.Signals(number).name)
        time.sleep(2 * REPEAT_SECONDS)
        process.send_signal(number)
        read_until(process.stderr, "stopping now; what was written before is kept")
        assert process.wait(60) == code
        rest = process.stderr.read()
    assert f"Go on with: densepath train {run}" in rest
    assert "Traceback" not in rest


def test_a_signal_while_it_evaluates_keeps_the_state_and_the_evaluation_is_done_later(
    run, tmp_path
):
    folder = tmp_path / "run"
    with waiting("evaluation", *SMALL, "--output", folder) as process:
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, "SIGINT: stopping after this batch; again to stop now")
        assert process.wait(120) == 130
        assert "stopped by SIGINT, state written" in process.stderr.read()
    assert not (folder / "metrics.csv").exists()
    with safe_open(str(folder / "state" / "state.safetensors"), framework="pt") as file:
        position = json.loads(file.metadata()["densepath_state"])["position"]
    assert (position["epoch"], position["rows"]) == (0, [])
    assert run("train", folder, "--progress", "none")[0] == 0
    straight = [sys.executable, "-m", "densepath", *SMALL, "--output", str(tmp_path / "straight")]
    subprocess.run(straight, check=True, capture_output=True)
    ends = [(one / "last.safetensors").read_bytes() for one in (folder, tmp_path / "straight")]
    assert ends[0] == ends[1]

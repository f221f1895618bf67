"""A training that was killed ends, after resuming, as one that was never killed: bit for bit."""

from __future__ import annotations

import csv
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# 12 steps an epoch, two of them of 121 images and ten of 120; dropout, drop-path, mixup and the
# average all draw or keep something that a careless resume would lose.
TRAINING = """
import os, signal, sys
from densepath import train
from densepath.training import loop, state
from densepath.weights import checkpoint

folder, die_at, die_in, block = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
step, replace = loop.take_step, os.replace

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def step_and_die(training, batch, share):
    step(training, batch, share)
    here = training.position
    if die_in == "step" and here.epoch * 12 + here.step + 1 == die_at:
        die()

def write_and_die(path, position, *rest):
    saved = checkpoint.write_atomically
    def kill_before_rename(target):
        context = saved(target)
        class Dying:
            def __enter__(self): return context.__enter__()
            def __exit__(self, *error): die()
        return Dying()
    if die_in == "write" and position.epoch * 12 + position.step >= die_at:
        checkpoint.write_atomically = kill_before_rename
    write(path, position, *rest)

write = state.write_state
loop.take_step = step_and_die
from densepath.training import run_folder
run_folder.write_state = write_and_die
train(
    "densenet_bc_22_12", data="digits", epochs=3, output=folder, resume=True, device="cpu",
    progress="none",
    settings={
        "data.channels": 1, "data.batch_size": 128, "preprocess.size": 8, "augment.padding": 1,
        "augment.mixup": 0.2, "model.drop_rate": 0.1, "model.drop_path_rate": 0.1,
        "ema.decay": 0.9, "checkpoint.every_steps": 4, "compute.channels_last": True,
        "data.evaluate_on": "test", "compute.block": block,
    },
)
"""
STEPS = 36
TIMEOUT_SECONDS = 300


def train_until(folder: Path, die_at: int = 0, die_in: str = "never", block: str = "plain") -> int:
    """The exit status of a training in `folder` that kills itself at step `die_at`."""
    command = [sys.executable, "-c", TRAINING, str(folder), str(die_at), die_in, block]
    return subprocess.run(command, check=False, timeout=TIMEOUT_SECONDS).returncode


def metrics(folder: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "straight"
    assert train_until(folder) == 0
    return folder


def assert_same(folder: Path, reference: Path) -> None:
    for name in ("last.safetensors", "best.safetensors"):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    assert metrics(folder) == metrics(reference)


def test_killed_at_five_random_steps_it_ends_with_the_same_bits(never_killed, tmp_path):
    kills = sorted(random.SystemRandom().sample(range(1, STEPS + 1), 5))
    for step in kills:
        assert train_until(tmp_path / "run", step, "step") == -signal.SIGKILL, kills
    assert train_until(tmp_path / "run") == 0, kills
    assert_same(tmp_path / "run", never_killed)


def test_killed_while_it_writes_its_state_it_ends_with_the_same_bits(never_killed, tmp_path):
    for step in (4, 24):  # Within an epoch, and at the end of one.
        assert train_until(tmp_path / "run", step, "write") == -signal.SIGKILL
    assert train_until(tmp_path / "run") == 0
    assert_same(tmp_path / "run", never_killed)


def test_killed_with_fused_blocks_it_ends_with_the_same_bits(tmp_path):
    assert train_until(tmp_path / "straight", block="fused") == 0
    for step in (6, 29):
        assert train_until(tmp_path / "run", step, "step", "fused") == -signal.SIGKILL
    assert train_until(tmp_path / "run", block="fused") == 0
    assert_same(tmp_path / "run", tmp_path / "straight")

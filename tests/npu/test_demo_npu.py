"""`make demo-npu` walks from a Paddle model to a profile, and says what a machine lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo_npu.py"


def walk(*words, **environment):
    return subprocess.run(
        [sys.executable, DEMO, *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=900,
    )


@pytest.mark.slow
@pytest.mark.npu
def test_the_walk_ends_with_a_picture_and_the_bytes_that_went_in(tmp_path):
    output = tmp_path / "walk"
    run = walk("--output", output, "--images", 8)
    assert run.returncode == 0, run.stderr
    steps = [line.split()[2] for line in run.stdout.splitlines() if line.startswith("$ densepath")]
    assert steps == ["quantize", "npu", "npu", "npu", "npu"]
    assert (output / "model_input.bin").stat().st_size == 64 * 64 * 3
    assert (output / "profile.png").stat().st_size > 10_000
    assert (output / "int8" / "sensitivity.png").is_file()
    assert "all 24 layers have the bytes of LiteRT's reference kernels" in run.stderr


def test_a_machine_without_the_tools_is_told_how_to_get_them(tmp_path):
    """A module that hides the compiler stands for such a machine."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'ethosu' else found(name, *rest)\n"
    )
    run = walk("--output", tmp_path / "walk", PYTHONPATH=str(tmp_path))
    assert run.returncode == 1
    assert "ethosu" in run.stderr
    assert "`make install-npu` brings them" in run.stderr
    assert not (tmp_path / "walk").exists()


@pytest.mark.npu
def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("a file of the user's")
    run = walk("--output", tmp_path)
    assert run.returncode == 1
    assert "is there already; name a new folder" in run.stderr
    assert (tmp_path / "mine").is_file()

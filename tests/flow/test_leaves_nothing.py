"""What a day's work leaves behind, and whom it calls: the outputs that were named, and nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).with_name("densepath")
# A Python in which the system knows no user, as in a container with a number for a user.
NO_USER = """
import pwd
def unknown(*_): raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = unknown
"""
DAY = (
    "train densenet_bc_22_12 --data digits --epochs 1 --output run --progress none",
    "evaluate run --data digits --output report",
    "export run -o bundle --num-images 3",
    "predict bundle report/confusion.png --engine openvino",
    "predict bundle report/confusion.png --engine onnxruntime",
    "predict run report/confusion.png --explain explained",
    "quantize run --data digits --images 8 --held-out 4 --method minmax --to openvino,onnx -o int8",
    "ladder run int8 --data digits --images 8 -o ladder",
)
OUTPUTS = {"run", "report", "bundle", "explained", "int8", "ladder"}


def work(folder: Path, settings: dict[str, str], commands: tuple[str, ...]) -> list[str]:
    """Run the commands in `folder`; what they said on standard error."""
    said = []
    for command in commands:
        run = subprocess.run(
            [PROGRAM, *command.split()], cwd=folder, env=settings, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        said.append(run.stderr)
    return said


def test_nothing_is_written_but_what_was_named_and_the_cache_and_nobody_is_called(new_user):
    pytest.importorskip("nncf")
    pytest.importorskip("onnxruntime")
    work(new_user.work, new_user.settings, DAY)
    assert {path.name for path in new_user.work.iterdir()} == OUTPUTS
    assert new_user.strays() == []
    assert new_user.calls() == []


@pytest.mark.parametrize("kind", ["no user", "a device"])
def test_a_day_without_a_home_goes_well(tmp_path, kind):
    for name in ("python", "scratch", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(NO_USER)
    settings = {**os.environ, "TMPDIR": str(tmp_path / "scratch")}
    settings.pop("DENSEPATH_CACHE", None)
    if kind == "no user":
        settings |= {"PYTHONPATH": str(tmp_path / "python")}
        for name in ("HOME", "USER", "LOGNAME"):
            settings.pop(name, None)
    else:
        settings |= {"HOME": "/dev/null"}
    said = work(
        tmp_path / "work",
        settings,
        (*DAY[:2], "predict run report/confusion.png --engine native"),
    )
    for text in said:
        assert "Matplotlib" not in text
        assert "Traceback" not in text
    assert said[2].count("no home folder can be written") == 1

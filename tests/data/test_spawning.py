"""Worker processes that are started anew, by a file with and without a guard."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

import pytest

from densepath.data.spawning import check_main_file
from densepath.errors import UsageError

TRAINING = """
import multiprocessing, sys
import numpy as np
from densepath.data.augment import Augment
from densepath.data.digits import DigitsDataset
from densepath.data.loader import EvalLoader
from densepath.errors import DensepathError
from densepath.images.preprocess import Preprocess
{method}

def work():
    preprocess = Preprocess((8, 8), mean=(0.5,), std=(0.5,))
    digits = DigitsDataset("validation", channels=1)
    try:
        print(len(list(EvalLoader(digits, preprocess, batch_size=64, workers=2))), "batches")
    except DensepathError as error:
        print(type(error).__name__, error)

{call}
"""
METHOD = "multiprocessing.set_start_method({!r}, force=True)"


def run(tmp_path, method: str, call: str) -> list[str]:
    file = tmp_path / "mine.py"
    file.write_text(TRAINING.format(method=METHOD.format(method), call=call), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, file], capture_output=True, text=True, timeout=240, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("call", ["work()", "for _ in range(1):\n    work()"])
def test_a_file_without_a_guard_is_told_of_the_guard_and_not_of_memory(tmp_path, method, call):
    """Python would wait for ever for a worker that ends before it has read what it is to do."""
    (line,) = run(tmp_path, method, call)
    assert line.startswith("UsageError ")
    assert "mine.py, line " in line
    assert "if __name__ == '__main__':" in line
    assert "memory" not in line


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("spawn", "if __name__ == '__main__':\n    work()"),
        ("spawn", "if __name__ != '__mp_main__':\n    work()"),
        ("forkserver", "if __name__ == '__main__':\n    work()"),
        ("fork", "work()"),
    ],
)
def test_a_file_with_a_guard_or_with_forked_workers_works(tmp_path, method, call):
    (line,) = run(tmp_path, method, call)
    assert line.endswith(" batches")


def test_a_worker_that_begins_its_parents_work_anew_is_told_so_at_once(monkeypatch):
    """Whatever file that work is in, and before anything is looked up in it."""
    check_main_file()
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(UsageError, match="a worker process began its parent's work anew"):
        check_main_file()

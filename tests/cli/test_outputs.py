"""The options that name outputs: pipes, `-`, links, refusals, interruptions."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from fixtures.commands import PROGRAM
from fixtures.networks import checkpoint_of, new_network
from fixtures.pictures import write_classes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX paths and signals")
PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small network, not trained, for images of 32 × 32."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoint_of(new_network(num_classes=2), labels=["ant", "bee"]).save(path)
    return path


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty working folder, with classes of images beside it."""
    write_classes(tmp_path / "photos", ("ant", "bee"), shape=(40, 50, 3))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def densepath(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, timeout=300)


def paths(text: bytes) -> list[str]:
    return [json.loads(line)["path"] for line in text.splitlines()]


def test_predict_writes_pipes_links_and_standard_output(run, checkpoint, work):
    predict = ["predict", checkpoint, "../photos/ant", "--json", "--engine", "eager"]
    os.mkfifo("pipe")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(Path("pipe").read_bytes()), daemon=True)
    reader.start()
    assert run(*predict, "--output", "pipe")[0] == 0
    reader.join(20)
    assert len(paths(found[0])) == 3
    assert Path("pipe").is_fifo()

    Path("there").mkdir()
    Path("link.json").symlink_to("there/answers.json")
    assert run(*predict, "--output", "link.json")[0] == 0
    assert len(paths(Path("there/answers.json").read_bytes())) == 3
    assert Path("link.json").is_symlink()

    for name in ("-", "/dev/stdout", "/proc/self/fd/1"):
        done = densepath(*predict, "--output", name)
        assert len(paths(done.stdout)) == 3
        assert b"3 answered" in done.stderr
    assert run(*predict, "--output", "./-")[:2] == (0, "")
    assert len(paths(Path("-").read_bytes())) == 3
    assert sorted(os.listdir()) == ["-", "link.json", "pipe", "there"]  # noqa: PTH208


def test_samples_are_drawn_to_standard_output_with_the_counts_beside_them(work):
    run = densepath("data", "inspect", "../photos", "--output", "-")
    assert run.returncode == 0
    assert run.stdout.startswith(PNG)
    assert Image.open(io.BytesIO(run.stdout)).size[0] > 100
    assert b"2 classes" in run.stderr
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("data inspect ../photos --output - --json", "--output and --json both go to standard"),
        ("import x.pth --model densenet121 -o - --json", "--output and --json both go to"),
        ("import x.pth --model densenet121 -o gone", "there is no folder"),
        ("import x.pth --model densenet121 -o notes.bin", "must end in .safetensors"),
        ("predict {} ../photos --output folder", "Is a directory; name a file"),
        ("predict {} ../photos --explain -", "cannot write standard output: it is no folder"),
        ("predict {} ../photos --explain pipe", "cannot write pipe: it is a pipe; name a folder"),
        ("evaluate {} --data ../photos --output file", "it is a file; name a folder"),
        ("evaluate {} --data ../photos --output -", "it is no folder; name one"),
        ("evaluate {} --data ../photos --output pipe/below", "Not a directory"),
        ("ladder {} --data ../photos -o file", "it is a file; name a folder"),
        ("export {} -o pipe", "it is a pipe; name a folder"),
        ("export {} -o -", "cannot write standard output"),
        ("export {} -o b --keep-failed file", "cannot write file: it is a file"),
        ("convert x.pth --model densenet121 -o loop", "Too many levels of symbolic links"),
        ("quantize {} --data ../photos -o file", "it is a file; name a folder"),
        ("train densenet_bc_22_12 --data ../photos --output pipe", "it is a pipe"),
        ("train densenet_bc_22_12 --data ../photos --output -", "cannot write standard output"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(
    run, work, checkpoint, arguments, reason
):
    Path("folder").mkdir()
    Path("file").write_text("dear to me")
    Path("loop").symlink_to("loop")
    Path("gone").symlink_to("not/mounted.safetensors")
    os.mkfifo("pipe")
    Path("x.pth").write_bytes(b"not read")
    before = sorted(work.iterdir())
    code, out, err = run(*arguments.format(checkpoint).split())
    assert code in (1, 2)
    assert reason in err
    assert "Traceback" not in err
    assert out == ""
    assert sorted(work.iterdir()) == before
    assert Path("file").read_text() == "dear to me"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_verb_that_is_ended_removes_what_it_has_begun(work, checkpoint, number):
    command = [PROGRAM, "predict", checkpoint, "-", "--output", "late.json", "--engine", "eager"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"../photos/ant/0.png\n")
        process.stdin.flush()
        until = time.monotonic() + 60
        while not list(work.iterdir()) and time.monotonic() < until:
            time.sleep(0.05)
        assert list(work.iterdir())
        process.send_signal(number)
        err = process.stderr.read()
        assert process.wait(60) == 128 + number
    assert b"Traceback" not in err
    assert list(work.iterdir()) == []


def test_a_signal_that_the_caller_has_switched_off_stays_so(work):
    code = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from densepath.cli.ending import tidy_when_ended
with tidy_when_ended():
    os.kill(os.getpid(), signal.SIGHUP)
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    print(os.WTERMSIG(os.wait()[1]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{signal.SIGTERM:d}\n", "")


@pytest.mark.parametrize("module", ["typer", "densepath.cli.app", "densepath.caches"])
def test_ctrl_c_while_the_program_is_imported_is_no_traceback(work, module):
    code = f"""
import runpy, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
runpy.run_module("densepath", run_name="__main__")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (130, "interrupted\n")

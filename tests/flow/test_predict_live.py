"""Images that come in their own time: each has its answer before the next one must come."""

from __future__ import annotations

import csv
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densepath.engines.null import NullEngine
from densepath.images.preprocess import Preprocess
from densepath.images.reading import ReadImage
from densepath.predict.live import live_flow
from densepath.predict.predictor import Predictor

MODEL = "cifar10/densenet_bc_22_12"
DENSEPATH = Path(sys.executable).with_name("densepath")
# Far more than an answer takes; what hangs today hangs for ever.
PATIENCE_SECONDS = 60
LABELS = ["dark", "middle", "light"]
PLAIN = Preprocess((8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


def shade(value):
    return np.full((8, 8, 3), value, np.uint8)


def predictor(batch_size=4, streams=2):
    return Predictor(NullEngine(PLAIN, 3, batch_size=batch_size, streams=streams), LABELS)


@pytest.fixture
def photos(tmp_path):
    """Three images, the second in a folder of two whose other one is broken."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    (tmp_path / "folder").mkdir()
    names = [tmp_path / "a.png", tmp_path / "folder", tmp_path / "c.jpg"]
    for path in (names[0], names[1] / "b.png", names[2]):
        Image.fromarray(noise).save(path)
    (names[1] / "x.png").write_bytes(b"broken")
    return names


class Program:
    """A program whose output is read as it comes; the test ends when a line does not."""

    def __init__(self, *command, stdin=subprocess.PIPE):
        self.process = subprocess.Popen(
            list(map(os.fspath, command)), stdin=stdin, stdout=subprocess.PIPE, bufsize=0
        )

    def say(self, name):
        self.process.stdin.write(os.fsencode(name) + b"\n")

    def line(self):
        read = b""
        while not read.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], PATIENCE_SECONDS)[0]:
                self.process.kill()
                pytest.fail(f"no answer; only {read!r}")
            piece = self.process.stdout.read(1)
            if not piece:
                break
            read += piece
        return read.decode()

    def end(self):
        """The exit code, once no more names come."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        return self.wait()

    def wait(self):
        code = self.process.wait(PATIENCE_SECONDS)
        self.process.stdout.close()
        return code


@pytest.mark.parametrize("options", [["--engine", "native"], ["--engine", "onnxruntime"], []])
def test_a_producer_that_waits_for_each_answer_gets_it(photos, options, tmp_path):
    if options[1:] == ["onnxruntime"]:
        pytest.importorskip("onnxscript")
        bundle = tmp_path / "bundle"
        export = [DENSEPATH, "export", MODEL, "-o", bundle, "--to", "onnx", "--num-images", "2"]
        subprocess.run(export, check=True, capture_output=True)
    else:
        bundle = MODEL
    program = Program(DENSEPATH, "predict", bundle, "-", "--json", *options)
    for name in photos * 3:
        program.say(name)
        program.say("")
        answer = json.loads(program.line())
        if name.is_dir():
            assert answer["path"] == str(name / "b.png")
            broken = json.loads(program.line())
            assert (broken["path"], "error" in broken) == (str(name / "x.png"), True)
        else:
            assert answer["path"] == str(name)
    assert program.end() == 0


@pytest.mark.parametrize("format", ["csv", "table"])
def test_each_answer_leaves_whole_in_every_format(photos, format):
    program = Program(DENSEPATH, "predict", MODEL, "-", "--format", format, "--top-k", "2")
    for name in (photos[0], photos[2], "no such file"):
        program.say(name)
        if name is photos[0]:
            assert program.line()  # the titles
        line = program.line()
        assert str(name) in line
        if format == "csv":
            assert len(next(csv.reader([line]))) == 8
        elif name != "no such file":
            assert str(name) not in program.line()
    assert program.end() == 0


def test_names_through_a_named_pipe_and_pictures_of_them_come_one_by_one(photos, tmp_path):
    pipe, drawn = tmp_path / "names", tmp_path / "drawn"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    with pipe.open("w") as names:
        program = Program(
            DENSEPATH, "predict", MODEL, "-", "--json", "--explain", drawn, stdin=reading
        )
        for count, name in enumerate((photos[2], photos[0]), 1):
            print(name, file=names, flush=True)
            assert json.loads(program.line())["path"] == str(name)
            assert len(list(drawn.iterdir())) == count
    os.close(reading)
    assert program.end() == 0


@pytest.mark.parametrize("how", ["interrupt", "stop at a failure", "reader gone"])
def test_a_program_that_ends_before_its_input_does_not_wait_for_it(photos, how):
    options = ["--on-error", "fail"] if how == "stop at a failure" else []
    program = Program(DENSEPATH, "predict", MODEL, "-", "--json", *options)
    program.say(photos[0])
    assert program.line()
    if how == "interrupt":
        program.process.send_signal(signal.SIGINT)
    elif how == "reader gone":
        program.process.stdout.close()
        program.say(photos[2])
    else:
        program.say("no such file")
    assert program.wait() == (130 if how == "interrupt" else 1)
    program.process.stdin.close()


def test_a_source_in_python_that_waits_for_its_own_answer_gets_it():
    answered = queue.Queue()

    def source():
        for value in (0, 255, 0, 0, 255):
            yield shade(value)
            assert answered.get(timeout=PATIENCE_SECONDS) == value

    values = {"dark": 0, "light": 255}
    count = 0
    for answer in predictor(64).predict(source(), top_k=1, live=True):
        answered.put(values[answer.labels[0]])
        count += 1
    assert count == 5


def test_many_images_that_are_there_are_answered_in_the_batches_of_a_list():
    sizes = {}
    for live in (False, True):
        engine = NullEngine(PLAIN, 3, batch_size=8, streams=2)
        sizes[live], run = [], engine.run
        engine.run_share = lambda images, live=live, run=run: (
            sizes[live].append(len(images)) or run(images)
        )
        images = [shade(i % 256) for i in range(60)]
        answers = list(Predictor(engine, LABELS).predict(images, live=live))
        assert [answer.path for answer in answers] == [f"image {i}" for i in range(60)]
    assert sorted(sizes[False]) == [1, 1, 2, 2, 4, 4, 7, 7, 8, 8, 8, 8]
    assert sum(sizes[True]) == 60
    assert max(sizes[True]) == 8


def test_batches_grow_while_every_stream_is_busy():
    going, sizes = threading.Event(), []

    def answer(read):
        sizes.append(len(read))
        assert going.wait(PATIENCE_SECONDS)
        return [image.name for image in read]

    def source():
        yield "first"
        while not sizes:  # until the one stream is busy
            going.wait(0.001)
        yield from map(str, range(11))
        going.set()

    names = list(
        live_flow(
            source(),
            read=lambda name: ReadImage(name, shade(0)),
            answer=answer,
            batch_size=8,
            streams=1,
        )
    )
    assert names == ["first", *map(str, range(11))]
    assert sizes[0] == 1
    assert max(sizes) > 1


def test_a_live_source_that_fails_says_so_after_the_answers_before_it():
    def source():
        yield from [shade(0)] * 5
        raise OSError("the camera is gone")

    answered = []
    with pytest.raises(OSError, match="camera"):
        answered.extend(predictor().predict(source(), live=True))
    assert len(answered) == 5


def test_a_live_stream_is_taken_a_bounded_number_ahead_and_left_when_it_is_closed():
    taken, closed = [], threading.Event()

    def endless():
        try:
            while True:
                taken.append(None)
                yield shade(0)
        finally:
            closed.set()

    answers = predictor(4, 2).predict(endless(), live=True)
    for _ in range(100):
        next(answers)
    # Two batches a stream, one more of each that is handed out, a batch that waits, one in hand.
    assert len(taken) <= 100 + 4 * (2 * 2 + 2 + 1 + 2)
    answers.close()
    assert closed.wait(PATIENCE_SECONDS)


def test_no_image_at_all_is_no_answer_and_one_has_the_whole_engine():
    assert list(predictor().predict(iter(()), live=True)) == []
    engine = NullEngine(PLAIN, 3, batch_size=4, streams=2)
    engine.run_share = None
    assert len(list(Predictor(engine, LABELS).predict([shade(0)], live=True))) == 1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that the C++ program reads with its own kernels."""
    folder = tmp_path_factory.mktemp("bundles") / "small"
    export = [DENSEPATH, "export", MODEL, "-o", folder, "--to", "torch", "--num-images", "2"]
    subprocess.run(export, check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["standard input", "list in a pipe", "in two pieces", "empty lines"]
)
def test_the_program_in_cpp_answers_a_producer_that_waits(cpp, bundle, photos, tmp_path, how):
    if how == "list in a pipe":
        pipe = tmp_path / "names"
        os.mkfifo(pipe)
        program = Program(cpp.predict, bundle, "--list", pipe, stdin=None)
        names = pipe.open("wb", buffering=0)
    else:
        program = Program(cpp.predict, bundle, "-")
        names = program.process.stdin
    for name in photos * 3:
        line = os.fsencode(name) + b"\n"
        if how == "in two pieces":
            names.write(line[:5])
            time.sleep(0.03)
            line = line[5:]
        names.write(line + b"\r\n\n" if how == "empty lines" else line)
        answer = json.loads(program.line())
        if name.is_dir():
            assert answer["path"] == str(name / "b.png")
            assert "error" in json.loads(program.line())
        else:
            assert answer["path"] == str(name)
    names.close()
    assert program.end() == 0


@pytest.mark.slow
def test_the_program_in_cpp_ends_at_an_interrupt_while_it_waits_for_a_name(cpp, bundle, photos):
    program = Program(cpp.predict, bundle, "-")
    program.say(photos[0])
    assert program.line()
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 130
    program.process.stdin.close()


@pytest.mark.slow
def test_many_names_have_the_same_answers_in_cpp_however_they_come(cpp, bundle, photos):
    lines = "".join(f"{photos[i % 3]}\n" for i in range(50))
    listed = photos[1] / "names"
    listed.write_text(lines.removesuffix("\n"))
    ways = [
        subprocess.run([cpp.predict, bundle, "-"], input=lines, capture_output=True, text=True),
        subprocess.run([cpp.predict, bundle, "--list", listed], capture_output=True, text=True),
        subprocess.run([cpp.predict, bundle, *lines.split()], capture_output=True, text=True),
    ]
    paths = [[json.loads(line)["path"] for line in way.stdout.splitlines()] for way in ways]
    assert paths[0] == paths[1] == paths[2]
    assert len(paths[0]) == 67

"""Who reads the log may stop, be away or have a full disk: the server answers all the same."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest

pytest.importorskip("fastapi")

from densepath.serving.core.outlet import Lines, Outlet

PROGRAM = Path(sys.executable).with_name("densepath")
SMALL_PIPE = 4096
START_S = 120


class Unheard:
    """A server whose standard error goes somewhere bad, and answers on a port of the test's."""

    def __init__(self, bundles: Path, *words: str, stderr: int, **options) -> None:
        from densepath.serving.process.sockets import find_port

        self.port = find_port("127.0.0.1", 0)
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "colour", "--port", str(self.port), "--grpc-port", "0", *words],
            cwd=bundles,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            **options,
        )
        end = time.monotonic() + START_S
        while self.ask("GET", "/v2/health/ready") != 200:
            assert self.process.poll() is None, "it ended"
            assert time.monotonic() < end, "it does not start"
            time.sleep(0.1)

    def ask(self, verb: str, path: str, **options) -> int:
        """The status; 0 where nobody answers."""
        try:
            url = f"http://127.0.0.1:{self.port}{path}"
            return httpx.request(verb, url, timeout=30, **options).status_code
        except httpx.TransportError:
            return 0

    def answers(self, count: int) -> None:
        """So many requests, each with a line in the log, are answered."""
        url = f"http://127.0.0.1:{self.port}/v2/models/colour"
        with httpx.Client(timeout=30) as client:
            for _ in range(count):
                assert client.get(url, headers={"X-Request-Id": "x" * 64}).status_code == 200

    def stop(self) -> int:
        """Its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def unheard(bundles):
    made = []

    def make(*words: str, stderr: int, **options) -> Unheard:
        made.append(Unheard(bundles, *words, stderr=stderr, **options))
        return made[-1]

    yield make
    for server in made:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(30)


@pytest.fixture
def stalled():
    """A small pipe that nobody reads: its two ends."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reader_that_has_stopped_does_not_stop_the_answers(unheard, stalled, workers):
    reader, writer = stalled
    server = unheard("--workers", workers, stderr=writer)
    server.answers(200)
    if workers == "2":  # the one that watches logs, too
        task = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        os.kill(max(map(int, task.read_text().split())), signal.SIGKILL)
        end = time.monotonic() + START_S
        while "densepath_workers 2.0" not in metrics(server):
            assert time.monotonic() < end
            time.sleep(0.1)
    server.answers(20)
    assert server.stop() == 0
    os.set_blocking(reader, False)
    lines = os.read(reader, 1 << 16).decode().splitlines()
    whole = [line for line in lines if line.startswith("{") and line.endswith("}")]
    assert all("event" in json.loads(line) for line in whole)
    assert whole


def metrics(server: Unheard) -> str:
    try:
        return httpx.get(f"http://127.0.0.1:{server.port}/metrics", timeout=30).text
    except httpx.TransportError:
        return ""


def test_a_log_that_cannot_be_written_is_lost_and_counted(unheard):
    with Path("/dev/full").open("wb") as full:
        server = unheard(stderr=full.fileno())
    server.answers(20)
    dropped = re.search(r"^densepath_log_lines_dropped_total (\S+)", metrics(server), re.MULTILINE)
    assert float(dropped[1]) >= 15
    assert server.stop() == 0


def test_a_reader_that_has_gone_takes_nothing_with_it(unheard):
    reader, writer = os.pipe()
    server = unheard(stderr=writer)
    os.close(reader)
    os.close(writer)
    server.answers(20)
    assert server.stop() == 0


def test_a_server_without_standard_error_answers_and_writes_into_nothing_else(unheard):
    server = unheard(stderr=None, preexec_fn=lambda: os.close(2))
    server.answers(20)
    assert server.stop() == 0


PROBES = ["/v2/health/live", "/v2/health/ready", "/v2/models/colour/ready", "/v1/models/colour"]


def routes(server) -> list[tuple[str, str]]:
    return [(line["level"], line["route"]) for line in server.log if line["event"] == "request"]


def ask_probes(server) -> None:
    with server.http() as client:
        for path in [*PROBES, "/metrics"]:
            assert client.get(path).status_code == 200
        assert client.head("/v2/health/ready").status_code == 200
        assert client.get("/v2/models/x/ready").status_code == 404
        assert client.get("/models").status_code == 200


def test_health_checks_are_not_logged_unless_they_fail(start):
    server = start("colour")
    ask_probes(server)
    grpcclient = pytest.importorskip("tritonclient.grpc")
    with grpcclient.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("colour")
        assert client.get_model_metadata("colour").name == "colour"
    assert server.stop() == 0
    assert routes(server) == [
        ("info", "GET /v2/models/{name}/ready"),
        ("info", "GET /models"),
        ("info", "ModelMetadata"),
    ]


def test_the_log_has_them_at_the_level_debug(start):
    server = start("colour", "--log-level", "debug", "--no-grpc")
    ask_probes(server)
    assert server.stop() == 0
    found = routes(server)
    assert [level for level, _ in found] == ["debug"] * 6 + ["info"] * 2
    assert ("debug", "GET /metrics") in found
    assert ("debug", "HEAD /v2/health/ready") in found


def test_a_higher_level_leaves_out_what_is_below_it(start):
    server = start("colour", "--log-level", "warning", "--workers", "2")
    with server.http() as client:
        assert client.get("/models").status_code == 200
    os.kill(server.workers()[0], signal.SIGKILL)
    end = time.monotonic() + 60
    while not server.log:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert server.stop() == 0
    assert {(line["level"], line["event"]) for line in server.log} == {("warning", "worker died")}


def test_an_unknown_level_is_refused_with_the_choices(bundles):
    run = subprocess.run(
        [PROGRAM, "serve", "colour", "--log-level", "loud"],
        cwd=bundles,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "debug" in run.stderr
    assert "warning" in run.stderr


# The outlet alone.


def read_all(descriptor: int) -> list[str]:
    """The lines until the pipe is closed."""
    with open(descriptor, encoding="utf-8") as file:
        return file.read().splitlines()


def test_lines_that_do_not_fit_are_dropped_and_told(stalled):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
    counted = []
    outlet = Outlet(writer, tell=lambda count: f"dropped {count}", most_bytes=2000)
    outlet.on_drop(lambda: counted.append(1))
    for number in range(1000):
        outlet.put(f"line {number:03} " + "x" * 90)
    assert counted
    lost = len(counted)
    read = []
    thread = threading.Thread(target=lambda: read.extend(read_all(reader)))
    thread.start()
    end = time.monotonic() + 30
    while not any("dropped" in line for line in read) and time.monotonic() < end:
        outlet.put("more")
        time.sleep(0.05)
        if outlet._num_untold == 0:
            break
    outlet.close(30)
    os.close(writer)
    thread.join(30)
    assert f"dropped {lost}" in read
    numbers = [int(line[5:8]) for line in read if line.startswith("line")]
    assert len(numbers) == 1000 - lost
    assert numbers == sorted(numbers)


def test_a_line_longer_than_a_pipe_arrives_whole():
    reader, writer = os.pipe()
    read: list[str] = []
    thread = threading.Thread(target=lambda: read.extend(read_all(reader)))
    thread.start()
    outlet = Outlet(writer, tell=str)
    long = "ü\ud800" * 200_000
    outlet.put(long)
    outlet.close(60)
    os.close(writer)
    thread.join(60)
    assert read == [long.encode("utf-8", "backslashreplace").decode()]


def test_an_outlet_that_is_closed_waits_no_longer_than_it_should(stalled):
    _, writer = stalled
    outlet = Outlet(writer, tell=str)
    for _ in range(200):
        outlet.put("x" * 100)
    outlet.close(patience_s=0.1)
    assert outlet._thread.is_alive()
    reader = threading.Thread(target=lambda: read_all(os.dup(stalled[0])), daemon=True)
    reader.start()
    outlet._thread.join(30)
    assert not outlet._thread.is_alive()


def test_what_libraries_print_goes_line_by_line():
    reader, writer = os.pipe()
    outlet = Outlet(writer, tell=str)
    lines = Lines(outlet)
    print("one", "two", file=lines)
    lines.write("three\nfo")
    lines.write("ur")
    lines.finish()
    outlet.close(30)
    os.close(writer)
    assert read_all(reader) == ["one two", "three", "four"]


BLOCKED = """
import os, sys, warnings
from densepath.serving.core.outlet import outlet_to_stderr

with outlet_to_stderr(str):
    for _ in range(200):
        try:
            os.write(2, b"a library that writes by itself\\n" * 100)
        except BlockingIOError:
            pass
        print("a library that prints")
        warnings.warn("a library that warns " + "x" * 2000, stacklevel=1)
os.write(1, b"got through")
"""


def test_nothing_in_the_process_waits_for_a_reader_that_has_stopped(stalled):
    _, writer = stalled
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE, stderr=writer, timeout=60
    )
    assert run.stdout == b"got through"

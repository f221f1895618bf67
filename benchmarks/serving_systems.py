"""The servers of `serving.py`: what they are started with, and their processes while they run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from formula_bundle import choice_of
from harness import PEERS, peer_python
from serving_answers import DENSEPATH
from workers import TICKS_A_SECOND

from densepath.engines.machine import missing_bfloat16

READY_SECONDS = 120
SAMPLE_SECONDS = 0.5
OURS, ALONE, INT8 = "densepath serve", "densepath serve, no batches", "densepath serve, INT8"
SINGLE, HALF = "densepath serve, float32", "densepath serve, bfloat16"
LITSERVE, LITSERVE_ALONE = "LitServe", "LitServe, no batches"
FASTAPI, FASTAPI_NARROW = "FastAPI + ONNX Runtime", "FastAPI + ONNX Runtime, 1 thread a run"
# What serves the float32 network as ours does: the goal is a ratio to the better of them.
FLOAT_PEERS = (LITSERVE, LITSERVE_ALONE, FASTAPI, FASTAPI_NARROW)
# Of several settings those with the most answers a second on two cores, as `--settings` found them;
# of FastAPI's also the one that has both cores for a client that is alone.
PEER_OPTIONS = {
    LITSERVE: "--workers 2 --threads 1 --max-batch 4 --batch-timeout 0.002",
    LITSERVE_ALONE: "--workers 2 --threads 1",
    FASTAPI: "--workers 1 --threads 2",
    FASTAPI_NARROW: "--workers 1 --threads 1",
}
SETTINGS = {
    LITSERVE: (
        "--workers 1 --threads 2 --max-batch 8 --batch-timeout 0.01",
        "--workers 2 --threads 1 --max-batch 4 --batch-timeout 0.002",
        "--workers 2 --threads 1 --max-batch 8 --batch-timeout 0.01",
        "--workers 2 --threads 1 --max-batch 16 --batch-timeout 0.05",
        "--workers 2 --threads 2 --max-batch 8 --batch-timeout 0.01",
    ),
    LITSERVE_ALONE: (
        "--workers 1 --threads 2",
        "--workers 2 --threads 1",
        "--workers 4 --threads 1",
    ),
    FASTAPI: (
        "--workers 1 --threads 1",
        "--workers 1 --threads 2",
        "--workers 2 --threads 1",
        "--workers 2 --threads 2",
    ),
}


@dataclass(frozen=True)
class System:
    """A server that can be started.

    Attributes:
        name: as the tables say it.
        bundle: what it serves.
        command: what starts it, without its port.
        path: where it takes photos.
        options: those of its command that are a choice.
        arithmetic: `float32`, `bfloat16` or `int8`: its answers are those of that.
    """

    name: str
    bundle: Path
    command: list[str]
    path: str
    options: str = ""
    arithmetic: str = "float32"


def find_systems(bundle: Path, int8: Path, threads: int) -> dict[str, System]:
    """All of them; peers that are not installed are left out."""
    taken = choice_of(bundle, "auto", threads).precision
    ours = {
        OURS: (bundle, "", taken),
        ALONE: (bundle, "--max-batch 1", taken),
        SINGLE: (bundle, "--precision float32", "float32"),
        INT8: (int8, "", "int8"),
    }
    if not missing_bfloat16():
        ours[HALF] = (bundle, "--precision bfloat16", "bfloat16")
    made = {
        name: System(name, served, _our_command(served, threads, more), "/classify", more, kind)
        for name, (served, more, kind) in ours.items()
    }
    for name in FLOAT_PEERS:
        made |= {name: found} if (found := find_peer(name, bundle, PEER_OPTIONS[name])) else {}
    return made


def _our_command(bundle: Path, threads: int, more: str) -> list[str]:
    """What starts our server."""
    serve = [DENSEPATH, "serve", str(bundle), "--threads", str(threads)]
    return [*serve, "--grpc-port", "0", *more.split()]


def find_peer(name: str, bundle: Path, options: str) -> System | None:
    """A peer with these options, or None, and a word about it, where it is not installed."""
    is_fastapi = name in (FASTAPI, FASTAPI_NARROW)
    peer, path = ("fastapi", "/classify") if is_fastapi else ("litserve", "/predict")
    python = peer_python(peer)
    if python is None:
        print(f"{name} is not installed: {PEERS}/install.sh {peer}", file=sys.stderr)
        return None
    command = [str(python), str(PEERS / peer / "server.py"), str(bundle), *options.split()]
    return System(name, bundle, command, path, options)


class ServerError(Exception):
    """A server that ended, or did not answer."""


class Server:
    """A system's processes on a port of their own; stopped (SIGSTOP), but in their turns."""

    def __init__(self, system: System) -> None:
        """
        Raises:
            ServerError: nothing listens after a while.
        """
        self.system, self.port = system, free_port()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the server
        self._process = subprocess.Popen(
            [*system.command, "--port", str(self.port)],
            stdout=self._errors,
            stderr=self._errors,
            start_new_session=True,
            cwd=_folder_of(system.command),
        )
        try:
            self._wait()
        except ServerError:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where it takes photos."""
        return f"http://127.0.0.1:{self.port}{self.system.path}"

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The server runs meanwhile."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def resident_bytes(self) -> int:
        """Of all its processes; what they share is counted once."""
        return sum(proportional_bytes(pid) for pid in processes_of(self._process.pid))

    def processor_seconds(self) -> float:
        """That all its processes have used so far."""
        ticks = sum(ticks_of(pid) for pid in processes_of(self._process.pid))
        return ticks / TICKS_A_SECOND

    def last_words(self) -> str:
        """The end of what it printed."""
        self._errors.seek(0)
        return self._errors.read()[-2000:]

    def close(self) -> None:
        """The process and what it started have ended."""
        for pid in processes_of(self._process.pid):
            with _gone_is_fine():
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._errors.close()

    def _signal(self, number: int) -> None:
        for pid in processes_of(self._process.pid):
            with _gone_is_fine():
                os.kill(pid, number)

    def _wait(self) -> None:
        """Returns when something listens on the port."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise ServerError(f"{self.system.name} ended:\n{self.last_words()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise ServerError(f"{self.system.name} does not listen:\n{self.last_words()}")


@dataclass
class Memory:
    """A server's resident memory, read again and again by a thread.

    Attributes:
        samples: [seconds since the beginning, bytes].
    """

    samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def peak_bytes(self) -> int:
        """The most that was read."""
        return max(size for _, size in self.samples)

    @contextmanager
    def watch(self, server: Server) -> Iterator[Memory]:
        """Reads meanwhile, and once at either end."""
        start, ended = time.monotonic(), threading.Event()

        def read() -> None:
            self.samples.append((round(time.monotonic() - start, 2), server.resident_bytes()))

        def repeat() -> None:
            while not ended.wait(SAMPLE_SECONDS):
                read()

        read()
        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()
            read()


def free_port() -> int:
    """One that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes_of(session: int) -> list[int]:
    """The processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with _gone_is_fine():
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                found.append(int(path.parent.name))
    return found


def ticks_of(pid: int) -> int:
    """The processor time of a process."""
    with _gone_is_fine():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0


def proportional_bytes(pid: int) -> int:
    """The resident memory of a process, with its share of what others map too."""
    with _gone_is_fine():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    """A process may end while it is looked at."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError):
        return


def _folder_of(command: list[str]) -> Path | None:
    """That of a peer's script: Uvicorn imports it by name."""
    return Path(command[1]).parent if command[1].endswith(".py") else None

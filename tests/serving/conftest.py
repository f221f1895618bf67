"""Small bundles, and real servers of them in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from fixtures.bundles import COLOUR, GRAY, flowers
from fixtures.commands import PROGRAM

ANNOUNCED = re.compile(r"serving .*: REST (https?://\S+?)(?:, gRPC (\S+))?, engine")
START_S, STOP_S = 120, 60


@dataclass
class Server:
    """A running `densepath serve`."""

    process: subprocess.Popen
    url: str
    grpc: str
    lines: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it has written, line by line."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def http(self, **options: Any) -> httpx.Client:
        """A client of its REST."""
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def workers(self) -> list[int]:
        """The processes that serve: the children that have an engine's threads."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children = [int(pid) for pid in task.read_text().split()]
        return [pid for pid in children if len(list(Path(f"/proc/{pid}/task").iterdir())) > 4]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after the signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(STOP_S)
        self.reader.join(STOP_S)
        return code


def start_server(
    folder: Path,
    *words: str,
    environment: dict[str, str] | None = None,
    program: Sequence[str | Path] = (PROGRAM,),
) -> Server:
    """A server in `folder`, once it answers."""
    process = subprocess.Popen(
        [*program, "serve", *words, "--port", "0", "--grpc-port", "0"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    server = Server(process, "", "")
    found = threading.Event()

    def read() -> None:
        with process.stderr:
            for line in process.stderr:
                server.lines.append(line.rstrip("\n"))
                if match := ANNOUNCED.match(line):
                    server.url, server.grpc = match.groups()
                    found.set()
        found.set()

    server.reader = threading.Thread(target=read, daemon=True)
    server.reader.start()
    if not found.wait(START_S) or not server.url:
        process.kill()
        pytest.fail("the server did not start:\n" + "\n".join(server.lines))
    return server


@pytest.fixture
def start(bundles) -> Iterator[Callable[..., Server]]:
    """Starts servers of the bundles; they end with the test."""
    with contextlib.ExitStack() as stack:

        def begin(*words: str, **options: Any) -> Server:
            server = start_server(bundles, *words, **options)
            stack.callback(end, server)
            return server

        yield begin


class InProcess:
    """A server in a thread of this process, with settings that are no options."""

    def __init__(self, bundles: Path, **settings: Any) -> None:
        from densepath.serving.core.settings import ModelSource, Settings
        from densepath.serving.process.sockets import open_socket

        self._settings = Settings(grpc_port=None, linger_s=0, engine="native", **settings)
        self._source = ModelSource("colour", "1", bundles / "colour")
        self._listening = open_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._ready, self._failed = threading.Event(), None

    def http(self) -> httpx.Client:
        """A client of its REST."""
        return httpx.Client(base_url=self.url, timeout=60)

    def __enter__(self):
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(60)
        if self._failed:
            raise self._failed
        return self

    def _run(self):
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failed = error
            self._ready.set()

    async def _serve(self):
        import uvicorn

        from densepath.serving.core.service import Service
        from densepath.serving.process.connections import protocol_options
        from densepath.serving.process.server import Rest
        from densepath.serving.rest.app import build_app

        self.service = service = Service(self._settings, [self._source])
        await service.start()
        self._server = Rest(uvicorn.Config(build_app(service), **protocol_options(self._settings)))
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._listening]))
        while not self._server.started:
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving
        await service.stop()

    def __exit__(self, *_):
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(60)


@pytest.fixture
def in_process(bundles) -> Callable[..., InProcess]:
    """Makes servers of `colour` with any settings."""
    return lambda **settings: InProcess(bundles, **settings)


def end(server: Server) -> None:
    """The server is gone, whatever it did."""
    try:
        server.stop()
    except subprocess.TimeoutExpired:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def server(bundles) -> Iterator[Server]:
    """One for all tests that leave it as it is: `colour` in two versions, and `gray`."""
    running = start_server(bundles, "colour", "colour@2=newer", "gray")
    yield running
    end(running)


@pytest.fixture(scope="session")
def bundles(once) -> Path:
    """A folder with the bundles `colour`, `newer` and `gray`, and the folder `images`.

    Nobody may change it.
    """
    return once("serving", build_bundles)


def build_bundles(folder: Path) -> None:
    """Fill `folder` with what is served."""
    from densepath.exporting.export import export

    for seed, (name, preprocess) in enumerate(
        {"colour": COLOUR, "newer": COLOUR, "gray": GRAY}.items()
    ):
        checkpoint = flowers(preprocess, seed=seed)
        # No times: which precision answers must not hang on how quick such a network was just now.
        with mock.patch("densepath.exporting.measure.measure_speeds", return_value=None):
            export(checkpoint, folder / name, to=["torch", "onnx"], num_images=2, batch_sizes=[1])
    images = folder / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((80 + i, 60), Image.Resampling.BICUBIC)
        picture.save(images / f"{i:02}.{'jpg' if i % 2 else 'png'}", quality=95)


@pytest.fixture(scope="session")
def files(bundles) -> list[Path]:
    """The images."""
    return sorted((bundles / "images").iterdir())


@pytest.fixture(scope="session")
def answers(bundles, files) -> dict[str, list[dict[str, Any]]]:
    """By bundle, what `densepath predict` says of the images."""
    found = {}
    for name in ("colour", "newer", "gray"):
        run = subprocess.run(
            [PROGRAM, "predict", name, *files, "--json", "--engine", "native"],
            cwd=bundles,
            capture_output=True,
            text=True,
            check=True,
        )
        found[name] = [json.loads(line) for line in run.stdout.splitlines()]
    return found


@pytest.fixture(scope="session")
def tensor(bundles, files) -> np.ndarray:
    """The images as `colour` takes them: float32 [12, 3, 32, 32]."""
    from densepath.bundle.bundle import Bundle
    from densepath.images.decode import open_image

    preprocess = Bundle.open(bundles / "colour").manifest.preprocess
    return np.stack([preprocess(open_image(file)) for file in files])

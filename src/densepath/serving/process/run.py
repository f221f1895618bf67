"""`densepath serve` from its settings to its end, in one process or several."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from densepath.errors import MissingPackageError, UsageError
from densepath.extras import find_missing
from densepath.serving.core.settings import ModelSource, Settings
from densepath.serving.process.sockets import find_port, open_socket

PACKAGES = {"fastapi": "fastapi", "grpc": "grpcio",
            "grpc_health": "grpcio-health-checking", "grpc_reflection": "grpcio-reflection",
            "httptools": "httptools", "orjson": "orjson",
            "prometheus_client": "prometheus-client", "google.protobuf": "protobuf",
            "python_multipart": "python-multipart", "uvicorn": "uvicorn"}  # fmt: skip


def run(
    settings: Settings, sources: Sequence[ModelSource], announce: Callable[[str], None]
) -> None:
    """Serve until a signal.

    Args:
        settings: checked here.
        sources: the bundles.
        announce: is given the line that says what is served and where.

    Raises:
        UsageError, DensepathError: what a user can mend.
        MissingPackageError: the extra `serve` is not installed.
    """
    settings.check()
    _check_packages()
    from densepath.serving.core.logs import logging_to_stderr

    with logging_to_stderr(settings):
        _serve(settings, sources, announce)


def _serve(
    settings: Settings, sources: Sequence[ModelSource], announce: Callable[[str], None]
) -> None:
    """Open the ports, and serve from one process or several."""
    if settings.grpc_port is not None:
        settings = replace(settings, grpc_port=find_port(settings.host, settings.grpc_port))
        if settings.grpc_port == settings.port:
            raise UsageError(f"REST and gRPC cannot share the port {settings.port}.")
    with open_socket(settings.host, settings.port) as listening:
        if settings.workers > 1:
            from densepath.serving.process.workers import supervise

            supervise(settings, sources, listening, announce)
            return
        with _interrupted_afterwards():
            from densepath.serving.process.server import describe, serve

        port = listening.getsockname()[1]
        asyncio.run(
            serve(
                settings,
                sources,
                listening,
                ready=lambda service: announce(describe(service, port)),
            )
        )


@contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Hold back a Ctrl-C until the end: pydantic takes it for an error of its own."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _check_packages() -> None:
    """Raise unless all packages are installed.

    Raises:
        MissingPackageError: some are not; it names them all.
    """
    missing = find_missing((module, "serve") for module in PACKAGES)
    if missing:
        raise MissingPackageError.of({PACKAGES[module]: extra for module, extra in missing.items()})

"""One process that serves: from its sockets to the last answer before it ends.

SIGTERM and SIGINT drain it: it says that it is not ready, takes requests for a moment longer, so
that balancers have seen that, then listens no more, answers what it has taken, and ends. A second
SIGINT ends it at once. SIGHUP opens all bundles anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import uvicorn

from densepath.serving.core.errors import RequestError
from densepath.serving.core.logs import count_dropped, finish_logging, log
from densepath.serving.core.repository import Repository
from densepath.serving.core.service import Service
from densepath.serving.core.settings import ModelSource, Settings
from densepath.serving.process.connections import protocol_options
from densepath.serving.process.sockets import BACKLOG, PortError, address_of, start_listening
from densepath.serving.rest.app import build_app
from densepath.serving.v2.grpc_server import build_server, credentials


class Rest(uvicorn.Server):
    """Uvicorn without its signals: they are handled here, for REST and gRPC alike."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does, but serve connections that wait to be accepted."""
        loop, config = asyncio.get_running_loop(), self.config
        waiting = list(_accept_all(sockets or []))

        def protocol() -> Any:
            made: Any = config.http_protocol_class
            return made(config=config, server_state=self.server_state, app_state={})

        async def welcome(connection: socket.socket) -> None:
            _, made = await loop.connect_accepted_socket(protocol, connection, ssl=config.ssl)
            made.shutdown()

        tasks = [loop.create_task(welcome(connection)) for connection in waiting]
        await super().shutdown(sockets)
        await asyncio.gather(*tasks, return_exceptions=True)


def _accept_all(sockets: list[socket.socket]) -> Iterator[socket.socket]:
    """The connections that wait."""
    for listening in sockets:
        with contextlib.suppress(OSError):  # BlockingIOError: there are no more
            while True:
                connection, _ = listening.accept()
                connection.setblocking(False)
                yield connection


async def serve(
    settings: Settings,
    sources: Sequence[ModelSource],
    listening: socket.socket,
    *,
    open_models: Callable[[Service], Awaitable[None]] = Service.start,
    ready: Callable[[Service], None] = lambda service: None,
    interruptible: bool = True,
) -> None:
    """Serve until a signal, and return when all that was taken is answered.

    Args:
        settings: `grpc_port` is the port itself, not 0.
        sources: the bundles.
        listening: the bound socket of REST.
        open_models: has them all open before anybody is listened to.
        ready: called when requests are answered.
        interruptible: SIGINT drains it, too, and a second one ends it at once.

    Raises:
        DensepathError: a bundle cannot be opened, or a port cannot be had.
    """
    service = Service(settings, sources)
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(service))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    def interrupt() -> None:
        (hurry if stop.is_set() else stop).set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if interruptible:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGHUP, reload)
    starting = asyncio.ensure_future(open_models(service))
    told = asyncio.ensure_future(stop.wait())
    await asyncio.wait((starting, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not starting.done():  # told to end before it was ready
        return
    starting.result()
    start_listening(listening)
    grpc = await _start_grpc(service)
    rest = Rest(
        uvicorn.Config(
            build_app(service),
            backlog=BACKLOG,
            timeout_graceful_shutdown=max(1, int(settings.grace_s)),
            **protocol_options(settings),
        )
    )
    serving = asyncio.ensure_future(rest.serve(sockets=[listening]))
    while not rest.started and not serving.done():
        await asyncio.sleep(0.01)
    if serving.done():
        serving.result()
    service.metrics.workers.set(1)
    count_dropped(service.metrics.dropped_lines.inc)
    ready(service)
    await stop.wait()
    draining = loop.create_task(_drain(service, rest, serving, grpc))
    hurrying = loop.create_task(hurry.wait())
    await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():  # a second Ctrl-C: no more patience
        log("ended at once")
        finish_logging()
        os._exit(1)
    hurrying.cancel()
    draining.result()
    await service.stop()
    log("ended")


async def _drain(service: Service, rest: Rest, serving: Any, grpc: Any) -> None:
    """Wait until all that was taken is answered, or the grace is over."""
    settings = service.settings
    service.draining = True
    log("draining", linger_s=settings.linger_s, grace_s=settings.grace_s)
    await asyncio.sleep(settings.linger_s)
    rest.should_exit = True
    ends = [serving]
    if grpc is not None:
        ends.append(asyncio.ensure_future(grpc.stop(settings.grace_s)))
    await asyncio.gather(*ends)


async def _start_grpc(service: Service) -> Any:
    """The gRPC server, listening; None where none is wanted.

    Raises:
        PortError: its port cannot be had.
    """
    settings = service.settings
    if settings.grpc_port is None:
        return None
    server, secret = build_server(service), credentials(settings)
    address = address_of(settings.host, settings.grpc_port)
    try:
        if secret is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, secret)
    except RuntimeError as error:
        raise PortError(f"gRPC cannot listen on {address}; name another --grpc-port.") from error
    await server.start()
    return server


async def _reload(service: Service) -> None:
    """Open every model anew, where its bundle can be."""
    repository: Repository = service.repository
    for name in repository.names:
        # The log has said why; the others are opened all the same.
        with contextlib.suppress(RequestError):
            await service.order("load", name)


def describe(service: Service, port: int) -> str:
    """The line that says what is served, where and by which engine."""
    settings, rows = service.settings, service.repository.to_dicts()
    scheme = "http" if settings.certificate is None else "https"
    models = ", ".join(f"{row['name']} {row['version']}" for row in rows)
    engines = sorted({f"engine {row['engine']}: {row['reason']}" for row in rows})
    grpc = ""
    if settings.grpc_port is not None:
        grpc = f", gRPC {address_of(settings.host, settings.grpc_port)}"
    rest = f"{scheme}://{address_of(settings.host, port)}"
    return f"serving {models}: REST {rest}{grpc}, {'; '.join(engines)}"

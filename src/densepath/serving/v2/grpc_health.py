"""gRPC's own services beside the protocol: health (Check and Watch), and reflection.

Health knows the server, by the empty name, the inference service, and each model; orchestrators ask
it without a key. Source: grpc/grpc, `doc/health-checking.md` and `doc/server-reflection.md`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from densepath.serving.core.access import check_key
from densepath.serving.core.errors import RequestError
from densepath.serving.core.service import Service
from densepath.serving.v2.messages import SERVICE, pool

Status = health_pb2.HealthCheckResponse
# A watcher hears of a change so soon.
LOOK_S = 0.2
# Streams that are open at once, of both services: each takes a place among the calls.
MOST_STREAMS = 64
# The messages of the version without "alpha" are the same; newer clients ask for it first.
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


def add_services(server: grpc.aio.Server, service: Service) -> None:
    """Add both services to the server."""
    streams = _Streams()
    health_pb2_grpc.add_HealthServicer_to_server(_Health(service, streams), server)
    reflecting = _Reflection(service, streams)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflecting.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(REFLECTION_V1, methods),))


class _Streams:
    """The calls that stay open."""

    def __init__(self) -> None:
        self._num_open = 0

    @contextmanager
    def one(self) -> Iterator[bool]:
        """Count one more open call within the block; False where there are too many."""
        self._num_open += 1
        try:
            yield self._num_open <= MOST_STREAMS
        finally:
            self._num_open -= 1


async def _too_many(context: Any) -> None:
    """End the call: others are needed more."""
    await context.abort(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"{MOST_STREAMS} streams of health and reflection are open already; come back later.",
    )


class _Health(health_pb2_grpc.HealthServicer):
    """Answers from what the service is now."""

    def __init__(self, service: Service, streams: _Streams) -> None:
        self._service, self._streams = service, streams

    def _statuses(self) -> dict[str, int]:
        """The statuses by name of service."""
        repository, is_ready = self._service.repository, self._service.is_ready
        loaded = {name: bool(repository.versions(name)) for name in repository.names}
        return {
            name: Status.SERVING if is_there and is_ready else Status.NOT_SERVING
            for name, is_there in (loaded | {"": True, SERVICE: True}).items()
        }

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """How the named service is; NOT_FOUND for a name that there is not."""
        statuses = self._statuses()
        if request.service not in statuses:
            known = ", ".join(name for name in statuses if name)
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no service {request.service[:64]!r}; there are {known}, and '' for the server.",
            )
        return Status(status=statuses[request.service])

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """How it is, now and whenever that changes, until the server is being stopped."""
        with self._streams.one() as there_is_room:
            if not there_is_room:
                await _too_many(context)
            last = None
            while last is None or not self._service.draining:
                status = self._statuses().get(request.service, Status.SERVICE_UNKNOWN)
                if status != last:
                    yield Status(status=status)
                    last = status
                await asyncio.sleep(LOOK_S)
            if last == Status.SERVING:
                yield Status(status=Status.NOT_SERVING)


class _Symbols:
    """A pool that finds methods, too: `grpcurl describe SERVICE.METHOD` asks for them."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def FindFileContainingSymbol(self, name: str) -> Any:  # noqa: N802
        """The file; KeyError where there is no such thing."""
        try:
            return self._pool.FindFileContainingSymbol(name)
        except KeyError:
            service, _, method = name.rpartition(".")
            found = self._pool.FindServiceByName(service)
            return found.methods_by_name[method].containing_service.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


class _Reflection(reflection.aio.ReflectionServicer):
    """The messages and methods, for clients that have no file of them; behind the key."""

    def __init__(self, service: Service, streams: _Streams) -> None:
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        files = (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
        super().__init__(names, pool=_Symbols(pool(*(file.serialized_pb for file in files))))
        self._service, self._streams = service, streams

    async def ServerReflectionInfo(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[Any]:
        """An answer to each question."""
        said = {key.lower(): value for key, value in context.invocation_metadata() or ()}
        try:
            check_key(self._service.settings.api_key, said)
        except RequestError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        with self._streams.one() as there_is_room:
            if not there_is_room:
                await _too_many(context)
            async for answer in super().ServerReflectionInfo(request_iterator, context):
                yield answer

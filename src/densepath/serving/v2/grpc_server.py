"""The Open Inference Protocol V2 over gRPC.

The messages on the wire are `open_inference.proto`'s; between them and the service stands what REST
uses, too: `infer.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from densepath.serving.core.access import FAILED, check_key, request_id
from densepath.serving.core.errors import BusyError, NotFoundError, RequestError
from densepath.serving.core.logs import log, log_request
from densepath.serving.core.orders import check_order, check_repository
from densepath.serving.core.service import Service
from densepath.serving.core.settings import MEGABYTE, Settings
from densepath.serving.v2.grpc_health import MOST_STREAMS, add_services
from densepath.serving.v2.grpc_messages import parse, read_message, write_output
from densepath.serving.v2.infer import infer, metadata, server_metadata
from densepath.serving.v2.inspection import config, statistics
from densepath.serving.v2.messages import SERVICE, message, methods

Handler = Callable[[Any, Any], Awaitable[Any]]
OPEN = ("ServerLive", "ServerReady")
# Room for what a message has beside the tensors.
MARGIN = MEGABYTE
# Calls beyond what a queue can hold: health, metadata, and those that are refused.
SPARE_CALLS = 32
# gRPC itself refuses as RESOURCE_EXHAUSTED what is too large, which says that the queue is full. So
# it lets larger messages come, to be refused here as what they are; not any, for it holds them.
TIMES_LARGER, LEAST_LET_IN, MOST_LET_IN = 4, 64 * MEGABYTE, (1 << 31) - 1


def build_server(service: Service) -> grpc.aio.Server:
    """The server, not listening yet."""
    settings = service.settings
    let_in = max(TIMES_LARGER * settings.max_body_bytes, LEAST_LET_IN)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", min(let_in, MOST_LET_IN)),
            ("grpc.max_send_message_length", settings.max_body_bytes + MARGIN),
            ("grpc.max_concurrent_streams", settings.max_connections),
            ("grpc.so_reuseport", int(settings.workers > 1)),
            # A client that sends nothing for long is asked, and left when it does not answer.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ],
        # Each may hold a message of the largest size, before anybody can refuse it.
        maximum_concurrent_rpcs=settings.max_queue + SPARE_CALLS + MOST_STREAMS,
    )
    calls = _Calls(service)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            calls.guarded(name, asked, getattr(calls, name)),
            response_serializer=answered.SerializeToString,
        )
        for name, asked, answered in methods()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    add_services(server, service)
    return server


def credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """For TLS; None without."""
    if settings.certificate is None or settings.key is None:
        return None
    pair = settings.key.read_bytes(), settings.certificate.read_bytes()
    return grpc.ssl_server_credentials([pair])


class _Calls:
    """The methods of the service, by their names in the protocol."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def guarded(self, name: str, asked: Any, handler: Handler) -> Handler:
        """The handler behind the API key, with statuses for errors, log and counters.

        It is given bytes: what cannot be read as the message `asked` for is told as what it is.
        """
        settings = self._service.settings
        most_bytes = settings.max_body_bytes + MARGIN

        async def call(data: bytes, context: Any) -> Any:
            started = time.monotonic()
            said = {key.lower(): value for key, value in context.invocation_metadata() or ()}
            known = request_id(said.get("x-request-id"))
            status, fields = "CANCELLED", {}
            try:
                if name not in OPEN:
                    check_key(settings.api_key, said)
                request = parse(asked, data, most_bytes)
                fields = _fields(request)
                if "x-request-id" not in said:
                    known = request_id(getattr(request, "id", None))
                answer = await handler(request, context)
                status = "OK"
                return answer
            except RequestError as error:
                status = error.grpc_status
                await _abort(context, error, known)
            except Exception as error:
                status = "INTERNAL"
                log("failed", level=logging.ERROR, request_id=known, exc_info=error)
                await context.abort(grpc.StatusCode.INTERNAL, f"{FAILED} ({known})")
            finally:
                log_request(known, "grpc", name, status, started, **fields)
                self._service.metrics.requests.labels("grpc", name, status).inc()
                seconds = self._service.metrics.request_seconds.labels("grpc", name)
                seconds.observe(time.monotonic() - started)

        return call

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The server runs."""
        return message("ServerLiveResponse")(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The server answers."""
        return message("ServerReadyResponse")(ready=self._service.is_ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether the model answers; NOT_FOUND for a name that there is not."""
        repository = self._service.repository
        known = {(row["name"], row["version"]) for row in repository.index()}
        try:
            repository.find(request.name, request.version)
            ready = self._service.is_ready
        except RequestError as error:
            if isinstance(error, NotFoundError) and not any(
                name == request.name and request.version in ("", version) for name, version in known
            ):
                raise
            ready = False
        return message("ModelReadyResponse")(ready=ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What the server is."""
        return message("ServerMetadataResponse")(**server_metadata())

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What the model takes and gives."""
        model = self._service.repository.find(request.name, request.version)
        return message("ModelMetadataResponse")(**metadata(self._service, model))

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The network's outputs for one batch of tensors, pixels or image files."""
        model = self._service.repository.find(request.model_name, request.model_version)
        called = read_message(request)
        left_s = context.time_remaining()
        outputs = await infer(self._service, model, called, left_s)
        answer = message("ModelInferResponse")(
            model_name=model.source.name, model_version=model.source.version, id=called.id
        )
        # As the request has its data, raw or typed, so has the answer.
        typed = not request.raw_input_contents
        for output in outputs:
            write_output(answer, output, typed=typed)
        return answer

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """How the model is served."""
        model = self._service.repository.find(request.name, request.version)
        return message("ModelConfigResponse")(config=config(self._service, model))

    async def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What a model, or all, have done since the server began."""
        found = statistics(self._service, request.name, request.version)
        return message("ModelStatisticsResponse")(**found)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Every model and version, loaded or not."""
        check_repository(request.repository_name)
        rows = self._service.repository.index(only_ready=request.ready)
        return message("RepositoryIndexResponse")(models=rows)

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Open the model's bundles anew."""
        await self._order("load", request)
        return message("RepositoryModelLoadResponse")()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Unload the model."""
        await self._order("unload", request)
        return message("RepositoryModelUnloadResponse")()

    async def _order(self, verb: str, request: Any) -> None:
        """Obey the order, where nothing in it would be ignored."""
        check_repository(request.repository_name)
        check_order(verb, request.parameters)
        await self._service.order(verb, request.model_name)


def _fields(request: Any) -> dict[str, Any]:
    """What the log says of a request: its short fields."""
    named = type(request).DESCRIPTOR.fields_by_name
    short = ("name", "version", "model_name", "model_version")
    said = {name: getattr(request, name) for name in short if name in named}
    return {name: str(value)[:64] for name, value in said.items() if value}


async def _abort(context: Any, error: RequestError, known: str) -> None:
    """End the call with the error's status."""
    trailing = [("x-request-id", known)]
    if isinstance(error, BusyError):
        trailing.append(("retry-after", str(error.retry_after_s)))
    status = getattr(grpc.StatusCode, error.grpc_status)
    await context.abort(status, str(error), tuple(trailing))

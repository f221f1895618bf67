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
import numpy as np

from densepath.serving.access import FAILED, NOT_ALLOWED, is_key, key_in, request_id
from densepath.serving.calls import (
    InferRequest,
    Input,
    Output,
    Parameters,
    WantedOutput,
    wanted_best,
)
from densepath.serving.errors import BusyError, NotAllowedError, NotFoundError, RequestError
from densepath.serving.infer import infer, metadata, server_metadata
from densepath.serving.logs import log, log_request
from densepath.serving.messages import SERVICE, message, methods
from densepath.serving.service import Service
from densepath.serving.settings import MEGABYTE, Settings
from densepath.serving.tensors import BYTES, check_input, from_raw, to_array, to_raw

Handler = Callable[[Any, Any], Awaitable[Any]]
OPEN = ("ServerLive", "ServerReady")
# Where InferTensorContents keeps the values of a type. FP16 has no place there.
CONTENTS = {
    **{"BOOL": "bool_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"},
    **{"INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents"},
    **{"UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents"},
    **{"INT64": "int64_contents", "UINT64": "uint64_contents", BYTES: "bytes_contents"},
}
# Room for what a message has beside the tensors.
MARGIN = MEGABYTE
# Calls beyond what a queue can hold: health, metadata, and those that are refused.
SPARE_CALLS = 32


def build_server(service: Service) -> grpc.aio.Server:
    """The server, not listening yet."""
    settings = service.settings
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_body_bytes + MARGIN),
            ("grpc.max_send_message_length", settings.max_body_bytes + MARGIN),
            ("grpc.max_concurrent_streams", settings.max_connections),
            ("grpc.so_reuseport", int(settings.workers > 1)),
            # A client that sends nothing for long is asked, and left when it does not answer.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ],
        # Each may hold a message of the largest size, before anybody can refuse it.
        maximum_concurrent_rpcs=settings.max_queue + SPARE_CALLS,
    )
    calls = _Calls(service)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            calls.guarded(name, getattr(calls, name)),
            request_deserializer=asked.FromString,
            response_serializer=answered.SerializeToString,
        )
        for name, asked, answered in methods()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
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

    def guarded(self, name: str, handler: Handler) -> Handler:
        """The handler behind the API key, with statuses for errors, log and counters."""

        async def call(request: Any, context: Any) -> Any:
            started = time.monotonic()
            said = {key.lower(): value for key, value in context.invocation_metadata() or ()}
            known = request_id(said.get("x-request-id") or getattr(request, "id", None))
            status, fields = "CANCELLED", _fields(request)
            try:
                key = self._service.settings.api_key
                if key and name not in OPEN and not is_key(key_in(said), key):
                    raise NotAllowedError(NOT_ALLOWED)
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

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Every model and version, loaded or not."""
        rows = self._service.repository.index()
        shown = [row for row in rows if row["state"] == "READY" or not request.ready]
        return message("RepositoryIndexResponse")(models=shown)

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Opens the model's bundles anew."""
        await self._service.order("load", request.model_name)
        return message("RepositoryModelLoadResponse")()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Takes the model away."""
        await self._service.order("unload", request.model_name)
        return message("RepositoryModelUnloadResponse")()


def read_message(request: Any) -> InferRequest:
    """What a ModelInferRequest asks for.

    Raises:
        RequestError: its tensors do not hold together.
    """
    raw = list(request.raw_input_contents)
    if not request.inputs:
        raise RequestError("the request has no inputs.")
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            f"{len(request.inputs)} inputs and {len(raw)} raw_input_contents; there must be as "
            "many of both."
        )
    inputs = []
    for i, each in enumerate(request.inputs):
        shape = list(each.shape)
        check_input(each.name, each.datatype, shape)
        array = from_raw(raw[i], each.datatype, shape, each.name) if raw else _typed(each, shape)
        inputs.append(Input(each.name, each.datatype, array))
    outputs = [
        WantedOutput(each.name, best=wanted_best(_parameters(each.parameters)))
        for each in request.outputs
    ]
    return InferRequest(request.id, inputs, outputs or None, _parameters(request.parameters))


def _typed(tensor: Any, shape: list[int]) -> Any:
    """The array in an input's `contents`."""
    if tensor.datatype not in CONTENTS:
        raise RequestError(f"{tensor.datatype} has no typed contents; use raw_input_contents.")
    values = list(getattr(tensor.contents, CONTENTS[tensor.datatype]))
    if tensor.datatype != BYTES:
        return to_array(values, tensor.datatype, shape, tensor.name)
    array = np.empty(len(values), object)
    array[:] = values
    if array.size != np.prod(shape, dtype=object):
        raise RequestError(f"input {tensor.name!r} has {array.size} values, not those of {shape}.")
    return array.reshape(shape)


def write_output(answer: Any, output: Output, *, typed: bool) -> None:
    """The answer has one tensor more."""
    tensor = answer.outputs.add(
        name=output.name, datatype=output.datatype, shape=output.array.shape
    )
    if typed:
        getattr(tensor.contents, CONTENTS[output.datatype]).extend(output.array.ravel().tolist())
    else:
        answer.raw_output_contents.append(to_raw(output.array))


def _parameters(found: Any) -> Parameters:
    """Plain values of a map of InferParameter."""
    return {
        key: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for key, value in found.items()
    }


def _fields(request: Any) -> dict[str, Any]:
    """What the log says of a request: its short fields."""
    named = type(request).DESCRIPTOR.fields_by_name
    short = ("name", "version", "model_name", "model_version")
    said = {name: getattr(request, name) for name in short if name in named}
    return {name: str(value)[:64] for name, value in said.items() if value}


async def _abort(context: Any, error: RequestError, known: str) -> None:
    """The call ends with the error's status."""
    trailing = [("x-request-id", known)]
    if isinstance(error, BusyError):
        trailing.append(("retry-after", str(error.retry_after_s)))
    status = getattr(grpc.StatusCode, error.grpc_status)
    await context.abort(status, str(error), tuple(trailing))

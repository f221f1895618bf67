"""The Open Inference Protocol V2 over REST, with Triton's binary data, statistics, configurations.

Source: kserve/open-inference-protocol, `specification/protocol/inference_rest.md`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from densepath.serving.core.errors import RequestError
from densepath.serving.core.service import Service, check_ready
from densepath.serving.rest.answers import as_json
from densepath.serving.rest.bodies import (
    asked_seconds,
    beside,
    read_body,
    while_connected,
)
from densepath.serving.rest.infer_json import read_request, write_response
from densepath.serving.rest.options import CLOSED_QUERY
from densepath.serving.rest.schemas import (
    BINARY,
    JSON,
    READING,
    WORKING,
    InferAnswer,
    Live,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    Names,
    Ready,
    ServerMetadata,
    Statistics,
    refusals,
)
from densepath.serving.v2.infer import infer, metadata, server_metadata
from densepath.serving.v2.inspection import config, statistics

JSON_LENGTH = "Inference-Header-Content-Length"
TENSOR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "enum": ["FP32", "UINT8", "BYTES"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
    "required": ["name", "datatype", "shape"],
}
REQUEST: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "items": TENSOR, "minItems": 1},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                "required": ["name"],
            },
        },
    },
    "required": ["inputs"],
}
BODY = {
    "required": True,
    "content": {
        JSON: {"schema": REQUEST},
        BINARY: {"schema": {"type": "string", "format": "binary"}},
    },
}
INFER: dict[str, Any] = {
    "response_model": InferAnswer,
    "responses": {
        200: {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}},
        **refusals(*WORKING),
    },
    "openapi_extra": {"requestBody": BODY},
}


def v2_routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter()
    for part in (_health_routes, _model_routes):
        router.include_router(part(service))
    return router


def _health_routes(service: Service) -> APIRouter:
    """Those that orchestrators ask, with whatever they put behind the address."""
    router = APIRouter(prefix="/v2", tags=["V2"])
    get = router.get

    @get("/health/live", response_model=Live, responses=refusals(500))
    async def live() -> Response:
        """The server runs."""
        return as_json({"live": True})

    @get("/health/ready", response_model=Ready, responses=refusals(500, 503))
    async def ready() -> Response:
        """The server answers; 503 while it starts and while it is being stopped."""
        check_ready(service)
        return as_json({"ready": True})

    return router


def _model_routes(service: Service) -> APIRouter:
    """Models, and what they answer."""
    router = APIRouter(prefix="/v2", tags=["V2"], dependencies=[CLOSED_QUERY])
    get, post = router.get, router.post
    reading = refusals(*READING)

    @get("", response_model=ServerMetadata, responses=refusals(400, 401, 500))
    async def about() -> Response:
        """What the server is."""
        return as_json(server_metadata())

    @get("/models", response_model=Names, responses=refusals(400, 401, 500))
    async def names() -> Response:
        """The names of all models."""
        return as_json({"models": service.repository.names})

    @get("/models/stats", response_model=Statistics, responses=refusals(400, 401, 500))
    async def all_statistics() -> Response:
        """What all models have done since the server began."""
        return as_json(statistics(service))

    @get("/models/{name}/stats", response_model=Statistics, responses=reading)
    @get("/models/{name}/versions/{version}/stats", response_model=Statistics, responses=reading)
    async def model_statistics(name: str, version: str = "") -> Response:
        """What the model has done since the server began."""
        return as_json(statistics(service, name, version))

    @get("/models/{name}/config", response_model=ModelConfig, responses=reading)
    @get("/models/{name}/versions/{version}/config", response_model=ModelConfig, responses=reading)
    async def model_config(name: str, version: str = "") -> Response:
        """How the model is served."""
        return as_json(config(service, service.repository.find(name, version)))

    @get("/models/{name}", response_model=ModelMetadata, responses=reading)
    @get("/models/{name}/versions/{version}", response_model=ModelMetadata, responses=reading)
    async def model_metadata(name: str, version: str = "") -> Response:
        """What the model takes and gives."""
        return as_json(metadata(service, service.repository.find(name, version)))

    @get("/models/{name}/ready", response_model=ModelReady, responses=reading)
    @get("/models/{name}/versions/{version}/ready", response_model=ModelReady, responses=reading)
    async def model_ready(name: str, version: str = "") -> Response:
        """Whether the model answers."""
        check_ready(service)
        service.repository.find(name, version)
        return as_json({"name": name, "ready": True})

    @post("/models/{name}/infer", **INFER)
    @post("/models/{name}/versions/{version}/infer", **INFER)
    async def model_infer(request: Request, name: str, version: str = "") -> Response:
        """The network's outputs for one batch of tensors, pixels or image files."""
        model = service.repository.find(name, version)
        asked_s = asked_seconds(request)
        body = await read_body(request, service)
        called = await beside(
            len(body), read_request, body, _json_length(request), model.source.name
        )
        outputs = await while_connected(request, infer(service, model, called, asked_s))
        request.state.fields.update(model=str(model.source), images=len(outputs[0].array))
        values = {"model_name": model.source.name, "model_version": model.source.version}
        if called.id:
            values["id"] = called.id
        answer, length = write_response(values, outputs)
        if length is None:
            return Response(answer, media_type=JSON)
        return Response(answer, headers={JSON_LENGTH: str(length)}, media_type=BINARY)

    return router


def _json_length(request: Request) -> int | None:
    """The length of the JSON before binary data.

    Raises:
        RequestError: it is no number.
    """
    said = request.headers.get(JSON_LENGTH)
    if said is None:
        return None
    if not (said.isascii() and said.isdigit() and len(said) < 12):
        raise RequestError(f"{JSON_LENGTH} is {said[:32]!r}; it must be a number of bytes.")
    return int(said)

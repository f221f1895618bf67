"""Triton's model repository extension of V2: which models there are, and that they come and go.

Source: triton-inference-server/server, `docs/protocol/extension_model_repository.md`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from densepath.serving.core.errors import RequestError
from densepath.serving.core.fields import check_known
from densepath.serving.core.orders import check_order, check_repository
from densepath.serving.core.service import Service
from densepath.serving.rest.answers import as_json
from densepath.serving.rest.bodies import read_body, read_json
from densepath.serving.rest.options import CLOSED_QUERY
from densepath.serving.rest.schemas import (
    CHANGING,
    JSON,
    LISTING,
    IndexRow,
    ModelReady,
    refusals,
)

ORDER: dict[str, Any] = {"parameters": {"type": "object"}}


def repository_routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v2/repository", tags=["V2"], dependencies=[CLOSED_QUERY])
    post, changing = router.post, refusals(*CHANGING)

    @post(
        "/index",
        response_model=list[IndexRow],
        responses=refusals(*LISTING),
        openapi_extra=_optional({"ready": {"type": "boolean"}}),
    )
    async def index(request: Request) -> Response:
        """Every model and version, loaded or not; with `ready` those that answer."""
        values = await _said(request, service, ("ready", "repository_name"))
        only_ready = values.get("ready", False)
        if not isinstance(only_ready, bool):
            raise RequestError(f"ready is {only_ready!r}; it must be true or false.")
        return as_json(service.repository.index(only_ready=only_ready))

    @post(
        "/models/{name}/load",
        response_model=ModelReady,
        responses=changing,
        openapi_extra=_optional(ORDER),
    )
    async def load(request: Request, name: str) -> Response:
        """Open the model's bundles anew; requests go on being answered meanwhile."""
        return await order(request, "load", name)

    @post(
        "/models/{name}/unload",
        response_model=ModelReady,
        responses=changing,
        openapi_extra=_optional(ORDER),
    )
    async def unload(request: Request, name: str) -> Response:
        """Take the model away; requests inside are still answered."""
        return await order(request, "unload", name)

    async def order(request: Request, verb: str, name: str) -> Response:
        values = await _said(request, service, ("parameters", "repository_name"))
        parameters = values.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise RequestError("parameters must be a JSON object.")
        check_order(verb, parameters)
        await service.order(verb, name)
        return as_json({"name": name, "ready": verb == "load"})

    return router


async def _said(request: Request, service: Service, known: tuple[str, ...]) -> dict[str, Any]:
    """The JSON of a body that may be missing.

    Raises:
        RequestError: it is none, or has other fields.
    """
    body = await read_body(request, service)
    values = read_json(body) if body.strip() else {}
    check_known(values, known, "field of the JSON")
    check_repository(values.get("repository_name"))
    return values


def _optional(properties: dict[str, Any]) -> dict[str, Any]:
    """A body of these fields, which may be missing, as OpenAPI says it."""
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": False, "content": {JSON: {"schema": schema}}}}

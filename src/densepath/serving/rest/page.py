"""The routes of the page: one a file, so that no request names a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from densepath.serving.page import FILES
from densepath.serving.rest.schemas import refusals

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def page_routes() -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["page"])
    for path, (name, kind) in FILES.items():
        router.add_api_route(
            path,
            _sender(name, kind),
            methods=["GET"],
            name=name,
            response_class=Response,
            responses=_described(kind),
        )
    return router


def _sender(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    """What answers with the file."""
    file = files("densepath.serving.page") / name
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}

    async def send() -> Response:
        """A file of the page."""
        return Response(file.read_bytes(), 200, headers, kind)

    return send


def _described(kind: str) -> dict[int | str, dict[str, Any]]:
    """The responses of a file's route, as OpenAPI describes them."""
    content = {kind.partition(";")[0]: {"schema": {"type": "string"}}}
    return {200: {"description": "The file.", "content": content}, **refusals(500)}

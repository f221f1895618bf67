"""The REST application: all routes behind the guard, described in `/openapi.json`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from densepath.serving.core.access import FAILED
from densepath.serving.core.errors import RequestError
from densepath.serving.core.service import Service
from densepath.serving.rest.answers import refusal, refuse
from densepath.serving.rest.docs import docs_routes
from densepath.serving.rest.guard import Guard
from densepath.serving.rest.images import image_routes
from densepath.serving.rest.options import wrong_options
from densepath.serving.rest.page import page_routes
from densepath.serving.rest.schemas import refusals
from densepath.serving.rest.v1 import v1_routes
from densepath.serving.rest.v2 import v2_routes
from densepath.serving.rest.v2_repository import repository_routes
from densepath.version import __version__

ABOUT = (
    "Images in, names out: `/classify`. KServe's V1 and the Open Inference Protocol V2 beside it. "
    "Refusals are `{error, request_id}`."
)
METRICS_KIND = "text/plain; version=0.0.4; charset=utf-8"


def build_app(service: Service) -> ASGIApp:
    """The application; the service need not be started for its OpenAPI document."""
    app = FastAPI(
        title="densepath",
        version=__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(RequestError, refuse)
    app.add_exception_handler(RequestValidationError, _wrong_option)
    app.add_exception_handler(HTTPException, _no_such_route)
    app.add_exception_handler(Exception, _failed)
    app.include_router(image_routes(service))
    app.include_router(v1_routes(service))
    app.include_router(v2_routes(service))
    app.include_router(repository_routes(service))
    if service.settings.pages:
        app.include_router(page_routes())
        app.include_router(docs_routes(app))

    text = {"description": "Prometheus's text.", "content": {"text/plain": {}}}

    @app.get(
        "/metrics",
        tags=["metrics"],
        response_class=Response,
        responses={200: text, **refusals(401, 500)},
    )
    async def metrics() -> Response:
        """What Prometheus reads."""
        return Response(service.metrics.to_text(), media_type=METRICS_KIND)

    _name_the_key(app, service)
    return Guard(app, service)


def _name_the_key(app: FastAPI, service: Service) -> None:
    """Add to the document how the API key is sent, where one is needed."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            # FastAPI describes its own kind of 422 where a route has described none.
            for path in document["paths"].values():
                for operation in path.values():
                    said = operation["responses"].get("422", {}).get("content", {})
                    if "HTTPValidationError" in str(said):
                        del operation["responses"]["422"]
            if service.settings.api_key:
                document.setdefault("components", {})["securitySchemes"] = {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                }
                document["security"] = [{"bearer": []}, {"key": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


async def _wrong_option(request: Request, error: Exception) -> Response:
    """The response to a query parameter that is wrong."""
    assert isinstance(error, RequestValidationError)
    return refusal(request, wrong_options(error.errors()), 400)


async def _no_such_route(request: Request, error: Exception) -> Response:
    """The response for 404 and 405 of the router."""
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path[:200]}: {error.detail.lower()}; see /openapi.json."
    return refusal(request, said, error.status_code, **dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> Response:
    """The response to what nobody foresaw; the guard writes it into the log."""
    return refusal(request, FAILED, 500)

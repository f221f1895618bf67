"""The page at `/`: three files, nothing from another host."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from densepath.serving.rest.schemas import refusals

KINDS = {
    "index.html": "text/html; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def page_routes() -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["page"])
    folder = files("densepath.serving") / "page"

    def file(name: str) -> Response:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        return Response((folder / name).read_bytes(), 200, headers, KINDS[name])

    def described(name: str) -> dict[int | str, dict[str, Any]]:
        kind = KINDS[name].partition(";")[0]
        content = {kind: {"schema": {"type": "string"}}}
        return {200: {"description": "The file.", "content": content}, **refusals(500)}

    @router.get("/", response_class=Response, responses=described("index.html"))
    async def index() -> Response:
        """The page."""
        return file("index.html")

    @router.get("/page/page.js", response_class=Response, responses=described("page.js"))
    async def script() -> Response:
        """The page's script."""
        return file("page.js")

    @router.get("/page/style.css", response_class=Response, responses=described("style.css"))
    async def style() -> Response:
        """The page's style."""
        return file("style.css")

    return router

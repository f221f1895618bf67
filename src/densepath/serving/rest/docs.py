"""`/docs`: the OpenAPI document as a page that needs no script and nothing from another host.

FastAPI's own page loads its scripts from a content delivery network: it is empty where there is no
internet, and tells that network who looks.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI
from starlette.responses import Response

from densepath.serving.page import DOCS
from densepath.serving.rest.schemas import refusals

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color-scheme:light dark}h2{margin-top:2.5rem}summary{cursor:pointer;padding:.3rem 0}"
    "summary b{display:inline-block;min-width:3.5rem}"
    "code,pre{font:14px/1.45 ui-monospace,monospace}"
    "pre{overflow:auto;padding:.75rem;border:1px solid #8886;border-radius:.3rem}"
    "table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.2rem 1rem "
    ".2rem 0}details>*:not(summary){margin-left:1rem}"
)
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
KIND = "text/html; charset=utf-8"
Operation = tuple[str, str, dict[str, Any]]


def docs_routes(app: FastAPI) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["page"])
    content = {"text/html": {"schema": {"type": "string"}}}

    @router.get(
        DOCS,
        response_class=Response,
        responses={200: {"description": "The page.", "content": content}, **refusals(500)},
    )
    async def docs() -> Response:
        """This page: all routes, with what they take and answer."""
        text = render(app.openapi())
        return Response(text, 200, {"Content-Security-Policy": POLICY}, KIND)

    return router


def render(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    operations = [
        (method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    sections = [
        f"<h2>{escape(tag)}</h2>" + "".join(map(_operation, group))
        for tag, group in groupby(operations, key=lambda each: each[2]["tags"][0])
    ]
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    schemas = document.get("components", {}).get("schemas", {})
    return "".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width">',
            f"<style>{STYLE}</style><h1>{title}</h1><p>{_marked(info['description'])}</p>",
            '<p>For programs: <a href="openapi.json"><code>openapi.json</code></a>.</p>',
            *sections,
            "<h2>Schemas</h2>",
            *(_details(f"<code>{escape(name)}</code>", _json(s)) for name, s in schemas.items()),
        ]
    )


def _operation(each: Operation) -> str:
    """One route and method."""
    method, path, operation = each
    title = f"<b>{method}</b> <code>{escape(path)}</code>"
    return _details(title, "".join(_parts(operation)), operation.get("description", ""))


def _parts(operation: dict[str, Any]) -> Iterator[str]:
    """What a route takes, and what it answers."""
    if parameters := operation.get("parameters"):
        yield "<h4>Parameters</h4>" + _table(
            (each["name"], f"{each['in']}; {each.get('description', '')} {_limits(each['schema'])}")
            for each in parameters
        )
    body = operation.get("requestBody", {})
    if body:
        yield f"<h4>Body</h4><p>{escape(body.get('description', ''))}</p>"
    for kind, content in body.get("content", {}).items():
        yield f"<p><code>{escape(kind)}</code></p>{_json(content['schema'])}"
    rows = operation["responses"].items()
    yield "<h4>Answers</h4>" + _table((status, each["description"]) for status, each in rows)


def _limits(schema: dict[str, Any]) -> str:
    """Type, default and range."""
    shown = ("type", "default", "minimum", "maximum")
    said = [f"{name} {schema[name]!r}" for name in shown if schema.get(name) not in (None, "")]
    return f"({', '.join(said)})" if said else ""


def _details(title: str, inside: str, about: str = "") -> str:
    """A part of the page that opens when its title is chosen."""
    return f"<details><summary>{title} {_marked(about)}</summary>{inside}</details>"


def _table(rows: Any) -> str:
    """Rows of two cells."""
    cells = (f"<tr><td><code>{escape(a)}</code><td>{_marked(b)}" for a, b in rows)
    return f"<table>{''.join(cells)}</table>"


def _json(value: Any) -> str:
    """JSON as it is read best."""
    return f"<pre>{escape(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())}</pre>"


def _marked(text: str) -> str:
    """The text, with what stands between backquotes as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))

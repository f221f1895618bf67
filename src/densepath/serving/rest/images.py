"""`/classify` and `/models`: what people and their programs use first."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from densepath.serving.core.errors import RequestError, UnreadableError
from densepath.serving.core.service import Classified, Service
from densepath.serving.rest.answers import as_json, explanation, image_answer
from densepath.serving.rest.bodies import asked_seconds, while_connected
from densepath.serving.rest.options import CLOSED_QUERY, ClassifyOptions, schema_of, with_body
from densepath.serving.rest.schemas import WORKING, Classification, Models, refusals
from densepath.serving.rest.uploads import read_images

OPTIONS = schema_of(ClassifyOptions)
BASE64 = {"type": "string", "contentEncoding": "base64"}
FORM = {
    "type": "object",
    "properties": {
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
        **OPTIONS,
    },
    "required": ["files"],
}
LISTED = {
    "type": "object",
    "properties": {
        "images": {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    BASE64,
                    {
                        "type": "object",
                        "properties": {"name": {"type": "string"}, "b64": BASE64},
                        "required": ["b64"],
                        "additionalProperties": False,
                    },
                ]
            },
        },
        **OPTIONS,
    },
    "required": ["images"],
    "additionalProperties": False,
}
BODY = {
    "required": True,
    "description": "Files under any field's name, one image as it is, or base64 in JSON. The "
    "options of the query may stand in the form or the JSON instead.",
    "content": {
        "multipart/form-data": {"schema": FORM},
        "application/json": {"schema": LISTED},
        "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
        "image/png": {"schema": {"type": "string", "format": "binary"}},
    },
}


def image_routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["images"], dependencies=[CLOSED_QUERY])

    @router.get("/models", response_model=Models, responses=refusals(400, 401, 500))
    async def models() -> Response:
        """Every model and version that answers, and what it is."""
        return as_json({"models": service.repository.to_dicts()})

    unread: dict[int | str, dict[str, Any]] = {
        422: {"model": Classification, "description": "None of the images could be read."}
    }

    @router.post(
        "/classify",
        response_model=Classification,
        responses=refusals(*WORKING) | unread,
        openapi_extra={"requestBody": BODY},
    )
    async def classify(request: Request, options: Annotated[ClassifyOptions, Query()]) -> Response:
        """Name what is in images: the likeliest classes of each."""
        started = time.monotonic()
        deadline = service.deadline(asked_seconds(request))
        images, found = await read_images(request, service)
        asked = with_body(options, request, found)
        served = service.repository.find(asked.model, asked.version)
        if asked.target and not asked.explain:
            raise RequestError("target names the class of heat maps: it needs explain=true.")
        how: dict[str, Any] = {"top_k": asked.top_k, "deadline": deadline}
        if asked.explain:
            work = service.explain(served, images, target=asked.target, **how)
        else:
            work = service.classify(served, images, **how)
        done = await while_connected(request, work)
        request.state.fields.update(model=str(served.source), images=len(images))
        values = await asyncio.to_thread(_values, done) if asked.explain else _values(done)
        values["request_id"] = request.state.request_id
        values["timing_ms"]["total"] = round((time.monotonic() - started) * 1000, 3)
        if not any(prediction.error is None for prediction in done.predictions):
            values["error"] = f"none of the {len(images)} images could be read."
            return as_json(values, UnreadableError.http_status)
        return as_json(values)

    return router


def _values(done: Classified) -> dict[str, Any]:
    """The answers as JSON has them."""
    rows = [image_answer(prediction) for prediction in done.predictions]
    for row, explained in zip(rows, done.explanations or (), strict=False):
        if explained is not None and explained.heat is not None:
            row["explanation"] = explanation(explained)
    source = done.model.source
    timing = {"read": done.times.read, "queue": done.times.queue, "network": done.times.network}
    return {
        "model": source.name,
        "version": source.version,
        "predictions": rows,
        "timing_ms": timing,
    }

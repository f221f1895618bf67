"""KServe's V1: `/v1/models/NAME:predict` with `instances`, as TensorFlow Serving began it.

An instance is an image, `{"b64": "BASE64"}` or `{"image_bytes": {"b64": "BASE64"}}`, or a
normalised tensor as nested lists [C, H, W].
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from densepath.serving.errors import RequestError, UnreadableError
from densepath.serving.infer import TOP_K
from densepath.serving.model import ServedModel
from densepath.serving.rest.answers import as_json, explanation
from densepath.serving.rest.bodies import (
    asked_seconds,
    beside,
    read_body,
    read_json,
    while_connected,
)
from densepath.serving.rest.schemas import (
    READING,
    TARGET,
    WORKING,
    ModelReady,
    Names,
    V1Answer,
    V1Explanation,
    refusals,
)
from densepath.serving.service import Classified, Service, check_ready
from densepath.serving.tensors import from_base64, to_array

INSTANCES: dict[str, Any] = {
    "type": "object",
    "properties": {
        "instances": {
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [{"type": "object"}, {"type": "array"}]},
        }
    },
    "required": ["instances"],
}
BODY = {"required": True, "content": {"application/json": {"schema": INSTANCES}}}


def v1_routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1", tags=["V1"])

    @router.get("/models", response_model=Names, responses=refusals(401, 500))
    async def names() -> Response:
        """The names of all models."""
        return as_json({"models": service.repository.names})

    @router.get("/models/{name}", response_model=ModelReady, responses=refusals(*READING))
    async def ready(name: str) -> Response:
        """Whether the model answers."""
        check_ready(service)
        service.repository.find(name)
        return as_json({"name": name, "ready": True})

    @router.post(
        "/models/{name}:predict",
        response_model=V1Answer,
        responses=refusals(*WORKING),
        openapi_extra={"requestBody": BODY},
    )
    async def predict(request: Request, name: str) -> Response:
        """The best classes of each instance."""
        model, instances, deadline = await _read(request, service, name)
        if isinstance(instances[0], list):
            shape = _shape(instances)
            large = 4 * math.prod(shape)
            tensor = await beside(large, to_array, instances, "FP32", shape, "instances")
            work = service.infer(model, tensor, deadline)
        else:
            work = service.read_and_infer(model, _images(instances), deadline)
        logits = await while_connected(request, work)
        answers = model.predictor.answer(logits, [""] * len(logits), top_k=TOP_K)
        rows = [each.to_dict() for each in answers]
        for row in rows:
            del row["path"]
        return as_json({"predictions": rows})

    @router.post(
        "/models/{name}:explain",
        response_model=V1Explanation,
        responses=refusals(*WORKING),
        openapi_extra={"requestBody": BODY},
    )
    async def explain(
        request: Request,
        name: str,
        target: Annotated[str, Query(description=TARGET)] = "",
    ) -> Response:
        """Where the network looked for the best class of each image, or for one that is named."""
        model, instances, deadline = await _read(request, service, name)
        work = service.explain(model, _images(instances), top_k=1, deadline=deadline, target=target)
        done: Classified = await while_connected(request, work)
        failed = [f"{each.path}: {each.error}" for each in done.predictions if each.error]
        if failed:
            raise UnreadableError("; ".join(failed[:5]))
        return as_json({"explanations": [explanation(e) for e in done.explanations or [] if e]})

    return router


async def _read(
    request: Request, service: Service, name: str
) -> tuple[ServedModel, list[Any], float]:
    """The model, the instances and the deadline of a request."""
    model = service.repository.find(name)
    deadline = service.deadline(asked_seconds(request))
    body = await read_body(request, service)
    instances = (await beside(len(body), read_json, body)).get("instances")
    if not isinstance(instances, list) or not instances:
        raise RequestError('the JSON has no list "instances" with something in it.')
    request.state.fields.update(model=str(model.source), images=len(instances))
    return model, instances, deadline


def _images(instances: list[Any]) -> list[tuple[str, Any]]:
    """The images of instances.

    Raises:
        RequestError: one is no image in base64.
    """
    images = []
    for i, instance in enumerate(instances):
        inner = instance.get("image_bytes", instance) if isinstance(instance, dict) else None
        text = inner.get("b64") if isinstance(inner, dict) else None
        try:
            images.append((f"instance {i}", from_base64(text)))
        except ValueError:
            raise RequestError(
                f'instance {i} is not {{"b64": "BASE64"}}; all instances are images in base64, or '
                "all are tensors."
            ) from None
    return images


def _shape(values: Any) -> list[int]:
    """The sizes of nested lists, by their first elements."""
    shape: list[int] = []
    while isinstance(values, list) and len(shape) < 8:
        shape.append(len(values))
        values = values[0] if values else None
    return shape

"""KServe's V1: `/v1/models/NAME:predict` with `instances`, as TensorFlow Serving began it.

An instance is an image, `{"b64": "BASE64"}` or `{"image_bytes": {"b64": "BASE64"}}`, or a
normalised tensor as nested lists [C, H, W].
"""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from densepath.serving.core.errors import RequestError
from densepath.serving.core.fields import check_known
from densepath.serving.core.model import ServedModel
from densepath.serving.core.service import Classified, Service, check_ready
from densepath.serving.rest.answers import as_json, explanation
from densepath.serving.rest.bodies import (
    asked_seconds,
    beside,
    read_body,
    read_json,
    while_connected,
)
from densepath.serving.rest.options import (
    CLOSED_QUERY,
    ExplainOptions,
    Options,
    PredictOptions,
    schema_of,
    with_body,
)
from densepath.serving.rest.schemas import (
    JSON,
    READING,
    WORKING,
    ModelReady,
    Names,
    V1Answer,
    V1Explanation,
    refusals,
)
from densepath.serving.v2.tensors import from_base64, to_array

INSTANCES = "instances"
Asked = TypeVar("Asked", bound=Options)


def _body(options: type[Options]) -> dict[str, Any]:
    """What OpenAPI says of a request with these options."""
    listed = {
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": [{"type": "object"}, {"type": "array"}]},
    }
    schema = {
        "type": "object",
        "properties": {INSTANCES: listed, **schema_of(options)},
        "required": [INSTANCES],
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def v1_routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1", tags=["V1"], dependencies=[CLOSED_QUERY])

    @router.get("/models", response_model=Names, responses=refusals(400, 401, 500))
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
        openapi_extra=_body(PredictOptions),
    )
    async def predict(
        request: Request, name: str, options: Annotated[PredictOptions, Query()]
    ) -> Response:
        """The best classes of each instance."""
        model, instances, asked, deadline = await _read(request, service, name, options)
        if isinstance(instances[0], list):
            shape = _shape(instances)
            large = 4 * math.prod(shape)
            tensor = await beside(large, to_array, instances, "FP32", shape, "instances")
            work = service.infer(model, tensor, deadline)
        else:
            work = service.read_and_infer(model, _images(instances), deadline)
        logits = await while_connected(request, work)
        answers = model.predictor.answer(logits, [""] * len(logits), top_k=asked.top_k)
        rows = [each.to_dict() for each in answers]
        for row in rows:
            del row["path"]
        return as_json({"predictions": rows})

    @router.post(
        "/models/{name}:explain",
        response_model=V1Explanation,
        responses=refusals(*WORKING),
        openapi_extra=_body(ExplainOptions),
    )
    async def explain(
        request: Request, name: str, options: Annotated[ExplainOptions, Query()]
    ) -> Response:
        """Where the network looked for the best class of each image, or for one that is named."""
        model, instances, asked, deadline = await _read(request, service, name, options)
        how: dict[str, Any] = {"top_k": 1, "deadline": deadline, "target": asked.target}
        work = service.explain(model, _images(instances), all_or_none=True, **how)
        done: Classified = await while_connected(request, work)
        return as_json({"explanations": [explanation(e) for e in done.explanations or [] if e]})

    return router


async def _read(
    request: Request, service: Service, name: str, options: Asked
) -> tuple[ServedModel, list[Any], Asked, float]:
    """The model, the instances, the options with those of the body, and the deadline."""
    model = service.repository.find(name)
    deadline = service.deadline(asked_seconds(request))
    body = await read_body(request, service)
    values = await beside(len(body), read_json, body)
    check_known(values, (INSTANCES, *type(options).model_fields), "field of the JSON")
    instances = values.pop(INSTANCES, None)
    if not isinstance(instances, list) or not instances:
        raise RequestError('the JSON has no list "instances" with something in it.')
    request.state.fields.update(model=str(model.source), images=len(instances))
    return model, instances, with_body(options, request, values), deadline


def _images(instances: list[Any]) -> list[tuple[str, Any]]:
    """The images of instances.

    Raises:
        RequestError: one is no image in base64.
    """
    images = []
    for i, instance in enumerate(instances):
        text = _base64_of(instance, f"field of instance {i}")
        try:
            images.append((f"instance {i}", from_base64(text)))
        except ValueError:
            raise RequestError(
                f'instance {i} is not {{"b64": "BASE64"}}; all instances are images in base64, or '
                "all are tensors."
            ) from None
    return images


def _base64_of(instance: Any, kind: str) -> Any:
    """What should be base64 in `{"b64": ...}` or `{"image_bytes": {"b64": ...}}`.

    Raises:
        RequestError: there is more in it; `kind` says in what.
    """
    if not isinstance(instance, dict):
        return None
    inner = instance
    if "image_bytes" in instance:
        check_known(instance, ("image_bytes",), kind)
        inner = instance["image_bytes"]
    if not isinstance(inner, dict):
        return None
    check_known(inner, ("b64",) if inner is not instance else ("b64", "image_bytes"), kind)
    return inner.get("b64")


def _shape(values: Any) -> list[int]:
    """The sizes of nested lists, by their first elements."""
    shape: list[int] = []
    while isinstance(values, list) and len(shape) < 8:
        shape.append(len(values))
        values = values[0] if values else None
    return shape

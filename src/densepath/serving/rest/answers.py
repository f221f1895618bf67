"""Answers on their way out: JSON bodies, refusals, pictures of explanations."""

from __future__ import annotations

import base64
import io
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from densepath.predict.answers import SCORE_DIGITS, Prediction
from densepath.predict.pictures import enlarge, lay_over
from densepath.predict.predictor import Explanation
from densepath.serving.core.errors import BusyError, RequestError
from densepath.serving.rest.schemas import JSON

# The long side of a picture in an answer.
PICTURE = 448
HEAT_DIGITS = 4


def as_json(values: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON body."""
    return Response(orjson.dumps(values), status, headers, JSON)


def refusal(request: Request, error: str, status: int, **headers: str) -> Response:
    """A response with `error` and `request_id`."""
    values = {"error": error, "request_id": request.state.request_id}
    return as_json(values, status, headers or None)


async def refuse(request: Request, error: Exception) -> Response:
    """A response that says what a RequestError does."""
    assert isinstance(error, RequestError)
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.retry_after_s)
    return refusal(request, str(error), error.http_status, **headers)


def image_answer(prediction: Prediction) -> dict[str, Any]:
    """A prediction under the name of its image."""
    values = prediction.to_dict()
    return {"name": values.pop("path"), **values}


def explanation(explained: Explanation) -> dict[str, Any]:
    """Where the network looked, as numbers and as pictures."""
    assert explained.image is not None
    assert explained.heat is not None
    seen, about = enlarge(explained.image, PICTURE), explained.explained
    return {
        "class_id": about.class_id,
        "label": about.label,
        "score": round(about.score, SCORE_DIGITS),
        "heat": [[round(float(v), HEAT_DIGITS) for v in row] for row in explained.heat],
        "seen": _data_address(seen),
        "overlay": _data_address(lay_over(seen, explained.heat)),
    }


def _data_address(picture: Any) -> str:
    """The picture as a PNG in a `data:` address."""
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()

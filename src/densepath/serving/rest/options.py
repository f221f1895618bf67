"""Options of a request: in its query, and as well beside the images of a form or of JSON.

Every name is known or refused, whichever place it stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from densepath.serving.core.errors import RequestError
from densepath.serving.core.fields import check_known
from densepath.serving.v2.infer import TOP_K

MOST_CLASSES = 1_000_000
TARGET = "The class that heat maps are for, by name or number; by default each image's first."
PLACE = "option of the query"


class Options(BaseModel):
    """The options that a route takes."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ClassifyOptions(Options):
    """The options of `/classify`."""

    model: str = Field("", description="Needed where several are served.")
    version: str = Field("", description="By default the latest.")
    top_k: int = Field(TOP_K, ge=1, le=MOST_CLASSES, description="Classes an image.")
    explain: bool = Field(False, description="With heat maps, by Grad-CAM.")
    target: str = Field("", description=TARGET)


class PredictOptions(Options):
    """The options of V1's `:predict`."""

    top_k: int = Field(TOP_K, ge=1, le=MOST_CLASSES, description="Classes an image.")


class ExplainOptions(Options):
    """The options of V1's `:explain`."""

    target: str = Field("", description=TARGET)


Kind = TypeVar("Kind", bound=Options)


def with_body(options: Kind, request: Request, found: Mapping[str, Any]) -> Kind:
    """The options of the query together with those that were `found` in the body.

    Raises:
        RequestError: one of the body's is unknown, wrong, or in the query, too.
    """
    if not found:
        return options
    kind = type(options)
    for name in found:
        if name in request.query_params:
            raise RequestError(f"{name} stands in the query and in the body; give it once.")
    try:
        return kind.model_validate({**options.model_dump(), **found})
    except ValidationError as error:
        raise RequestError(wrong_options(error.errors())) from None


def wrong_options(errors: Any) -> str:
    """What pydantic has found, in a sentence; `loc` begins with the query where it was FastAPI."""
    said = []
    for each in errors:
        place = [str(part) for part in each["loc"] if part != "query"]
        said.append(f"{'.'.join(place)}: {each['msg'].lower()}")
    return f"the request's options are wrong: {'; '.join(said)}."


def schema_of(options: type[Options]) -> dict[str, Any]:
    """The properties that a body may have for these options, as OpenAPI says them."""
    properties: dict[str, Any] = options.model_json_schema()["properties"]
    return properties


def _check_query(request: Request) -> None:
    """Raise RequestError unless the route takes what its query says, each option once."""
    given = [name for name, _ in request.query_params.multi_items()]
    if not given:
        return
    known: list[str] = []
    for each in request.scope["route"].dependant.query_params:
        kind = each.field_info.annotation
        is_model = isinstance(kind, type) and issubclass(kind, Options)
        known += kind.model_fields if is_model else [each.alias]
    check_known(given, known, PLACE)
    for name in given:
        if given.count(name) > 1:
            raise RequestError(f"{name} stands in the query twice; give it once.")


# For the routers whose routes take no options but those that they name.
CLOSED_QUERY = Depends(_check_query)

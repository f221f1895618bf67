"""What the REST routes answer, as OpenAPI describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

JSON, BINARY = "application/json", "application/octet-stream"


class Schema(BaseModel):
    """A JSON object with these fields and no others."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Error(Schema):
    """Why there is no answer."""

    error: str
    request_id: str


class ModelRow(Schema):
    """A model and version that answers."""

    name: str
    version: str
    versions: list[str]
    default: bool
    ready: bool
    sha256: str
    network: str
    num_classes: int
    input_size: list[int]
    precision: str
    engine: str
    reason: str
    explains: bool
    multi_label: bool
    thresholds: list[float] | None = None
    temperature: float | None = None


class Models(Schema):
    """All that answer."""

    models: list[ModelRow]


class Explained(Schema):
    """Where the network looked."""

    class_id: int
    label: str
    score: float
    heat: list[list[float]]
    seen: str
    overlay: str


class ImageAnswer(Schema):
    """The best classes of an image, or why it has none."""

    name: str
    class_ids: list[int] | None = None
    labels: list[str] | None = None
    scores: list[float] | None = None
    positive_ids: list[int] | None = None
    positive_labels: list[str] | None = None
    error: str | None = None
    explanation: Explained | None = None


class Timing(Schema):
    """Milliseconds."""

    read: float
    queue: float
    network: float
    total: float


class Classification(Schema):
    """The answers to the images of a request, in their order."""

    model: str
    version: str
    request_id: str
    predictions: list[ImageAnswer]
    timing_ms: Timing
    error: str | None = None


class Live(Schema):
    """V2: the server runs."""

    live: bool


class Ready(Schema):
    """V2: the server answers."""

    ready: bool


class ModelReady(Schema):
    """V1 and V2: the model answers."""

    name: str
    ready: bool


class ServerMetadata(Schema):
    """V2: what the server is."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(Schema):
    """V2: a tensor."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Schema):
    """V2: what a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Names(Schema):
    """V1 and V2: the names of all models."""

    models: list[str]


class IndexRow(Schema):
    """V2's repository: a model, loaded or not."""

    name: str
    version: str
    state: str
    reason: str


class OutputTensor(Schema):
    """V2: a tensor of an answer; binary ones have no `data`."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class InferAnswer(Schema):
    """V2: the tensors of an answer."""

    id: str | None = None
    model_name: str
    model_version: str
    outputs: list[OutputTensor]


class ConfigTensor(Schema):
    """V2: a tensor of a configuration; `dims` are without the batch's."""

    name: str
    data_type: str
    dims: list[int]
    format: str | None = None


class Batching(Schema):
    """V2: how batches are made."""

    preferred_batch_size: list[int]
    max_queue_delay_microseconds: int


class ConfigParameter(Schema):
    """V2: one of a configuration's parameters."""

    string_value: str


class ModelConfig(Schema):
    """V2: how a model is served, in the fields of Triton's ModelConfig."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    dynamic_batching: Batching
    parameters: dict[str, ConfigParameter]


class Duration(Schema):
    """V2: how often, and how long together."""

    count: int
    ns: int


class InferStatistics(Schema):
    """V2: where the time went; what is not measured is 0."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class ModelStatistics(Schema):
    """V2: what a model has done; `last_inference` is in milliseconds since 1970."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics
    batch_stats: list[Any]


class Statistics(Schema):
    """V2: the statistics of the models that were asked for."""

    model_stats: list[ModelStatistics]


class V1Prediction(Schema):
    """V1: the best classes of an instance."""

    class_ids: list[int]
    labels: list[str]
    scores: list[float]
    positive_ids: list[int] | None = None
    positive_labels: list[str] | None = None


class V1Answer(Schema):
    """V1: the answers in the order of the instances."""

    predictions: list[V1Prediction]


class V1Explanation(Schema):
    """V1: the answers with their heat maps."""

    explanations: list[Explained]


WHY = {
    400: "The request is not what the route takes; the message says what is wrong.",
    401: "The API key is missing or wrong.",
    403: "A page of another site sent it.",
    404: "No such model or version, or it is not loaded.",
    408: "The body did not arrive in time.",
    409: "The model could not be loaded; what answered before answers still.",
    413: "The body, an image or the batch is larger than allowed.",
    415: "A body of a kind that the route does not take.",
    422: "Images that cannot be read.",
    429: "The queue is full; Retry-After says when to come back.",
    500: "The server failed; its log says why, under the request's id.",
    503: "The server is being stopped, or the model is being loaded.",
    504: "The answer was not ready by the deadline.",
}
# With a body.
LISTING = (400, 401, 408, 413, 415, 429, 500)
CHANGING = (400, 401, 404, 408, 409, 413, 415, 429, 500)
READING = (400, 401, 404, 500, 503)
WORKING = (400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route, beside its answer."""
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": Error, "description": WHY[status]} for status in statuses
    }
    if 429 in found:
        seconds = {"description": "Seconds.", "schema": {"type": "integer"}}
        found[429]["headers"] = {"Retry-After": seconds}
    return found

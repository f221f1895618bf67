"""Why a request is refused, with the status that REST and gRPC give it.

Each message is for the client: what was wrong, the value, the valid choices, the cure; nothing of
this machine's files, and no traceback.
"""

from __future__ import annotations

from densepath.errors import DensepathError


class RequestError(DensepathError):
    """A request that gets no answer; `http_status` and `grpc_status` say what kind it is."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class NotAllowedError(RequestError):
    """The API key is missing or wrong."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class NotFoundError(RequestError):
    """No such model or version, or it is not loaded."""

    http_status = 404
    grpc_status = "NOT_FOUND"


class SlowBodyError(RequestError):
    """The body did not arrive in time."""

    http_status = 408
    grpc_status = "DEADLINE_EXCEEDED"


class TooLargeError(RequestError):
    """A body, an image or a batch beyond the limits."""

    http_status = 413


class MediaTypeError(RequestError):
    """A body of a kind that the route does not take."""

    http_status = 415


class UnreadableError(RequestError):
    """Images that cannot be read."""

    http_status = 422


class BusyError(RequestError):
    """The queue is full; `retry_after_s` says when it should have room again."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class InternalError(RequestError):
    """The network failed, or the server; the log has more under the request's id."""

    http_status = 500
    grpc_status = "INTERNAL"


class NotReadyError(RequestError):
    """The server is being stopped, or the model is still being loaded."""

    http_status = 503
    grpc_status = "UNAVAILABLE"


class LateError(RequestError):
    """The answer was not ready by the deadline."""

    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class LoadError(RequestError):
    """A model that could not be loaded; what was served before is served still."""

    http_status = 409
    grpc_status = "FAILED_PRECONDITION"

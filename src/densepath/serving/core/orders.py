"""What a client may say to the model repository; the same for REST and gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from densepath.serving.core.errors import RequestError
from densepath.serving.core.fields import check_known

# Triton's client says this with every unload; no model here has dependents.
OF_UNLOAD = ("unload_dependents",)
# By the verb.
OF_ORDER: dict[str, tuple[str, ...]] = {"load": (), "unload": OF_UNLOAD}


def check_order(verb: str, parameters: Mapping[str, Any]) -> None:
    """Raise RequestError where a parameter would be ignored: a configuration or a file, say."""
    check_known(parameters, OF_ORDER[verb], f"parameter of {verb}")


def check_repository(name: Any) -> None:
    """Raise RequestError unless the one repository, which has no name, is meant."""
    if name:
        raise RequestError(f"no repository {str(name)[:64]!r}; there is one, and it has no name.")

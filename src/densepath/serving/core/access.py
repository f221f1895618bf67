"""Who may call, and under which id: the same for REST and gRPC."""

from __future__ import annotations

import hmac
import re
import uuid
from typing import Any

from densepath.serving.core.errors import NotAllowedError

REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
NOT_ALLOWED = "the API key is missing or wrong: send Authorization: Bearer KEY, or X-API-Key: KEY."
FOREIGN = (
    "pages of other sites may not use this server; the one who runs it may let them: "
    "--allow-origin ORIGIN."
)
FAILED = "the server failed; its log says why, under this request_id."


def is_key(said: str, key: str) -> bool:
    """Whether the client's key is the server's; takes as long whichever letter differs."""
    return hmac.compare_digest(said.encode(), key.encode())


def key_in(headers: Any) -> str:
    """The key in `Authorization: Bearer` or `X-API-Key`; empty where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def check_key(key: str | None, headers: Any) -> None:
    """Returns when the client may call: it says the key, or there is none.

    Raises:
        NotAllowedError: it may not.
    """
    if key and not is_key(key_in(headers), key):
        raise NotAllowedError(NOT_ALLOWED)


def request_id(said: str | None) -> str:
    """The client's id of the request, where it is one; else a new one."""
    return said if said and REQUEST_ID.fullmatch(said) else uuid.uuid4().hex

"""Images by URL, for callers who ask for them: http and https only, bounded in size and time."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import IO, Any

from densepath.errors import ImageError

MOST_BYTES = 64 << 20
CONNECT_SECONDS = 10.0
TOTAL_SECONDS = 60.0
_CHUNK_BYTES = 1 << 16


def is_url(name: str) -> bool:
    """Whether this is an http or https address and not a file."""
    return name.lower().startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class Url:
    """An image that is downloaded when it is read."""

    address: str

    def fetch(self) -> bytes:
        """The file's bytes.

        Raises:
            ImageError: not there, too large, too slow, or not http.
        """
        # Imported here: few programs download, and all of them wait for what is imported.
        from http.client import HTTPException
        from urllib.error import HTTPError

        try:
            with _opener().open(self.address, timeout=CONNECT_SECONDS) as answer:
                return _read_bounded(answer)
        except _TooMuchError as error:
            raise ImageError(self.address, str(error)) from None
        except HTTPError as error:
            error.close()
            code = f"{error.code} {error.reason}"
            raise ImageError(self.address, f"cannot be downloaded: {code}") from None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ImageError(self.address, f"cannot be downloaded: {reason}") from None


class _TooMuchError(Exception):
    """The bound that a download went over."""


@functools.cache
def _opener() -> Any:
    """An opener of addresses, which follows redirections to http and https only."""
    import urllib.request

    class HttpOnly(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
            """The next request, or an error for another scheme such as ftp."""
            if not is_url(newurl):
                fp.close()
                raise ValueError(f"redirected to {newurl}, which is not http")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return urllib.request.build_opener(HttpOnly)


def _read_bounded(answer: IO[bytes]) -> bytes:
    """All of the body.

    Raises:
        _TooMuchError: more bytes or seconds than allowed.
    """
    deadline = time.monotonic() + TOTAL_SECONDS
    parts, size = [], 0
    while part := answer.read(_CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise _TooMuchError(f"more than the {MOST_BYTES >> 20} MiB that are downloaded")
        if time.monotonic() > deadline:
            raise _TooMuchError(f"not downloaded within {TOTAL_SECONDS:.0f} s")
    return b"".join(parts)

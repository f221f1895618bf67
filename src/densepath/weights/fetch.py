"""Published weights on this machine's disk: from the cache, else downloaded and checked.

A file is checked each time it is used, not only when it comes: against the publisher's SHA-256
where there is one, else against the one that was noted at the download.
"""

from __future__ import annotations

import contextlib
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from densepath.errors import WeightsError, WeightsUnavailableError
from densepath.files import find_cached, sha256, write_atomically, write_text
from densepath.weights.published import Published

OFFLINE_VARIABLES = ("DENSEPATH_OFFLINE", "HF_HUB_OFFLINE")
TIMEOUT_S = 20
CHUNK_BYTES = 1 << 20


def cached_path(row: Published) -> Path:
    """Where the file of published weights is looked for first, and where a person can put it."""
    return find_cached("published", row.name, row.file)


def fetch_published(row: Published) -> Path:
    """The file of published weights, checked.

    Raises:
        WeightsUnavailableError: it is not in the cache, and there is no network or the
            publisher does not answer; the message names the file and where to put it.
        WeightsError: the file is damaged.
    """
    path = cached_path(row)
    if path.is_file():
        _check(path, row)
        return path
    return _from_hub(row) if row.origin == "timm" else _from_url(row, path)


def _check_online(row: Published) -> None:
    """Raise if the environment switches downloads off.

    Raises:
        WeightsUnavailableError: it does.
    """
    if any(os.environ.get(name, "0") not in ("", "0") for name in OFFLINE_VARIABLES):
        raise _unavailable(row, "downloads are switched off by the environment")


def _from_url(row: Published, path: Path) -> Path:
    """The file downloaded to `path` under a temporary name, checked, and renamed."""
    _check_online(row)
    try:
        with (
            urllib.request.urlopen(row.location, timeout=TIMEOUT_S) as answer,
            write_atomically(path) as temporary,
        ):
            expected = int(answer.headers.get("Content-Length") or 0)
            _copy(answer, temporary, row.name, expected)
            _check_content(temporary, row, expected)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise _unavailable(row, _reason(error)) from error
    write_text(_note(path), sha256(path) + "\n")
    return path


def _copy(answer, temporary: Path, name: str, total: int) -> None:  # type: ignore[no-untyped-def]
    """Copy the answer's bytes into the file; a bar on standard error shows how far."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with (
        temporary.open("wb") as file,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task(name, total=total or None)
        while chunk := answer.read(CHUNK_BYTES):
            file.write(chunk)
            progress.advance(task, len(chunk))


def _check_content(path: Path, row: Published, expected_bytes: int) -> None:
    """Raise unless a download is whole and has the publisher's checksum.

    Raises:
        WeightsError: it is cut off, or another file.
    """
    size_bytes = path.stat().st_size
    if expected_bytes and size_bytes != expected_bytes:
        raise WeightsError(
            f"{row.location}: only {size_bytes} of {expected_bytes} bytes came; try again."
        )
    found = sha256(path)
    if not found.startswith(row.sha256):
        raise WeightsError(
            f"{row.location} has the SHA-256 {found}, but its publisher says {row.sha256}…: the "
            "download was altered on its way, or the publisher has replaced the file."
        )


def _check(path: Path, row: Published) -> None:
    """Raise unless a file in the cache is the one that was published, or put there.

    Raises:
        WeightsError: it has changed.
    """
    note = _note(path)
    noted = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    expected = row.sha256 or noted
    if expected and not sha256(path).startswith(expected):
        raise WeightsError(
            f"{path} is damaged: its SHA-256 does not begin with {expected}. Delete it and try "
            f"again, or fetch {row.location} by hand."
        )


def _note(path: Path) -> Path:
    """The file beside a download that holds the SHA-256 it came with."""
    return path.with_name(path.name + ".sha256")


def _from_hub(row: Published) -> Path:
    """The file in the Hugging Face cache, fetched if need be, and checked.

    The hub's cache names a file's content by its SHA-256.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    found = huggingface_hub.try_to_load_from_cache(row.location, row.file)
    try:
        if not isinstance(found, str):
            _check_online(row)
            _ask(huggingface_hub.constants.ENDPOINT)
            found = huggingface_hub.hf_hub_download(row.location, row.file)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise _unavailable(row, _reason(error)) from error
    path = Path(found)
    content = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", content.name) and sha256(content) != content.name:
        raise WeightsError(f"{content} is damaged: its SHA-256 is not its name. Delete it.")
    return path


def _ask(address: str) -> None:
    """Raise unless the address answers at all; the hub's own client tries for half a minute.

    Raises:
        OSError: it does not.
    """
    request = urllib.request.Request(address, method="HEAD")
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()


def _reason(error: Exception) -> str:
    """Why something could not be fetched, in a line."""
    return str(getattr(error, "reason", error)).partition("\n")[0]


def _unavailable(row: Published, reason: str) -> WeightsUnavailableError:
    """The error that says what to fetch elsewhere, and where to put it."""
    where = row.location
    if row.origin == "timm":
        where = f"{row.file} of the Hugging Face repository {row.location}"
    return WeightsUnavailableError(
        f"{row.name} is not in the cache and cannot be fetched ({reason or 'no answer'}). Fetch "
        f"{where} on a machine with network access and put it at {cached_path(row)} "
        "(DENSEPATH_CACHE names another cache folder)."
    )

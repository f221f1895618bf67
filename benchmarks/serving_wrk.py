"""Load by wrk: so many clients, each of which asks again when it has been answered."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving_answers import BOUNDARY, Photo

PATIENCE_SECONDS = 30
# The bodies lie in one folder, 1, 2, 3 …; each request sends the next one.
SCRIPT = """
local requests, turn = {}, 0
local headers = {["Content-Type"] = "multipart/form-data; boundary=%(boundary)s"}

function init()
  for number = 1, %(count)d do
    local file = assert(io.open("%(folder)s/" .. number, "rb"))
    requests[number] = wrk.format("POST", nil, headers, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn %% #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local e = summary.errors
  print(string.format(
    '@{"requests": %%d, "microseconds": %%d, "p50_ms": %%.2f, "p99_ms": %%.2f, "refused": %%d, '
    .. '"broken": %%d, "late": %%d}',
    summary.requests, summary.duration, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status, e.connect + e.read + e.write, e.timeout))
end
"""


@contextmanager
def wrk_script(photos: Sequence[Photo]) -> Iterator[Path]:
    """The script that makes wrk send the photos, in turns.

    Raises:
        SystemExit: wrk is not installed.
    """
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; on Debian: apt-get install wrk.")
    with tempfile.TemporaryDirectory() as scratch:
        for number, photo in enumerate(photos, start=1):
            Path(scratch, str(number)).write_bytes(photo.body)
        path = Path(scratch, "photos.lua")
        words = {"boundary": BOUNDARY, "count": len(photos), "folder": scratch}
        path.write_text(SCRIPT % words, encoding="utf-8")
        yield path


def wrk_command(script: Path, url: str, clients: int, seconds: float) -> list[str]:
    """What loads a server."""
    limits = [f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", f"{PATIENCE_SECONDS}s"]
    return ["wrk", "-t1", *limits, "-s", str(script), url]


def load(script: Path, url: str, clients: int, seconds: float) -> dict[str, Any]:
    """Requests a second, milliseconds of the median and of the slowest hundredth, and failures.

    Raises:
        SystemExit: wrk failed.
    """
    command = wrk_command(script, url, clients, seconds)
    run = subprocess.run(command, capture_output=True, text=True)
    said = [line for line in run.stdout.splitlines() if line.startswith("@")]
    if run.returncode or not said:
        sys.exit(f"{' '.join(command)} failed:\n{run.stdout[-1000:]}{run.stderr[-1000:]}")
    row = json.loads(said[-1][1:])
    rate = (row["requests"] - row["refused"]) / row.pop("microseconds") * 1e6
    errors = {name: row[name] for name in ("refused", "broken", "late") if row[name]}
    return {
        "requests_per_second": round(rate, 2),
        "p50_ms": row["p50_ms"],
        "p99_ms": row["p99_ms"],
        "requests": row["requests"],
        "errors": errors,
    }

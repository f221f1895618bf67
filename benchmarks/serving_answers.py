"""The photos of `serving.py` as requests, and what each of them must be answered."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import list_photos

# Of a score, against another engine's. Two photos of the benchmark's 250 that have the same five
# classes differ by ten times as much, so that an answer is right for its own photo alone.
TOLERANCE = 5e-4
BOUNDARY = "densepath-benchmark"
DENSEPATH = str(Path(sys.executable).with_name("densepath"))
SEED = 0


@dataclass(frozen=True, repr=False)  # asyncio.run writes out what a coroutine returns
class Photo:
    """One that is sent.

    Attributes:
        path: its file.
        body: of the request: the file as multipart/form-data, the field's name `file`.
    """

    path: str
    body: bytes


def read_photos(folder: Path) -> list[Photo]:
    """All of them, in an order that is the same each time and not that of their classes."""
    paths = list_photos(folder)
    random.Random(SEED).shuffle(paths)
    return [Photo(path, multipart(Path(path))) for path in paths]


def multipart(path: Path) -> bytes:
    """The body of a form that uploads the file."""
    kind = "png" if path.suffix.lower() == ".png" else "jpeg"
    head = (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{path.name}"\r\n'
        f"Content-Type: image/{kind}\r\n\r\n"
    )
    return head.encode() + path.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


class Known:
    """What a Bundle answers for each photo of a folder, one after another and without a server."""

    def __init__(self, bundle: Path, folder: Path, engine: str, precision: str) -> None:
        """`engine` is another than that of the servers, where one gives the same answers.

        Raises:
            SystemExit: the photos cannot be answered.
        """
        command = [DENSEPATH, "predict", str(bundle), str(folder), "--engine", engine, "--json"]
        command += ["--precision", precision]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"the known answers cannot be made:\n{run.stderr[-2000:]}")
        rows = [json.loads(line) for line in run.stdout.splitlines()]
        self._rows: dict[str, dict[str, Any]] = {row["path"]: row for row in rows}

    def is_right(self, photo: Photo, answer: bytes) -> bool:
        """Whether a body of JSON holds this photo's five classes and their scores."""
        known = self._rows[photo.path]
        try:
            document = json.loads(answer)
            said = document["predictions"][0] if "predictions" in document else document
            ids, scores = said["class_ids"], said["scores"]
        except (ValueError, KeyError, IndexError, TypeError):
            return False
        pairs = zip(scores, known["scores"], strict=False)
        return ids == known["class_ids"] and all(abs(a - b) < TOLERANCE for a, b in pairs)

"""Sends thousands of damaged requests to a server: no 5xx, and no half answer.

Run: python benchmarks/serving_fuzz.py BUNDLE --count 10000 --seed 1

Forms, JSON of every protocol, binary tensors and compressed bodies are cut, changed and made to lie
about their length. What breaks a rule is shown with the number of its case; `--only N` sends that
one again. The rules: a status that the OpenAPI document has, never a 5xx; a request that lacks its
end is refused; an answer of 200 has a prediction for every image, and none for another.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fuzz import mutate
from PIL import Image

ALLOWED = {200, 400, 404, 408, 413, 415, 422}
NUM_IMAGES, NUM_TENSORS = 2, 2
BOUNDARY = b"densepath-boundary"
ANNOUNCED = re.compile(r"REST http://([0-9.]+):(\d+)")
START_S, WAIT_S = 120, 60


@dataclass(frozen=True)
class Seed:
    """A whole request, and how many answers its images or tensors should have.

    Attributes:
        path, headers, body: of the request.
        answers: the number of them in the JSON of an answer.
        images: the number of images in a body that can be read as what it is; -1 where it cannot.
        end: the bytes at the end of the body without which it is still whole.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    answers: Callable[[dict], int]
    images: Callable[[bytes], int]
    end: int = 0
    text: bool = False


@dataclass
class Tally:
    """What became of the requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


def seeds(model: str) -> list[Seed]:
    """Whole requests of every kind."""
    rng = np.random.default_rng(0)
    files = [_png(rng) for _ in range(NUM_IMAGES)]
    texts = [base64.b64encode(file).decode() for file in files]
    listed = json.dumps({"images": texts, "top_k": 2}).encode()
    instances = json.dumps({"instances": [{"b64": text} for text in texts]}).encode()
    tensor = {"name": "images", "shape": [NUM_TENSORS, 2, 2, 3], "datatype": "UINT8"}
    plain = json.dumps({"inputs": [{**tensor, "data": [7] * 12 * NUM_TENSORS}]}).encode()
    size = {"parameters": {"binary_data_size": 12 * NUM_TENSORS}}
    head = json.dumps({"inputs": [{**tensor, **size}]}).encode()
    kind = {"Content-Type": "application/json"}
    binary = {"Inference-Header-Content-Length": str(len(head))}
    form = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    packed = {**kind, "Content-Encoding": "gzip"}
    classify, infer = f"/classify?model={model}", f"/v2/models/{model}/infer"
    classified: Callable[[dict], int] = lambda answer: len(answer["predictions"])  # noqa: E731
    rows: Callable[[dict], int] = lambda answer: answer["outputs"][0]["shape"][0]  # noqa: E731
    return [
        Seed(classify, form, _form(files), classified, _in_form, end=2),
        Seed(classify, kind, listed, classified, _in_list("images"), text=True),
        Seed(classify, packed, gzip.compress(listed), classified, _unknown),
        Seed(
            f"/v1/models/{model}:predict", kind, instances, classified, _in_list("instances"),
            text=True,
        ),
        Seed(infer, kind, plain, rows, _unknown, text=True),
        Seed(infer, binary, head + bytes(12 * NUM_TENSORS), rows, _unknown),
    ]  # fmt: skip


def _png(rng: np.random.Generator) -> bytes:
    """A small image."""
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def _form(files: list[bytes]) -> bytes:
    """A form of these files and an option."""
    head = b'Content-Disposition: form-data; name="%s"'
    option = b"--%s\r\n%s\r\n\r\n2\r\n" % (BOUNDARY, head % b"top_k")
    parts = [
        b'--%s\r\n%s; filename="%d.png"\r\nContent-Type: image/png\r\n\r\n%s\r\n'
        % (BOUNDARY, head % b"files", i, file)
        for i, file in enumerate(files)
    ]
    return b"".join([*parts, option, b"--%s--\r\n" % BOUNDARY])


def _in_form(body: bytes) -> int:
    """The parts with a file name, by their marks alone."""
    parts = (b"\r\n" + body).split(b"\r\n--" + BOUNDARY + b"--")[0].split(b"\r\n--" + BOUNDARY)
    return sum(b"filename" in part.partition(b"\r\n\r\n")[0].lower() for part in parts[1:])


def _in_list(name: str) -> Callable[[bytes], int]:
    """The length of a list in JSON."""

    def count(body: bytes) -> int:
        try:
            return len(json.loads(body)[name])
        except (ValueError, KeyError, TypeError):
            return -1

    return count


def _unknown(body: bytes) -> int:
    """Nobody but the server counts here."""
    return -1


@dataclass(frozen=True)
class Case:
    """A request as it is sent.

    Attributes:
        seed: what it was made of.
        body: what is sent.
        length: what is announced; None in chunks, which may lack the last one.
        is_cut: the request lacks its end.
    """

    seed: Seed
    body: bytes
    length: int | None
    is_cut: bool


def make_case(all_seeds: list[Seed], index: int, seed: int) -> Case:
    """Case `index`: the same for the same seed."""
    rng = np.random.default_rng([seed, index])
    made = all_seeds[int(rng.integers(len(all_seeds)))]
    body = made.body
    kept = int(rng.integers(len(body)))
    match int(rng.integers(5)):
        case 0:  # the body is whole by its length, and cut
            return Case(made, body[:kept], kept, kept < len(body) - made.end)
        case 1:  # the connection ends before the length
            return Case(made, body[:kept], len(body), True)
        case 2:  # the connection ends before the last chunk
            return Case(made, body[:kept], None, True)
        case _:
            damaged = mutate(body, rng, made.text)
            return Case(made, damaged, len(damaged), False)


def send(address: tuple[str, int], case: Case) -> tuple[int, bytes]:
    """Status and body of the answer to a client that sends this and no more; 0 for none."""
    headers = dict(case.seed.headers)
    if case.length is None:
        headers["Transfer-Encoding"] = "chunked"
        body = b"%x\r\n%s\r\n" % (len(case.body), case.body) if case.body else b""
    else:
        headers["Content-Length"] = str(case.length)
        body = case.body
    lines = [f"POST {case.seed.path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(address, timeout=WAIT_S) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    answer = b"".join(parts)
    while answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    head, _, said = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), said


def judge(case: Case, status: int, said: bytes) -> str | None:
    """Which rule the answer breaks."""
    if status not in ALLOWED:
        return f"status {status}"
    if case.is_cut and status in (200, 422):
        return f"half a request is answered with {status}"
    try:
        answer = json.loads(said)
    except ValueError:
        return f"status {status} with no JSON"
    if status != 200:
        return None if answer.get("error") else f"status {status} without a reason"
    images, answers = case.seed.images(case.body), case.seed.answers(answer)
    if images not in (-1, answers):
        return f"{answers} answers to {images} images"
    return None


def fuzz(address: tuple[str, int], model: str, indices: range, seed: int) -> Tally:
    """Send these cases."""
    tally, all_seeds = Tally(), seeds(model)
    for whole in all_seeds:
        status, said = send(address, Case(whole, whole.body, len(whole.body), False))
        if status != 200 or whole.answers(json.loads(said)) != NUM_IMAGES:
            raise SystemExit(f"a whole request is not answered: {status} {said[:200]!r}")
    for index in indices:
        case = make_case(all_seeds, index, seed)
        status, said = send(address, case)
        tally.statuses[status] += 1
        if problem := judge(case, status, said):
            place = f"--only {index} --seed {seed}, {case.seed.path}"
            tally.broken.append(f"{place}: {problem}; {said[:200]!r}")
    return tally


def main(words: list[str] | None = None) -> int:
    """Serve the bundle, send what the options ask for; 1 where an answer broke a rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="Of a network of colour images.")
    parser.add_argument("--count", type=int, default=1000, help="Requests (1000).")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="The number of one case.")
    options = parser.parse_args(words)
    program = Path(sys.executable).with_name("densepath")
    command = [program, "serve", f"model={options.bundle}", "--port", "0", "--no-grpc"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        found = None
        while found is None:
            line = server.stderr.readline()
            if not line:
                raise SystemExit("the server did not start.")
            found = ANNOUNCED.search(line)
        _drain(server)
        only = options.only
        indices = range(options.count) if only is None else range(only, only + 1)
        started = time.monotonic()
        tally = fuzz((found[1], int(found[2])), "model", indices, options.seed)
    finally:
        server.terminate()
        code = server.wait(START_S)
    said = ", ".join(f"{number} × {status}" for status, number in sorted(tally.statuses.items()))
    print(
        f"{len(indices)} requests in {time.monotonic() - started:.0f} s, seed {options.seed}: "
        f"{said}; {len(tally.broken)} broke a rule; the server ended with {code}"
    )
    for line in tally.broken[:10]:
        print(line)
    return 1 if tally.broken or code else 0


def _drain(server: subprocess.Popen[str]) -> None:
    """Its log is read, and thrown away."""
    import threading

    threading.Thread(target=lambda: list(server.stderr or ()), daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())

"""The same photographs by every way in: their five best classes must be the same.

DenseNet-121 with the formula's parameters, behind `densepath serve`: uploads to `/classify` (one a
request, and many at once so that batches form), V1, V2 over REST and over gRPC, beside `densepath
predict` and `densepath.load`. Exits with 1 when any differs.

Writes `benchmarks/results/DATE-serving-parity.json` and `.md`.

Run: .venv/bin/python benchmarks/serving_parity.py IMAGES.zip|FOLDER [--bundles FOLDER]
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx2 as httpx
from formula_bundle import formula_bundle
from harness import Results, add_options, list_photos, photos, table

import densepath
from densepath.serving.v2.messages import SERVICE, message

DENSEPATH = Path(sys.executable).with_name("densepath")
AT_ONCE = 16
Best = tuple[list[int], list[float]]
Way = Callable[[list[Path]], list[Best]]


@contextmanager
def server(bundle: Path, threads: int) -> Iterator[tuple[str, str]]:
    """The addresses of REST and gRPC of a server of the bundle."""
    words = ["serve", f"model={bundle}", "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(
        [DENSEPATH, *words, "--threads", str(threads), "--log-format", "text"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = next(line for line in process.stderr if line.startswith("serving "))
    rest, _, rpc = line.partition("REST ")[2].partition(", engine")[0].partition(", gRPC ")
    drain = ThreadPoolExecutor(1)
    drain.submit(process.stderr.read)
    try:
        yield rest, rpc
    finally:
        process.terminate()
        process.wait()
        drain.shutdown()


def ways(rest: str, rpc: str, bundle: Path, threads: int) -> dict[str, Way]:
    """Every way from files to classes."""

    def python(files: list[Path]) -> list[Best]:
        with densepath.load(bundle, threads=threads) as predictor:
            return [(each.class_ids, each.scores) for each in predictor.predict(files)]

    def command(files: list[Path]) -> list[Best]:
        words = [DENSEPATH, "predict", bundle, *files, "--json", "--threads", str(threads)]
        run = subprocess.run(words, capture_output=True, text=True, check=True)
        return [_best(json.loads(line)) for line in run.stdout.splitlines()]

    def upload(client: httpx.Client, file: Path) -> Best:
        reply = client.post("/classify", files={"file": (file.name, file.read_bytes())})
        return _best(reply.raise_for_status().json()["predictions"][0])

    def one_by_one(files: list[Path]) -> list[Best]:
        with httpx.Client(base_url=rest, timeout=60) as client:
            return [upload(client, file) for file in files]

    def at_once(files: list[Path]) -> list[Best]:
        with (
            httpx.Client(base_url=rest, timeout=60) as client,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            return list(pool.map(lambda file: upload(client, file), files))

    def v1(files: list[Path]) -> list[Best]:
        with httpx.Client(base_url=rest, timeout=60) as client:
            found = []
            for file in files:
                body = {"instances": [{"b64": base64.b64encode(file.read_bytes()).decode()}]}
                reply = client.post("/v1/models/model:predict", json=body).raise_for_status()
                found.append(_best(reply.json()["predictions"][0]))
            return found

    def v2(files: list[Path]) -> list[Best]:
        with httpx.Client(base_url=rest, timeout=60) as client:
            found = []
            for file in files:
                data = [base64.b64encode(file.read_bytes()).decode()]
                tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": data}
                reply = client.post("/v2/models/model/infer", json={"inputs": [tensor]})
                outputs = {
                    each["name"]: each for each in reply.raise_for_status().json()["outputs"]
                }
                found.append((outputs["class_ids"]["data"], outputs["scores"]["data"]))
            return found

    return {
        "densepath.load": python,
        "densepath predict": command,
        "REST /classify": one_by_one,
        f"REST /classify, {AT_ONCE} at once": at_once,
        "REST V1": v1,
        "REST V2": v2,
        "gRPC V2": lambda files: list(_over_grpc(rpc, files)),
    }


def _over_grpc(address: str, files: list[Path]) -> Iterator[Best]:
    """The answers to BYTES tensors, one a call."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message("ModelInferResponse").FromString,
        )
        for file in files:
            request = message("ModelInferRequest")(model_name="model")
            tensor = request.inputs.add(name="images", datatype="BYTES", shape=[1])
            tensor.contents.bytes_contents.append(file.read_bytes())
            outputs = {each.name: each.contents for each in call(request, timeout=60).outputs}
            ids = list(outputs["class_ids"].int64_contents)
            yield ids, list(outputs["scores"].fp32_contents)


def _best(values: dict[str, Any]) -> Best:
    """Classes and scores in JSON."""
    return values["class_ids"], values["scores"]


def main() -> None:
    """Asks by every way, and compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="a folder of images, or a .zip of one")
    parser.add_argument("--model", default="densenet121")
    add_options(parser, "serving-parity")
    options = parser.parse_args()
    results = Results(options.output, options)
    with (
        photos(options.images) as folder,
        formula_bundle(options.model, options.bundles) as bundle,
        server(bundle, options.threads) as (rest, rpc),
    ):
        files = [Path(path) for path in list_photos(folder)]
        reference: list[Best] | None = None
        for name, way in ways(rest, rpc, bundle, options.threads).items():
            found = way(files)
            reference = reference or found
            pairs = list(zip(reference, found, strict=True))
            same = sum(first[0] == second[0] for first, second in pairs)
            apart = max(
                abs(a - b)
                for first, second in pairs
                for a, b in zip(first[1], second[1], strict=True)
            )
            results.add(name, {"images": len(files), "same": same, "apart": apart})
            print(f"{name}: {same} of {len(files)}, scores within {apart:.1e}", flush=True)
    results.write_report(report(results, options.model))
    if any(part["same"] < part["images"] for part in results.parts.values()):
        sys.exit(1)


def report(results: Results, model: str) -> str:
    """The table."""
    head = ["way", "the same five classes", "scores apart by at most"]
    rows = [
        [name, f"{part['same']} of {part['images']}", f"{part['apart']:.1e}"]
        for name, part in results.parts.items()
    ]
    lines = [f"# Every way to the same answer: {model}", "", results.header(), ""]
    return "\n".join([*lines, table(head, rows)])


if __name__ == "__main__":
    main()

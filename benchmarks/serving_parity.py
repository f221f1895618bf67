"""The same photographs by every way in: their five best classes must be the same.

DenseNet-121 with the formula's parameters, or a SUBJECT, behind `densepath serve`: uploads to
`/classify` (one a request, and many at once so that batches form), V1, V2 over REST and over gRPC,
beside `densepath predict`, `densepath.load` on every engine, and the C++ program where it is built.
Exits with 1 when any differs. With `--precision bfloat16` all of them compute so, and the answers
are compared with those in float32: then it is a table of how many agree.

Writes `benchmarks/results/DATE-serving-parity.json` and `.md`.

Run: .venv/bin/python benchmarks/serving_parity.py IMAGES.zip|FOLDER [--bundles FOLDER]
     [--subject cifar10/densenet_bc_22_12] [--precision bfloat16]
     [--cpp build/cpp/densepath-predict]
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
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import httpx2 as httpx
from formula_bundle import FORMATS, formula_bundle
from harness import Results, add_options, list_photos, photos, table

import densepath
from densepath.errors import EngineError
from densepath.serving.v2.messages import SERVICE, message

DENSEPATH = Path(sys.executable).with_name("densepath")
AT_ONCE = 16
Best = tuple[list[int], list[float]]
Way = Callable[[list[Path]], list[Best]]


@contextmanager
def server(bundle: Path, common: list[str]) -> Iterator[tuple[str, str]]:
    """The addresses of REST and gRPC of a server of the bundle, with options of all commands."""
    words = ["serve", f"model={bundle}", "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(
        [DENSEPATH, *words, *common, "--log-format", "text"],
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


def in_python(bundle: Path, threads: int, precision: str, engine: str = "auto") -> Way:
    """By `densepath.load`."""

    def way(files: list[Path]) -> list[Best]:
        options = {"threads": threads, "precision": precision, "engine": engine}
        with densepath.load(bundle, **options) as predictor:
            return [(each.class_ids, each.scores) for each in predictor.predict(files)]

    return way


def by_program(program: list[Any], common: list[str]) -> Way:
    """By a program that takes files and writes a line of JSON for each."""

    def way(files: list[Path]) -> list[Best]:
        words = [*program, *files, *common]
        run = subprocess.run(words, capture_output=True, text=True, check=True)
        return [_best(json.loads(line)) for line in run.stdout.splitlines()]

    return way


def ways(rest: str, rpc: str) -> dict[str, Way]:
    """Every way through the server, from files to classes."""

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


def local_ways(bundle: Path, options: argparse.Namespace, common: list[str]) -> dict[str, Way]:
    """Every way without the server."""
    threads, precision = options.threads, options.precision
    made = {"densepath.load": in_python(bundle, threads, precision)}
    for engine in ("eager", "native", "openvino"):
        made[f"densepath.load, {engine}"] = in_python(bundle, threads, precision, engine)
    made["densepath predict"] = by_program([DENSEPATH, "predict", bundle, "--json"], common)
    if options.cpp:
        made["C++"] = by_program([options.cpp.resolve(), bundle], common)
    return made


def compare(reference: list[Best], found: list[Best]) -> dict[str, Any]:
    """How many answers agree, and how far scores of the same class are apart at most."""
    pairs = list(zip(reference, found, strict=True))
    scores = [(dict(zip(*a, strict=True)), dict(zip(*b, strict=True))) for a, b in pairs]
    return {
        "images": len(pairs),
        "best": sum(a[0][0] == b[0][0] for a, b in pairs),
        "five": sum(set(a[0]) == set(b[0]) for a, b in pairs),
        "same": sum(a[0] == b[0] for a, b in pairs),
        "apart": max(abs(a[k] - b[k]) for a, b in scores for k in a.keys() & b.keys()),
    }


@contextmanager
def bundle_of(options: argparse.Namespace) -> Iterator[Path]:
    """The bundle that is asked."""
    if options.subject is None:
        with formula_bundle(options.model, options.bundles) as bundle:
            yield bundle
        return
    with TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        words = ["export", options.subject, "--to", FORMATS, "-o", bundle]
        subprocess.run([DENSEPATH, *words], check=True, capture_output=True)
        yield bundle


def main() -> None:
    """Asks by every way, and compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="a folder of images, or a .zip of one")
    parser.add_argument("--model", default="densenet121")
    parser.add_argument("--subject", help="a checkpoint in the place of the formula's network")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--cpp", type=Path, help="the C++ program, from `make cpp`")
    add_options(parser, "serving-parity")
    options = parser.parse_args()
    results = Results(options.output, options)
    common = ["--threads", str(options.threads), "--precision", options.precision]
    with (
        photos(options.images) as folder,
        bundle_of(options) as bundle,
        server(bundle, common) as (rest, rpc),
    ):
        files = [Path(path) for path in list_photos(folder)]
        reference = in_python(bundle, options.threads, "float32", "native")(files)
        for name, way in {**local_ways(bundle, options, common), **ways(rest, rpc)}.items():
            try:
                part = compare(reference, way(files))
            except EngineError as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
            results.add(name, part)
            print(f"{name}: {part}", flush=True)
    results.write_report(report(results, options))
    parts = results.parts.values()
    if options.precision == "float32" and any(part["same"] < part["images"] for part in parts):
        sys.exit(1)


def report(results: Results, options: argparse.Namespace) -> str:
    """The table."""
    counts = {"best": "the same best class", "five": "the same five", "same": "in the same order"}
    head = ["way", *counts.values(), "scores apart by at most"]
    rows = [
        [name, *(f"{part[k]} of {part['images']}" for k in counts), f"{part['apart']:.1e}"]
        for name, part in results.parts.items()
    ]
    name = options.subject or options.model
    lines = [f"# Every way to the same answer: {name}", "", results.header(), ""]
    lines += [f"In {options.precision}, beside `native` in float32.", ""]
    return "\n".join([*lines, table(head, rows)])


if __name__ == "__main__":
    main()

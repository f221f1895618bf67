"""No verb, server or C++ program calls anybody, or leaves more than what was named."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

import densepath

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).with_name("densepath")
NETWORK = "densenet_bc_22_12"
# What `test_leaves_nothing.py` has not; each of them finds the files of `made`.
VERBS = {
    "compiled": (
        "export RUN -o made --to torch,aoti --num-images 2 --batch-sizes 1",
        "predict made photo.png --engine aoti",
        "predict made photo.png --engine compiled",
        "predict made photo.png --engine eager",
    ),
    "weights": (
        "models densenet121",
        f"import network.pth -o made.safetensors --model {NETWORK} --labels labels.txt",
        f"convert network.pth --to onnx,torch --model {NETWORK} -o made",
        "evaluate made.safetensors --data digits",
    ),
    "data": (
        "data inspect digits --output made.png",
        "evaluate RUN --data digits --split validation --output made",
        "predict RUN photo.png --json --engine native",
        "predict BUNDLE photo.png --json",
    ),
    "edge": (
        "quantize RUN --data digits --images 8 --held-out 4 --method minmax "
        "--to native,executorch,litert -o made",
        "predict made photo.png --engine litert",
        "predict made photo.png --engine executorch",
        "npu targets made",
        "npu compile made -o made-program --target ethos-u55-128",
        "npu simulate made-program --input photo.png",
        "npu profile made-program --picture made-layers.png",
        "npu vectors made-program photo.png -o made-vectors --check",
    ),
}
EDGE = ("executorch", "litert_torch", "ai_edge_quantizer", "ethosu", "tflite_micro")
ANNOUNCED = re.compile(r"serving .*: REST (https?://\S+?)(?:, gRPC (\S+))?, engine")
# Longer than ONNX Runtime waits before it sends what it has.
SERVED_S = 12.0
ANSWERS = """
import densepath
def export():
    densepath.export("RUN", "made-bundle", num_images=2)
if __name__ == "__main__":
    import multiprocessing
    for engine in ("native", "onnxruntime", "openvino", "eager"):
        with densepath.load("BUNDLE", engine=engine) as predictor:
            print([one.labels[0] for one in predictor.predict("photo.png")])
    densepath.evaluate("RUN", "digits").save("made")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(export)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a run, a bundle, a photograph, and weights as PyTorch keeps them."""
    folder = tmp_path_factory.mktemp("made")
    for command in (
        f"train {NETWORK} --data digits --epochs 1 --output RUN --progress none",
        "export RUN -o BUNDLE --to onnx,openvino,torch --num-images 2 --batch-sizes 1",
    ):
        subprocess.run([PROGRAM, *command.split()], cwd=folder, check=True, capture_output=True)
    checkpoint = densepath.Checkpoint.load(folder / "RUN" / "best.safetensors")
    torch.save(checkpoint.to_model().state_dict(), folder / "network.pth")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in checkpoint.labels))
    Image.effect_noise((40, 32), 90).convert("RGB").save(folder / "photo.png")
    return folder


@pytest.fixture
def at_work(new_user, made):
    """The user, whose working folder has what was made; nothing else is there at the end."""
    there = {path.name for path in made.iterdir()}
    for name in there:
        (new_user.work / name).symlink_to(made / name)
    yield new_user
    found = {path.name for path in new_user.work.iterdir()}
    assert {name for name in found - there if not name.startswith("made")} == set()
    assert (new_user.strays(), new_user.calls()) == ([], [])


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.npu(*EDGE) if kind == "edge" else ()) for kind in VERBS],
)
def test_a_verb_calls_nobody_and_leaves_what_was_named(at_work, kind):
    for package in () if kind == "edge" else ("onnxruntime", "openvino"):
        pytest.importorskip(package)
    for command in VERBS[kind]:
        at_work.run(PROGRAM, *command.split())


def test_python_calls_nobody_and_leaves_what_was_named(at_work):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    (at_work.work / "made.py").write_text(ANSWERS)
    assert len(at_work.run(sys.executable, "made.py").stdout.splitlines()) == 4


@contextmanager
def serving(user, *words: str):
    """The address of a server of the bundle, which ends well."""
    command = [PROGRAM, "serve", "BUNDLE", "--port", "0", "--grpc-port", "0", *words]
    log = user.work / "made.log"
    with log.open("w") as said:
        process = subprocess.Popen(command, cwd=user.work, env=user.settings, stderr=said)
    try:
        found = None
        while not found and process.poll() is None:
            time.sleep(0.2)
            found = ANNOUNCED.search(log.read_text())
        assert found, log.read_text()
        yield found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0, log.read_text()


@pytest.mark.parametrize("words", [("--engine", "onnxruntime"), ("--engine", "openvino")])
def test_a_server_of_two_workers_calls_nobody(at_work, words):
    pytest.importorskip(words[1])
    pytest.importorskip("fastapi")
    photo = (at_work.work / "photo.png").read_bytes()
    end = time.monotonic() + float(os.environ.get("DENSEPATH_SERVED_S", SERVED_S))
    with serving(at_work, "--workers", "2", *words) as url:
        count = 0
        while time.monotonic() < end:
            for path, body in (("/metrics", None), ("/", None), ("/classify", photo)):
                request = urllib.request.Request(
                    f"{url}{path}", body, {"Content-Type": "image/png"}
                )
                with urllib.request.urlopen(request, timeout=30) as answer:
                    assert answer.status == 200
            count += 1
            time.sleep(0.2)
        assert count > 5


@pytest.mark.parametrize("backend", ["native", "openvino", "onnxruntime"])
def test_the_cpp_program_calls_nobody_and_leaves_nothing(cpp, at_work, backend):
    if backend not in cpp.backends:
        pytest.skip(f"the C++ program was built without {backend}")
    ran = at_work.run(cpp.predict, "BUNDLE", "photo.png", "--backend", backend)
    assert json.loads(ran.stdout)["labels"]

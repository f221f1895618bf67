"""The image routes, V1, and what every answer and refusal has."""

from __future__ import annotations

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
SCORES = 1e-5


@pytest.fixture
def client(server):
    with server.http() as http:
        yield http


def same(row, answer, classes=5, near=SCORES):
    """Whether a row of the server is what `densepath predict` says."""
    assert row["class_ids"] == answer["class_ids"][:classes]
    assert row["labels"] == answer["labels"][:classes]
    np.testing.assert_allclose(row["scores"], answer["scores"][:classes], atol=near)


def encoded(file) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def test_a_form_of_files_is_answered_in_its_order_as_predict_does(client, files, answers):
    form = [("files", (file.name, file.read_bytes())) for file in files]
    reply = client.post("/classify", params={"model": "colour", "version": "1"}, files=form)
    assert reply.status_code == 200
    body = reply.json()
    assert (body["model"], body["version"]) == ("colour", "1")
    assert [row["name"] for row in body["predictions"]] == [file.name for file in files]
    for row, answer in zip(body["predictions"], answers["colour"], strict=True):
        same(row, answer)
    assert set(body["timing_ms"]) == {"read", "queue", "network", "total"}
    assert body["request_id"] == reply.headers["X-Request-Id"]


def test_an_image_as_it_is_and_json_with_base64_are_taken_too(client, files, answers):
    where = {"model": "colour", "version": "1", "top_k": 3}
    raw = client.post(
        "/classify",
        params=where,
        content=files[0].read_bytes(),
        headers={"Content-Type": "image/png"},
    )
    same(raw.json()["predictions"][0], answers["colour"][0], 3)
    images = [encoded(files[1]), {"name": "x.png", "b64": encoded(files[2])}]
    listed = client.post("/classify", params=where, json={"images": images}).json()
    assert [row["name"] for row in listed["predictions"]] == ["image 0", "x.png"]
    same(listed["predictions"][0], answers["colour"][1], 3)
    same(listed["predictions"][1], answers["colour"][2], 3)
    address = "data:image/png;base64," + encoded(files[2])
    assert client.post("/classify", params=where, json={"images": [address]}).status_code == 200


def test_the_latest_version_answers_and_gray_networks_take_colour_files(client, files, answers):
    form = {"file": files[4].read_bytes()}
    newest = client.post("/classify", params={"model": "colour"}, files=form).json()
    assert newest["version"] == "2"
    same(newest["predictions"][0], answers["newer"][4])
    gray = client.post("/classify", params={"model": "gray"}, files=form).json()
    same(gray["predictions"][0], answers["gray"][4])


def test_images_that_cannot_be_read_have_their_reason_and_the_others_their_answer(client, files):
    form = [("f", ("good.jpg", files[1].read_bytes())), ("f", ("bad.jpg", b"no image"))]
    reply = client.post("/classify", params={"model": "colour"}, files=form)
    assert reply.status_code == 200
    good, bad = reply.json()["predictions"]
    assert "error" not in good
    assert set(bad) == {"name", "error"}
    assert "not an image of a known kind" in bad["error"]
    alone = client.post("/classify", params={"model": "colour"}, files={"f": b"<html>"})
    assert alone.status_code == 422
    assert alone.json()["error"] == "none of the 1 images could be read."
    assert "a web page" in alone.json()["predictions"][0]["error"]


def test_an_explanation_has_numbers_and_pictures(client, files, answers):
    form = {"file": files[3].read_bytes()}
    where = {"model": "colour", "version": "1", "explain": True}
    row = client.post("/classify", params=where, files=form).json()["predictions"][0]
    same(row, answers["colour"][3], near=2e-3)  # PyTorch's, in float32, whatever answered
    explained = row["explanation"]
    assert explained["label"] == row["labels"][0]
    heat = np.array(explained["heat"])
    assert heat.min() >= 0
    assert heat.max() <= 1
    for name in ("seen", "overlay"):
        data = base64.b64decode(explained[name].removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(data)).mode == "RGB"
    assert explained["seen"] != explained["overlay"]


def test_a_class_that_is_named_or_numbered_is_explained(client, files, answers):
    form = {"file": files[3].read_bytes()}
    best = answers["colour"][3]
    where = {"model": "colour", "version": "1", "explain": True, "top_k": 7}
    named = {}
    for target in (best["labels"][1], str(best["class_ids"][1])):
        answer = client.post("/classify", params=where | {"target": target}, files=form).json()
        named[target] = answer["predictions"][0]["explanation"]
        assert (named[target]["label"], named[target]["class_id"]) == (
            best["labels"][1],
            best["class_ids"][1],
        )
        assert named[target]["score"] == pytest.approx(best["scores"][1], abs=1e-4)
    first, second = named.values()
    assert first["heat"] == second["heat"]
    body = {"instances": [{"b64": encoded(files[0])}]}
    route = "/v1/models/colour:explain"
    v1 = client.post(route, params={"target": best["labels"][1]}, json=body).json()
    assert v1["explanations"][0]["label"] == best["labels"][1]
    for params in (where | {"target": "no such"}, where | {"target": "7"}):
        refused = client.post("/classify", params=params, files=form)
        assert refused.status_code == 400
        assert "no such" in refused.json()["error"] or "from 0 to 6" in refused.json()["error"]
    idle = client.post("/classify", params={"model": "colour", "target": "0"}, files=form)
    assert idle.status_code == 400
    assert "explain=true" in idle.json()["error"]


def test_models_says_what_each_is(client):
    rows = client.get("/models").json()["models"]
    assert [(row["name"], row["version"], row["default"]) for row in rows] == [
        ("colour", "1", False),
        ("colour", "2", True),
        ("gray", "1", True),
    ]
    assert rows[2]["input_size"] == [28, 36]
    assert rows[0]["engine"] in ("native", "onnxruntime")
    assert rows[0]["precision"] in ("float32", "bfloat16")
    assert all(row["explains"] and row["num_classes"] == 7 for row in rows)


def test_nothing_that_clients_are_told_names_a_folder(start, bundles, files, tmp_path):
    """Why an engine was passed over, say, or what a bundle lacks."""
    from densepath.exporting.export import export

    export("cifar10/densenet_bc_22_12", tmp_path / "b", to=["onnx"], num_images=1, batch_sizes=[1])
    server = start(f"graph={tmp_path / 'b'}")
    with server.http() as client:
        said = client.get("/models").text
        said += client.post("/classify?explain=1", files={"f": files[0].read_bytes()}).text
        (tmp_path / "b" / "manifest.json").unlink()
        said += client.post("/v2/repository/models/graph/load").text
        said += client.post("/v2/repository/index").text
    assert "model graph" in said
    assert str(tmp_path) not in said


def test_v1_answers_images_and_tensors(client, files, tensor, answers):
    images = [{"b64": encoded(files[0])}, {"image_bytes": {"b64": encoded(files[1])}}]
    rows = client.post("/v1/models/colour:predict", json={"instances": images}).json()
    for row, answer in zip(rows["predictions"], answers["newer"], strict=False):
        same(row, answer)
    lists = tensor[:2].tolist()
    again = client.post("/v1/models/colour:predict", json={"instances": lists}).json()
    for row, answer in zip(again["predictions"], answers["newer"], strict=False):
        same(row, answer)
    explained = client.post("/v1/models/colour:explain", json={"instances": images}).json()
    assert [e["label"] for e in explained["explanations"]] == [
        row["labels"][0] for row in rows["predictions"]
    ]
    assert client.get("/v1/models").json() == {"models": ["colour", "gray"]}
    assert client.get("/v1/models/gray").json() == {"name": "gray", "ready": True}


REFUSED = [
    ("post", "/classify", {}, 415, "the content type is ''"),
    ("post", "/classify", {"content": b"x", "headers": {"Content-Type": "text/css"}}, 415, "css"),
    ("post", "/classify", {"json": {"images": []}}, 400, "no image"),
    ("post", "/classify", {"json": {"images": ["%%"]}}, 400, "image 0 is not base64"),
    ("post", "/classify", {"json": {"images": [7]}}, 400, "image 0 is not base64"),
    ("post", "/classify", {"json": {}}, 400, 'no list "images"'),
    ("post", "/classify", {"json": [1]}, 400, "must be a JSON object"),
    ("post", "/classify", {"data": {"a": "b"}, "files": {}}, 415, "x-www-form"),
    ("post", "/classify?top_k=0", {"json": {"images": ["AA=="]}}, 400, "top_k"),
    ("post", "/classify?top_k=many", {"json": {"images": ["AA=="]}}, 400, "top_k"),
    ("post", "/classify?model=x", {"json": {"images": ["AA=="]}}, 404, "colour, gray"),
    ("post", "/classify?model=", {"json": {"images": ["AA=="]}}, 404, "name a model"),
    ("post", "/classify?model=gray&version=7", {"json": {"images": ["AA=="]}}, 404, "it has 1"),
    ("get", "/nothing", {}, 404, "GET /nothing: not found"),
    ("get", "/classify", {}, 405, "method not allowed"),
    ("get", "/page/../pyproject.toml", {}, 404, "not found"),
    ("get", "/page/%2e%2e%2fsettings.py", {}, 404, "not found"),
    ("post", "/v1/models/gray:predict", {"json": {"instances": []}}, 400, "instances"),
    ("post", "/v1/models/gray:predict", {"json": {"instances": [{"x": 1}]}}, 400, "instance 0"),
    ("post", "/v1/models/gray:predict", {"json": {"instances": [[1, [2]]]}}, 400, "unequal"),
    ("post", "/v2/models/gray/infer", {"content": b"{"}, 400, "not JSON"),
    ("post", "/v2/models/gray/infer", {"json": {"inputs": []}}, 400, "at least one"),
    ("post", "/v2/models/gray/infer", {"json": {"inputs": [{"name": "images"}]}}, 400, "datatype"),
    ("post", "/v2/repository/models/x/load", {}, 404, "no model 'x'"),
]


@pytest.mark.parametrize(("method", "path", "options", "status", "said"), REFUSED)
def test_a_wrong_request_is_refused_with_what_is_right(client, method, path, options, status, said):
    if path.startswith("/classify") and "model=" not in path:
        path += ("&" if "?" in path else "?") + "model=gray"
    reply = client.request(method, path, **options)
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert said in body["error"]
    assert body["request_id"] == reply.headers["X-Request-Id"]
    assert "Traceback" not in reply.text


TENSORS = [
    ({"datatype": "FP16", "shape": [1, 1, 28, 36]}, "either data or a binary_data_size"),
    ({"datatype": "TEXT", "shape": [1]}, "there are BOOL"),
    ({"datatype": "FP32", "shape": [-1]}, "must be a list of sizes"),
    ({"datatype": "FP32", "shape": [2**40]}, "must be a list of sizes"),
    ({"datatype": "FP32", "shape": [], "data": []}, "must be a list of sizes"),
    ({"datatype": "FP32", "shape": [4], "data": [1, 2]}, "has 2 values; the shape [4] has 4"),
    ({"datatype": "FP32", "shape": [2], "data": ["1", "2"]}, "not all values of type FP32"),
    ({"datatype": "FP32", "shape": [2], "data": [1, None]}, "not all values of type FP32"),
    ({"datatype": "FP32", "shape": [2], "data": [[1, 2], [3]]}, "unequal lengths"),
    ({"datatype": "UINT8", "shape": [2], "data": [1, 256]}, "beyond the range of UINT8"),
    ({"datatype": "UINT8", "shape": [2], "data": [1, 2.5]}, "not all values of type UINT8"),
    ({"datatype": "BYTES", "shape": [1], "data": ["é"]}, "base64"),
    ({"datatype": "BYTES", "shape": [0], "data": []}, "is empty"),
    ({"datatype": "UINT8", "shape": [1, 2, 2, 7], "data": [0] * 28}, "pixels are UINT8"),
    ({"datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}, "is missing"),
    ({"datatype": "FP32", "shape": [1], "data": [1], "parameters": 7}, "parameters must be"),
]


@pytest.mark.parametrize(("tensor", "said"), TENSORS)
def test_a_tensor_that_does_not_hold_together_is_refused(client, tensor, said):
    request = {"inputs": [{"name": "images", **tensor}]}
    reply = client.post("/v2/models/gray/infer", json=request)
    assert reply.status_code == 400
    assert said in reply.json()["error"]


@pytest.mark.parametrize(
    ("size", "body", "said"),
    [
        ("0", b"{}", "is 0; the body has 2 bytes"),
        ("99", b"{}", "is 99; the body has 2 bytes"),
        ("many", b"{}", "must be a number of bytes"),
        ("²", b"{}", "must be a number of bytes"),
    ],
)
def test_a_wrong_length_of_the_json_is_refused(client, size, body, said):
    headers = {"Inference-Header-Content-Length": size.encode("latin-1")}
    reply = client.post("/v2/models/gray/infer", content=body, headers=headers)
    assert reply.status_code == 400
    assert said in reply.json()["error"]


def test_binary_data_that_do_not_add_up_are_refused(client):
    def ask(sizes, data, datatype="FP32", shape=(1,)):
        inputs = [
            {
                "name": f"t{i}",
                "datatype": datatype,
                "shape": list(shape),
                "parameters": {"binary_data_size": size},
            }
            for i, size in enumerate(sizes)
        ]
        text = json.dumps({"inputs": inputs}).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        reply = client.post("/v2/models/gray/infer", content=text + data, headers=headers)
        assert reply.status_code == 400
        return reply.json()["error"]

    assert "4 bytes are left" in ask([8], b"1234")
    assert "0 bytes are left" in ask([4, 4], b"1234")
    assert "4 bytes of binary data belong to no input" in ask([4], b"12345678")
    assert "is 4" in ask([3], b"123")
    assert "middle of an element" in ask([6], b"\x09\x00\x00\x00ab", "BYTES")
    assert "middle of an element" in ask([2], b"\x09\x00", "BYTES")


def test_a_body_that_was_compressed_too_well_is_refused(client):
    bomb = zlib.compress(bytes(64 << 20), 9)
    headers = {"Content-Encoding": "deflate"}
    reply = client.post("/v2/models/gray/infer", content=bomb, headers=headers)
    assert reply.status_code == 413
    for encoding, body, status in (("gzip", b"x", 400), ("br", b"x", 415), ("gzip", b"", 400)):
        reply = client.post(
            "/v2/models/gray/infer", content=body, headers={"Content-Encoding": encoding}
        )
        assert reply.status_code == status


def test_the_clients_request_id_is_kept_where_it_is_one(client, server):
    reply = client.get("/models", headers={"X-Request-Id": "mine-1"})
    assert reply.headers["X-Request-Id"] == "mine-1"
    other = client.get("/models", headers={"X-Request-Id": "a b\tc"}).headers["X-Request-Id"]
    assert len(other) == 32
    lines = [line for line in server.log if line.get("request_id") == "mine-1"]
    assert [(line["route"], line["status"]) for line in lines] == [("GET /models", 200)]


def test_a_timeout_of_the_clients_own_is_held(client, files):
    form = {"file": files[0].read_bytes()}
    for said, status in (("1e-9", 504), ("0", 400), ("soon", 400), ("nan", 400), ("9", 200)):
        reply = client.post("/classify?model=gray", files=form, headers={"X-Request-Timeout": said})
        assert reply.status_code == status, said


def test_the_metrics_count_what_happened(client, files):
    before = counters(client)
    form = [("f", ("a", files[0].read_bytes())), ("f", ("b", b"broken"))]
    client.post("/classify?model=gray", files=form)
    after = counters(client)
    for name, change in (
        ('densepath_images_total{model="gray",outcome="answered",version="1"}', 1),
        ('densepath_images_total{model="gray",outcome="unreadable",version="1"}', 1),
        ('densepath_batch_size_count{model="gray",version="1"}', 1),
        ('densepath_requests_total{protocol="rest",route="/classify",status="200"}', 1),
    ):
        assert after[name] - before.get(name, 0) == change, name
    assert after['densepath_model_ready{model="colour",version="2"}'] == 1
    assert after['densepath_pending_images{model="gray",version="1"}'] == 0


def counters(client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}

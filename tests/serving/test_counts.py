"""Every image that enters is counted by what became of it; the statistics are the same numbers."""

from __future__ import annotations

import base64
import contextlib

import numpy as np
import pytest

pytest.importorskip("fastapi")


def encoded(file) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def counted(client, model: str = "gray", version: str = "1") -> dict[str, float]:
    """Images by outcome."""
    lines = client.get("/metrics").text.splitlines()
    head = f'densepath_images_total{{model="{model}",outcome="'
    return {
        line.removeprefix(head).partition('"')[0]: float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith(head) and f'version="{version}"' in line
    }


def change(client, ask, *, status: int, model: str = "gray", version: str = "1") -> dict[str, int]:
    """The outcomes that a request adds to."""
    before = counted(client, model, version)
    reply = ask()
    assert reply.status_code == status, reply.text
    after = counted(client, model, version)
    changed = {name: int(value - before.get(name, 0)) for name, value in after.items()}
    return {name: value for name, value in changed.items() if value}


def test_images_are_counted_whatever_way_they_come(server, files):
    good, bad = encoded(files[0]), base64.b64encode(b"no image").decode()
    with server.http() as client:

        def post(path: str, body: dict, status: int = 200) -> dict[str, int]:
            return change(client, lambda: client.post(path, json=body), status=status)

        assert post("/classify?model=gray", {"images": [good, bad]}) == {
            "answered": 1,
            "unreadable": 1,
        }
        two = {"images": [good, good]}
        assert post("/classify?model=gray&explain=true", two) == {"answered": 2}
        v1 = "/v1/models/gray"
        assert post(f"{v1}:predict", {"instances": [{"b64": good}] * 3}) == {"answered": 3}
        zeros = np.zeros((2, 1, 28, 36)).tolist()
        assert post(f"{v1}:predict", {"instances": zeros}) == {"answered": 2}
        assert post(f"{v1}:explain", {"instances": [{"b64": good}]}) == {"answered": 1}
        mixed = {"instances": [{"b64": good}, {"b64": bad}, {"b64": good}]}
        # One that cannot be read: no answer for the others.
        assert post(f"{v1}:predict", mixed, 422) == {"unreadable": 1, "refused": 2}
        assert post(f"{v1}:explain", mixed, 422) == {"unreadable": 1, "refused": 2}
        pixels = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [0] * 12}
        assert post("/v2/models/gray/infer", {"inputs": [pixels]}) == {"answered": 1}
        files_ = {"name": "images", "datatype": "BYTES", "shape": [2], "data": [good, bad]}
        assert post("/v2/models/gray/infer", {"inputs": [files_]}, 422) == {
            "unreadable": 1,
            "refused": 1,
        }


def test_images_that_come_too_late_are_counted_as_that(server, files):
    with server.http() as client:
        late = {"X-Request-Timeout": "1e-9"}
        body = {"images": [encoded(files[0])] * 2}
        added = change(
            client,
            lambda: client.post("/classify?model=gray", json=body, headers=late),
            status=504,
        )
    assert added == {"late": 2}


def test_a_network_that_fails_is_counted(in_process, files, monkeypatch):
    from densepath.serving.core.batcher import Batcher

    def fail(self, rows, **how):
        raise RuntimeError("the network broke")

    with in_process() as running, running.http() as client:
        monkeypatch.setattr(Batcher, "_compute", fail)
        image = encoded(files[0])
        tensor = np.zeros((1, 3, 32, 32)).tolist()
        inputs = [{"name": "images", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": tensor}]
        for path, body, images in (
            ("/classify", {"images": [image, image]}, 2),
            ("/v1/models/colour:predict", {"instances": [{"b64": image}]}, 1),
            ("/v1/models/colour:predict", {"instances": tensor}, 1),
            ("/v2/models/colour/infer", {"inputs": inputs}, 1),
        ):
            added = change(
                client,
                lambda path=path, body=body: client.post(path, json=body),
                status=500,
                model="colour",
            )
            assert added == {"failed": images}, path
        stats = client.get("/v2/models/colour/stats").json()["model_stats"][0]
        assert stats["inference_stats"]["fail"]["count"] == 4
        assert stats["inference_stats"]["success"]["count"] == 0


@pytest.fixture(params=["http", "grpc"])
def triton(request, start):
    """A client of a server of its own, and what turns its answers into dictionaries."""
    from google.protobuf.json_format import MessageToDict

    module = pytest.importorskip(f"tritonclient.{request.param}")
    server = start("colour", "colour@2=newer", "gray", "--max-batch", "4")
    address = server.grpc if request.param == "grpc" else server.url.removeprefix("http://")
    with contextlib.closing(module.InferenceServerClient(address)) as client:
        client.plain = lambda found: (
            found
            if isinstance(found, dict)
            else MessageToDict(found, preserving_proto_field_name=True)
        )
        client.module = module
        yield client


def test_statistics_say_what_a_model_has_done(triton, tensor):
    given = triton.module.InferInput("images", [3, 3, 32, 32], "FP32")
    given.set_data_from_numpy(tensor[:3])
    for _ in range(2):
        triton.infer("colour", [given], model_version="1")
    found = triton.plain(triton.get_inference_statistics("colour", "1"))["model_stats"][0]
    assert (found["name"], found["version"]) == ("colour", "1")
    assert int(found["inference_count"]) == 6
    assert int(found["execution_count"]) >= 2
    assert int(found["last_inference"]) > 1.7e12
    times = found["inference_stats"]
    assert int(times["success"]["count"]) == 2
    assert 0 < int(times["compute_infer"]["ns"]) < int(times["success"]["ns"]) * 2
    every = triton.plain(triton.get_inference_statistics())["model_stats"]
    assert [(row["name"], row["version"]) for row in every] == [
        ("colour", "1"),
        ("colour", "2"),
        ("gray", "1"),
    ]
    assert len(triton.plain(triton.get_inference_statistics("colour"))["model_stats"]) == 2
    with pytest.raises(Exception, match="no model 'x'; there are colour, gray"):
        triton.get_inference_statistics("x")


def test_the_configuration_says_how_a_model_is_served(triton):
    found = triton.plain(triton.get_model_config("gray"))
    found = found.get("config", found)
    assert (found["name"], found["backend"]) == ("gray", "densepath")
    assert found["max_batch_size"] == 32
    tensor = found["input"][0]
    assert (tensor["name"], tensor["data_type"]) == ("images", "TYPE_FP32")
    assert [int(side) for side in tensor["dims"]] == [1, 28, 36]
    kinds = {each["name"]: each["data_type"] for each in found["output"]}
    assert kinds == {
        "logits": "TYPE_FP32",
        "class_ids": "TYPE_INT64",
        "scores": "TYPE_FP32",
        "labels": "TYPE_STRING",
    }
    assert found["dynamic_batching"]["preferred_batch_size"] == [4]
    assert found["parameters"]["max_queue"]["string_value"] == "64"
    extensions = triton.plain(triton.get_server_metadata())["extensions"]
    assert {"statistics", "model_configuration"} <= set(extensions)


def test_a_model_cannot_be_named_as_a_route():
    from densepath.errors import UsageError
    from densepath.serving.core.settings import ModelSource

    with pytest.raises(UsageError, match="name it otherwise: NAME=bundles/stats"):
        ModelSource.parse("bundles/stats")
    assert ModelSource.parse("models=bundles/stats").name == "models"

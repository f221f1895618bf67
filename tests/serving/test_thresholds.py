"""Which classes are a yes, by every way into the server."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil

import pytest

from fixtures.bundles import FLOWERS


@pytest.fixture
def several(bundles, tmp_path):
    """The bundle `colour` as one of several labels, with thresholds and a temperature."""
    copy = shutil.copytree(bundles / "colour", tmp_path / "several")
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest |= {"multi_label": True, "temperature": 1.5, "thresholds": [0.5, 0.0, 1.0] + [0.4] * 4}
    text = json.dumps(manifest).encode()
    (copy / "manifest.json").write_bytes(text)
    line = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n"
    (copy / "manifest.json.sha256").write_text(line, encoding="ascii")
    return copy


def test_every_way_in_says_which_classes_are_above_their_thresholds(start, several, files):
    server, picture = start(str(several), "--no-page"), files[0].read_bytes()
    encoded = base64.b64encode(picture).decode()
    with server.http() as client:
        (row,) = client.get("/models").json()["models"]
        assert (row["multi_label"], row["temperature"]) == (True, 1.5)
        assert row["thresholds"] == [0.5, 0.0, 1.0, 0.4, 0.4, 0.4, 0.4]
        reply = client.post("/classify", files={"f": picture}, params={"top_k": 7}).json()
        (whole,) = reply["predictions"]
        limits = dict(zip(FLOWERS, row["thresholds"], strict=True))
        scored = zip(whole["labels"], whole["scores"], strict=True)
        assert whole["positive_labels"] == [n for n, score in scored if score > limits[n]]
        assert "<b>tulip</b>" in whole["positive_labels"]
        assert whole["positive_ids"] == [FLOWERS.index(n) for n in whole["positive_labels"]]
        ask = {"instances": [{"b64": encoded}]}
        (first,) = client.post("/v1/models/several:predict", json=ask).json()["predictions"]
        assert first["positive_labels"] == whole["positive_labels"]
        tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [encoded]}
        made = client.post("/v2/models/several/infer", json={"inputs": [tensor]}).json()
        outputs = {output["name"]: output for output in made["outputs"]}
        decided = outputs["decisions"]
        assert (decided["datatype"], decided["shape"]) == ("BOOL", [1, 7])
        yes = {FLOWERS[i] for i, value in enumerate(decided["data"]) if value}
        assert yes == set(whole["positive_labels"])
        described = client.get("/v2/models/several").json()["outputs"]
        assert {"name": "decisions", "datatype": "BOOL", "shape": [-1, 7]} in described
        config = client.get("/v2/models/several/config").json()["parameters"]
        assert json.loads(config["thresholds"]["string_value"]) == row["thresholds"]
        assert config["temperature"]["string_value"] == "1.5"


def test_a_bundle_without_thresholds_decides_nothing(server, files):
    with server.http() as client:
        form, named = {"f": files[0].read_bytes()}, {"model": "colour"}
        reply = client.post("/classify", files=form, params=named).json()
        assert "positive_ids" not in reply["predictions"][0]
        outputs = client.get("/v2/models/colour").json()["outputs"]
        assert "decisions" not in [output["name"] for output in outputs]

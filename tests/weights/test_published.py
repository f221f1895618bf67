"""The table of published weights, and the way of a file from its publisher to the disk."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import huggingface_hub
import pytest
import torch

from densepath.errors import UnknownNameError, WeightsError, WeightsUnavailableError
from densepath.models.catalogue import CATALOGUE
from densepath.weights.fetch import cached_path, fetch_published
from densepath.weights.formula import formula_tensor
from densepath.weights.labels import imagenet_labels, imagenet_wnids
from densepath.weights.match import expected_shapes
from densepath.weights.published import PUBLISHED, find_published, published_for
from densepath.weights.subject import open_checkpoint

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DENSEPATH_CACHE", str(tmp_path / "cache"))
    for name in ("DENSEPATH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def publisher():
    """A publisher on this machine: what it answers, and how often it was asked."""

    class Answers(BaseHTTPRequestHandler):
        content, declared, status, asked = CONTENT, None, 200, 0

        def do_GET(self):
            Answers.asked += 1
            self.send_response(Answers.status)
            self.send_header("Content-Length", str(Answers.declared or len(Answers.content)))
            self.end_headers()
            self.wfile.write(Answers.content)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Answers.address = f"http://127.0.0.1:{server.server_port}/file"
    yield Answers
    server.shutdown()
    thread.join()
    server.server_close()


def row_at(publisher, sha256=DIGEST[:8]):
    row = find_published("torchvision/densenet121")
    return dataclasses.replace(row, location=publisher.address, sha256=sha256)


# The table


def test_every_row_names_a_model_of_the_catalogue_and_a_plausible_claim():
    for name, row in PUBLISHED.items():
        assert name == row.name
        assert row.model in CATALOGUE
        assert 70 < row.top1 < row.top5 < 97
        assert row.licence in ("Apache-2.0", "BSD-3-Clause")
        assert re.fullmatch(r"([0-9a-f]{8})?", row.sha256)
        assert row.preprocess.size == (224, 224)


def test_all_ten_networks_of_the_seeds_are_published_by_paddleclas():
    rows = [row for row in PUBLISHED.values() if row.origin == "paddle"]
    assert {row.model for row in rows} == {spec.name for spec in CATALOGUE.values() if spec.seed}
    for row in rows:
        seed = CATALOGUE[row.model].seed
        assert (row.top1, row.top5) == (
            pytest.approx(seed.top1 * 100),
            pytest.approx(seed.top5 * 100),
        )


@pytest.mark.parametrize(
    ("name", "bn_eps", "stem_pool"),
    [
        ("paddle/DPN92", 1e-5, None),
        ("paddle/DenseNet121", None, None),
        ("mindcv/dpn92", None, "same"),
        ("mindcv/densenet121", None, None),
        ("timm/dpn92.mx_in1k", None, None),
    ],
)
def test_only_dpns_differ_from_the_catalogue_and_each_publisher_in_its_way(name, bn_eps, stem_pool):
    switches = find_published(name).switches
    assert (switches.bn_eps, switches.stem_pool) == (bn_eps, stem_pool)


def test_names_are_found_in_any_case_and_unknown_ones_get_the_nearest():
    assert find_published("PADDLE/densenet121").name == "paddle/DenseNet121"
    with pytest.raises(UnknownNameError, match=r"Did you mean timm/densenet121\.ra_in1k"):
        find_published("timm/densenet121.ra_1k")


def test_the_published_weights_of_a_model_are_listed():
    assert published_for("densenet264") == ["paddle/DenseNet264"]
    assert set(published_for("densenet121")) == {
        "timm/densenet121.ra_in1k",
        "timm/densenet121.tv_in1k",
        "torchvision/densenet121",
        "paddle/DenseNet121",
        "mindcv/densenet121",
    }


def test_imagenets_classes_are_1000_different_names_in_the_order_of_their_wnids():
    assert len(set(imagenet_labels())) == len(set(imagenet_wnids())) == 1000
    assert imagenet_wnids() == sorted(imagenet_wnids())
    assert imagenet_wnids()[207] == "n02099601"
    assert imagenet_labels()[207] == "golden retriever"


# The way to the disk


def test_a_download_is_kept_and_used_again(publisher):
    row = row_at(publisher)
    path = fetch_published(row)
    assert path == cached_path(row)
    assert path.read_bytes() == CONTENT
    assert fetch_published(row) == path
    assert publisher.asked == 1


def test_a_download_with_another_checksum_is_refused_and_not_kept(publisher):
    row = row_at(publisher, sha256="00000000")
    with pytest.raises(WeightsError, match=f"SHA-256 {DIGEST}, but its publisher says 00000000"):
        fetch_published(row)
    assert not any(cached_path(row).parent.glob("*"))


def test_a_download_that_breaks_off_is_refused_and_not_kept(publisher):
    publisher.declared = len(CONTENT) + 1
    row = row_at(publisher)
    with pytest.raises(WeightsError):
        fetch_published(row)
    assert not cached_path(row).exists()


@pytest.mark.parametrize("sha256", [DIGEST[:8], ""])
def test_a_file_that_changed_in_the_cache_is_refused(publisher, sha256):
    row = row_at(publisher, sha256)
    fetch_published(row).write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(WeightsError, match="is damaged: its SHA-256 does not begin with"):
        fetch_published(row)


def test_a_publisher_that_does_not_have_the_file_is_named(publisher):
    publisher.status = 404
    with pytest.raises(WeightsUnavailableError, match="cannot be fetched"):
        fetch_published(row_at(publisher))


def test_without_network_the_error_names_the_file_and_its_place(publisher):
    row = row_at(publisher)
    row = dataclasses.replace(row, location="http://127.0.0.1:1/file")
    with pytest.raises(WeightsUnavailableError) as caught:
        fetch_published(row)
    assert row.location in str(caught.value)
    assert str(cached_path(row)) in str(caught.value)


@pytest.mark.parametrize("name", ["timm/densenet121.ra_in1k", "paddle/DenseNet121"])
@pytest.mark.parametrize("variable", ["DENSEPATH_OFFLINE", "HF_HUB_OFFLINE"])
def test_nothing_is_fetched_when_the_environment_says_so(name, variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(WeightsUnavailableError, match="switched off") as caught:
        fetch_published(find_published(name))
    assert str(cached_path(find_published(name))) in str(caught.value)


def test_a_hub_that_fails_is_the_same_error(monkeypatch, publisher):
    def fail(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nmore")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", publisher.address)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsUnavailableError) as caught:
        fetch_published(find_published("timm/dpn92.mx_in1k"))
    message = str(caught.value)
    assert "(no connection)" in message
    assert "model.safetensors of the Hugging Face repository timm/dpn92.mx_in1k" in message


def test_a_hub_that_cannot_be_reached_is_the_same_error_at_once(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: pytest.fail("asked"))
    with pytest.raises(WeightsUnavailableError, match="Connection refused"):
        fetch_published(find_published("timm/dpn92.mx_in1k"))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_file_of_the_hubs_cache_is_checked_against_its_name(monkeypatch, tmp_path, damaged):
    blob = tmp_path / DIGEST
    blob.write_bytes(CONTENT + b"x" * damaged)
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(link))
    row = find_published("timm/dpn92.mx_in1k")
    if damaged:
        with pytest.raises(WeightsError, match="is damaged"):
            fetch_published(row)
    else:
        assert fetch_published(row) == link


def test_published_weights_put_into_the_cache_by_hand_are_a_subject():
    from safetensors.torch import save_file

    row = find_published("timm/densenet121.ra_in1k")
    shapes = expected_shapes(CATALOGUE["densenet121"], 1000, 3)
    tensors = {name: torch.from_numpy(formula_tensor(name, s)) for name, s in shapes.items()}
    cached_path(row).parent.mkdir(parents=True)
    save_file(tensors, str(cached_path(row)))
    checkpoint = open_checkpoint("timm/densenet121.ra_in1k")
    assert checkpoint.labels == imagenet_labels()
    assert checkpoint.preprocess == row.preprocess
    assert checkpoint.provenance["source"] == row.name
    assert torch.equal(checkpoint.tensors["classifier.bias"], tensors["classifier.bias"])


def test_dpn_of_timm_takes_the_mean_that_its_authors_trained_with():
    """Source: timm `data/constants.py`, IMAGENET_DPN_MEAN and IMAGENET_DPN_STD."""
    preprocess = PUBLISHED["timm/dpn68.mx_in1k"].preprocess
    assert [mean * 255 for mean in preprocess.mean] == pytest.approx([124, 117, 104])
    assert [0.0167 * 255 * std for std in preprocess.std] == pytest.approx([1, 1, 1])

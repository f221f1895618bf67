"""A bundle's path may be a link, or lead through some: it is followed anew at each load."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("fastapi")


def lead(link: Path, target: str | Path) -> None:
    """The link leads there from now on, as deployments do it: in one step."""
    made = link.with_name(link.name + ".new")
    made.symlink_to(target)
    made.replace(link)


def plain(bundles: Path, folder: Path) -> tuple[Path, Path, Path]:
    """`current -> v1`, by a relative link, and what changes it."""
    shutil.copytree(bundles / "colour", folder / "v1")
    shutil.copytree(bundles / "newer", folder / "v2")
    (folder / "current").symlink_to("v1")
    return folder / "current", folder / "current", Path("v2")


def absolute(bundles: Path, folder: Path) -> tuple[Path, Path, Path]:
    _, link, _ = plain(bundles, folder)
    lead(link, folder / "v1")
    return link, link, folder / "v2"


def link_to_link(bundles: Path, folder: Path) -> tuple[Path, Path, Path]:
    _, link, target = plain(bundles, folder)
    (folder / "served").symlink_to("current")
    return folder / "served", link, target


def in_the_middle(bundles: Path, folder: Path) -> tuple[Path, Path, Path]:
    """`releases/current/model`, as deployments of whole trees have it."""
    for version, name in (("v1", "colour"), ("v2", "newer")):
        shutil.copytree(bundles / name, folder / version / "model")
    (folder / "current").symlink_to("v1")
    return folder / "current" / "model", folder / "current", Path("v2")


def upwards(bundles: Path, folder: Path) -> tuple[Path, Path, Path]:
    """`current/../model`: the folder above is that of what the link leads to."""
    for version, name in (("a/1", "colour"), ("b/1", "newer")):
        (folder / version).mkdir(parents=True)
        shutil.copytree(bundles / name, (folder / version).parent / "model")
    (folder / "current").symlink_to("a/1")
    return folder / "current" / ".." / "model", folder / "current", Path("b/1")


def kubernetes(bundles: Path, folder: Path) -> tuple[Path, Path, Path]:
    """A volume: its files are links through `..data`, which leads to a folder with a date."""
    for date, name in (("..2026_1", "colour"), ("..2026_2", "newer")):
        shutil.copytree(bundles / name, folder / "pets" / date)
    (folder / "pets" / "..data").symlink_to("..2026_1")
    for file in (folder / "pets" / "..2026_1").iterdir():
        (folder / "pets" / file.name).symlink_to(f"..data/{file.name}")
    return folder / "pets", folder / "pets" / "..data", Path("..2026_2")


LINKS = [plain, absolute, link_to_link, in_the_middle, upwards, kubernetes]


@pytest.mark.parametrize("make", LINKS, ids=lambda make: make.__name__)
def test_a_link_is_followed_at_each_load(start, bundles, tmp_path, files, answers, make):
    path, link, target = make(bundles, tmp_path)
    server = start(str(path), "--no-page")
    with server.http() as client:

        def classes() -> list[int]:
            reply = client.post("/classify", files={"f": files[0].read_bytes()})
            return reply.json()["predictions"][0]["class_ids"]

        (row,) = client.get("/models").json()["models"]
        assert row["name"] == ("model" if path.name == "model" else path.name)
        assert classes() == answers["colour"][0]["class_ids"][:5]
        lead(link, target)
        assert classes() == answers["colour"][0]["class_ids"][:5]  # nobody has said so yet
        assert client.post(f"/v2/repository/models/{row['name']}/load").status_code == 200
        assert classes() == answers["newer"][0]["class_ids"][:5]
        (after,) = client.get("/models").json()["models"]
        assert (after["name"], after["sha256"] != row["sha256"]) == (row["name"], True)
        index = client.post("/v2/repository/index").json()
        assert [(one["name"], one["state"]) for one in index] == [(row["name"], "READY")]


def test_a_link_that_leads_nowhere_on_reload_is_refused(start, bundles, tmp_path, files):
    path, link, _ = plain(bundles, tmp_path)
    server = start(str(path))
    with server.http() as client:
        for target in ("v9", "current", "v1/manifest.json"):
            lead(link, target)
            reply = client.post("/v2/repository/models/current/load")
            assert reply.status_code == 409, reply.text
            assert "goes on answering" in reply.json()["error"]
            assert str(tmp_path) not in reply.text
            kind = {"Content-Type": "image/png"}
            taken = client.post("/classify", content=files[0].read_bytes(), headers=kind)
            assert taken.status_code == 200
        lead(link, "v2")
        assert client.post("/v2/repository/models/current/load").status_code == 200
    reasons = [line["reason"] for line in server.log if line["event"] == "load failed"]
    assert f"{path} is a link to {tmp_path}/v9, which is not there" in reasons[0]


def test_explanations_come_from_the_bundle_that_answers(start, bundles, tmp_path, files):
    """PyTorch opens the bundle at the first of them, when the link may lead elsewhere already."""
    path, link, target = plain(bundles, tmp_path)
    server = start(str(path))
    lead(link, target)
    with server.http() as client:
        form = {"f": files[0].read_bytes()}
        plain_answer = client.post("/classify", files=form).json()["predictions"][0]
        reply = client.post("/classify?explain=true", files=form).json()["predictions"][0]
        assert reply["class_ids"] == plain_answer["class_ids"]
        assert reply["scores"] == pytest.approx(plain_answer["scores"], abs=1e-4)


def test_a_link_that_changes_while_a_bundle_is_loaded_mixes_nothing(bundles, tmp_path):
    """The path is followed once: what is read afterwards is one bundle's."""
    from densepath.bundle.bundle import Bundle
    from densepath.serving.core.held import find_bundle, open_held
    from densepath.serving.core.settings import ModelSource

    path, link, target = plain(bundles, tmp_path)
    source = ModelSource.parse(str(path))
    held = find_bundle(source)
    lead(link, target)
    assert open_held(held).verify() is None
    assert open_held(held).sha256 == Bundle.open(tmp_path / "v1").sha256
    assert find_bundle(source).sha256 == Bundle.open(tmp_path / "v2").sha256


def test_a_folder_that_is_replaced_while_it_is_loaded_is_refused(bundles, tmp_path):
    from densepath.errors import BundleError
    from densepath.serving.core.held import find_bundle, open_held
    from densepath.serving.core.settings import ModelSource

    plain(bundles, tmp_path)
    held = find_bundle(ModelSource.parse(str(tmp_path / "v1")))
    shutil.rmtree(tmp_path / "v1")
    (tmp_path / "v2").rename(tmp_path / "v1")
    with pytest.raises(BundleError, match="was replaced while it was loaded; load it again"):
        open_held(held)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("current", "current"),
        ("current/", "current"),
        ("./current", "current"),
        ("v1/../current", "current"),
        ("named=current", "named"),
        ("named@3=current", "named"),
        ("v1/..", "place"),
        (".", "place"),
        ("Été 2026", "t-2026"),
    ],
)
def test_a_model_has_the_name_that_was_given(tmp_path, monkeypatch, given, name):
    from densepath.serving.core.settings import ModelSource

    place = tmp_path / "place"
    (place / "v1").mkdir(parents=True)
    (place / "current").symlink_to("v1")
    monkeypatch.chdir(place)
    source = ModelSource.parse(given)
    assert source.name == name
    assert source.path.is_absolute()

"""Several workers are of one mind, whatever dies and whatever happens to the bundles meanwhile."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from densepath.serving.core.held import Absent, Held
from densepath.serving.core.settings import ModelSource
from densepath.serving.process.wanted import Wanted
from densepath.serving.process.worker import DROP, PREPARE, TAKE, UNLOAD

REACH_S = 60


def reached(what: Callable[[], Any], is_right: Callable[[Any], bool]) -> Any:
    """What it says once that is right."""
    end = time.monotonic() + REACH_S
    while not is_right(found := what()):
        assert time.monotonic() < end, f"it stays {found}"
        time.sleep(0.05)
    return found


class Pair:
    """A server of two workers that serve copies of `colour` as `mine`, and `gray`."""

    def __init__(self, start, bundles: Path, folder: Path, *, path: Path | None = None) -> None:
        for name in ("colour", "newer"):
            shutil.copytree(bundles / name, folder / name)
        self.folder, self.bundle = folder, folder / "colour"
        self.server = start(f"mine={path or self.bundle}", "gray", "--workers", "2")
        self.image = (bundles / "images" / "00.png").read_bytes()

    def ask(self, verb: str, path: str, **options: Any) -> Any:
        """An answer on a connection of its own, from whichever worker."""
        with self.server.http() as client:
            return client.request(verb, path, **options)

    def many(self, path: str) -> set[str]:
        """What the workers say to the same question: one thing, when they are of one mind."""
        return {self.ask("post", path).text for _ in range(24)}

    def classes(self) -> set[tuple[int, ...]]:
        """Of the image, in all workers; empty for a refusal."""
        found = set()
        for _ in range(24):
            reply = self.ask("post", "/classify?model=mine", files={"f": self.image})
            assert reply.status_code in (200, 404), reply.text
            rows = reply.json().get("predictions", [{"class_ids": []}])
            found.add(tuple(rows[0]["class_ids"]))
        return found

    def gauge(self, name: str) -> float | None:
        """A number of `/metrics`."""
        text = self.ask("get", "/metrics").text
        found = re.search(rf"^densepath_{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    def kill(self, count: int = 1) -> None:
        """Some workers are killed, and known to be dead."""
        before = len(self.died)
        for pid in self.server.workers()[:count]:
            os.kill(pid, signal.SIGKILL)
        reached(lambda: len(self.died), lambda number: number >= before + count)

    @property
    def died(self) -> list[dict[str, Any]]:
        """What the log says of it."""
        return self.said("worker died")

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of the log of this event."""
        return [line for line in self.server.log if line["event"] == event]

    def wait_for_workers(self, count: int) -> None:
        """Until so many answer."""
        reached(lambda: self.gauge("workers"), lambda number: number == count)


@pytest.fixture
def pair(start, bundles, tmp_path):
    return Pair(start, bundles, tmp_path)


READY = 'model_ready{model="mine",version="1"}'


def expected(answers, name: str) -> set[tuple[int, ...]]:
    return {tuple(answers[name][0]["class_ids"][:5])}


def put_back(pair: Pair) -> None:
    (pair.folder / "away").rename(pair.bundle)


def take_away(pair: Pair) -> None:
    pair.bundle.rename(pair.folder / "away")


def cut_weights(pair: Pair) -> None:
    """The manifest is whole, so that only opening finds out; as a new file, as copies are."""
    shutil.copytree(pair.bundle, pair.folder / "cut")
    weights = pair.folder / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    take_away(pair)
    (pair.folder / "cut").rename(pair.bundle)


def mend_weights(pair: Pair) -> None:
    shutil.rmtree(pair.bundle)
    put_back(pair)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "mend", "event"),
    [
        (take_away, put_back, "worker not replaced"),
        (cut_weights, mend_weights, "worker failed to start"),
    ],
)
def test_a_worker_that_cannot_be_replaced_leaves_the_others_answering(
    pair, answers, damage, mend, event
):
    damage(pair)
    pair.kill()
    reached(lambda: pair.said(event), bool)
    pair.wait_for_workers(1)
    assert pair.classes() == expected(answers, "colour")
    mend(pair)
    pair.wait_for_workers(2)
    assert pair.classes() == expected(answers, "colour")
    assert pair.server.stop() == 0


@pytest.mark.slow
def test_another_bundle_on_the_disk_never_answers_as_the_one_that_was_loaded(pair, answers):
    take_away(pair)
    (pair.folder / "newer").rename(pair.bundle)
    pair.kill()
    (line,) = reached(lambda: pair.said("worker not replaced"), bool)
    assert "has another bundle now" in line["reason"]
    assert pair.classes() == expected(answers, "colour")
    assert pair.ask("post", "/v2/repository/models/mine/load").status_code == 200
    assert pair.classes() == expected(answers, "newer")
    pair.wait_for_workers(2)
    assert pair.classes() == expected(answers, "newer")
    assert len(pair.many("/v2/repository/index")) == 1


@pytest.mark.slow
def test_a_link_that_leads_elsewhere_now_does_not_change_a_replacement(
    start, bundles, tmp_path, answers
):
    link = tmp_path / "current"
    link.symlink_to("colour")
    pair = Pair(start, bundles, tmp_path, path=link)
    link.unlink()
    link.symlink_to("newer")
    pair.kill()
    pair.wait_for_workers(2)
    assert pair.classes() == expected(answers, "colour")
    assert pair.ask("post", "/v2/repository/models/mine/load").status_code == 200
    assert pair.classes() == expected(answers, "newer")


@pytest.mark.slow
def test_an_unloaded_model_stays_unloaded_in_a_replacement_and_gauges_are_of_the_living(
    pair, answers
):
    assert pair.gauge(READY) == 1
    assert pair.ask("post", "/v2/repository/models/mine/unload").status_code == 200
    assert pair.gauge(READY) == 0
    for _ in range(2):  # both workers are others then
        pair.kill()
        pair.wait_for_workers(2)
    assert pair.classes() == {()}
    (index,) = pair.many("/v2/repository/index")
    assert '"state":"UNAVAILABLE","reason":"unloaded"' in index
    assert pair.gauge(READY) == 0
    assert pair.ask("post", "/v2/repository/models/mine/load").status_code == 200
    assert pair.gauge(READY) == 1
    assert pair.gauge('pending_images{model="mine",version="1"}') in (None, 0)
    assert pair.classes() == expected(answers, "colour")


@pytest.mark.slow
def test_a_server_whose_workers_all_die_starts_with_what_there_is(pair, answers):
    take_away(pair)
    pair.kill(2)
    pair.wait_for_workers(2)
    assert pair.classes() == {()}
    (index,) = pair.many("/v2/repository/index")
    assert "is not a bundle" in index
    assert str(pair.folder) not in index
    form = {"f": pair.image}
    assert pair.ask("post", "/classify?model=gray", files=form).status_code == 200
    assert pair.gauge(READY) == 0
    put_back(pair)
    assert pair.ask("post", "/v2/repository/models/mine/load").status_code == 200
    assert pair.gauge(READY) == 1
    assert pair.classes() == expected(answers, "colour")
    assert pair.server.stop() == 0


@pytest.mark.slow
def test_the_bundle_that_stands_there_is_served_when_nobody_holds_the_old_one(pair, answers):
    take_away(pair)
    (pair.folder / "newer").rename(pair.bundle)
    pair.kill(2)
    pair.wait_for_workers(2)
    assert pair.classes() == expected(answers, "newer")
    assert [line["model"] for line in pair.said("bundle lost")] == ["mine 1"]


# What they are told, without processes.


@pytest.fixture
def wanted(bundles, tmp_path) -> Wanted:
    for name in ("colour", "newer"):
        shutil.copytree(bundles / name, tmp_path / name)
    sources = [
        ModelSource("m", v, tmp_path / name) for v, name in (("1", "colour"), ("2", "newer"))
    ]
    return Wanted(sources)


def test_a_load_is_taken_by_all_once_all_are_prepared(wanted):
    before, steps = dict(wanted.holdings), wanted.load("m")
    said = [next(steps)]
    for _ in range(3):
        said.append(steps.send(None))
    with pytest.raises(StopIteration) as end:
        steps.send(None)
    assert end.value.value is None
    kinds = [(message[0], message[2]) for message in said]
    assert kinds == [(PREPARE, "1"), (TAKE, "1"), (PREPARE, "2"), (TAKE, "2")]
    assert wanted.holdings == before


def test_a_load_that_fails_in_one_worker_is_dropped_by_all(wanted, tmp_path):
    before, steps = dict(wanted.holdings), wanted.load("m")
    shutil.rmtree(tmp_path / "colour")
    shutil.copytree(tmp_path / "newer", tmp_path / "colour")
    kind, name, version, held = next(steps)
    assert (kind, name, version) == (PREPARE, "m", "1")
    assert held == wanted.holdings["m", "2"]
    assert steps.send("no memory") == (DROP, "m", "1", "no memory")
    with pytest.raises(StopIteration) as end:
        steps.send(None)
    assert end.value.value == "no memory What was loaded before goes on answering."
    assert wanted.holdings == before


def test_a_bundle_that_is_gone_is_dropped_before_anybody_opens_it(wanted, tmp_path):
    list(wanted.unload("m"))
    (tmp_path / "colour" / "manifest.json").unlink()
    steps = wanted.load("m")
    kind, _, version, reason = next(steps)
    assert (kind, version) == (DROP, "1")
    assert reason == "model m: manifest.json is missing; copy the whole bundle again."
    assert wanted.holdings["m", "1"] == Absent(reason)


def test_what_was_unloaded_stays_so_when_all_workers_have_died(wanted, tmp_path):
    assert list(wanted.unload("m")) == [(UNLOAD, "m")]
    wanted.renew()
    assert set(wanted.holdings.values()) == {Absent("unloaded")}


def test_what_was_lost_comes_back_when_all_workers_have_died_again(wanted, tmp_path):
    old = wanted.holdings["m", "1"]
    (tmp_path / "colour").rename(tmp_path / "away")
    wanted.renew()
    assert wanted.holdings["m", "1"].is_lost
    assert isinstance(wanted.holdings["m", "2"], Held)
    (tmp_path / "away").rename(tmp_path / "colour")
    wanted.renew()
    assert wanted.holdings["m", "1"] == old


def test_a_bundle_that_was_moved_is_the_same(wanted, tmp_path):
    """As where the path is a link to another copy of it."""
    (tmp_path / "colour").rename(tmp_path / "elsewhere")
    (tmp_path / "colour").symlink_to("elsewhere")
    wanted.find_again()
    assert wanted.holdings["m", "1"].sha256


def test_a_load_whose_client_goes_away_is_finished_all_the_same(bundles):
    """gRPC cancels the call; half a load would leave the server not ready for ever."""
    from densepath.serving.core.service import Service
    from densepath.serving.core.settings import Settings

    async def ask_and_leave() -> bool:
        settings = Settings(engine="native", threads=1)
        service = Service(settings, [ModelSource("m", "1", bundles / "colour")])
        asking = asyncio.ensure_future(service.obey("load", "m"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        while service.repository.index()[0]["state"] != "READY":
            await asyncio.sleep(0.01)
        await service.stop()
        return service.is_ready

    assert asyncio.run(asyncio.wait_for(ask_and_leave(), REACH_S))

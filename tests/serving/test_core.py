"""serving/core/ without a server: what is ready, what is refused, and what is counted."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import Gauge

from densepath.engines.null import NullEngine
from densepath.images.preprocess import Preprocess
from densepath.predict.predictor import Predictor
from densepath.serving.core import logs, outlet
from densepath.serving.core import model as served
from densepath.serving.core.errors import (
    BusyError,
    InternalError,
    LateError,
    NotReadyError,
    RequestError,
)
from densepath.serving.core.fields import check_known
from densepath.serving.core.held import Absent, Held
from densepath.serving.core.metrics import Metrics, make_shared_folder, outcome_of
from densepath.serving.core.model import ServedModel
from densepath.serving.core.repository import Repository
from densepath.serving.core.service import BODIES, Service, check_ready
from densepath.serving.core.settings import ModelSource, Settings

OLD, NEW = (ModelSource("m", version, Path("/bundles/m")) for version in ("1", "2"))
OTHER = ModelSource("other", "1", Path("/bundles/other"))
HELD = {(one.name, one.version): Held(one.path, "a") for one in (OLD, NEW, OTHER)}
SMALL = Preprocess((4, 4))
NETWORK = SimpleNamespace(
    folder=Path("/bundles/m"), sha256="a", manifest=SimpleNamespace(formats={})
)


class Fake:
    """A model that answers nothing."""

    def __init__(self, source: ModelSource, held: Held) -> None:
        self.source, self.held = source, held
        self.predictor = SimpleNamespace(engine=NullEngine(SMALL, 2))

    def to_dict(self):
        return {"name": self.source.name, "version": self.source.version}

    async def close(self):
        pass


def open_all(source: ModelSource, held: Held) -> Fake:
    return Fake(source, held)


def predictor(engine=None) -> Predictor:
    return Predictor(engine or NullEngine(SMALL, 2), ["a", "b"])


def model(settings=None, metrics=None) -> ServedModel:
    return ServedModel(OLD, NETWORK, predictor(), settings or Settings(), metrics or Metrics())


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics._registry.get_sample_value(name, labels)


# What stands under a name and version.


def test_a_repository_is_ready_once_all_that_was_given_is_loaded():
    async def readiness():
        repository = Repository([OLD, OTHER], open_all, Metrics())
        await repository.start(HELD)
        said = [repository.is_ready]
        repository._slots["other"]["1"].state = "LOADING"
        said.append(repository.is_ready)
        return said

    assert asyncio.run(readiness()) == [True, False]


@pytest.mark.parametrize(("lost", "ready"), [((OLD,), True), ((OLD, OTHER), False)])
def test_a_repository_that_has_lost_models_is_ready_while_one_answers(lost, ready):
    gone = {(one.name, one.version): Absent("it is gone", is_lost=True) for one in lost}

    async def readiness():
        repository = Repository([OLD, OTHER], open_all, Metrics())
        await repository.start(HELD | gone)
        return repository.is_ready

    assert asyncio.run(readiness()) is ready


def test_what_was_unloaded_on_purpose_does_not_make_a_server_unready():
    async def readiness():
        repository = Repository([OLD], open_all, Metrics())
        await repository.start(HELD)
        await repository.unload("m")
        return repository.is_ready

    assert asyncio.run(readiness()) is True


def test_the_latest_of_several_versions_is_the_default():
    async def rows():
        repository = Repository([NEW, OLD], open_all, Metrics())
        await repository.start(HELD)
        assert repository.find("m").source is NEW
        return repository.to_dicts()

    assert [(row["version"], row["default"], row["versions"]) for row in asyncio.run(rows())] == [
        ("1", False, ["1", "2"]),
        ("2", True, ["1", "2"]),
    ]


def test_the_metrics_say_of_each_model_whether_it_answers():
    metrics = Metrics()

    def ready() -> float | None:
        return value(metrics, "densepath_model_ready", model="m", version="1")

    async def steps():
        repository = Repository([OLD], open_all, metrics)
        await repository.start(HELD)
        said = [ready()]
        await repository.unload("m")
        said.append(ready())
        await repository.load("m")
        return [*said, ready()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("densepath.serving.core.repository.find_bundle", lambda _: HELD["m", "1"])
        assert asyncio.run(steps()) == [1.0, 0.0, 1.0]


def test_a_model_that_fails_to_load_is_unavailable_and_one_that_answers_goes_on():
    async def states():
        repository = Repository([OLD, OTHER], open_all, Metrics())
        await repository.start(HELD | {("other", "1"): Absent("it is gone")})
        assert str(repository.drop("m", "1", "no memory")).startswith("no memory What was loaded")
        assert str(repository.drop("other", "1", "no memory")) == "no memory"
        return [(row["state"], row["reason"]) for row in repository.index()]

    assert asyncio.run(states()) == [("READY", "no memory"), ("UNAVAILABLE", "no memory")]


def test_bundles_held_are_the_same_by_their_manifest_and_are_not_changed():
    one, moved, other = Held(Path("a"), "1"), Held(Path("b"), "1"), Held(Path("a"), "2")
    assert len({one, moved, other}) == 2
    for kept, field in ((one, "sha256"), (Absent("gone"), "reason")):
        with pytest.raises(FrozenInstanceError):
            setattr(kept, field, "2")


# One model.


def test_a_model_whose_engine_fails_at_its_first_run_is_not_served(monkeypatch):
    class Broken(NullEngine):
        closed = False

        def run(self, images):
            raise RuntimeError("no memory")

        def close(self):
            Broken.closed = True

    monkeypatch.setattr(served, "open_held", lambda _: NETWORK)
    monkeypatch.setattr(served, "load", lambda *_, **__: predictor(Broken(SMALL, 2)))
    with pytest.raises(RuntimeError, match="no memory"):
        ServedModel.open(OLD, HELD["m", "1"], Settings(), Metrics())
    assert Broken.closed


def test_a_full_queue_refuses_counts_it_and_says_when_to_come_back(monkeypatch):
    metrics = Metrics()

    async def fill() -> list[int]:
        mine = model(Settings(max_queue=4), metrics)
        said = []
        for seconds in (0.0, 7.9, 120.0):
            monkeypatch.setattr(mine.batcher, "seconds_for", lambda _, s=seconds: s)
            with mine.place(4), pytest.raises(BusyError) as refused, mine.place(1):
                pass
            said.append(refused.value.retry_after_s)
        await mine.close()
        return said

    assert asyncio.run(fill()) == [1, 4, 60]
    assert value(metrics, "densepath_refused_total", model="m", version="1") == 3


def test_what_explains_has_the_threads_and_the_precision_that_the_server_was_given(monkeypatch):
    asked = {}

    class Explains(Predictor):
        def explain(self, images, **options):
            return iter(())

    def load(bundle, **options):
        asked.update(options)
        return Explains(NullEngine(SMALL, 2), ["a", "b"])

    async def explain():
        mine = model(Settings(threads=3, precision="bfloat16"))
        mine.manifest.formats["torch"] = {}
        try:
            await mine.explain([], 1)
        finally:
            del mine.manifest.formats["torch"]
            await mine.close()

    monkeypatch.setattr(served, "open_held", lambda _: NETWORK)
    monkeypatch.setattr(served, "load", load)
    asyncio.run(explain())
    assert asked == {"engine": "eager", "explains": True, "precision": "bfloat16", "threads": 3}


# The whole service.


def service(**settings) -> Service:
    return Service(Settings(engine="native", **settings), [OLD])


def test_bodies_count_together_until_their_requests_are_over():
    mine = service(max_body_bytes=100)
    for _ in range(BODIES):
        mine.hold({}, 100)
    with pytest.raises(BusyError, match="too large together"):
        mine.hold({}, 1)
    assert mine.held_bytes == 100 * BODIES
    mine = service(max_body_bytes=100)
    first, second = {}, {}
    mine.hold(first, 60)
    mine.hold(first, 30)
    mine.hold(second, 7)
    assert mine.held_bytes == 97
    mine.let_go(first)
    assert mine.held_bytes == 7
    mine.let_go(second)
    mine.let_go(second)
    assert mine.held_bytes == 0


def test_a_server_that_is_not_ready_takes_no_requests():
    mine = service()
    check_ready(mine)
    mine.draining = True
    with pytest.raises(NotReadyError, match="being stopped"):
        check_ready(mine)


def test_the_longest_time_of_reading_is_told_in_seconds():
    async def answer():
        mine, one = service(), model()

        async def read(_, name, image):
            await asyncio.sleep(0.01)
            return SimpleNamespace(name=name, image=None, error="broken")

        mine._read = read
        seconds, answers = await mine._answer_all(one, [("a", b""), ("b", b"")], 1e9)
        await one.close()
        return seconds, [row for _, row in answers]

    seconds, rows = asyncio.run(answer())
    assert 0.01 <= seconds < 30
    assert rows == [None, None]


def test_who_cannot_explain_reads_no_image_for_it():
    async def explain():
        mine, one = service(), model()

        async def read(*_):
            raise AssertionError("it was read")

        mine._read = read
        try:
            await mine.explain(one, [("a", b"")], top_k=1, deadline=1e9)
        finally:
            await one.close()

    with pytest.raises(RequestError, match="cannot explain"):
        asyncio.run(explain())


# Errors and counters.


def test_an_unknown_name_is_shown_shortened():
    with pytest.raises(RequestError, match=r"unknown field 'x{64}': there are none here"):
        check_known(["x" * 65], (), "field")
    with pytest.raises(RequestError) as refused:
        check_known(["y" * 65], ("top_k",), "field")
    assert "y" * 64 in str(refused.value)
    assert "y" * 65 not in str(refused.value)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (LateError("late"), "late"),
        (asyncio.CancelledError(), "cancelled"),
        (RequestError("wrong"), "refused"),
        (InternalError("broken"), "failed"),
        (ValueError("broken"), "failed"),
    ],
)
def test_what_became_of_images_is_told_by_how_their_request_ended(error, outcome):
    assert outcome_of(error) == outcome


def test_errors_of_the_server_have_the_status_that_http_gives_them():
    full = BusyError("full", 7)
    assert (full.http_status, full.retry_after_s, str(full)) == (429, 7, "full")
    statuses = [kind.http_status for kind in (InternalError, NotReadyError, LateError)]
    assert statuses == [500, 503, 504]


def test_images_are_counted_by_what_became_of_each():
    metrics = Metrics()
    with metrics.counting(("m", "1"), 5) as tally:
        tally.unreadable = 2
    with pytest.raises(LateError), metrics.counting(("m", "1"), 4):
        raise LateError("late")
    counted = {
        outcome: value(metrics, "densepath_images_total", model="m", version="1", outcome=outcome)
        for outcome in ("answered", "unreadable", "late")
    }
    assert counted == {"answered": 3, "unreadable": 2, "late": 4}


def test_the_bounds_of_times_rise_from_a_millisecond_by_no_more_than_three_times():
    metrics = Metrics()
    metrics.network_seconds.labels("m", "1").observe(0.1)
    [family] = [one for one in metrics._registry.collect() if one.name.endswith("network_seconds")]
    bounds = [sample.labels["le"] for sample in family.samples if sample.name.endswith("_bucket")]
    assert bounds[-1] == "+Inf"
    bounds = [float(bound) for bound in bounds[:-1]]
    assert (bounds[0], bounds[-1]) == (0.001, 30)
    assert all(1 < high / low <= 3 for low, high in itertools.pairwise(bounds))


def test_gauges_of_several_workers_are_sums_or_extremes_of_the_living():
    modes = {
        name: gauge._multiprocess_mode
        for name, gauge in vars(Metrics()).items()
        if isinstance(gauge, Gauge)
    }
    assert modes == {
        **{"last_answer": "max", "ready": "livemin"},
        **{"pending": "livesum", "workers": "livesum"},
    }


@pytest.mark.parametrize(("form", "said"), [("json", '"event": "loaded"'), ("text", "loaded a=1")])
def test_a_record_becomes_a_line_with_its_fields(form, said):
    lines: list[str] = []
    handler = logs._Handler(SimpleNamespace(put=lines.append), logs._Lines(form))
    record = {"msg": "loaded", "levelno": 20, "fields": {"a": 1}}
    assert handler.handle(logging.makeLogRecord(record))
    [line] = lines
    assert said in line


def test_where_nothing_can_be_written_the_first_reason_is_told(monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("densepath.serving.core.metrics.temporary_in", refuse)
    with pytest.raises(Exception, match=r"none can be written \(Permission denied\)"):
        make_shared_folder()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_pipe_is_not_waited_for_meanwhile_and_is_itself_again_behind():
    reading, writing = os.pipe()
    try:
        with outlet._never_blocking(writing):
            os.write(writing, bytes(1 << 16))  # as much as a pipe holds
            with pytest.raises(BlockingIOError):
                os.write(writing, bytes(1 << 16))
            assert os.get_blocking(reading)
        assert os.get_blocking(writing)
    finally:
        os.close(reading)
        os.close(writing)

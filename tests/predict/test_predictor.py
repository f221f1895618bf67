"""A predictor: what it closes, which engine it names, and what is read ahead of the answers."""

from __future__ import annotations

import dataclasses
import itertools
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import densepath
from densepath.engines.null import NullEngine
from densepath.images.preprocess import Preprocess
from densepath.images.reading import ReadImage
from densepath.models.build import build_model
from densepath.predict import flow
from densepath.predict.live import live_flow
from densepath.predict.predictor import Predictor
from densepath.weights.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(0)
    model = build_model("densenet_bc_22_12", num_classes=3).eval()
    return Checkpoint.of(model, preprocess=Preprocess((16, 16)), labels=list("abc"))


def test_a_with_statement_closes_the_engine_whatever_happens_in_it(monkeypatch):
    closed = []
    monkeypatch.setattr(NullEngine, "close", lambda engine: closed.append(engine))
    engine = NullEngine(Preprocess((4, 4)), 2)
    with Predictor(engine, ["dark", "light"]) as predictor:
        assert predictor.engine is engine
        assert closed == []
    assert closed == [engine]
    with (
        pytest.raises(KeyError),
        Predictor(engine, ["dark", "light"]),
    ):
        raise KeyError
    assert closed == [engine, engine]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [({"engine": "eager"}, "as asked"), ({"engine": "native"}, "as asked"), ({}, "")],
)
def test_a_loaded_predictor_says_which_engine_it_is_and_why(checkpoint, asked, reason):
    with densepath.load(checkpoint, **asked) as predictor:
        assert predictor.choice is not None
        assert predictor.choice.engine == predictor.engine.info.name
        assert predictor.choice.reason
        assert reason in predictor.choice.reason


def test_answers_that_nobody_waits_for_are_not_read_for(monkeypatch):
    """Of seven images two are being read when the first answer is taken and the rest given up."""
    given_up, two_read, all_given = threading.Event(), threading.Event(), threading.Event()
    begun: list[int] = []
    given = itertools.count(1)

    class Pool(ThreadPoolExecutor):
        def submit(self, *work, **options):
            if next(given) == 7:
                all_given.set()
            return super().submit(*work, **options)

        def shutdown(self, wait=True, *, cancel_futures=False):
            assert two_read.wait(60)
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            given_up.set()
            super().shutdown(wait=wait)

    def read(number):
        begun.append(number)
        if len(begun) == 3:
            two_read.set()
        assert (given_up if number else all_given).wait(60)
        return ReadImage(str(number), None)

    monkeypatch.setattr(flow, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(flow, "usable_cores", lambda: 1)
    answers = flow.flow(
        itertools.count(),
        read=read,
        answer=lambda images: [image.name for image in images],
        batch_size=64,
        streams=1,
    )
    assert next(answers) == "0"
    answers.close()
    assert sorted(begun) == [0, 1, 2]


def test_an_engine_that_explains_is_chosen_where_that_is_asked(checkpoint):
    with densepath.load(checkpoint, explains=True) as predictor:
        assert hasattr(predictor.engine, "explain")


# Images that come in their own time.


def shade(value):
    return np.full((4, 4, 3), value, np.uint8)


def test_live_images_are_taken_by_another_thread_and_others_by_the_callers():
    takers: dict[bool, set[int]] = {}
    for live in (False, True):
        takers[live] = set()

        def source(seen=takers[live]):
            for number in range(20):
                seen.add(threading.get_ident())
                yield shade(number)

        with Predictor(NullEngine(Preprocess((4, 4)), 2), ["a", "b"]) as predictor:
            assert len(list(predictor.predict(source(), live=live))) == 20
    assert takers[False] == {threading.get_ident()}
    assert len(takers[True]) == 1
    assert threading.get_ident() not in takers[True]


def test_a_source_that_waits_for_each_answer_gets_it():
    answered: queue.Queue[int] = queue.Queue()

    def source():
        for number in range(4):
            yield shade(number)
            answered.get(timeout=20)

    with Predictor(NullEngine(Preprocess((4, 4)), 2), ["a", "b"]) as predictor:
        for number, _ in enumerate(predictor.predict(source(), live=True)):
            answered.put(number)


def test_images_that_come_soon_after_one_another_share_a_batch(monkeypatch):
    monkeypatch.setattr("densepath.predict.live.PATIENCE_SECONDS", 5.0)
    sizes: list[int] = []
    first = threading.Event()

    def source():
        yield 0
        assert first.wait(20)
        yield 1
        time.sleep(0.05)
        yield 2

    def answer(items):
        sizes.append(len(items))
        return items

    for item in live_flow(source(), read=lambda item: item, answer=answer, batch_size=4, streams=1):
        if item == 0:
            first.set()
    assert sizes == [1, 2]


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_answered_by_every_way(checkpoint, precision, tmp_path):
    halved = {name: tensor.to(precision) for name, tensor in checkpoint.tensors.items()}
    half = dataclasses.replace(checkpoint, tensors=halved)
    densepath.export(half, tmp_path / "bundle", to=["torch"], num_images=2)
    images, found = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), np.uint8), []
    for subject in (half, tmp_path / "bundle"):
        for engine in ("eager", "native"):
            with densepath.load(subject, engine=engine, precision="float32") as predictor:
                found.append([one.scores for one in predictor.predict(images)])
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], atol=1e-4)

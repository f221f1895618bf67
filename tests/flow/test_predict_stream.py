"""Predictor: order, errors and memory over long streams, with an engine that costs nothing."""

from __future__ import annotations

import itertools
import threading
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from densepath.engines.null import NullEngine
from densepath.engines.predictor import Predictor
from densepath.errors import UsageError
from densepath.preprocess import Preprocess

LABELS = ["dark", "middle", "light"]
# Mean 0.5 and std 0.5 map 0…255 to −1…1: the null engine calls light images "light".
PLAIN = Preprocess((8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


def predictor(batch_size=4):
    return Predictor(NullEngine(3, 3, batch_size), PLAIN, LABELS)


def shade(value, channels=3):
    return np.full((8, 8, channels), value, np.uint8)


def test_answers_come_in_the_order_of_the_images_with_failures_in_their_places(tmp_path):
    paths = []
    for i in range(11):
        path = tmp_path / f"{i:02d}.png"
        paths.append(path)
        if i % 4 == 3:
            path.write_bytes(b"not an image")
        else:
            Image.fromarray(shade(255 if i % 2 else 0)).save(path)
    answers = list(predictor().predict(paths, top_k=1))
    assert [a.path for a in answers] == [str(path) for path in paths]
    kinds = ["failed" if a.error else a.labels[0] for a in answers]
    wanted = ["failed" if i % 4 == 3 else "light" if i % 2 else "dark" for i in range(11)]
    assert kinds == wanted


def test_a_batch_of_failures_only_is_answered_without_the_engine(tmp_path):
    answers = list(predictor(2).predict([tmp_path / "none.png"] * 3))
    assert [a.error is None for a in answers] == [False] * 3
    assert "no such file" in answers[0].error


@pytest.mark.parametrize(
    "image",
    [
        shade(255),
        shade(255, 1),
        shade(255)[:, :, 0],
        Image.fromarray(shade(255)),
        Image.fromarray(shade(255)[:, :, 0]),
        Image.new("RGBA", (5, 5), (0, 0, 0, 0)),
    ],
    ids=["rgb array", "gray array", "2-d array", "picture", "gray picture", "clear picture"],
)
def test_one_image_in_memory_is_one_answer(image):
    [answer] = predictor().predict(image, top_k=1)
    assert (answer.path, answer.labels) == ("image 0", ["light"])


def test_bytes_and_single_paths_are_one_image_each(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(shade(0)).save(path)
    for image in (path, str(path), path.read_bytes()):
        [answer] = predictor().predict(image, top_k=1)
        assert answer.labels == ["dark"]


def test_an_array_of_four_dimensions_is_several_images():
    assert len(list(predictor().predict(np.stack([shade(0), shade(9)])))) == 2


@pytest.mark.parametrize("wrong", [7, shade(0).astype(np.float32), shade(0, 5)])
def test_what_is_no_image_is_answered_with_what_would_be(wrong):
    [answer] = predictor().predict([wrong])
    assert "uint8" in answer.error


def test_no_image_is_taken_before_its_turn_is_two_batches_away():
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield shade(0)

    answers = predictor(batch_size=4).predict(endless())
    for answered in range(1, 30):
        next(answers)
        # The rest of the batch that is being answered, and two batches of four.
        assert len(taken) - answered <= 3 + 2 * 4


def test_leaving_a_stream_early_ends_its_threads():
    before = threading.active_count()
    answers = predictor().predict(itertools.repeat(shade(0)))
    next(answers)
    assert threading.active_count() > before
    del answers
    assert threading.active_count() == before


def test_memory_does_not_grow_with_the_number_of_images():
    answers = predictor(batch_size=32).predict(itertools.repeat(shade(0), 12_000))
    tracemalloc.start()
    try:
        for _ in itertools.islice(answers, 2_000):
            pass
        early, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        count = sum(1 for _ in answers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 10_000
    # 10,000 answers kept would be several MB; two batches in flight are under one.
    assert peak - early < 1_000_000


@pytest.mark.parametrize("options", [{"top_k": 0}, {"batch_size": 0}])
def test_impossible_numbers_are_refused_before_anything_is_read(options):
    with pytest.raises(UsageError, match="must be at least 1"):
        predictor().predict(shade(0), **options)


def test_labels_must_be_as_many_as_logits():
    with pytest.raises(UsageError, match="2 labels for 3 logits"):
        Predictor(NullEngine(3), PLAIN, ["a", "b"])


def test_an_engine_that_cannot_explain_says_so():
    with pytest.raises(UsageError, match="cannot explain"):
        predictor().explain(shade(0))

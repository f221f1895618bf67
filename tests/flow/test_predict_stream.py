"""Predictor: order, errors and memory over long streams, with an engine that costs nothing."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from densepath.engines.null import NullEngine
from densepath.errors import UsageError
from densepath.images.preprocess import Preprocess
from densepath.predict.flow import batches
from densepath.predict.predictor import Predictor

LABELS = ["dark", "middle", "light"]
# Mean 0.5 and std 0.5 map 0…255 to −1…1: the null engine calls light images "light".
PLAIN = Preprocess((8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


def predictor(batch_size=4, streams=1):
    return Predictor(NullEngine(PLAIN, 3, batch_size=batch_size, streams=streams), LABELS)


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
        Predictor(NullEngine(PLAIN, 3), ["a", "b"])


def test_an_engine_that_cannot_explain_says_so():
    with pytest.raises(UsageError, match="has neither explanations nor features"):
        predictor().explain(shade(0))


class SlowEngine(NullEngine):
    """Takes its time, a different one each time, and writes down who called it for what."""

    def __init__(self, **options):
        super().__init__(PLAIN, 3, **options)
        self.alone, self.shared, self.at_once, self.most_at_once = [], [], 0, 0
        self._lock = threading.Lock()

    def run(self, images):
        self.alone.append(len(images))
        return super().run(images)

    def run_share(self, images):
        with self._lock:
            self.shared.append(len(images))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            wait = 0.002 * (len(self.shared) * 7 % 5)
        time.sleep(wait)
        logits = super().run(images)
        with self._lock:
            self.at_once -= 1
        return logits


@pytest.mark.parametrize(("streams", "batch_size"), [(1, 3), (2, 1), (3, 2), (5, 4)])
def test_answers_keep_their_order_whatever_each_batch_takes(streams, batch_size):
    engine = SlowEngine(batch_size=batch_size, streams=streams)
    shades = [255 * (i * i % 3) // 2 for i in range(83)]
    images = [shade(value) for value in shades]
    images[17], images[82] = b"broken", b""
    answers = list(Predictor(engine, LABELS).predict(iter(images), top_k=1))
    assert [a.path for a in answers] == [f"image {i}" for i in range(83)]
    assert [i for i, a in enumerate(answers) if a.error] == [17, 82]
    wanted = [LABELS[value * 2 // 255] for value in shades]
    assert [a.error or a.labels[0] for a in answers if not a.error] == [
        label for i, label in enumerate(wanted) if i not in (17, 82)
    ]
    assert sum(engine.shared) == 81
    assert max(engine.shared) <= batch_size
    assert engine.most_at_once <= streams
    assert streams == 1 or engine.most_at_once > 1
    assert engine.alone == []


def test_an_image_alone_has_the_whole_engine():
    engine = SlowEngine(batch_size=4, streams=3)
    for images in (shade(0), [shade(0)], iter([shade(0)])):
        assert len(list(Predictor(engine, LABELS).predict(images))) == 1
    assert (engine.alone, engine.shared) == ([1, 1, 1], [])


def test_batches_grow_from_one_image_and_the_last_ones_are_shared_out():
    sizes = [len(batch) for batch in batches(range(60), 8, 2)]
    assert sizes == [1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 7, 7]
    assert [len(b) for b in batches(range(9), 8, 2)] == [1, 1, 2, 2, 2, 1]
    assert [len(b) for b in batches(range(10), 4, 1)] == [1, 2, 4, 3]
    assert list(itertools.chain(*batches(range(60), 8, 2))) == list(range(60))


def test_an_engine_that_fails_says_so_where_the_answer_would_be_and_ends_its_threads():
    class Failing(NullEngine):
        def run_share(self, images):
            if images.max() > 0:
                raise MemoryError("no more")
            return super().run(images)

    before = threading.active_count()
    images = [shade(0)] * 11 + [shade(255)] + [shade(0)] * 50
    answers = Predictor(Failing(PLAIN, 3, batch_size=2, streams=2), LABELS).predict(images)
    answered = []
    with pytest.raises(MemoryError, match="no more"):
        answered.extend(answers)
    assert threading.active_count() == before


def test_a_source_that_fails_says_so_after_the_answers_before_it():
    def source():
        yield from [shade(0)] * 5
        raise OSError("the camera is gone")

    before = threading.active_count()
    for batch_size in (1, 4, 64):
        answers, answered = predictor(batch_size, streams=2).predict(source()), []
        with pytest.raises(OSError, match="camera"):
            answered.extend(answers)
        assert len(answered) == 5
    assert threading.active_count() == before


def test_the_first_answer_does_not_wait_for_whole_batches():
    taken = []

    def source():
        for _ in range(1000):
            taken.append(None)
            yield shade(0)

    answers = predictor(batch_size=64, streams=2).predict(source())
    next(answers)
    assert len(taken) <= 2 * (1 + 2 + 4)

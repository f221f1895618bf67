"""The queue before an engine: whose rows are whose, who waits, and who leaves."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest

from densepath.engines.null import NullEngine
from densepath.images.preprocess import Preprocess
from densepath.serving.core.batcher import Batcher
from densepath.serving.core.errors import LateError, NotReadyError

PREPROCESS = Preprocess((4, 4), None, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))


class Gate(NullEngine):
    """An engine that answers [row's first value, rows of the batch] once it is let."""

    def __init__(self, streams: int = 1, batch_size: int = 8) -> None:
        super().__init__(PREPROCESS, 2, batch_size=batch_size, streams=streams)
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[tuple[str, int]] = []
        self.error: Exception | None = None

    def run(self, images):
        return self._run("run", images)

    def run_share(self, images):
        return self._run("run_share", images)

    def run_tensor(self, tensor):
        return self._run("run_tensor", tensor)

    def run_tensor_share(self, tensor):
        return self._run("run_tensor_share", tensor)

    def _run(self, how, images):
        self.batches.append((how, len(images)))
        self.entered.release()
        assert self.open.wait(30)
        if self.error:
            raise self.error
        return np.array([[image[0, 0, 0], len(images)] for image in images], np.float32)


def row(value: float) -> np.ndarray:
    return np.full((3, 4, 4), value, np.float32)


@pytest.fixture
def made():
    """Makes batchers, and closes them."""
    batchers, engines = [], []

    def make(engine, **options):
        engines.append(engine)
        batchers.append(Batcher(engine, **options))
        return batchers[-1]

    yield make
    for engine in engines:
        if isinstance(engine, Gate):
            engine.open.set()
    for batcher in batchers:
        batcher.close()


def test_each_request_gets_its_own_rows_whatever_they_were_batched_with(made):
    engine = NullEngine(PREPROCESS, 3, streams=2, batch_size=4)
    batcher, wrong = made(engine), []

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            values = rng.integers(0, 1000, rng.integers(1, 6)).astype(float)
            futures = batcher.submit([row(value) for value in values])
            for value, future in zip(values, futures, strict=True):
                if future.result(30).logits.tolist() != [0, value, 2 * value]:
                    wrong.append(value)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_waits_while_the_engine_is_busy_goes_together(made):
    engine = Gate()
    batcher = made(engine)
    first = batcher.submit([row(1)])
    engine.entered.acquire()
    later = batcher.submit([row(2), row(3)]) + batcher.submit([row(4)])
    engine.open.set()
    assert first[0].result(30).batch_size == 1
    assert [future.result(30).logits.tolist() for future in later] == [[2, 3], [3, 3], [4, 3]]


def test_a_batch_has_at_most_as_many_rows_as_it_may(made):
    engine = Gate()
    batcher = made(engine, max_batch=2)
    futures = batcher.submit([row(0)])
    engine.entered.acquire()
    futures += batcher.submit([row(i) for i in range(1, 6)])
    engine.open.set()
    wait(futures, 30)
    assert [size for _, size in engine.batches] == [1, 2, 2, 1]


def test_idle_streams_share_what_waits(made):
    engine = Gate(streams=2)
    batcher = made(engine)
    for _ in range(100):  # until both streams' threads wait
        if batcher._idle == 2:
            break
        time.sleep(0.01)
    futures = batcher.submit([row(i) for i in range(6)])
    engine.entered.acquire()
    engine.entered.acquire()
    assert sorted(size for _, size in engine.batches) == [3, 3]
    engine.open.set()
    wait(futures, 30)


def test_a_row_that_is_alone_has_the_whole_machine_and_others_a_share(made):
    engine = Gate(streams=2)
    batcher = made(engine)
    first = batcher.submit([row(1)])
    engine.entered.acquire()
    second = batcher.submit([row(2)])
    engine.entered.acquire()
    assert [how for how, _ in engine.batches] == ["run_tensor", "run_tensor_share"]
    engine.open.set()
    wait(first + second, 30)


def test_a_batch_waits_only_for_images_that_are_on_their_way(made):
    """The delay is longer than the test: only the second row, or the end of waiting, frees it."""
    engine = Gate()
    engine.open.set()
    batcher = made(engine, max_delay_s=100)
    assert batcher.submit([row(1)])[0].result(30).batch_size == 1
    with batcher.expecting(1), batcher.expecting(1):
        early = batcher.submit([row(2)])
        time.sleep(0.05)
        assert not early[0].done()
        late = batcher.submit([row(3)])
    assert early[0].result(30).batch_size == 2
    assert late[0].result(30).batch_size == 2


def test_rows_of_another_size_run_by_themselves(made):
    engine = Gate()
    batcher = made(engine)
    futures = batcher.submit([row(0)])
    engine.entered.acquire()
    futures += batcher.submit([row(1), np.full((3, 5, 4), 2, np.float32), row(3)])
    engine.open.set()
    assert [future.result(30).batch_size for future in futures] == [1, 1, 1, 1]


def pixels(value: int) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def test_images_reach_the_engine_as_they_are_and_in_calls_of_their_own(made):
    engine = Gate()
    batcher = made(engine)
    futures = batcher.submit([pixels(1)])
    engine.entered.acquire()
    futures += batcher.submit([pixels(2), pixels(255), row(3), pixels(4)])
    engine.open.set()
    answers = [future.result(30).logits.tolist() for future in futures]
    assert answers == [[1, 1], [2, 2], [255, 2], [3, 1], [4, 1]]
    assert [how.removesuffix("_share") for how, _ in engine.batches] == [
        "run",
        "run",
        "run_tensor",
        "run",
    ]


def test_images_and_tensors_of_one_size_have_the_same_logits(made):
    """Rows of 3 × 3 pixels, for which uint8 [H, W, C] and float32 [C, H, W] look alike."""
    batcher = made(NullEngine(PREPROCESS, 2))
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    first, second = batcher.submit([image, PREPROCESS.normalise(image)])
    assert first.result(30).logits.tolist() == second.result(30).logits.tolist()


def test_rows_of_images_wait_as_bytes(made):
    """A quarter of what a tensor has: 64 images of 224 × 224 wait in under 10 MB."""
    engine = Gate()
    batcher = made(engine)
    futures = batcher.submit([pixels(0)])
    engine.entered.acquire()
    futures += batcher.submit([np.zeros((224, 224, 3), np.uint8) for _ in range(64)])
    assert sum(entry.row.nbytes for entry in batcher._queue) == 64 * 224 * 224 * 3
    engine.open.set()
    wait(futures, 30)


def test_a_cancelled_row_leaves_the_queue_and_never_runs(made):
    engine = Gate()
    batcher = made(engine)
    first = batcher.submit([row(1)])
    engine.entered.acquire()
    gone, stays = batcher.submit([row(2), row(3)])
    assert gone.cancel()
    assert batcher.waiting == 1
    engine.open.set()
    assert stays.result(30).logits.tolist() == [3, 1]
    with pytest.raises(CancelledError):
        gone.result(30)
    assert first[0].result(30).logits.tolist() == [1, 1]


def test_a_late_row_is_refused_and_costs_nothing(made):
    engine = Gate()
    batcher = made(engine)
    first = batcher.submit([row(1)])
    engine.entered.acquire()
    late = batcher.submit([row(2)], deadline=time.monotonic() - 1)[0]
    right = batcher.submit([row(3)], deadline=time.monotonic() + 100)[0]
    engine.open.set()
    with pytest.raises(LateError, match="deadline passed after"):
        late.result(30)
    assert right.result(30).batch_size == 1
    assert first[0].result(30).batch_size == 1


def test_an_engine_that_fails_fails_its_batch_and_goes_on(made):
    engine = Gate()
    engine.open.set()
    batcher = made(engine)
    engine.error = RuntimeError("the kernels failed")
    with pytest.raises(RuntimeError, match="kernels"):
        batcher.submit([row(1)])[0].result(30)
    engine.error = None
    assert batcher.submit([row(2)])[0].result(30).logits.tolist() == [2, 1]


def test_closing_answers_what_waits_and_takes_no_more(made):
    engine = Gate(batch_size=1)
    batcher = made(engine)
    futures = batcher.submit([row(i) for i in range(5)])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    for _ in range(100):
        if batcher._closed:
            break
        time.sleep(0.01)
    with pytest.raises(NotReadyError):
        batcher.submit([row(9)])
    engine.open.set()
    closing.join(30)
    assert [future.result(0).logits[0] for future in futures] == [0, 1, 2, 3, 4]


def test_it_knows_how_long_rows_take(made):
    engine = Gate()
    batcher = made(engine)
    assert batcher.seconds_for(10) == 0
    futures = batcher.submit([row(1)])
    time.sleep(0.05)
    engine.open.set()
    wait(futures, 30)
    assert batcher.seconds_for(10) > 0.4

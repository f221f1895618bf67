"""Batches: the same whatever makes them, and every image exactly as often as said."""

import dataclasses
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densepath.data.augment import Augment
from densepath.data.batch import Augmented, BatchMaker
from densepath.data.dataset import Sample
from densepath.data.loader import EvalLoader, TrainLoader
from densepath.data.open import open_dataset
from densepath.data.spawning import lost_worker
from densepath.data.workers import _Steps
from densepath.errors import DataError, ImageError, UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess

PREPROCESS = Preprocess(size=(8, 8))
AUGMENT = Augment(
    PREPROCESS, crop="pad_crop", padding=2, color_jitter=0.4, randaugment_ops=2, random_erasing=0.5
)


class Numbered:
    """Image i is full of i; the images in `broken` cannot be read."""

    multi_label = False
    description = "numbers"

    def __init__(self, count, broken=(), multi_label=False):
        self.count, self.broken, self.multi_label = count, set(broken), multi_label
        self.class_names = ["even", "odd"]

    def __len__(self):
        return self.count

    def load(self, index):
        if index in self.broken:
            raise ImageError(self.path(index), "broken for the test")
        image = np.full((8, 8, 3), index, np.uint8)
        return Sample(image, self.target(index), self.path(index))

    def path(self, index):
        return f"number/{index}"

    def target(self, index):
        return np.eye(2, dtype=np.float32)[index % 2] if self.multi_label else index % 2


class Deadly(Numbered):
    """Loading image 5 kills the process that does it."""

    def load(self, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(index)


class Faulty(Numbered):
    """No image can be loaded, for a reason that is not the image's."""

    def load(self, index):
        raise OSError("the disk is gone")


def train_loader(dataset, **options):
    return TrainLoader(dataset, AUGMENT, **{"batch_size": 4, "seed": 1, **options})


def assert_same(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.indices, other.indices)
        assert [str(e) for e in one.errors] == [str(e) for e in other.errors]


def indices(batches):
    return [i for batch in batches for i in batch.indices.tolist()]


def test_a_batch_is_what_it_says():
    (batch, *_) = train_loader(Numbered(10)).epoch(0)
    assert batch.images.dtype == torch.float32
    assert batch.images.shape == (4, 3, 8, 8)
    assert batch.images.is_contiguous()
    assert batch.targets.dtype == batch.indices.dtype == torch.int64
    assert batch.targets.tolist() == [i % 2 for i in batch.indices.tolist()]
    assert batch.errors == []


def test_batches_do_not_depend_on_worker_processes():
    dataset = Numbered(40, broken=[7, 21])
    expected = list(train_loader(dataset, on_error="skip").epoch(2))
    for workers in (1, 3):
        found = train_loader(dataset, on_error="skip", workers=workers).epoch(2)
        assert_same(found, expected)


def test_an_epoch_that_is_resumed_goes_on_with_the_same_batches():
    loader = train_loader(open_dataset("digits", validation_fraction=0), batch_size=128)
    whole = list(loader.epoch(3))
    assert len(whole) == loader.steps_per_epoch == 12
    for start in (1, 11, 12):
        assert_same(loader.epoch(3, start_step=start), whole[start:])


def test_epochs_differ_in_order_and_in_changes_and_seeds_do_too():
    dataset = Numbered(40)
    orders = [indices(train_loader(dataset, seed=s).epoch(e)) for s in (0, 1) for e in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    first, second = (
        next(TrainLoader(Numbered(1), AUGMENT, batch_size=1, seed=0).epoch(e)) for e in (0, 1)
    )
    assert not torch.equal(first.images, second.images)


def test_each_epoch_can_have_changes_of_its_own():
    """The last ones are those of later epochs, too, and workers are told."""
    smaller = dataclasses.replace(AUGMENT, preprocess=AUGMENT.preprocess.at_size(5))
    for workers in (0, 1):
        loader = TrainLoader(Numbered(4), [smaller, AUGMENT], batch_size=4, workers=workers)
        sides = [next(iter(loader.epoch(e))).images.shape[-1] for e in range(4)]
        assert sides == [5, 8, 8, 8]


def test_an_epoch_takes_every_image_once_in_steps_of_like_sizes():
    """188 images in batches of 64: 60 of them were never used."""
    batches = list(train_loader(Numbered(188), batch_size=64).epoch(0))
    assert [len(batch.images) for batch in batches] == [63, 63, 62]
    assert sorted(indices(batches)) == list(range(188))


def test_a_broken_image_ends_the_first_epoch_wherever_it_stands():
    for broken in range(11):
        loader = train_loader(Numbered(11, broken=[broken]), batch_size=8)
        with pytest.raises(ImageError, match=f"number/{broken}:"):
            list(loader.epoch(0))


def test_a_set_smaller_than_a_batch_is_one_smaller_batch():
    loader = train_loader(Numbered(3), batch_size=64)
    assert loader.steps_per_epoch == 1
    assert sorted(indices(loader.epoch(0))) == [0, 1, 2]


@given(
    count=st.integers(1, 300),
    share=st.integers(1, 40),
    world_size=st.integers(1, 9),
    least=st.integers(1, 2),
    epoch=st.integers(0, 3),
    data=st.data(),
)
def test_every_image_comes_exactly_once_an_epoch_however_many_processes(
    count, share, world_size, least, epoch, data
):
    """And each step has the images that it has with one process of the same global batch."""
    dataset, batch_size = Numbered(count), share * world_size
    alone = train_loader(dataset, batch_size=batch_size, least_images=least)
    ranks = [
        train_loader(
            dataset,
            batch_size=share,
            rank=rank,
            world_size=world_size,
            least_images=least,
            least_share=min(least, share),
        )
        for rank in range(world_size)
    ]
    start = data.draw(st.integers(0, alone.steps_per_epoch))
    one = [step.tolist() for step in alone.order(epoch)]
    many = [[step.tolist() for step in rank.order(epoch, start_step=start)] for rank in ranks]
    assert sorted(chain.from_iterable(one)) == list(range(count))
    assert [list(chain(*parts)) for parts in zip(*many, strict=True)] == one[start:]
    sizes = [len(step) for step in one]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(batch_size, least + 1)
    assert min(sizes) >= min(least, count)
    if batch_size >= least:
        assert all(
            len(part) == 0 or len(part) >= min(least, share, count) for r in many for part in r
        )
    assert all(part for part in many[0])


@pytest.mark.parametrize("world_size", [2, 4])
def test_many_processes_together_see_the_batches_of_one(world_size):
    dataset = Numbered(43)
    one = list(train_loader(dataset, batch_size=8).epoch(5, start_step=2))
    ranks = [
        train_loader(dataset, batch_size=8 // world_size, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    assert {rank.steps_per_epoch for rank in ranks} == {6}
    parts = zip(*[rank.epoch(5, start_step=2) for rank in ranks], strict=True)
    for whole, step in zip(one, parts, strict=True):
        assert torch.equal(torch.cat([part.images for part in step]), whole.images)
        assert torch.equal(torch.cat([part.indices for part in step]), whole.indices)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11, 12, 13])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_evaluation_takes_every_image_exactly_once_over_all_processes(count, world_size):
    found = []
    for rank in range(world_size):
        loader = EvalLoader(
            Numbered(count), PREPROCESS, batch_size=4, rank=rank, world_size=world_size
        )
        batches = list(loader)
        assert len(batches) == len(loader)
        assert all(1 <= len(batch.images) <= 4 for batch in batches)
        found += indices(batches)
    assert found == list(range(count))


def test_evaluated_images_are_the_preprocessed_ones_with_or_without_workers():
    dataset = open_dataset("digits", split="test")
    for workers in (0, 2):
        loader = EvalLoader(dataset, Preprocess(size=(16, 16)), batch_size=100, workers=workers)
        images = torch.cat([batch.images for batch in loader])
        expected = np.stack(
            [Preprocess(size=(16, 16))(dataset.load(i).image) for i in range(len(dataset))]
        )
        np.testing.assert_array_equal(images.numpy(), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_for_an_engine_are_the_fitted_images_as_they_are(workers):
    dataset, preprocess = Numbered(7, broken=[2, 3]), Preprocess(size=(6, 5))
    how = {"batch_size": 2, "workers": workers, "on_error": "skip"}
    pixels = list(EvalLoader(dataset, preprocess, images="pixels", **how))
    normalised = list(EvalLoader(dataset, preprocess, **how))
    assert [batch.images.shape[0] for batch in pixels] == [2, 0, 2, 1]
    for mine, theirs in zip(pixels, normalised, strict=True):
        assert mine.images.dtype == torch.uint8
        assert mine.images.shape[1:] == (6, 5, 3)
        made = preprocess.normalise(mine.images.numpy())
        np.testing.assert_array_equal(made, theirs.images.numpy())
        assert mine.indices.tolist() == theirs.indices.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_refused_by_name_or_skipped_and_counted(workers):
    dataset = Numbered(10, broken=[2, 3])
    loader = EvalLoader(dataset, PREPROCESS, batch_size=4, workers=workers)
    with pytest.raises(ImageError, match="number/2: broken for the test"):
        list(loader)
    batches = list(EvalLoader(dataset, PREPROCESS, batch_size=4, workers=workers, on_error="skip"))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [4, 5, 6, 7], [8, 9]]
    assert [error.path for error in batches[0].errors] == ["number/2", "number/3"]


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_batch_without_a_readable_image_is_empty(multi_label):
    dataset = Numbered(2, broken=[0, 1], multi_label=multi_label)
    (batch,) = EvalLoader(dataset, PREPROCESS, batch_size=2, on_error="skip")
    assert batch.images.shape == (0, 3, 8, 8)
    assert batch.targets.shape == ((0, 2) if multi_label else (0,))
    assert len(batch.errors) == 2


def test_targets_of_several_labels_are_rows_of_0_and_1():
    (batch,) = EvalLoader(Numbered(3, multi_label=True), PREPROCESS, batch_size=4)
    assert batch.targets.dtype == torch.float32
    assert batch.targets.tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_misfit_of_data_and_preprocessing_is_told_without_a_traceback(workers):
    gray = Preprocess(size=(8, 8), mean=(0.5,), std=(0.5,))
    with pytest.raises(UsageError) as caught:
        list(EvalLoader(Numbered(3), gray, batch_size=4, workers=workers))
    assert "takes uint8 [height, width, 1]" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_killed_worker_is_an_error_with_a_cure():
    loader = EvalLoader(Deadly(12), PREPROCESS, batch_size=2, workers=1)
    with pytest.raises(DataError, match=r"was killed, .* Use fewer workers"):
        list(loader)


def test_an_error_of_a_data_set_is_not_said_to_be_a_killed_worker():
    loader = EvalLoader(Faulty(12), PREPROCESS, batch_size=2, workers=1)
    with pytest.raises(OSError, match="the disk is gone"):
        list(loader)


LOST = """
    import multiprocessing, os, signal, sys, threading, time
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Event
    from densepath.data.augment import Augment
    from densepath.data.loader import TrainLoader
    from densepath.data.open import open_dataset
    from densepath.errors import DataError
    from densepath.images.preprocess import Preprocess

    multiprocessing.set_start_method("fork")
    augment = Augment(Preprocess(size=(8, 8)))
    loader = TrainLoader(open_dataset("digits"), augment, batch_size=64, workers=2)
    batches = loader.epoch(0)
"""
IN_A_QUEUES_LOCK = """
    enter = threading.Condition.__enter__

    def enter_and_lose_a_worker(condition):
        entered = enter(condition)
        in_put = sys._getframe(1).f_code is Queue.put.__code__
        if in_put and multiprocessing.parent_process() is None:
            threading.Condition.__enter__ = enter
            worker = min(multiprocessing.process._children, key=lambda worker: worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
            os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # it stays to be reaped
            time.sleep(0.1)  # torch's handler would raise here
        return entered

    for _ in range({batches}):
        next(batches)
    threading.Condition.__enter__ = enter_and_lose_a_worker
"""
WITH_THE_LOCK_OF_ALL = """
    is_set = Event.is_set

    def die_with_the_lock(event):
        if multiprocessing.parent_process() is not None:
            event._cond.acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        return is_set(event)

    Event.is_set = die_with_the_lock
"""
SAY = """
    try:
        list(batches)
    except DataError as error:
        print(error)
    print(len(multiprocessing.active_children()), "workers")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "way",
    [
        pytest.param(IN_A_QUEUES_LOCK.format(batches=0), id="first put"),
        pytest.param(IN_A_QUEUES_LOCK.format(batches=3), id="later put"),
        pytest.param(WITH_THE_LOCK_OF_ALL, id="lock of all"),
    ],
)
def test_a_worker_that_is_killed_while_a_lock_is_held_hangs_nothing(way):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOST + way + SAY)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert re.fullmatch(r".* was killed, .* Use fewer workers.*\n0 workers\n", done.stdout)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("method", "exit_codes", "message"),
    [
        ("fork", [None, 1], "was killed, .* Use fewer workers"),
        ("spawn", [None, -9], "was killed, .* Use fewer workers"),
        ("spawn", [None, None], "was killed, .* Use fewer workers"),
        ("spawn", [None, 1], "ended before its time .* under `if __name__"),
    ],
)
def test_what_a_lost_worker_died_of_is_told_by_exit_codes(monkeypatch, method, exit_codes, message):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    assert re.search(message, str(lost_worker(RuntimeError("gone"), exit_codes)))


def test_workers_end_when_an_epoch_is_left_early():
    before = set(multiprocessing.active_children())
    batches = train_loader(Numbered(200), workers=2).epoch(0)
    next(batches)
    assert set(multiprocessing.active_children()) - before
    batches.close()
    assert set(multiprocessing.active_children()) <= before


def test_a_worker_that_is_spawned_makes_the_same_batches():
    change = Augmented(AUGMENT, 1, 2)
    steps = _Steps(BatchMaker(Numbered(10), change, PREPROCESS), [np.array([3, 1, 2])])
    assert_same([pickle.loads(pickle.dumps(steps))[0]], [steps[0]])


def test_no_worker_outlives_its_epoch(monkeypatch):
    """As on a busy machine, where torch gives up waiting for them."""
    monkeypatch.setattr(
        "torch.utils.data.dataloader._MultiProcessingDataLoaderIter._shutdown_workers",
        lambda batches: None,
    )
    batches = train_loader(Numbered(12), workers=2).epoch(0)
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    batches.close()
    assert not any(worker.is_alive() for worker in workers)


def test_the_loader_says_nothing_on_standard_error():
    code = """
        from densepath.data.augment import Augment
        from densepath.data.loader import TrainLoader
        from densepath.data.open import open_dataset
        from densepath.images.preprocess import Preprocess

        augment = Augment(Preprocess(size=(8, 8)))
        loader = TrainLoader(open_dataset("digits"), augment, batch_size=256, workers=9)
        print(sum(len(batch.images) for batch in loader.epoch(0)))
        next(loader.epoch(1))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1298\n"  # without those held out for validation
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": "3"}, "batch_size is '3'; it must be a whole number"),
        ({"batch_size": 2.0}, r"batch_size is 2\.0"),
        ({"workers": -1}, "workers is -1; it must be at least 0"),
        ({"rank": 2, "world_size": 2}, "rank is 2 of 2"),
    ],
)
def test_impossible_loaders_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        train_loader(Numbered(4), **options)
    with pytest.raises(UsageError, match=message):
        EvalLoader(Numbered(4), PREPROCESS, **{"batch_size": 4, **options})


def test_an_unknown_policy_and_an_empty_set_are_refused():
    with pytest.raises(UnknownNameError, match="Choices: fail, skip"):
        train_loader(Numbered(4), on_error="ignore")
    with pytest.raises(UsageError, match="no images: numbers"):
        train_loader(Numbered(0))

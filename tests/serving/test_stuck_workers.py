"""Workers that neither work nor die: they hold up nobody, and others take their places."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi")

from densepath.serving.process.obeying import Orders, Watched
from densepath.serving.process.pulse import ASK_S, LONGEST_STEP_S, SILENT_S, Pulse
from densepath.serving.process.worker import ARE_YOU_THERE, UNLOAD

# The limits of a server that is in a hurry.
IN_A_HURRY = """
import sys
from densepath.serving.process import pulse
from densepath.__main__ import main
pulse.ASK_S, pulse.SILENT_S = 0.5, 3.0
sys.exit(main())
"""
REACH_S = 60


class Clock:
    """Seconds that pass when they are told to; whole ones, whose sums are exact."""

    def __init__(self) -> None:
        self.seconds = float(math.ceil(time.monotonic()))

    def __call__(self) -> float:
        return self.seconds


class Fake:
    """A worker that does nothing by itself; `watched` is what the supervisor has of it."""

    def __init__(self, pid: int, *, opened: bool = True) -> None:
        ours, self.pipe = multiprocessing.Pipe()
        self.kills: list[int] = []
        process = SimpleNamespace(pid=pid, kill=lambda: self.kills.append(pid))
        self.watched = Watched(process, ours, time.monotonic(), {}, is_welcome=opened)
        self.watched.opened = {} if opened else None

    def heard(self) -> list[str]:
        """What it was told since."""
        found = []
        while self.pipe.poll():
            found.append(self.pipe.recv()[0])
        return found


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("densepath.serving"), "propagate", True)
    caplog.set_level(logging.WARNING, "densepath.serving")
    return lambda: [record.fields["reason"] for record in caplog.records]


def feel_for(pulse: Pulse, clock: Clock, workers: list[Fake], seconds: float, answers=()):
    """All that was ended in these seconds; the `answers` are of those that are there."""
    ended, watched = [], [worker.watched for worker in workers]
    for _ in range(int(seconds)):
        clock.seconds += 1
        ended += pulse.feel(watched, opening_too=True)
        for worker in answers:
            if ARE_YOU_THERE in worker.heard():
                worker.watched.is_asked = False
    return ended


def test_who_says_nothing_is_ended_once_and_who_answers_is_left_alone(said):
    clock, silent, sound = Clock(), Fake(1), Fake(2)
    pulse = Pulse(clock)
    ended = feel_for(pulse, clock, [silent, sound], SILENT_S * 4, answers=[sound])
    assert ended == [silent.watched]
    assert (silent.kills, sound.kills) == ([1], [])
    assert silent.watched.is_stale
    assert not silent.watched.is_welcome
    assert said() == ["it has said nothing for 30 s"]
    assert silent.heard() == [ARE_YOU_THERE]


def test_nobody_is_asked_more_often_than_every_few_seconds():
    clock, sound = Clock(), Fake(1)
    pulse, asked = Pulse(clock), 0
    for _ in range(100):
        clock.seconds += ASK_S / 20
        pulse.feel([sound.watched], opening_too=True)
        asked += sound.heard().count(ARE_YOU_THERE)
        sound.watched.is_asked = False
    assert asked == 5


@pytest.mark.parametrize("away_s", [SILENT_S, 60.0, 86400.0])
def test_nobody_is_ended_for_the_time_that_the_server_itself_was_stopped(away_s):
    clock, worker = Clock(), Fake(1)
    pulse = Pulse(clock)
    pulse.feel([worker.watched], opening_too=True)
    worker.watched.told = clock()
    clock.seconds += away_s
    assert not pulse.feel([worker.watched], opening_too=True)
    assert not feel_for(pulse, clock, [worker], SILENT_S - 2)


def test_a_step_that_never_ends_has_a_limit_though_the_worker_is_there(said):
    clock, worker = Clock(), Fake(1)
    worker.watched.told = clock()
    pulse = Pulse(clock)
    assert not feel_for(pulse, clock, [worker], LONGEST_STEP_S, answers=[worker])
    assert feel_for(pulse, clock, [worker], 2, answers=[worker]) == [worker.watched]
    assert said() == ["it has not done what it was told for 600 s"]


def test_a_replacement_that_never_opens_its_models_is_ended_but_no_first_start(said):
    clock, worker = Clock(), Fake(1, opened=False)
    pulse = Pulse(clock)
    for _ in range(int(LONGEST_STEP_S / 5) + 1):
        clock.seconds += 5
        assert not pulse.feel([worker.watched], opening_too=False)
    assert worker.heard() == []
    assert pulse.feel([worker.watched], opening_too=True) == [worker.watched]
    assert said() == ["it has not opened its models for 600 s"]


def test_an_order_goes_on_without_one_that_was_ended_and_cannot_die():
    """As where it waits for a disk that is gone: not even SIGKILL ends it then."""
    wanted = SimpleNamespace(unload=unload)
    orders, stuck, sound = Orders(wanted), Fake(1), Fake(2)
    workers = [stuck.watched, sound.watched]
    orders.add(sound.watched, "unload", "m")
    assert not orders.go_on(workers)
    orders.hear(sound.watched, None)
    assert not orders.go_on(workers)
    stuck.watched.is_stale, stuck.watched.is_welcome = True, False
    orders.forget(stuck.watched)
    assert orders.go_on(workers)
    assert sound.heard() == [UNLOAD, "done"]
    orders.add(None, "unload", "m")
    assert not orders.go_on(workers)
    assert stuck.heard() == [UNLOAD]
    assert stuck.watched.told is not None
    assert sound.watched.told is not None


def unload(name):
    yield (UNLOAD, name)


@pytest.mark.slow
def test_a_stopped_worker_holds_up_no_order_and_is_replaced(start, bundles):
    program = [sys.executable, "-c", IN_A_HURRY]
    server = start("colour", "gray", "--workers", "2", program=program)
    stopped, other = server.workers()
    os.kill(stopped, signal.SIGSTOP)
    try:
        for _ in range(3):  # whichever worker it reaches; a stopped one takes it and says nothing
            with server.http() as client:
                if ask(client, "/v2/repository/models/colour/unload") == 200:
                    break
        else:
            pytest.fail("the order was never obeyed")
        end = time.monotonic() + REACH_S
        while len(server.workers()) != 2 or stopped in server.workers():
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        if stopped in server.workers():
            os.kill(stopped, signal.SIGCONT)
    assert other in server.workers()
    (line,) = [line for line in server.log if line["event"] == "worker does not answer"]
    assert line["pid"] == stopped
    (line,) = [line for line in server.log if line["event"] == "worker died"]
    assert line["pid"] == stopped
    assert server.stop() == 0


def ask(client, path: str) -> int:
    """The status; 0 where the worker that took it was ended."""
    import httpx2 as httpx

    try:
        return client.post(path).status_code
    except httpx.TransportError:
        return 0

"""training/signals.py: the first signal is answered at once, the second ends the training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from densepath.training.signals import REPEAT_SECONDS, StoppedNow, StopRequest

# Longer than what is taken for a repetition by a launcher.
APART = 2 * REPEAT_SECONDS


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def signal_self(number, times=1):
    for _ in range(times):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_said_and_the_work_goes_on(number):
    said = []
    with StopRequest(said.append) as stop:
        stop.waits_for = "this step"
        signal_self(number)
        wait_until(lambda: said)
        assert stop.signal == signal.Signals(number).name
    assert said == [f"{stop.signal}: stopping after this step; again to stop now"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_what_runs(number):
    said, name = [], signal.Signals(number).name

    def work():
        with StopRequest(said.append) as stop:
            stop.waits_for = "this step"
            signal_self(number)
            wait_until(lambda: said)
            time.sleep(APART)
            signal_self(number)
            time.sleep(30)

    with pytest.raises(StoppedNow) as caught:
        work()
    assert caught.value.signal == name
    assert isinstance(caught.value, KeyboardInterrupt)
    assert said[1:] == [f"{name}: stopping now; what was written before is kept"]


def test_before_the_first_step_one_signal_is_enough():
    def work():
        with StopRequest(lambda _: None):
            signal_self(signal.SIGINT)
            time.sleep(30)

    with pytest.raises(StoppedNow, match="SIGINT"):
        work()


def test_a_signal_that_a_launcher_repeats_counts_once():
    said = []
    with StopRequest(said.append) as stop:
        stop.waits_for = "this step"
        signal_self(signal.SIGINT, times=3)
        signal_self(signal.SIGTERM)
        time.sleep(APART)
    assert len(said) == 1


def test_afterwards_all_is_as_before():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    threads = threading.active_count()
    with StopRequest(lambda _: None):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1


def test_in_another_thread_nothing_is_caught():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def enter():
        with StopRequest(lambda _: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


# A mutex locked twice: a wait in C that no signal interrupts, as in a lost process's exchange.
STUCK = """
    import ctypes, sys
    from densepath.training.signals import StopRequest

    libc = ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(64)

    def say(message):
        print(message, flush=True)

    with StopRequest(say, ends_process=True) as stop:
        stop.waits_for = "this step"
        libc.pthread_mutex_lock(mutex)
        print("stuck", flush=True)
        libc.pthread_mutex_lock(mutex)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX threads")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_program_that_hangs_in_c_answers_and_ends_all_the_same(number, code):
    command = [sys.executable, "-c", textwrap.dedent(STUCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(number)
        assert "stopping after this step; again to stop now" in process.stdout.readline()
        time.sleep(APART)
        process.send_signal(number)
        assert "stopping now" in process.stdout.readline()
        assert process.wait(timeout=60) == code

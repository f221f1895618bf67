"""What holds after every test; `fixtures/` has what tests start from."""

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

import densepath  # noqa: F401  first, for tests that import runtimes which would send telemetry
from densepath.cli.app import SPIN_COUNT

# Before torch is imported: test processes share the cores, and a thread that spins while it waits
# for one that has none takes seven times as long.
os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)

pytest_plugins = [
    f"fixtures.{name}" for name in ("commands", "marks", "networks", "once", "pictures", "runs")
]


# Programs that tests start heed these, even where `nohup` or a shell's `&` has switched them off.
if sys.platform != "win32":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class SignalStack(ctypes.Structure):
    """C's `stack_t`."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.fixture
def caplog(caplog, monkeypatch):
    """pytest's, which hears of densepath also after a program has run in the tests' process."""
    logger = logging.getLogger("densepath")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "disabled", False)
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)
    caplog.set_level(logging.WARNING, logger=logger.name)
    return caplog


@pytest.fixture(autouse=sys.platform == "linux")
def _signals_have_a_stack():
    """Python's handlers run on the thread's alternate stack: one that a library has set and freed
    lets the next signal crash the process, or write over what has been mapped there since.
    """
    yield
    stack = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    if stack.start:
        regions = (line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines())
        bounds = ([int(bound, 16) for bound in region.split("-")] for region in regions)
        assert any(low <= stack.start < high for low, high in bounds), "it has been freed"

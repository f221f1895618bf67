"""What stands in for `subprocess` in `weights/hdf5_process.py` while `fuzz.py` runs.

A new interpreter takes a third of a second, a fork of this process some milliseconds: the child
runs the same `main` under the same limits, and may crash as well.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
from subprocess import CompletedProcess, TimeoutExpired  # noqa: F401  (asked for by name)

from densepath.weights import hdf5_process

with contextlib.suppress(ImportError):
    import h5py  # noqa: F401  (once, before the forks)


def run(words: list[str], *, input: bytes, **_: object) -> CompletedProcess[bytes]:
    """The answer of a child to the file on its standard input."""
    with tempfile.TemporaryFile() as answer:
        child = os.fork()
        if child == 0:
            _answer(words[-1], input, answer.fileno())
        try:
            _, status = os.waitpid(child, 0)
        except BaseException:  # the alarm of a case that takes too long
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        answer.seek(0)
        return CompletedProcess(words, os.waitstatus_to_exitcode(status), answer.read(), b"")


def _answer(source: str, content: bytes, output: int) -> None:
    """In the child: what `python -m densepath.weights.hdf5_process` does, and no more."""
    status = 1
    try:
        sys.stdin = io.TextIOWrapper(io.BytesIO(content))
        with open(output, "wb", closefd=False) as file:
            sys.stdout = io.TextIOWrapper(file)
            hdf5_process.main(source)
            sys.stdout.flush()
        status = 0
    finally:
        os._exit(status)

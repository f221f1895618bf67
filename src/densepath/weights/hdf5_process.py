"""HDF5 in a process of its own: a damaged file can crash the HDF5 library, and it alone.

`read_apart` starts it; it gets the file's bytes on its standard input and nothing else, and answers
with the arrays as safetensors, or with what is wrong. Its memory and time are bounded by the file's
size. Run as `python -m densepath.weights.hdf5_process`.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import time

import numpy as np
from safetensors import SafetensorError

from densepath.errors import MissingPackageError, UnsafeFileError, WeightsError
from densepath.extras import find_missing
from densepath.weights.hdf5 import Hdf5, read_hdf5

MEMORY_BYTES, COPIES = 1 << 30, 4
# Of the whole process, however busy the machine is; and of its own computing, which is no more
# than reading: some damaged files send the library round in circles.
SECONDS, CPU_SECONDS, BYTES_A_SECOND = 60, 3, 10 << 20
_FOUND, _REFUSED = b"F", b"R"
_KINDS: dict[str, type[WeightsError]] = {
    kind.__name__: kind for kind in (WeightsError, UnsafeFileError)
}


def read_apart(content: bytes, source: str) -> Hdf5:
    """What an HDF5 file holds, read in another process: see `read_hdf5`.

    Args:
        content: the file's bytes.
        source: the file's name, for messages.

    Raises:
        MissingPackageError: h5py is not installed.
        UnsafeFileError: it points into other files, or asks for a filter that is code.
        WeightsError: it is no such file, is damaged, or holds what Keras does not write.
    """
    if missing := find_missing([("h5py", "keras")]):
        raise MissingPackageError.of(missing)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, source],
            input=content,
            capture_output=True,
            timeout=SECONDS + len(content) / BYTES_A_SECOND,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _damaged(
            source, f"the HDF5 library gave no answer in {error.timeout:.0f} s"
        ) from error
    answer = done.stdout
    if done.returncode or answer[:1] not in (_FOUND, _REFUSED):
        raise _damaged(source, f"the HDF5 library ended with status {done.returncode}")
    if answer[:1] == _REFUSED:
        kind, message = json.loads(answer[1:])
        raise _KINDS[kind](message)
    return _unpack(answer[1:], source)


def _damaged(source: str, reason: str) -> WeightsError:
    """The error for a file that the library cannot cope with."""
    return WeightsError(
        f"{source} cannot be read as an HDF5 file ({reason}). It is damaged or incomplete: compare "
        "its size with the publisher's."
    )


def _pack(found: Hdf5) -> bytes:
    """The content as safetensors, its texts as the text of an array of bytes."""
    from safetensors.numpy import save

    texts = json.dumps([found.names, found.texts]).encode()
    arrays = {f"/{place}": np.ascontiguousarray(one) for place, one in found.arrays.items()}
    return save({"texts": np.frombuffer(texts, np.uint8), **arrays})


def _unpack(packed: bytes, source: str) -> Hdf5:
    """What `_pack` made bytes of."""
    from safetensors.numpy import load

    try:
        arrays = load(packed)
    except SafetensorError as error:
        raise _damaged(source, "its reader's answer was cut off") from error
    names, texts = json.loads(arrays.pop("texts").tobytes())
    return Hdf5({place[1:]: one for place, one in arrays.items()}, names, texts)


def _limit(size_bytes: int) -> None:
    """Bound this process's memory and time by the size of the file; leave no core behind."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        own = CPU_SECONDS + size_bytes / BYTES_A_SECOND
        seconds = math.ceil(time.process_time() + own)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        with open("/proc/self/statm") as file:  # noqa: PTH123
            now = int(file.read().split()[0]) * resource.getpagesize()
        most = now + MEMORY_BYTES + COPIES * size_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(source: str) -> None:
    """Answer on standard output with what the file on standard input holds."""
    content = sys.stdin.buffer.read()
    _limit(len(content))
    try:
        answer = _FOUND + _pack(read_hdf5(content, source))
    except WeightsError as error:
        answer = _REFUSED + json.dumps([type(error).__name__, str(error)]).encode()
    sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    main(sys.argv[1])

"""64 bits that tell an image by its contents, so that a copied or renamed file is recognised.

A small file is hashed whole; of a large one the size and blocks spread evenly from its first byte
to its last: at most 64 KiB are read of any file, so that a million images take minutes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Dataset

Fingerprints: TypeAlias = NDArray[np.uint64]
NO_FINGERPRINTS: Fingerprints = np.zeros(0, np.uint64)
NUM_BYTES = 8
BLOCK_BYTES = 8 << 10
NUM_BLOCKS = 8
WHOLE_BYTES = BLOCK_BYTES * NUM_BLOCKS
THREADS = 8
CHUNK = 256  # samples that a thread takes at a time


def fingerprint_file(path: str) -> int:
    """The fingerprint of a file's contents; of its name where it cannot be read."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # noqa: PTH123
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return _of_name(path)
            return _hash([found.st_size.to_bytes(8, "little"), *_blocks(file, found.st_size)])
    except (OSError, ValueError):
        return _of_name(path)


def fingerprint_array(image: NDArray[np.uint8]) -> int:
    """The fingerprint of pixels and their shape."""
    return _hash([repr(image.shape).encode(), np.ascontiguousarray(image).tobytes()])


def fingerprints(dataset: Dataset) -> Fingerprints:
    """uint64 [N], the fingerprint of each sample; files are read by several threads."""
    found = np.empty(len(dataset), np.uint64)

    def take(start: int) -> None:
        """Find those of the samples from `start` on."""
        for index in range(start, min(start + CHUNK, len(dataset))):
            found[index] = dataset.fingerprint(index)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(take, range(0, len(dataset), CHUNK)):
            pass
    return found


def is_unopened(dataset: Dataset, index: int, fingerprint: int) -> bool:
    """Whether sample `index`, with this fingerprint, is a file that could not be opened."""
    return fingerprint == _of_name(dataset.path(index))


def _blocks(file: IO[bytes], size: int) -> Iterable[bytes]:
    """The whole file, or blocks spread evenly over it."""
    if size <= WHOLE_BYTES:
        yield file.read(WHOLE_BYTES)
        return
    for number in range(NUM_BLOCKS):
        file.seek((size - BLOCK_BYTES) * number // (NUM_BLOCKS - 1))
        yield file.read(BLOCK_BYTES)


def _hash(parts: Iterable[bytes]) -> int:
    """The first 64 bits of BLAKE2b."""
    made = hashlib.blake2b(digest_size=NUM_BYTES)
    for part in parts:
        made.update(part)
    return int.from_bytes(made.digest(), "little")


def _of_name(path: str) -> int:
    """The fingerprint of a name, which no contents have."""
    return _hash([b"name", os.fsencode(path)])

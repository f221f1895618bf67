"""images/download.py: what is downloaded is bounded."""

from __future__ import annotations

import pytest

from densepath.images.download import _read_bounded, _TooMuchError

MIB = 1 << 20


class Body:
    """A body of `size` zeros."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, most: int) -> bytes:
        count = min(most, self.left)
        self.left -= count
        return bytes(count)


def test_64_mib_are_downloaded_and_not_a_byte_more():
    assert len(_read_bounded(Body(64 * MIB))) == 64 * MIB
    with pytest.raises(_TooMuchError, match="more than the 64 MiB"):
        _read_bounded(Body(64 * MIB + 1))

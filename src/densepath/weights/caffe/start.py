"""Whether a file is a `.caffemodel`, by its first bytes; the command line asks without NumPy."""

from __future__ import annotations


def is_caffe(start: bytes) -> bool:
    """Whether a file begins as a network does: its name, if it has one, then a layer or input."""
    at = 0
    if start[:1] == b"\x0a":
        at = 2 + start[1] if len(start) > 1 and start[1] < 0x80 else len(start)
    rest = start[at:]
    if rest[:2] == b"\xa2\x06":
        return True
    # V1's layers hold their bottom, top or name; an input is a text.
    return len(rest) > 3 and (rest[0] == 0x12 or (rest[0] == 0x1A and rest[2:3].isalnum()))

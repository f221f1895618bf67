"""Which verb writes a format, for those whose bundle lacks it; each command is one that runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from densepath.bundle.formats import exported, quantised, runtimes_of
from densepath.errors import UnknownNameError, UsageError

INT8 = "int8"


def how_to_get(format: str, *, there: Iterable[str] = (), precision: str = "float32") -> str:
    """A sentence with the command that writes a bundle with the format.

    Args:
        format: that is lacking.
        there: formats that the bundle has, and is to keep.
        precision: the bundle's.
    """
    if precision == INT8 and format in quantised():
        formats = _joined(there, format, quantised())
        return f"Add it: densepath quantize SUBJECT --data DATA --to {formats} -o DIR"
    if precision == INT8:
        return (
            "A bundle in INT8 never has it, one of the float network does: "
            f"densepath export SUBJECT --to {format} -o DIR"
        )
    if format in exported():
        return f"Add it: densepath export SUBJECT --to {_joined(there, format, exported())} -o DIR"
    return (
        "It comes with a bundle in INT8: "
        f"densepath quantize SUBJECT --data DATA --to {format} -o DIR"
    )


def unknown_format(verb: str, format: str) -> UsageError:
    """Why `export` or `quantize` does not write a format: the other one does, or none.

    A float network's format may be called otherwise than the engine that reads it.
    """
    own, others = (exported(), quantised()) if verb == "export" else (quantised(), exported())
    if format not in others:
        return UnknownNameError("format" if verb == "export" else "INT8 format", format, own)
    read = (
        one
        for one in (own if verb == "export" else ())
        if format in (runtime.name for runtime in runtimes_of(one, "float32"))
    )
    also = "".join(f"In float32 the engine {format} reads {one}. " for one in read)
    cure = how_to_get(format, precision="float32" if verb == "export" else INT8)
    return UsageError(f"`{verb}` does not write the format {format}. {also}{cure}")


def _joined(there: Iterable[str], format: str, written: Collection[str]) -> str:
    """Those of the formats that the verb writes, and the one that is lacking."""
    return ",".join([*(one for one in sorted(there) if one in written), format])

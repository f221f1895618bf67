"""Options that name outputs: `-` is standard output, which then holds that output alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from densepath.cli.console import stderr, stdout
from densepath.descriptors import STDOUT, descriptor_of
from densepath.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console


def path(text: str) -> Path:
    """An output that is named on the command line; `./-` is a file of that name."""
    return Path("/dev/stdout") if text == "-" else Path(text)


def is_stdout(output: Path | None) -> bool:
    """Whether the output goes to standard output."""
    return output is not None and descriptor_of(output) == STDOUT


def console_beside(outputs: dict[str, Path | None], *, json: bool) -> Console:
    """Where tables are shown: on standard error if one of the outputs is standard output.

    Args:
        outputs: their options, and what these name.
        json: whether standard output is to have a JSON object, too.

    Raises:
        UsageError: it is to have two things.
    """
    there = [option for option, output in outputs.items() if is_stdout(output)]
    if len(there) + json > 1:
        said = " and ".join([*there, *["--json"] * json])
        raise UsageError(f"{said} both go to standard output; name a file for one of them.")
    return stderr() if there else stdout()

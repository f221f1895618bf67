"""A line of progress on standard error: what is being done, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from densepath.cli.console import stderr

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def show_steps(first: str) -> Iterator[Callable[[str], None]]:
    """Yield what shows a step and the time that it takes; `first` is the first one."""
    with _line(shown=stderr().is_terminal) as bar:
        task = bar.add_task(first)
        yield lambda step: bar.reset(task, description=step)


@contextmanager
def show_pace(first: str, *, shown: bool) -> Iterator[Callable[[str], None]]:
    """Yield what changes the text of a line with the time of all, if it is to be shown."""
    if not shown:
        yield lambda text: None
        return
    with _line(shown=True) as bar:
        task = bar.add_task(first)
        yield lambda text: bar.update(task, description=text)


def _line(*, shown: bool) -> Progress:
    """A spinner, a text and a clock, gone when all is done."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    return Progress(*columns, console=stderr(), transient=True, disable=not shown)

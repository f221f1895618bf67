"""Worker processes that are started anew, not forked: each runs the user's own file first.

So it is on macOS and Windows, and wherever `spawn` or `forkserver` was chosen. A file that calls
densepath outside `if __name__ == "__main__":` would train once more in each of them.
"""

from __future__ import annotations

import ast
import multiprocessing
import sys
from pathlib import Path
from types import FrameType

from densepath.errors import DataError, UsageError

CURE = (
    "Each worker process runs that file first: put what it does under "
    "`if __name__ == '__main__':`, or use workers=0."
)


def check_main_file() -> None:
    """Raise unless worker processes can start, whatever the file that calls us does.

    Python itself waits for ever for a worker that ends before it has read its part.

    Raises:
        UsageError: the file would call us in each worker, too, or has done so in this one.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UsageError(f"a worker process began its parent's work anew. {CURE}")
    if multiprocessing.get_start_method() == "fork":
        return
    frame = _main_frame()
    file = getattr(sys.modules["__main__"], "__file__", None)
    if frame is None or file is None:  # a notebook, a prompt, `python -c`: none is run again
        return
    if not _is_under_a_condition(Path(file), frame.f_lineno):
        raise UsageError(
            f"{file}, line {frame.f_lineno}, would start its work anew in each worker. {CURE}"
        )


def lost_worker(error: Exception, exit_codes: list[int | None]) -> DataError:
    """Why a process that loads images is gone, as far as it can be told.

    `exit_codes` are those of all such processes: negative for a signal, None while one runs.
    """
    ended_itself = any(code is not None and code >= 0 for code in exit_codes)
    if multiprocessing.get_start_method() == "fork" or not ended_itself:
        return DataError(
            f"a process that loads images was killed, probably for want of memory ({error}). "
            "Use fewer workers, or smaller batches."
        )
    return DataError(f"a process that loads images ended before its time ({error}). {CURE}")


def _main_frame() -> FrameType | None:
    """The frame of the file that Python was started with, outside of its functions."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            return frame
        frame = frame.f_back
    return None


def _is_under_a_condition(file: Path, line: int) -> bool:
    """Whether that line is inside an `if` of the file's: `__name__` or another, we trust it."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True  # no Python file; it cannot be told
    return any(
        node.lineno <= line <= (node.end_lineno or node.lineno)
        for node in tree.body
        if isinstance(node, ast.If)
    )

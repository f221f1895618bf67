"""The program: `densepath`, or `python -m densepath` for launchers such as torchrun."""

import gc
import sys
from typing import Any

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended: 128 and SIGINT's number
# Objects that an import leaves are no rubbish: looking for some after each 700 of them, as Python
# does, takes a thirtieth of the time from the shell to the first answer, which makes 57,000.
OBJECTS_OF_A_START = 100_000


def _collect_late() -> None:
    """Let Python look for rubbish only once the start is over, and then as it does by itself."""
    usual = gc.get_threshold()
    if usual[0] >= OBJECTS_OF_A_START:
        return  # so it was started already

    def as_usual(phase: str, _: dict[str, Any]) -> None:
        """Before the first collection."""
        if phase == "start" and as_usual in gc.callbacks:
            gc.callbacks.remove(as_usual)
            gc.set_threshold(*usual)

    gc.callbacks.append(as_usual)
    gc.set_threshold(OBJECTS_OF_A_START, *usual[1:])


def main() -> None:
    """Run the command line; Ctrl-C is no traceback, though it comes while that is imported."""
    _collect_late()
    try:
        from densepath.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

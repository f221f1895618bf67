"""The program: `densepath`, or `python -m densepath` for launchers such as torchrun."""

import sys

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended: 128 and SIGINT's number


def main() -> None:
    """Run the command line; Ctrl-C is no traceback, though it comes while that is imported."""
    try:
        from densepath.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

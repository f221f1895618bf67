"""`python -m densepath` is `densepath`, for launchers such as torchrun."""

from densepath.cli.app import main

if __name__ == "__main__":
    main()

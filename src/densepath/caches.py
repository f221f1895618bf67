"""Where the libraries below us keep what can be made again: in our cache, not all over the home."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from densepath.errors import OutputError
from densepath.files import cache_dir


def share_cache() -> None:
    """Let matplotlib and PyTorch keep their files in our cache; called before they are imported.

    By default matplotlib's list of fonts makes two folders in the home, and PyTorch's compiler
    one below the temporary folder. Whoever has chosen a place, or uses matplotlib already, keeps
    it; without any folder the libraries look for one themselves.
    """
    with suppress(OutputError):
        if "matplotlib" not in sys.modules and not _has_matplotlib_folder():
            os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "torchinductor"))


def _has_matplotlib_folder() -> bool:
    """Whether the user has settings of matplotlib, or files that it has made."""
    with suppress(OSError, RuntimeError):  # no home, or one that cannot be looked into
        home = Path.home()
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        return any(one.is_dir() for one in (settings / "matplotlib", home / ".matplotlib"))
    return False

"""A user's own preprocessing and measure, from a Python file that they name.

The file is executed: it is the user's own code, named on their own command line.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.errors import UsageError
from densepath.files import missing

NAMES = ("preprocess", "evaluate")


@dataclass(frozen=True)
class UserFunctions:
    """What the file defines.

    Attributes:
        preprocess: a uint8 image [H, W, C] of any size → uint8 of the network's size, not
            normalised, in place of the checkpoint's resizing.
        evaluate: logits [N, classes] and the images' names → a number, more is better.
    """

    preprocess: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None
    evaluate: Callable[[NDArray[np.float32], list[str]], float] | None = None


def load_user_functions(path: str | Path) -> UserFunctions:
    """The functions `preprocess` and `evaluate` of a Python file, or one of them.

    Raises:
        UsageError: no such file, it fails, or it defines neither.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(missing(path, "Python file"))
    try:
        defined: dict[str, Any] = runpy.run_path(str(path))
    except Exception as error:  # whatever the user's code raises
        raise UsageError(f"{path} fails: {type(error).__name__}: {error}") from error
    found = {name: defined[name] for name in NAMES if callable(defined.get(name))}
    if not found:
        raise UsageError(
            f"{path} defines neither of the functions {' and '.join(NAMES)}. preprocess(image) "
            "makes a uint8 [H, W, C] image of the network's size; evaluate(logits, names) gives a "
            "number, more is better."
        )
    made = {name: _named(path, name, function) for name, function in found.items()}
    preprocess = made.get("preprocess")
    if preprocess is not None:
        own = preprocess
        made["preprocess"] = lambda image: own(np.asarray(image))
    return UserFunctions(**made)


def _named(path: Path, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; what it raises says where it comes from."""

    def call(*values: Any) -> Any:
        try:
            return function(*values)
        except Exception as error:  # whatever the user's code raises
            said = f"{type(error).__name__}: {error}"
            raise UsageError(f"{path}: its function {name} fails: {said}") from error

    return call

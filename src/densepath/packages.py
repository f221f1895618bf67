"""Packages that are functions, too: `densepath.quantize`.

It is a public function, and once a module in the folder of that name is imported Python gives the
name to the package; so the package can be called.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def make_callable(package: str) -> None:
    """Let `package` be called as its function `x` in its module `x`, `x` its own last name."""
    name = package.rpartition(".")[2]

    def call(self: ModuleType, *arguments: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(f"{package}.{name}"), name)(*arguments, **options)

    def reduce(self: ModuleType) -> tuple[Any, tuple[str]]:
        return importlib.import_module, (package,)

    # A function can be sent to another process, and so can this.
    members = {"__call__": call, "__reduce__": reduce}
    sys.modules[package].__class__ = type("CallablePackage", (ModuleType,), members)

"""Checkpoint → Bundle: the forms a network is deployed in, and the report that they agree.

This package can be called: `densepath.export` is a public function, `export/export.py`'s, and once
anything in here is imported Python gives that name to the package.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that can be called as its function of the same name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The bundle; see `densepath.export.export.export`."""
        from densepath.export.export import export

        return export(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage

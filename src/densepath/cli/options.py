"""Options that several verbs share: their choices and defaults are the library's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from densepath.bundle.formats import RUNTIMES

if TYPE_CHECKING:
    EngineName: TypeAlias = str
else:
    EngineName = Literal[("auto", *RUNTIMES)]

"""What all workers hold: found when the server starts, changed by orders, kept when workers die."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from typing import Any

from densepath.errors import DensepathError
from densepath.serving.core.held import (
    Absent,
    Held,
    Holdings,
    Key,
    find_again,
    find_bundle,
    without_path,
)
from densepath.serving.core.logs import log
from densepath.serving.core.repository import GOES_ON, UNLOADED
from densepath.serving.core.settings import ModelSource
from densepath.serving.process.worker import DROP, PREPARE, TAKE, UNLOAD

# What the workers are told, step by step; each is answered by why it failed in one, or None.
Steps = Generator[tuple[Any, ...], str | None, str | None]


class Wanted:
    """The bundle that every worker has, by name and version, or why none has one."""

    def __init__(self, sources: Sequence[ModelSource]) -> None:
        """Find the bundle of each source.

        Raises:
            DensepathError: a bundle cannot be opened.
        """
        self.sources: dict[Key, ModelSource] = {
            (source.name, source.version): source
            for source in sorted(sources, key=lambda source: int(source.version))
        }
        self.holdings: dict[Key, Held | Absent] = {
            key: find_bundle(source) for key, source in self.sources.items()
        }

    @property
    def names(self) -> list[str]:
        """The names on the command line."""
        return list(dict.fromkeys(name for name, _ in self.sources))

    def adopt(self, holdings: Holdings) -> None:
        """Take over what there is."""
        self.holdings = dict(holdings)

    def find_again(self) -> None:
        """Raise unless what is held can be opened once more.

        Raises:
            DensepathError: a bundle is gone from the disk, or another one stands in its place.
        """
        for key, held in self.holdings.items():
            if isinstance(held, Held):
                self.holdings[key] = find_again(self.sources[key], held)

    def renew(self) -> None:
        """Renew what nobody holds any more: the same bundles, else those that stand there now.

        What was unloaded stays so.
        """
        for key, held in self.holdings.items():
            source = self.sources[key]
            if isinstance(held, Absent) and not held.is_lost:
                continue
            try:
                self.holdings[key] = _renewed(source, held)
            except DensepathError as error:
                self.holdings[key] = Absent(without_path(error, source), is_lost=True)

    def load(self, name: str) -> Steps:
        """Have each version opened anew by all workers or by none; gives why not."""
        for key in self._keys(name):
            source, before = self.sources[key], self.holdings[key]
            try:
                held = find_bundle(source)
            except DensepathError as error:
                log("load failed", level=logging.WARNING, model=str(source), reason=str(error))
                reason: str | None = without_path(error, source)
            else:
                reason = yield (PREPARE, *key, held)
            if reason is not None:
                if isinstance(before, Absent):
                    self.holdings[key] = Absent(reason, before.is_lost)
                yield (DROP, *key, reason)
                return reason if isinstance(before, Absent) else f"{reason}{GOES_ON}"
            self.holdings[key] = held  # whoever dies from now on is replaced by one with the new
            yield (TAKE, *key)
        return None

    def unload(self, name: str) -> Steps:
        """Have the model unloaded by all workers."""
        for key in self._keys(name):
            self.holdings[key] = Absent(UNLOADED)
        yield (UNLOAD, name)
        return None

    def _keys(self, name: str) -> list[Key]:
        """The names with the versions of a model, the latest last."""
        return [key for key in self.sources if key[0] == name]


def _renewed(source: ModelSource, held: Held | Absent) -> Held:
    """The same bundle as before, else the one that stands there now.

    Raises:
        DensepathError: there is none.
    """
    if isinstance(held, Held):
        try:
            return find_again(source, held)
        except DensepathError as error:
            log("bundle lost", level=logging.WARNING, model=str(source), reason=str(error))
    return find_bundle(source)

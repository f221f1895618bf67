"""The models by name and version: loaded, loaded anew and unloaded while others answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from densepath.errors import DensepathError
from densepath.serving.errors import LoadError, NotFoundError, NotReadyError
from densepath.serving.logs import log
from densepath.serving.metrics import Metrics
from densepath.serving.model import ServedModel, without_path
from densepath.serving.settings import ModelSource

READY, LOADING, UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"
Opener = Callable[[ModelSource], ServedModel]


@dataclass
class _Slot:
    """A name and version, and what stands there now."""

    source: ModelSource
    model: ServedModel | None = None
    state: str = UNAVAILABLE
    reason: str = "not loaded"


class Repository:
    """What the server was started with; for the event loop's thread."""

    def __init__(self, sources: Iterable[ModelSource], open_model: Opener, metrics: Metrics):
        self._open, self._metrics = open_model, metrics
        self._slots: dict[str, dict[str, _Slot]] = {}
        for source in sorted(sources, key=lambda source: int(source.version)):
            self._slots.setdefault(source.name, {})[source.version] = _Slot(source)
        self._lock = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        """All names, in the order of the command line."""
        return list(self._slots)

    @property
    def is_ready(self) -> bool:
        """Whether no model is being loaded for the first time."""
        slots = (slot for versions in self._slots.values() for slot in versions.values())
        return all(slot.state != LOADING for slot in slots)

    def find(self, name: str | None, version: str | None = None) -> ServedModel:
        """The model; of several versions the latest that is loaded, of one model that one.

        Raises:
            NotFoundError: no such name or version, or it is not loaded.
            NotReadyError: it is being loaded.
        """
        if not name:
            if len(self._slots) > 1:
                raise NotFoundError(f"name a model; there are {', '.join(self.names)}.")
            name = self.names[0]
        versions = self._versions(name)
        if version:
            if version not in versions:
                there = ", ".join(versions)
                raise NotFoundError(
                    f"model {name} has no version {version[:32]!r}; it has {there}."
                )
            slots = [versions[version]]
        else:
            slots = list(reversed(versions.values()))
        for slot in slots:
            if slot.model is not None:
                return slot.model
        if any(slot.state == LOADING for slot in slots):
            raise NotReadyError(f"model {name} is being loaded; ask again.")
        raise NotFoundError(f"model {name} is not loaded: {slots[0].reason}.")

    def versions(self, name: str) -> list[str]:
        """Those that answer.

        Raises:
            NotFoundError: no such name.
        """
        return [version for version, slot in self._versions(name).items() if slot.model]

    def index(self, *, only_ready: bool = False) -> list[dict[str, str]]:
        """`name, version, state, reason` of all, or of those that answer."""
        return [
            {"name": name, "version": version, "state": slot.state, "reason": slot.reason}
            for name, versions in self._slots.items()
            for version, slot in versions.items()
            if slot.state == READY or not only_ready
        ]

    def to_dicts(self) -> list[dict[str, Any]]:
        """What `/models` says: a row for each name and version that answers."""
        rows = []
        for name in self._slots:
            versions = self.versions(name)
            for version in versions:
                row = self.find(name, version).to_dict()
                rows.append({**row, "versions": versions, "default": version == versions[-1]})
        return rows

    async def load(self, name: str, *, told: bool = True) -> None:
        """Every version of the model was opened anew; the old ones go when they are empty.

        While a version is opened, and when it cannot be, what stood there goes on answering.

        Args:
            name: of the command line.
            told: a bundle that cannot be opened is a LoadError; else its own error.

        Raises:
            NotFoundError: no such name.
            LoadError: a bundle that cannot be opened.
        """
        slots = self._versions(name)
        async with self._lock:
            for slot in slots.values():
                await self._load(slot, told=told)

    async def _load(self, slot: _Slot, *, told: bool) -> None:
        """One version."""
        old = slot.model
        if old is None:
            slot.state, slot.reason = LOADING, ""
        loop = asyncio.get_running_loop()
        try:
            model = await loop.run_in_executor(None, self._open, slot.source)
        except Exception as error:
            known = isinstance(error, DensepathError)
            said = without_path(error, slot.source) if isinstance(error, DensepathError) else ""
            slot.reason = said or "it failed to load; the server's log says why"
            if old is None:
                slot.state = UNAVAILABLE
            if not told:
                raise
            log("load failed", level=logging.WARNING, model=str(slot.source), reason=slot.reason,
                exc_info=None if known else error)  # fmt: skip
            goes_on = " What was loaded before goes on answering." if old else ""
            raise LoadError(f"{slot.reason}{goes_on}") from error
        slot.model, slot.state, slot.reason = model, READY, ""
        self._tell(slot)
        log("loaded", model=str(slot.source), engine=model.predictor.engine.info.name)
        if old is not None:
            self._leave(old)

    async def unload(self, name: str) -> None:
        """No version of the model takes requests; those inside are still answered.

        Raises:
            NotFoundError: no such name.
        """
        slots = self._versions(name)
        async with self._lock:
            for slot in slots.values():
                if slot.model is not None:
                    self._leave(slot.model)
                    slot.model, slot.state, slot.reason = None, UNAVAILABLE, "unloaded"
                    self._tell(slot)
                    log("unloaded", model=str(slot.source))

    async def close(self) -> None:
        """All models have answered what was inside, and are closed."""
        models = [s.model for versions in self._slots.values() for s in versions.values()]
        for model in models:
            if model is not None:
                self._leave(model)
        await asyncio.gather(*self._leaving)

    def _leave(self, model: ServedModel) -> None:
        """The model closes behind the last image inside."""
        task = asyncio.get_running_loop().create_task(model.close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _tell(self, slot: _Slot) -> None:
        """The metrics know."""
        key = (slot.source.name, slot.source.version)
        self._metrics.ready.labels(*key).set(float(slot.model is not None))

    def _versions(self, name: str) -> dict[str, _Slot]:
        """By version, the latest last."""
        if name not in self._slots:
            raise NotFoundError(f"no model {name[:64]!r}; there are {', '.join(self.names)}.")
        return self._slots[name]

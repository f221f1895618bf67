"""The models by name and version: loaded, loaded anew and unloaded while others answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from densepath.errors import DensepathError
from densepath.serving.core.errors import LoadError, NotFoundError, NotReadyError
from densepath.serving.core.held import Absent, Held, Holdings, Key, find_bundle, without_path
from densepath.serving.core.logs import log
from densepath.serving.core.metrics import Metrics
from densepath.serving.core.model import ServedModel
from densepath.serving.core.settings import ModelSource

READY, LOADING, UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"
UNLOADED = "unloaded"
UNFORESEEN = "it failed to load; the server's log says why"
GOES_ON = " What was loaded before goes on answering."
Opener = Callable[[ModelSource, Held], ServedModel]


@dataclass
class _Slot:
    """A name and version, what stands there now, and what waits to take its place."""

    source: ModelSource
    model: ServedModel | None = None
    aside: ServedModel | None = None
    state: str = UNAVAILABLE
    reason: str = "not loaded"
    is_lost: bool = False


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
        """Whether no model is being loaded for the first time, and some answer if any was lost."""
        slots = self._all_slots()
        is_lost = any(slot.is_lost for slot in slots) and not any(slot.model for slot in slots)
        return not is_lost and all(slot.state != LOADING for slot in slots)

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

    @property
    def holdings(self) -> dict[Key, Held | Absent]:
        """By name and version, which bundle answers, or why none does."""
        return {
            (slot.source.name, slot.source.version): (
                Absent(slot.reason, slot.is_lost) if slot.model is None else slot.model.held
            )
            for slot in self._all_slots()
        }

    async def start(self, holdings: Holdings | None = None, *, tolerant: bool = False) -> None:
        """Every model answers: those of the command line, or what other workers hold.

        Args:
            holdings: the bundle of each model, or why it stays away; None for what stands on the
                disk now.
            tolerant: one that cannot be opened stays away, and the others answer.

        Raises:
            DensepathError: a bundle that cannot be opened, where that is not tolerated.
        """
        for slot in self._all_slots():
            held = (holdings or {}).get((slot.source.name, slot.source.version))
            if isinstance(held, Absent):
                slot.reason, slot.is_lost = held.reason, held.is_lost
                self._tell(slot)
                continue
            try:
                await self._prepare(slot, held)
            except Exception as error:
                if not tolerant:
                    raise
                self._fail(slot, self._say(slot, held, error))
                slot.is_lost = True
            else:
                self._take(slot)

    async def load(self, name: str) -> None:
        """Every version of the model was opened anew; the old ones go when they are empty.

        While a version is opened, and when it cannot be, what stood there goes on answering.

        Raises:
            NotFoundError: no such name.
            LoadError: a bundle that cannot be opened.
        """
        for version in self._versions(name):
            try:
                await self.prepare(name, version)
            except LoadError as error:
                raise self.drop(name, version, str(error)) from error
            self.take(name, version)

    async def prepare(self, name: str, version: str, held: Held | None = None) -> None:
        """A version was opened anew and stands aside until `take` or `drop`.

        Args:
            name, version: of the command line.
            held: the bundle that it must be; by default what stands on the disk now.

        Raises:
            NotFoundError: no such name.
            LoadError: it cannot be opened; what stood there goes on answering.
        """
        slot = self._versions(name)[version]
        async with self._lock:
            try:
                await self._prepare(slot, held)
            except Exception as error:
                raise LoadError(self._say(slot, held, error)) from error

    async def _prepare(self, slot: _Slot, held: Held | None) -> None:
        """As `prepare`, with the errors of the bundle."""
        if slot.model is None:
            slot.state, slot.reason = LOADING, ""
        loop = asyncio.get_running_loop()
        try:
            if held is None:
                held = await loop.run_in_executor(None, find_bundle, slot.source)
            slot.aside = await loop.run_in_executor(None, self._open, slot.source, held)
        except Exception:
            if slot.model is None:
                slot.state = UNAVAILABLE
            raise

    def take(self, name: str, version: str) -> None:
        """What stands aside answers from now on."""
        self._take(self._versions(name)[version])

    def _take(self, slot: _Slot) -> None:
        """As `take`."""
        old, model, slot.aside = slot.model, slot.aside, None
        assert model is not None
        slot.model, slot.state, slot.reason, slot.is_lost = model, READY, "", False
        self._tell(slot)
        info = model.predictor.engine.info
        log("loaded", model=str(slot.source), engine=info.name, precision=info.precision,
            sha256=model.held.sha256)  # fmt: skip
        if old is not None:
            self._leave(old)

    def drop(self, name: str, version: str, reason: str) -> LoadError:
        """What stands aside, if anything, goes; the error that says why."""
        slot = self._versions(name)[version]
        self._fail(slot, reason)
        return LoadError(reason if slot.model is None else f"{reason}{GOES_ON}")

    def _fail(self, slot: _Slot, reason: str) -> None:
        """The slot says why there is nothing new."""
        slot.reason = reason
        if slot.model is None:
            slot.state = UNAVAILABLE
        if slot.aside is not None:
            self._leave(slot.aside)
            slot.aside = None
        self._tell(slot)

    def _say(self, slot: _Slot, held: Held | None, error: Exception) -> str:
        """For clients, why a bundle was not opened; the log has paths, too, or the traceback."""
        known = isinstance(error, DensepathError)
        told = str(error) if known else UNFORESEEN
        log("load failed", level=logging.WARNING, model=str(slot.source), reason=told,
            exc_info=None if known else error)  # fmt: skip
        return without_path(told, slot.source, held)

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
                    log("unloaded", model=str(slot.source))
                slot.model, slot.state, slot.reason = None, UNAVAILABLE, UNLOADED
                slot.is_lost = False
                self._tell(slot)

    async def close(self) -> None:
        """All models have answered what was inside, and are closed."""
        for slot in self._all_slots():
            for model in (slot.model, slot.aside):
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

    def _all_slots(self) -> list[_Slot]:
        """Of all names, in the order of the command line."""
        return [slot for versions in self._slots.values() for slot in versions.values()]

    def _versions(self, name: str) -> dict[str, _Slot]:
        """By version, the latest last."""
        if name not in self._slots:
            raise NotFoundError(f"no model {name[:64]!r}; there are {', '.join(self.names)}.")
        return self._slots[name]

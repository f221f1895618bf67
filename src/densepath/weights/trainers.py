"""Finds the network in what a training program saved, and names what it left aside.

A trainer's file is a table of tables: the network, an average of its weights, the optimiser, the
options. And among the network's own tensors stand a loss's weights, metrics' counters, an average's
count. None of these makes the network another one; nothing of them is dropped without a word.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from densepath.errors import KeyMismatchError
from densepath.weights.plain_data import leaf
from densepath.weights.stand_ins import ModuleTable
from densepath.wording import first_of, shorten

# Where training programs put the network in their own tables, the usual one first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "module")
# A name that has one of these words is an average of weights: taken before the network itself, as
# it is what publishers evaluate.
_AVERAGE = re.compile(r"(?:^|[._])(?:ema|swa|avg|average|averaged|shadow)(?:[._]|$)", re.IGNORECASE)
_STATISTICS = ("running_mean", "moving_mean", "._mean")
_DEEPEST, _MOST_TABLES = 6, 20_000
# Words in the names of what never has a part in a network's answer.
_HARMLESS = re.compile(
    r"criterion|loss|metric|acc|auroc|f1|precision|recall|confusion|total_ops|total_params"
    r"|averaged|optim|scal|sched|step|epoch|counter|center|teacher|ema|swa|momentum|lr\b",
    re.IGNORECASE,
)
_SHOWN = 8


@dataclass(frozen=True)
class Contents:
    """The network's table of a file.

    Attributes:
        tensors: arrays or tensors by the file's own names.
        place: where in the file they were, as `model_ema`; empty for the file itself.
        beside: the names of what else is in the file.
        whole: the table itself, where it is of a whole network with its layers.
    """

    tensors: dict[str, Any]
    place: str = ""
    beside: tuple[str, ...] = ()
    whole: ModuleTable | None = None


def is_average(name: str) -> bool:
    """Whether a name says that it is an average of weights."""
    return _AVERAGE.search(name) is not None


def is_harmless(name: str) -> bool:
    """Whether a name says that it has no part in a network's answer, as a loss's weights."""
    return _HARMLESS.search(name) is not None


def find_network(
    value: Any, is_network: Callable[[Iterable[str]], bool], source: str
) -> Contents | None:
    """The table of a file's content that is a network; else the first one with tensors.

    Args:
        value: what was unpickled: tables in lists and tables.
        is_network: whether these are names of a network's tensors.
        source: the file, for the message.

    Returns:
        None where there is no table at all.

    Raises:
        KeyMismatchError: two tables are networks, and nothing says which is meant.
    """
    tables = list(_tables(value))
    read = [(path, _tensors(table)) for path, table in tables]
    filled = [(path, tensors) for path, tensors in read if tensors]
    networks = sorted((one for one in filled if is_network(one[1])), key=_rank)
    if len(networks) > 1 and _rank(networks[0]) == _rank(networks[1]):
        places = " and ".join(".".join(path) or "its top" for path, _ in networks[:2])
        raise KeyMismatchError(
            f"{source} holds more than one network: {places}. Save the state dict of one of them."
        )
    if networks or filled:
        path, tensors = (networks or filled)[0]
        table = next(table for place, table in tables if place == path)
        whole = table if isinstance(table, ModuleTable) else None
        return Contents(tensors, ".".join(path), tuple(_beside(value, path)), whole)
    return Contents({}) if tables else None


def describe_aside(found: Contents, tensors: Iterable[str], *, answered: bool = True) -> list[str]:
    """What was taken and what was left aside, in sentences; none where nothing was.

    Args:
        found: the network's table.
        tensors: the names of those in it that are not the network's.
        answered: the network has a classifier, so that its answers may lack something.
    """
    odd = list(tensors)
    notes = []
    if is_average(found.place):
        notes.append(f"took {found.place}, an average of the weights.")
    parts = [_listed(_grouped(odd))] if odd else []
    parts += [_listed(found.beside)] if found.beside else []
    if parts:
        notes.append(f"left aside {', and from beside the network: '.join(parts)}.")
    learned = [
        name for name in odd if name.endswith((".weight", ".bias")) and not is_harmless(name)
    ]
    if learned and answered:
        notes.append(
            f"if the network's answers went through {_listed(_grouped(learned))}, this "
            "checkpoint answers without."
        )
    return notes


def _rank(table: tuple[tuple[str, ...], Mapping[str, Any]]) -> tuple[bool, bool, int, int]:
    """The order in which tables are taken: whole ones, averages, usual names, the outer ones."""
    path, tensors = table
    whole = any(name.endswith(_STATISTICS) for name in tensors)
    usual = [WRAPPERS.index(part) for part in path if part in WRAPPERS]
    return not whole, not is_average(".".join(path)), min(usual, default=99), len(path)


def _tables(value: Any) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """The tables in `value` with where they are, the outer ones first, each once."""
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), value)])
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_TABLES:
        path, item = waiting.popleft()
        if id(item) in seen or len(path) > _DEEPEST:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            yield path, item
        waiting.extend(((*path, name), inner) for name, inner in _inside(item))


def _inside(item: Any) -> Iterator[tuple[str, Any]]:
    """The containers in a table or list, by name or position."""
    # A file may give a table attributes of any name: `item.items` need not be a method.
    entries = dict.items(item) if isinstance(item, dict) else ()
    if isinstance(item, list | tuple) and len(item) <= _MOST_TABLES:
        entries = enumerate(item)  # type: ignore[assignment]
    for name, inner in entries:
        if isinstance(inner, dict | list | tuple):
            yield str(name), inner


def _tensors(table: dict[Any, Any]) -> dict[str, Any]:
    """The tensors and arrays of a table by name."""
    found = {name: leaf(item) for name, item in dict.items(table) if isinstance(name, str)}
    return {name: item for name, item in found.items() if _is_numbers(item)}


def _is_numbers(item: Any) -> bool:
    """Whether it is an array or a tensor of real numbers that are there."""
    if isinstance(item, Tensor):
        return not (item.is_complex() or item.is_meta or item.is_nested)
    return isinstance(item, np.ndarray)


def _beside(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    """The names of what stands beside the way to a table, and of what in it is no tensor."""
    item, way = value, ""
    for step in path:
        entries = dict(_inside(item))
        names = dict.keys(item) if isinstance(item, dict) else entries
        yield from (f"{way}{name}" for name in names if str(name) != step)
        item, way = entries[step], f"{way}{step}."
    tensors = _tensors(item)
    yield from (f"{way}{name}" for name in dict.keys(item) if name not in tensors)


def _grouped(names: Iterable[str]) -> list[str]:
    """The names, those with one first part as `criterion.* (3 tensors)`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(".")[0], []).append(name)
    return [
        members[0] if len(members) == 1 else f"{first}.* ({len(members)} tensors)"
        for first, members in groups.items()
    ]


def _listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    return first_of([shorten(name, 80) for name in names], _SHOWN)

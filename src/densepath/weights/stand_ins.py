"""What stands for the classes of a pickled network: their names and attributes, and nothing else.

`torch.save(model)` names the class of every layer, and the pickle fills an object of it. No class
is imported here: an object becomes an `Inert`, which keeps what is put into it. One that has a
module's tables is then a table of tensors again, as `model.state_dict()` would give it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from densepath.errors import WeightsError

# More than any network has; objects that hold one another many times would have no end.
_MOST_MODULES, _DEEPEST = 20_000, 60
_SCRIPT = "__torch__."


class Named:
    """Stands for a class or function of the file's program by its name alone.

    Attributes:
        name: as `torch.nn.modules.linear.Linear`.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Inert(dict[Any, Any]):
    """Stands for an object of a class of the file's program.

    As a table it has the entries of a class that is one; `state` has the attributes.
    """

    __slots__ = ("kind", "state")
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.state: dict[str, Any] = {}

    def __eq__(self, other: object) -> bool:
        return self is other

    def set(self, state: Any) -> None:
        """Take what a pickle sets: a table of attributes, or a pair of those and of slots."""
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        for part in parts:
            if isinstance(part, dict):
                entries = dict.items(part)
                self.state |= {name: value for name, value in entries if isinstance(name, str)}

    @property
    def is_script(self) -> bool:
        """Whether it is of a TorchScript program, whose objects have their parts as attributes."""
        return self.kind.startswith(_SCRIPT)

    @property
    def is_module(self) -> bool:
        """Whether it has the parts of a `torch.nn.Module`."""
        return self.is_script or isinstance(self.state.get("_modules"), dict)

    @property
    def short(self) -> str:
        """The class's own name: `Linear`."""
        return self.kind.rpartition(".")[2]


@dataclass(frozen=True)
class Part:
    """A layer of a pickled network.

    Attributes:
        kind: its class's full name.
        values: its plain attributes, as `eps` and `p`.
    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """The class's own name, without what TorchScript puts before it."""
        return self.kind.rpartition(".")[2]


class ModuleTable(dict[str, Any]):
    """The tensors of a whole network by their names in its state dict.

    Attributes:
        parts: its layers by name, itself under the empty one, in order; none of a program whose
            layers are not in the file.
        epsilons: the ε of its BatchNorms, where the file says them apart from the layers.
        kind: what the file is, in words.
    """

    def __init__(self, tensors: dict[str, Any] | None = None) -> None:
        super().__init__(tensors or {})
        self.parts: dict[str, Part] = {}
        self.epsilons: frozenset[float] = frozenset()
        self.kind = "a whole pickled model"


def as_tables(value: Any) -> Any:
    """`value` with a table of tensors for each pickled network, of attributes for other objects.

    Raises:
        WeightsError: networks without end.
    """
    made: dict[int, Any] = {}

    def convert(item: Any, deep: int) -> Any:
        if not isinstance(item, dict | list | tuple):
            return item
        if id(item) in made:
            return made[id(item)]
        if deep > _DEEPEST:
            return None
        if isinstance(item, Inert) and item.is_module:
            made[id(item)] = table_of(item)
        elif isinstance(item, dict):
            entries = made[id(item)] = {}
            given = {**item.state, **item} if isinstance(item, Inert) else item
            for name, inner in dict.items(given):
                entries[name] = convert(inner, deep + 1)
        else:
            rows: list[Any] = []
            made[id(item)] = rows
            rows.extend(convert(inner, deep + 1) for inner in item)
        return made[id(item)]

    return convert(value, 0)


def table_of(root: Inert) -> ModuleTable:
    """The tensors and layers of a pickled network, by their names.

    Raises:
        WeightsError: more parts than any network has.
    """
    table = ModuleTable()
    waiting: list[tuple[str, Inert]] = [("", root)]
    while waiting:
        name, module = waiting.pop()
        if len(table.parts) >= _MOST_MODULES or name.count(".") > _DEEPEST:
            raise WeightsError("it holds a network of more parts than any has")
        tensors, inner, values = _split(module)
        start = f"{name}." if name else ""
        table.parts[name] = Part(module.kind, values)
        table.update({f"{start}{leaf}": tensor for leaf, tensor in tensors.items()})
        waiting.extend((f"{start}{leaf}", part) for leaf, part in reversed(inner))
    return table


def _split(module: Inert) -> tuple[dict[str, Tensor], list[tuple[str, Inert]], dict[str, Any]]:
    """A module's own tensors, its parts and its plain attributes."""
    if module.is_script:
        entries = list(module.state.items())
    else:
        entries = [
            (name, value)
            for table in ("_parameters", "_buffers", "_modules")
            for name, value in _entries(module.state.get(table))
        ]
        lost = module.state.get("_non_persistent_buffers_set")
        if isinstance(lost, set | frozenset | list):
            entries = [(name, value) for name, value in entries if name not in lost]
    tensors = {name: value for name, value in entries if isinstance(value, Tensor)}
    parts = [(n, value) for n, value in entries if isinstance(value, Inert) and value.is_module]
    values = {
        name: value
        for name, value in module.state.items()
        if isinstance(value, bool | int | float | str | list | tuple)
    }
    return tensors, parts, values


def _entries(table: Any) -> Iterator[tuple[str, Any]]:
    """The entries of a module's table that have a name."""
    if isinstance(table, dict):
        yield from ((name, value) for name, value in dict.items(table) if isinstance(name, str))

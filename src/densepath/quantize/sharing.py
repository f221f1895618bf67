"""One range for all tensors that pass values on to one another.

Where a dense block concatenates, features then pass from layer to layer as they are; with a range
for each concatenation they would be rounded anew at every layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, TypeVar

Range: TypeAlias = tuple[float, float]
Name = TypeVar("Name", str, int)


def share_ranges(ranges: dict[Name, Range], joined: Iterable[Iterable[Name]]) -> dict[Name, Range]:
    """The ranges, of tensors that are joined, through others too, the widest of theirs.

    Args:
        ranges: of each tensor the lowest and the highest value.
        joined: tensors that have to have one range; those without a range do not count.
    """
    parent = {name: name for name in ranges}

    def root(name: Name) -> Name:
        while parent[name] != name:
            name = parent[name]
        return name

    for group in joined:
        names = [name for name in group if name in parent]
        for name in names[1:]:
            parent[root(name)] = root(names[0])
    widest: dict[Name, Range] = {}
    for name, (low, high) in ranges.items():
        kept = widest.get(root(name), (low, high))
        widest[root(name)] = (min(low, kept[0]), max(high, kept[1]))
    return {name: widest[root(name)] for name in ranges}

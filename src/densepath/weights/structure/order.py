"""The nodes of a graph in an order in which they can run."""

from __future__ import annotations

from collections.abc import Sequence

from densepath.errors import KeyMismatchError
from densepath.weights.structure.attributes import count_of, misfit, weight_of
from densepath.weights.structure.graph import Graph, Node

# A network of these families has some thousands; a damaged file could have any number.
MOST_NODES = 1 << 16


def in_order(graph: Graph, result: str) -> list[Node]:
    """The nodes that the result takes, each behind those that it reads.

    Raises:
        KeyMismatchError: a value that nothing makes, a circle, or too many nodes.
    """
    makers = {node.outputs[0]: node for node in graph.nodes}
    if len(graph.nodes) > MOST_NODES:
        raise KeyMismatchError(f"it has {len(graph.nodes):,} operations, more than a network here")
    order: dict[str, Node] = {}
    open_: set[str] = set()
    stack = [(result, False)]
    while stack:
        name, is_done = stack.pop()
        if name == graph.images or name in order:
            continue
        if name not in makers:
            raise KeyMismatchError(f"nothing in it computes the value {name!r}")
        if is_done:
            open_.discard(name)
            order[name] = makers[name]
            continue
        if name in open_:
            raise misfit(makers[name], "reads what is computed from it")
        open_.add(name)
        stack.append((name, True))
        stack += [(one, False) for one in reversed(makers[name].inputs)]
    return list(order.values())


def image_channels(nodes: Sequence[Node]) -> int:
    """The channels of the images: those that the first convolution reads."""
    for node in nodes:
        if node.kind == "convolution":
            return weight_of(node, 4).shape[1] * count_of(node, "groups", 1)
    raise KeyMismatchError("it has no convolution")

"""A Paddle program and its tensors → the graph that `weights/structure` reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from densepath.errors import WeightsError
from densepath.weights.paddle_inference.maker import NodeMaker, Tensors
from densepath.weights.paddle_inference.program import PaddleProgram
from densepath.weights.paddle_inference.rules import DROPOUT, nodes_of
from densepath.weights.structure.graph import Graph, Node


def graph_of(program: PaddleProgram, tensors: Tensors) -> Graph:
    """The nodes of a program.

    Raises:
        WeightsError: it has several inputs or none, or an operator does not hold together.
    """
    if len(program.feeds) != 1 or not program.fetches:
        raise WeightsError(
            f"it has {len(program.feeds)} inputs and {len(program.fetches)} results; a network "
            "here has one of each"
        )
    maker = NodeMaker(program, tensors)
    try:
        nodes = [node for operator in program.operators for node in nodes_of(maker, operator)]
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise WeightsError(f"an operator of its program does not hold together: {error}") from error
    loose = tuple(name for name in tensors if name not in maker.used)
    fetches = tuple(maker.current(name) for name in program.fetches)
    return Graph(
        tuple(_without_dropout(nodes)), program.feeds[0], fetches, _size_of(program), loose
    )


def _without_dropout(nodes: list[Node]) -> list[Node]:
    """The nodes with the factor of a convolution's dropout in its weights: the same answers."""
    readers = Counter(name for node in nodes for name in node.inputs)
    places = {node.outputs[0]: place for place, node in enumerate(nodes)}
    for place, node in enumerate(nodes):
        before = places.get(node.inputs[0]) if node.kind == DROPOUT else None
        if before is None or readers[node.inputs[0]] > 1:
            continue
        made, factor = nodes[before], np.float32(node.tensors["gamma"][0])
        if made.kind == "convolution":
            tensors = {name: array * factor for name, array in made.tensors.items()}
            nodes[before] = replace(made, tensors=tensors)
            nodes[place] = replace(node, kind="identity", tensors={})
    return [replace(node, kind="scale") if node.kind == DROPOUT else node for node in nodes]


def _size_of(program: PaddleProgram) -> tuple[int, int] | None:
    """Height and width of the images, where the program fixes them."""
    shape = program.shapes.get(program.feeds[0], ())
    return (shape[2], shape[3]) if len(shape) == 4 and min(shape[2:]) > 0 else None

"""What a node has, in the several ways in which files write it: kernels, padding, tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from densepath.errors import KeyMismatchError
from densepath.weights.structure.graph import Node
from densepath.weights.structure.values import Floats

SAME = "same"


def misfit(node: Node, what: str) -> KeyMismatchError:
    """The error for a node that no network here has at its place."""
    return KeyMismatchError(f"{node.to_text()} {what}")


def pair(node: Node, name: str, default: int | None) -> tuple[int, int]:
    """An attribute of a height and a width, given as one number or as both.

    Raises:
        KeyMismatchError: it is neither, or missing without a default.
    """
    numbers = _numbers(node, name, default)
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or min(numbers) < 1:
        raise KeyMismatchError(f"{node.to_text()} has the {name} {node.attributes.get(name)!r}")
    return numbers[0], numbers[1]


def sides(node: Node) -> tuple[int, int, int, int]:
    """The padding at the top, left, bottom and right; −1 each where it is `same`, by the size.

    Raises:
        KeyMismatchError: it is no padding.
    """
    if node.attributes.get("padding") == SAME:
        return (-1, -1, -1, -1)
    numbers = _numbers(node, "padding", 0)
    if len(numbers) == 1:
        numbers *= 4
    elif len(numbers) == 2:
        numbers *= 2
    if len(numbers) != 4 or min(numbers) < 0:
        raise KeyMismatchError(
            f"{node.to_text()} has the padding {node.attributes.get('padding')!r}"
        )
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _numbers(node: Node, name: str, default: int | None) -> list[int]:
    """An attribute as a list of whole numbers."""
    value: Any = node.attributes.get(name, default)
    given = value if isinstance(value, list | tuple | np.ndarray) else [value]
    if not all(isinstance(number, int | np.integer) for number in given):
        raise KeyMismatchError(f"{node.to_text()} has the {name} {value!r}")
    return [int(number) for number in given]


def weight_of(node: Node, dimensions: int) -> np.ndarray:
    """The weight, of so many dimensions, none of them empty."""
    weight = node.tensors.get("weight")
    if weight is None or weight.ndim != dimensions or not weight.size:
        shape = "none" if weight is None else f"one of {list(weight.shape)}"
        raise misfit(node, f"needs a weight of {dimensions} dimensions and has {shape}")
    return weight


def per_channel(node: Node, name: str, width: int, default: float | None) -> Floats:
    """A tensor of a value a channel, or one for all; the default where there is none."""
    tensor = node.tensors.get(name)
    if tensor is None:
        if default is None:
            raise misfit(node, f"has no {name}")
        return np.full(width, default)
    flat = np.asarray(tensor, np.float64).reshape(-1)
    if flat.size not in (1, width):
        raise misfit(node, f"has {flat.size} values of {name} for {width} channels")
    return np.broadcast_to(flat, (width,)) if flat.size != width else flat


def count_of(node: Node, name: str, default: int, least: int = 1) -> int:
    """A whole number among the attributes."""
    value: Any = node.attributes.get(name, default)
    if not isinstance(value, int | np.integer) or value < least:
        raise misfit(node, f"has {name} {value!r}")
    return int(value)


def epsilon_of(node: Node) -> float:
    """ε, which files keep in float32: 9.99999974737875e-06 is 1e-5."""
    value: Any = node.attributes.get("epsilon", 1e-5)
    if not isinstance(value, float | int | np.floating) or not 0 <= value < 1:
        raise misfit(node, f"has the epsilon {value!r}")
    return float(f"{value:.6g}")

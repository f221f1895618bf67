"""Pools of a graph against ours: their padding and rounding, at the sizes where it matters."""

from __future__ import annotations

from densepath.models.spec import ModelSpec, StemPool
from densepath.weights.structure.attributes import misfit, pair, sides
from densepath.weights.structure.graph import Node
from densepath.weights.structure.values import Source
from densepath.weights.structure.walk import Walk


def stem_pool_of(pool: Source) -> StemPool:
    """How the max-pool of the stem pads, as our switch has it.

    Raises:
        KeyMismatchError: it is another pool than one of 3 × 3 and stride 2 that pads as ours do.
    """
    node, padding = pool.node, sides(pool.node)
    shape = pair(node, "kernel", None), pair(node, "stride", 1), pair(node, "dilation", 1)
    if shape != ((3, 3), (2, 2), (1, 1)):
        raise misfit(
            node, f"has the kernel {shape[0]} and stride {shape[1]}; ours is 3 × 3, stride 2"
        )
    if padding == (1, 1, 1, 1) and not _rounds_up(node):
        return "pad1"
    # On even maps a pool of 3 that rounds up reaches one pixel beyond at the bottom and right.
    is_bare = padding == (0, 0, 0, 0) and _rounds_up(node)
    if padding in ((-1, -1, -1, -1), (0, 0, 1, 1)) or is_bare:
        return "same"
    rounding = "rounds up" if _rounds_up(node) else "rounds down"
    raise misfit(
        node,
        f"pads by {padding} (top, left, bottom, right) and {rounding}; ours pads by one pixel on "
        "every side and rounds down, or as TensorFlow's SAME does",
    )


def check_pools(walk: Walk, spec: ModelSpec, size: tuple[int, int] | None) -> list[str]:
    """What holds at some sizes of images only, in sentences.

    Raises:
        KeyMismatchError: at the file's size the pools do otherwise than ours.
    """
    sides_of_images = size or (spec.input_size, spec.input_size)
    even = all(side % spec.least_side == 0 for side in sides_of_images)
    odd_pools = [source for source in walk.averages if _rounds_up(source.node)]
    if walk.pool and sides(walk.pool.node)[0] == 0:
        odd_pools.append(walk.pool)
    notes = []
    if odd_pools:
        if not even:
            raise misfit(
                odd_pools[0].node,
                f"rounds otherwise than ours on maps of odd sides, as images of "
                f"{sides_of_images[0]} × {sides_of_images[1]} pixels give them",
            )
        notes.append(
            f"{len(odd_pools)} of its pools round sides otherwise than ours: the answers are the "
            f"file's at sides that are multiples of {spec.least_side}, as "
            f"{sides_of_images[0]} × {sides_of_images[1]}, and not elsewhere"
        )
    return notes + _check_window(walk, spec, sides_of_images)


def _check_window(walk: Walk, spec: ModelSpec, size: tuple[int, int]) -> list[str]:
    """What is said of a last average over a window of a fixed size."""
    mean = walk.head.mean
    window = pair(mean.node, "kernel", None) if mean.kind == "average" else mean.window
    if window is None:
        return []
    last = tuple(_last_side(side, spec) for side in size)
    if window != last:
        raise misfit(
            mean.node,
            f"averages {window[0]} × {window[1]} positions of a last map of {last[0]} × {last[1]}; "
            "a network here averages all (test-time pooling is an option of evaluate and predict)",
        )
    return [
        f"its last average is over {window[0]} × {window[1]} positions; here it is over all, which "
        f"is the same for images of {size[0]} × {size[1]}"
    ]


def _last_side(side: int, spec: ModelSpec) -> int:
    """The side of the last map for images of that side."""
    halvings = spec.least_side.bit_length() - 1
    rounds_up = spec.family == "dpn"
    for step in range(halvings):
        # Strided convolutions and the stem's pool round up; a DenseNet's averages round down.
        in_stem = step < 2 and spec.arch.stem == "imagenet"
        side = -(-side // 2) if rounds_up or in_stem else side // 2
    return side


def _rounds_up(node: Node) -> bool:
    """Whether a pool's output covers the last pixels of an odd side."""
    return bool(node.attributes.get("ceil_mode", False))

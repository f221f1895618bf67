"""The way along a DPN: a block adds its first outputs to the residual path and appends the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densepath.models.spec import Stem
from densepath.weights.structure.attributes import misfit
from densepath.weights.structure.values import Affine, Ids, Source, Value, same_channels
from densepath.weights.structure.walk import Found, Walk

PROJECTION = "a DPN's stage begins with a block whose 1 × 1 projection and first layer read the map"


@dataclass(frozen=True)
class DPNNumbers:
    """What was counted on the way, beside the layers themselves.

    Attributes:
        blocks: of each stage.
        bases: the width of each stage's residual path.
        stem: `imagenet` or `small`.
        halves: the last 1 × 1 convolution of the first block is two in the file.
    """

    blocks: tuple[int, ...]
    bases: tuple[int, ...]
    stem: Stem
    halves: bool


def walk_dpn(walk: Walk) -> DPNNumbers:
    """Take all layers, from the first convolution to the classifier.

    Raises:
        KeyMismatchError: a node that no DPN has at its place.
    """
    stem = walk.stem()
    state, behind, ending = walk.behind_stem(stem)
    if ending == "raw":
        raise misfit(stem.node, "has no ReLU behind it, as a DPN's first convolution has")
    images = np.sort(walk.trace.images.channels)
    walk.found.append(Found(stem.node, walk.take(stem.channels, images), None, behind))
    blocks, bases, halves = list[int](), list[int](), False
    while walk.head.mean not in (readers := walk.readers(state)):
        projections = [source for source in readers if _is_projection(walk, source)]
        if projections:
            blocks.append(0)
        elif not blocks:
            node = readers[0].node if readers else stem.node
            raise misfit(node, f"reads the first map; {PROJECTION}")
        state, base, is_halved = _block(walk, projections, readers, state, bases)
        halves = halves or is_halved
        if projections:
            bases.append(base)
        blocks[-1] += 1
    walk.finish(state)
    return DPNNumbers(
        tuple(blocks), tuple(bases), "small" if ending == "relu" else "imagenet", halves
    )


def _is_projection(walk: Walk, source: Source) -> bool:
    """Whether a source that reads a map is a projection: nothing reads it whole through a ReLU."""
    if source.kind != "convolution":
        return False
    readers = walk.readers(source.channels)
    return not any(one.kind == "convolution" and one.inputs[0].active for one in readers)


def _block(
    walk: Walk,
    projections: Sequence[Source],
    readers: Sequence[Source],
    state: Ids,
    bases: Sequence[int],
) -> tuple[Ids, int, bool]:
    """Take a block; the state behind it, its residual path's width, if its end is two."""
    a, b, last = _layers(walk, readers, projections, state)
    opened = np.concatenate([one.channels for one in projections]) if projections else state
    new = np.concatenate([one.channels for one in last])
    total = _sum(walk, opened, new)
    kept, added = _terms(total, opened)
    if min(len(set(kept.tolist())), len(set(added.tolist()))) < len(kept):
        raise misfit(total.node, "adds a channel twice")
    if projections:
        residual = kept
        rest = opened[~np.isin(opened, kept)]
        opened = np.concatenate([residual, rest])
        before = _same_before(walk, projections, state)
        walk.found.append(Found(projections[0].node, walk.take(opened, state), before))
    else:
        residual = state[: bases[-1]]
        if not same_channels(kept, residual):
            raise misfit(total.node, f"adds {len(kept)} channels that are not the residual path")
    order = np.argsort(kept)[np.searchsorted(np.sort(kept), residual)]
    added, sums = added[order], total.channels[order]
    outputs = np.concatenate([added, new[~np.isin(new, added)]])
    _take_layers(walk, a, b, last, state, outputs)
    grown = np.concatenate([sums, opened[len(residual) :], outputs[len(added) :]])
    if not walk.readers(grown):
        reader = walk.some_reader(sums)
        raise misfit(
            total.node if reader is None else reader.node,
            f"does not read the residual path and all {len(grown) - len(sums)} channels of the "
            "dense path, as what stands behind a DPN's block does",
        )
    return grown, len(residual), len(last) > 1


def _layers(
    walk: Walk, readers: Sequence[Source], projections: Sequence[Source], state: Ids
) -> tuple[Source, Source, list[Source]]:
    """The first, the grouped and the last convolutions of a block."""
    own = [one for one in readers if one not in projections]
    if len(own) != 1 or own[0].kind != "convolution":
        node = own[-1].node if own else projections[0].node
        raise misfit(node, f"is one of {len(own)} layers of a block; {PROJECTION}")
    following = walk.readers(own[0].channels)
    if len(following) != 1 or following[0].kind != "convolution":
        node = following[-1].node if following else own[0].node
        raise misfit(node, "stands where a DPN block's grouped 3 × 3 convolution is expected")
    last = walk.readers(following[0].channels)
    if not last or any(one.kind != "convolution" for one in last):
        node = last[0].node if last else following[0].node
        raise misfit(node, "stands where a DPN block's last 1 × 1 convolution is expected")
    return own[0], following[0], last


def _sum(walk: Walk, opened: Ids, new: Ids) -> Source:
    """The sum of what a block found and what it computed."""
    for source in walk.trace.sources:
        if source.kind != "add" or len(source.inputs) != 2:
            continue
        one, other = source.inputs
        pairs = ((one, other), (other, one))
        if any(
            np.isin(mine.channels, opened).all() and np.isin(theirs.channels, new).all()
            for mine, theirs in pairs
        ):
            if not (one.is_plain() and other.is_plain()):
                raise misfit(
                    source.node,
                    "adds maps that went through a BatchNorm or ReLU, as a ResNet does; a DPN adds "
                    "its convolutions' outputs",
                )
            return source
    reader = walk.some_reader(new)
    node = walk.trace.owners(new[:1])[0].node if reader is None else reader.node
    raise misfit(node, "does not add a block's outputs to the residual path, as a DPN does")


def _terms(total: Source, opened: Ids) -> tuple[Ids, Ids]:
    """The two terms of a sum: of what a block found, and of what it computed."""
    one, other = (value.channels for value in total.inputs)
    return (one, other) if np.isin(one, opened).all() else (other, one)


def _same_before(walk: Walk, sources: Sequence[Source], channels: Ids) -> Affine | None:
    """What convolutions side by side read through, which is the same for all."""
    affines = [walk.read_through(source, channels) for source in sources]
    for source, affine in zip(sources[1:], affines[1:], strict=True):
        if not _equal(affines[0], affine):
            raise misfit(source.node, f"reads otherwise than {sources[0].node.to_text()} beside it")
    return affines[0]


def _equal(one: Affine | None, other: Affine | None) -> bool:
    """Whether two do the same."""
    if one is None or other is None:
        return one is other
    pairs = zip(one.factors(), other.factors(), strict=True)
    return all(np.array_equal(left, right) for left, right in pairs)


def _take_layers(
    walk: Walk, a: Source, b: Source, last: Sequence[Source], state: Ids, outputs: Ids
) -> None:
    """Take the layers of a block, its last one with the outputs in this order."""
    middle: Value = b.inputs[0]
    before = walk.read_through(a, state)
    behind = walk.read_through(b, middle.channels)
    walk.found.append(Found(a.node, walk.take(middle.channels, state), before, behind))
    behind = _same_before(walk, last, b.channels)
    walk.found.append(Found(b.node, walk.take(b.channels), None, behind))
    walk.found.append(Found(last[0].node, walk.take(outputs, b.channels)))

"""The batches of an epoch, as all processes agree on them: what of them could be read."""

from __future__ import annotations

from collections.abc import Iterator

from densepath.data.batch import Batch
from densepath.errors import DatasetError
from densepath.training.parts import Training
from densepath.training.shares import StepShare, share_step

UNREADABLE_SHOWN = 10


def agreed_batches(
    training: Training, batches: Iterator[Batch]
) -> Iterator[tuple[Batch, StepShare]]:
    """This process's batches, and how each is computed now that all know what could be read.

    Raises:
        ImageError: an image cannot be read; in the other processes PeerError.
    """
    for _ in range(training.train_loader.steps_per_epoch - training.position.step):
        with training.ranks.together(training.device) as exchange:
            batch = next(batches)
            exchange.value = len(batch.images)
        share = share_step(
            exchange.values,
            training.ranks.rank,
            num_parts=training.recipe.distributed.accumulate,
            least_images=training.least_images,
            synced=training.synced,
        )
        yield batch, share


def check_readable(training: Training, num_unreadable: int) -> None:
    """Raise if no image of the epoch could be read; this process has met so many.

    Raises:
        DatasetError: not one; in the other processes PeerError.
    """
    ranks, num_images = training.ranks, training.train_loader.num_images
    with ranks.together(training.device) as exchange:
        exchange.value = num_unreadable
    with ranks.together(training.device):
        if ranks.leads and sum(exchange.values) == num_images:
            raise DatasetError(
                f"{training.recipe.data.source}: not one of {num_images:,} training images could "
                "be read."
            )


def name_unreadable(training: Training) -> None:
    """Say which images of the epoch that is over could not be read; the log has all, once each."""
    found = set(training.ranks.gather(training.unread)) - training.named
    training.unread, training.named = [], training.named | found
    if not found or not training.ranks.leads:
        return
    lines = [f"could not be read: {name}" for name in sorted(found)]
    training.folder.log("\n".join(lines))
    left = len(lines) - UNREADABLE_SHOWN
    more = [f"could not be read: {left:,} more; train.log names them all"] if left > 0 else []
    training.progress.say("\n".join([*lines[:UNREADABLE_SHOWN], *more]))

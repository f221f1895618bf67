"""How the images of an epoch are shared out: over its steps, and each step over the processes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count_steps(num_images: int, batch_size: int, least_images: int = 1) -> int:
    """The steps of an epoch that takes each of `num_images` once.

    They are as few as `batch_size` allows, and the images are spread over them evenly: steps
    differ by at most one image, so none is a small rest that would move the weights as far as a
    whole batch does, and all images weigh alike. With `least_images` there may be a step less,
    whose images the others take: a set of 3 in batches of 2 is then one step.
    """
    return max(min(-(-num_images // batch_size), num_images // least_images), 1)


def share_out(
    step: NDArray[np.intp], world_size: int, least_share: int = 1
) -> list[NDArray[np.intp]]:
    """Each process's part of a step, in order; a part holds `least_share` samples or none.

    Parts differ by at most one sample, but for processes at the end that have none because
    there is not enough for all.
    """
    num_sharing = max(min(world_size, len(step) // least_share), 1)
    none = [step[:0]] * (world_size - num_sharing)
    return [*np.array_split(step, num_sharing), *none]

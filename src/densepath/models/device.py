"""The device that a name means on this machine."""

from __future__ import annotations

import torch

from densepath.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is the first GPU, or the CPU when there is none.

    Raises:
        UsageError: there is no such device on this machine.
    """
    gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0" if gpus else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    present = device is not None and (
        device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < gpus)
    )
    if device is None or not present:
        choices = ", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(gpus))])
        raise UsageError(f"there is no device {name!r} on this machine. Choices: {choices}.")
    return device

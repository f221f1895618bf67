"""The checkpoint itself as a format: what PyTorch and our own kernels read."""

from __future__ import annotations

from dataclasses import replace

from densepath.exporting.job import Job

FILE_NAME = "model.safetensors"


def write(job: Job) -> dict[str, str]:
    """Write the checkpoint's file into the folder; gives the names of the parts."""
    # As large as its images are many, and it names a folder of this machine.
    replace(job.checkpoint.in_float32(), trained_on=None).save(job.folder / FILE_NAME)
    return {"model": FILE_NAME}

"""Networks of fused blocks on several processes with gloo, against one process with all images."""

from __future__ import annotations

import pytest
import torch

from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from fixtures.blocks import assert_close
from fixtures.processes import Steps, run_alone, run_together

pytestmark = pytest.mark.slow

SPECS = [
    ModelSpec("dense", DenseNetArch(6, (2, 2), 8), 32, "none"),
    ModelSpec("dual", DPNArch(8, 3, 16, 4, (2, 2), (4, 8), 1), 32, "none"),
]
TOLERANCES = {"portable": 1e-9, "native": 1e-4}
# Even, then as at the end of an epoch, or where images cannot be read: fewer to one, or none.
SHARES = {2: [(4, 4), (5, 3), (0, 6), (7, 0), (1, 4)], 3: [(2, 2, 2), (4, 0, 1), (1, 3, 2)]}


@pytest.mark.parametrize("size", SHARES, ids=lambda size: f"{size} processes")
def test_processes_take_the_steps_of_one(size, tmp_path):
    """Losses, gradients, weights and statistics after several steps with momentum."""
    jobs = [Steps(spec, kind, SHARES[size]) for spec in SPECS for kind in TOLERANCES]
    for job, found in zip(jobs, run_together(jobs, tmp_path), strict=True):
        whole = Steps(job.spec, job.kind, [(sum(share),) for share in job.shares])
        wanted = run_alone(whole)
        for one in found:
            assert_close(one, wanted, TOLERANCES[job.kind])
            assert all(torch.equal(one[name], found[0][name]) for name in wanted)

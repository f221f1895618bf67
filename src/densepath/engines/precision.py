"""Which precision `auto` takes for a bundle: bfloat16 only where it is quick here and was verified.

Only our kernels compute in bfloat16 unasked: it is them that the bundle's report was measured on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from densepath.bundle.bfloat16 import BFloat16Report
from densepath.bundle.bundle import Bundle
from densepath.bundle.formats import RUNTIMES
from densepath.engines.machine import missing_bfloat16
from densepath.engines.obstacles import obstacle
from densepath.engines.request import AUTO, EngineRequest

ENGINE = "native"


@dataclass(frozen=True)
class Verdict:
    """Whether bfloat16 is taken, and why; there is no reason where there was no choice."""

    taken: bool
    reason: str = ""


def judge_bfloat16(request: EngineRequest, bundle: Bundle | None, *, otherwise: str) -> Verdict:
    """Whether `auto` takes our kernels in bfloat16.

    Args:
        request: whose precision is open.
        bundle: None for a checkpoint, which has no report.
        otherwise: the engine that answers in float32 if not.
    """
    if bundle is None or request.engine not in (AUTO, ENGINE) or RUNTIMES[otherwise].gpu:
        return Verdict(False)
    in_the_way = obstacle(RUNTIMES[ENGINE], replace(request, precision="bfloat16"), bundle)
    if in_the_way is not None:
        return Verdict(False)
    missing = missing_bfloat16()
    if missing:
        return Verdict(False, missing)
    report = BFloat16Report.of(bundle.manifest.parity)
    if report is None:
        return Verdict(False, "the bundle has no report on bfloat16; exported anew it has one")
    return Verdict(report.is_enough, f"by the bundle's report on bfloat16 {report}")

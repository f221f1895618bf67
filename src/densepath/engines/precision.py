"""Which engine `auto` takes in bfloat16, if any: one that is quick here and was verified.

Our kernels round alike on any processor with the instructions, so that their report holds on all;
but with AMX they round more, so that one from elsewhere does not hold there. Other engines are
taken on machines of the kind that they were compared and measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from densepath.bundle.bfloat16 import OURS, BFloat16Report, is_judged_by_score
from densepath.bundle.bundle import Bundle
from densepath.bundle.formats import RUNTIMES, Runtime
from densepath.bundle.manifest import Manifest
from densepath.bundle.speeds import Speeds
from densepath.engines.machine import has_amx, missing_bfloat16
from densepath.engines.measured import in_measured_order
from densepath.engines.obstacles import first_sentence, obstacle
from densepath.engines.request import AUTO, EngineRequest, is_few


@dataclass(frozen=True)
class Verdict:
    """Which engine is taken in bfloat16, and why.

    Attributes:
        engine: None for float32.
        reason: empty where there was no choice.
        passed: a faster engine that was not taken, and why not.
    """

    engine: str | None = None
    reason: str = ""
    passed: str = ""


def judge_bfloat16(
    request: EngineRequest, bundle: Bundle | None, speeds: Speeds | None, *, otherwise: str
) -> Verdict:
    """The engine that `auto` takes in bfloat16, or why it takes none.

    Args:
        request: whose precision is open.
        bundle: None for a checkpoint, which has no report.
        speeds: what was measured of the bundle on such a machine.
        otherwise: the engine that answers in float32 if not.
    """
    if bundle is None or RUNTIMES[otherwise].gpu:
        return Verdict()
    rows: Sequence[Runtime] = _candidates(request, otherwise)
    if speeds is not None:
        rows = in_measured_order(rows, speeds, "bfloat16")
    reason = passed = ""
    for row in rows:
        error = obstacle(row, replace(request, precision="bfloat16"), bundle)
        report = BFloat16Report.of(bundle.manifest.parity, row.name)
        refusal = first_sentence(error) if error else _refusal(row, report, speeds, otherwise)
        if report is not None and refusal is None:
            refusal = _other_subject(report, request, bundle.manifest)
        if report is not None and refusal is None:
            return Verdict(row.name, _said(row, report), passed)
        if error is None:
            reason = reason or refusal or ""
        passed = passed or (f"{row.name}: {refusal}" if refusal else "")
    return Verdict(None, reason)


def _candidates(request: EngineRequest, otherwise: str) -> list[Runtime]:
    """The engines that compute in bfloat16 on a CPU, of those that may answer."""
    named = otherwise if is_few(request) else request.engine
    rows = [row for row in RUNTIMES.values() if row.is_raced_in("bfloat16")]
    return [row for row in rows if named in (AUTO, row.name)]


def _refusal(
    row: Runtime, report: BFloat16Report | None, speeds: Speeds | None, otherwise: str
) -> str | None:
    """Why an engine is not taken in bfloat16, empty where there is no choice; None if it is."""
    if row.name == OURS:
        missing = missing_bfloat16()
        if missing:
            return missing
        if report is None:
            return "the bundle has no report on bfloat16; exported anew it has one"
        if not report.amx and has_amx():
            return (
                "the bundle's report on bfloat16 is from a processor without AMX, where less is "
                "rounded; exported anew here it has one"
            )
    elif report is None:
        return ""
    elif speeds is None or row.name not in speeds.seconds_bfloat16:
        return f"{row.name} was compared in bfloat16 on another kind of machine"
    return _slowness(row, speeds, otherwise) if report.is_enough else _said(row, report)


def _other_subject(
    report: BFloat16Report, request: EngineRequest, manifest: Manifest
) -> str | None:
    """That a report looks at what does not decide here; or at another size, rounded elsewhere."""
    if report.by_score != is_judged_by_score(
        len(manifest.labels), multi_label=manifest.multi_label
    ):
        return (
            "the bundle's report on bfloat16 does not look at what decides for its classes; "
            "exported anew it does"
        )
    height, width = manifest.preprocess.size
    if request.size in (None, (height, width)):
        return None
    return f"the bundle's report on bfloat16 is of images of {height} × {width} pixels"


def _slowness(row: Runtime, speeds: Speeds | None, otherwise: str) -> str | None:
    """How an engine in bfloat16 was no faster than what answers in float32; None if it was.

    Of what was not measured nothing is said: our kernels are the faster wherever there are
    instructions, as far as is known.
    """
    if speeds is None:
        return None
    mine, other = speeds.seconds_bfloat16.get(row.name), speeds.seconds.get(otherwise)
    if mine is None or other is None or mine < other:
        return None
    return (
        f"on such a machine {row.name} in bfloat16 took {mine * 1e3:.3g} ms, {otherwise} in "
        f"float32 {other * 1e3:.3g} ms"
    )


def _said(row: Runtime, report: BFloat16Report) -> str:
    """What the bundle says of an engine."""
    subject = "bfloat16" if row.name == OURS else f"{row.name} in bfloat16"
    return f"by the bundle's report on {subject} {report}"

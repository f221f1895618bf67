"""Which engine answers: the one that was named, or the best that there is for what is asked.

`auto` takes the first row of `RUNTIMES` that nothing is in the way of. For few images the
order is that of `opens`, by how soon an engine is ready; on the kind of machine that a bundle was
made on, by how fast each was there (`measured.py`). One in bfloat16 comes before them where
`precision.py` takes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from densepath.bundle.bfloat16 import OURS
from densepath.bundle.bundle import Bundle
from densepath.bundle.formats import RUNTIMES, Precision, Runtime
from densepath.bundle.speeds import Speeds
from densepath.engines.machine import NO_BFLOAT16, is_slow_in_bfloat16, missing_bfloat16
from densepath.engines.measured import in_measured_order, speeds_here
from densepath.engines.obstacles import (
    explain_obstacle,
    find_runtime,
    first_sentence,
    obstacle,
    way_out,
)
from densepath.engines.precision import Verdict, judge_bfloat16
from densepath.engines.request import AUTO, MANY_IMAGES, EngineRequest, is_few
from densepath.errors import DensepathError, EngineError, UnknownNameError, UsageError
from densepath.wording import counted

MEASURED = "by the bundle's measurement on such a machine"


@dataclass(frozen=True)
class Choice:
    """The engine that will answer, and why it does.

    Attributes:
        engine, reason: its name, and why it was chosen.
        precision: of its arithmetic.
        precision_reason: why that, where it was left open and there was a choice; or what is to be
            said of the one that was named.
    """

    engine: str
    reason: str
    precision: Precision = "float32"
    precision_reason: str = ""

    @property
    def why(self) -> str:
        """Both reasons."""
        if not self.precision_reason:
            return self.reason
        return f"{self.reason}; in {self.precision}: {self.precision_reason}"

    def __str__(self) -> str:
        return f"engine {self.engine}: {self.why}"


def choose(request: EngineRequest, bundle: Bundle | None) -> Choice:
    """The engine for a bundle, or, without one, for a checkpoint.

    Raises:
        UnknownNameError: no such engine, device or precision.
        UsageError: the named engine cannot do what is asked.
        BundleError: the bundle lacks its format.
        EngineError: this machine lacks what it needs; or no engine can do what is asked.
        MissingPackageError: its package is not installed.
    """
    _check_names(request)
    unexplained = explain_obstacle(bundle) if request.explains else None
    if unexplained is not None:
        raise unexplained
    asked, request = request.precision, _as_stored(request, bundle)
    speeds = _speeds_here(request, bundle)
    if request.precision != AUTO:
        quick = speeds is not None and speeds.seconds_bfloat16  # as export found on such a machine
        choice = None if quick else _choose_slow_bfloat16(request, bundle)
        choice = choice or _choose_engine(request, bundle, speeds)
        return replace(choice, precision_reason=_remark(choice, asked, request.device))
    plain = _choose_engine(replace(request, precision="float32"), bundle, speeds)
    verdict = judge_bfloat16(request, bundle, speeds, otherwise=plain.engine)
    if verdict.engine is None:
        return replace(plain, precision_reason=verdict.reason)
    reason = _reason_in_bfloat16(verdict, request, plain, speeds)
    return Choice(verdict.engine, reason, "bfloat16", verdict.reason)


def _remark(choice: Choice, asked: str, device: str) -> str:
    """What is said of a precision that was named: that it is another, or no gain; else nothing."""
    if asked not in (AUTO, choice.precision):
        return "as the bundle is stored; the one that it was made of answers in float32"
    if choice.precision != "bfloat16":
        return ""
    if choice.engine == OURS:
        missing = missing_bfloat16()
    else:
        missing = NO_BFLOAT16 if is_slow_in_bfloat16(device) else ""
    return missing and f"as asked; {missing}, so that it is slower than float32"


def _choose_slow_bfloat16(request: EngineRequest, bundle: Bundle | None) -> Choice | None:
    """Our kernels where bfloat16 is named and the processor lacks it: they have it everywhere.

    They are compiled for it, as for many images; None where they cannot be, or need not.
    """
    is_open = request.precision == "bfloat16" and request.engine == AUTO
    if not is_open or not is_slow_in_bfloat16(request.device):
        return None
    many = replace(request, num_images=MANY_IMAGES)
    if obstacle(find_runtime(OURS), many, bundle) is not None:
        return None
    return Choice(OURS, "the one that computes bfloat16 on any processor", "bfloat16")


def _choose_engine(request: EngineRequest, bundle: Bundle | None, speeds: Speeds | None) -> Choice:
    """The engine for a precision that is decided.

    Raises:
        DensepathError: what `choose` raises.
    """
    precision = request.precision
    assert precision != AUTO
    if request.engine != AUTO:
        error = obstacle(find_runtime(request.engine), request, bundle)
        if error is not None:
            raise error
        return Choice(request.engine, "as asked", precision)
    passed: list[str] = []
    errors: list[DensepathError] = []
    for row in _by_preference(request, bundle, speeds):
        error = obstacle(row, request, bundle)
        if error is None:
            reason = _reason(row, request, speeds) + (f" (not {passed[0]})" if passed else "")
            return Choice(row.name, reason, precision)
        if not row.gpu:
            passed.append(f"{row.name}: {first_sentence(error)}")
            errors.append(error)
    cure = way_out(errors, bundle)
    raise EngineError(f"no engine can answer this. {'; '.join(passed)}.{cure and f' {cure}'}")


def _check_names(request: EngineRequest) -> None:
    """Returns when precision and device exist.

    Raises:
        UnknownNameError: one does not.
    """
    choices = dict.fromkeys(one for row in RUNTIMES.values() for one in row.precisions)
    if request.precision not in (AUTO, *choices):
        raise UnknownNameError("precision", request.precision, (AUTO, *choices))
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", request.device):
        raise UnknownNameError("device", request.device, ("auto", "cpu", "cuda", "cuda:N"))


def _as_stored(request: EngineRequest, bundle: Bundle | None) -> EngineRequest:
    """The request for an INT8 bundle: its precision is stored in it, not chosen.

    Raises:
        UsageError: another one is asked for.
    """
    if bundle is None or bundle.manifest.precision == "float32":
        return request
    stored: Precision = bundle.manifest.precision  # type: ignore[assignment]
    if request.precision not in (AUTO, "float32"):
        raise UsageError(
            f"{bundle.folder} is quantised to {stored}, and cannot be run in {request.precision}. "
            "Leave the precision out, or name the float bundle that it was made of."
        )
    return replace(request, precision=stored)


def _by_preference(
    request: EngineRequest, bundle: Bundle | None, speeds: Speeds | None
) -> list[Runtime]:
    """The rows that `auto` may take, the best for this network and number of images first."""
    rows = [row for row in RUNTIMES.values() if row.by_itself]
    if is_few(request):
        return sorted(rows, key=lambda row: row.opens)
    if bundle is None:
        return rows
    return rows if speeds is None else in_measured_order(rows, speeds, request.precision)


def _speeds_here(request: EngineRequest, bundle: Bundle | None) -> Speeds | None:
    """What was measured of this bundle on such a machine; None where it decides nothing.

    For few images only the precision goes by it.
    """
    few = is_few(request)
    if bundle is None or (few and request.precision != AUTO):
        return None
    return speeds_here(bundle, needs_bfloat16=few)


def _reason(row: Runtime, request: EngineRequest, speeds: Speeds | None) -> str:
    """Why `auto` takes this engine."""
    if is_few(request):
        return f"ready soonest for {counted(request.num_images or 0, 'image')}"
    if speeds is not None and row.name in speeds.times(request.precision):
        return f"{MEASURED}: {speeds.describe(request.precision)}"
    return row.why


def _reason_in_bfloat16(
    verdict: Verdict, request: EngineRequest, plain: Choice, speeds: Speeds | None
) -> str:
    """Why `auto` takes the engine of a verdict; `plain` is what it takes in float32."""
    engine = verdict.engine
    assert engine is not None
    is_open = request.engine == AUTO and not is_few(request)
    if is_open and speeds is not None and engine in speeds.seconds_bfloat16:
        return f"{MEASURED}: {speeds}" + (f" (not {verdict.passed})" if verdict.passed else "")
    return plain.reason if engine == plain.engine else RUNTIMES[engine].why

"""Which engine answers: the one that was named, or the best that there is for what is asked.

`auto` takes the first row of `RUNTIMES` that nothing is in the way of. For few images the
order is that of `opens`, by how soon an engine is ready; for a large network OpenVINO comes before
our own kernels, but for those in bfloat16, where `precision.py` takes that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from densepath.bundle.bundle import Bundle
from densepath.bundle.formats import RUNTIMES, Precision, Runtime
from densepath.engines.machine import missing_bfloat16
from densepath.engines.obstacles import explain_obstacle, find_runtime, obstacle, way_out
from densepath.engines.precision import ENGINE as BFLOAT16_ENGINE
from densepath.engines.precision import judge_bfloat16
from densepath.engines.request import AUTO, EngineRequest
from densepath.errors import DensepathError, EngineError, UnknownNameError, UsageError
from densepath.wording import counted

# So many images are answered in less time than a slower opening costs.
FEW_IMAGES = 64
# From so many parameters on OpenVINO is the faster: DPN-98, 107 and 131 (benchmarks/inference.py).
LARGE_PARAMETERS = 50_000_000


@dataclass(frozen=True)
class Choice:
    """The engine that will answer, and why it does.

    Attributes:
        engine, reason: its name, and why it was chosen.
        precision: of its arithmetic.
        precision_reason: why that, where it was left open and there was a choice.
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
    request = _as_stored(request, bundle)
    if request.precision != AUTO:
        choice = _choose_engine(request, bundle)
        return replace(choice, precision_reason=_slowness(choice))
    plain = _choose_engine(replace(request, precision="float32"), bundle)
    verdict = judge_bfloat16(request, bundle, otherwise=plain.engine)
    if not verdict.taken:
        return replace(plain, precision_reason=verdict.reason)
    reason = plain.reason if plain.engine == BFLOAT16_ENGINE else RUNTIMES[BFLOAT16_ENGINE].why
    return Choice(BFLOAT16_ENGINE, reason, "bfloat16", verdict.reason)


def _slowness(choice: Choice) -> str:
    """What is said of bfloat16 that was asked for where it is no gain; empty where it may be."""
    if choice.precision != "bfloat16" or choice.engine != BFLOAT16_ENGINE:
        return ""
    missing = missing_bfloat16()
    return missing and f"as asked; {missing}, so that it is slower than float32"


def _choose_engine(request: EngineRequest, bundle: Bundle | None) -> Choice:
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
    for row in _by_preference(request, bundle):
        error = obstacle(row, request, bundle)
        if error is None:
            few = _is_few(request)
            reason = (
                f"ready soonest for {counted(request.num_images or 0, 'image')}" if few else row.why
            )
            reason += f" (not {passed[0]})" if passed else ""
            return Choice(row.name, reason, precision)
        if not row.gpu:
            passed.append(f"{row.name}: {_first_sentence(error)}")
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


def _by_preference(request: EngineRequest, bundle: Bundle | None) -> list[Runtime]:
    """The rows that `auto` may take, the best for this network and number of images first."""
    rows = [row for row in RUNTIMES.values() if row.by_itself]
    if _is_few(request):
        return sorted(rows, key=lambda row: row.opens)
    if request.precision == "bfloat16":
        return rows  # our kernels compute it on every processor
    if bundle is not None and bundle.manifest.model["num_parameters"] >= LARGE_PARAMETERS:
        return sorted(rows, key=lambda row: row.large)
    return rows


def _is_few(request: EngineRequest) -> bool:
    """Whether the answers take less time than opening an engine may."""
    return request.num_images is not None and request.num_images <= FEW_IMAGES


def _first_sentence(error: DensepathError) -> str:
    """The reason without the cure."""
    return str(error).split(". ")[0].rstrip(".")

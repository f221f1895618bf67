"""Which engine answers: the one that was named, or the best that there is for what is asked.

`auto` takes the first row of `RUNTIMES` that nothing is in the way of. For few images the
order is that of `opens`, by how soon an engine is ready; for a large network OpenVINO comes before
our own kernels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from densepath.bundle.bundle import Bundle
from densepath.bundle.formats import RUNTIMES, Precision, Runtime
from densepath.engines.obstacles import explain_obstacle, find_runtime, obstacle, way_out
from densepath.engines.request import AUTO, EngineRequest
from densepath.errors import DensepathError, EngineError, UnknownNameError, UsageError
from densepath.wording import counted

# So many images are answered in less time than a slower opening costs.
FEW_IMAGES = 64
# From so many parameters on OpenVINO is the faster: DPN-98, 107 and 131 (benchmarks/inference.py).
LARGE_PARAMETERS = 50_000_000


@dataclass(frozen=True)
class Choice:
    """The engine that will answer, and why it does."""

    engine: str
    reason: str

    def __str__(self) -> str:
        return f"engine {self.engine}: {self.reason}"


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
    if request.engine != AUTO:
        error = obstacle(find_runtime(request.engine), request, bundle)
        if error is not None:
            raise error
        return Choice(request.engine, "as asked")
    passed: list[str] = []
    errors: list[DensepathError] = []
    for row in _by_preference(request, bundle):
        error = obstacle(row, request, bundle)
        if error is None:
            few = _is_few(request)
            reason = (
                f"ready soonest for {counted(request.num_images or 0, 'image')}" if few else row.why
            )
            return Choice(row.name, reason + (f" (not {passed[0]})" if passed else ""))
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
    choices = list(dict.fromkeys(one for row in RUNTIMES.values() for one in row.precisions))
    if request.precision not in choices:
        raise UnknownNameError("precision", request.precision, choices)
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
    if request.precision != "float32":
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
    if bundle is not None and bundle.manifest.model["num_parameters"] >= LARGE_PARAMETERS:
        return sorted(rows, key=lambda row: row.large)
    return rows


def _is_few(request: EngineRequest) -> bool:
    """Whether the answers take less time than opening an engine may."""
    return request.num_images is not None and request.num_images <= FEW_IMAGES


def _first_sentence(error: DensepathError) -> str:
    """The reason without the cure."""
    return str(error).split(". ")[0].rstrip(".")

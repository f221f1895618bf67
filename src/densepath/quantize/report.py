"""What quantising came to: each form's methods and scores, for the manifest and for a person."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from densepath.engines.litert import Kernels
from densepath.engines.onnxruntime import EXACT_INT8
from densepath.quantize.calibration import Calibration
from densepath.quantize.operators import Operators
from densepath.quantize.scoring import Score
from densepath.quantize.sensitivity import Sensitivity
from densepath.wording import in_markdown, percent

SHOWN_LAYERS = 10
PICTURE = (
    "`sensitivity.png` has all of them, in the order of the network: the lower a bar, the more the",
    "answers suffer when that convolution alone has 8 bits. Red ones stay in float32.",
)
KERNELS: dict[Kernels, str] = {
    "reference": "litert was run by LiteRT's reference kernels, whose integers are an NPU's.",
    "optimised": "litert was run by LiteRT's optimised kernels, as a CPU runs it; the integers of "
    "an NPU differ by a few steps, and `--for npu` judges by those.",
}
OWN_SESSIONS = (
    "model.onnx in a program of your own, on x86 processors without VNNI: ONNX Runtime is exact\n"
    f"with `{EXACT_INT8}` set to `1` in its session options; without it, sums may saturate."
)


@dataclass(frozen=True)
class FormReport:
    """An INT8 form.

    Attributes:
        format: as the manifest calls it.
        method: that was chosen.
        scores: of every method that was tried, on the images that were held out.
        operators: of the chosen one.
        size_bytes: of its model's files.
        kernels: of LiteRT that ran it; None of another runtime.
    """

    format: str
    method: str
    scores: dict[str, Score]
    operators: Operators | None
    size_bytes: int
    kernels: Kernels | None = None

    @property
    def score(self) -> Score:
        """The chosen method's."""
        return self.scores[self.method]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "method": self.method,
            "tried": {name: score.to_dict() for name, score in self.scores.items()},
            "operators": None if self.operators is None else self.operators.to_dict(),
            "size_bytes": self.size_bytes,
            "kernels": self.kernels,
        }


@dataclass(frozen=True)
class QuantizationReport:
    """How an INT8 bundle was made, and how its answers compare with the float network's.

    Attributes:
        model: the network's name.
        purpose: what it is for.
        calibration: the images that ranges were measured on.
        judged_on: the images that methods were chosen by.
        seed: drew both.
        keep_float: the modules that stay in float32.
        float_bytes: of the checkpoint's weights.
        forms: one a format.
        sensitivity: of the convolutions, where it was measured.
    """

    model: str
    purpose: str
    calibration: Calibration
    judged_on: Calibration
    seed: int
    keep_float: list[str]
    float_bytes: int
    forms: list[FormReport]
    sensitivity: list[Sensitivity] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "purpose": self.purpose,
            "calibration": {
                "images": self.calibration.description,
                "num_images": len(self.calibration),
                "seed": self.seed,
                "sha256": self.calibration.digest(),
                "names": self.calibration.names,
                "notes": list(self.calibration.notes),
            },
            "judged_on": {
                "images": self.judged_on.description,
                "num_images": len(self.judged_on),
                "held_out": self.judged_on is not self.calibration,
            },
            "keep_float": self.keep_float,
            "formats": {form.format: form.to_dict() for form in self.forms},
            "sensitivity": {one.name: round(one.snr_db, 2) for one in self.sensitivity},
        }

    def to_markdown(self) -> str:
        """The report for a person."""
        parts = self._opening(), self._forms(), self._tried(), self._layers()
        return "\n".join(line for part in parts for line in part) + "\n"

    def _opening(self) -> list[str]:
        """The lines on how the bundle was made."""
        held = self.judged_on is not self.calibration
        judged = "others, held out" if held else "the same ones, for there are no others"
        kept = ", ".join(self.keep_float) or "none"
        return [
            f"# {self.model} in INT8, for {self.purpose}",
            "",
            f"Ranges of activations: {in_markdown(self.calibration.description)}.",
            *(f"Note: {in_markdown(note)}." for note in self.calibration.notes),
            f"Methods were chosen by {len(self.judged_on)} images: {judged}.",
            "Agreement is the share of these images with the same best class as the float network;",
            "SNR is the power of its logits over that of the difference. Weights have a scale a",
            "channel.",
            f"Layers that stay in float32: {kept}.",
            "",
        ]

    def _forms(self) -> list[str]:
        """The lines on the forms and their scores."""
        lines = [
            "| format | method | agreement | SNR, dB | operators in INT8 | others | size, MB |",
            "|---|---|--:|--:|--:|---|--:|",
        ]
        for form in self.forms:
            share, others = "not told", ""
            if form.operators is not None:
                share = f"{percent(form.operators.share)} of {_total(form.operators)}"
                others = ", ".join(f"{n} {kind}" for kind, n in form.operators.others.items())
            lines.append(
                f"| {form.format} | {form.method} | {percent(form.score.agreement)} "
                f"| {form.score.snr_db:.1f} | {share} | {others or 'none'} "
                f"| {form.size_bytes / 1e6:.2f} |"
            )
        lines.append(f"| float32 weights | | | | | | {self.float_bytes / 1e6:.2f} |")
        notes = [KERNELS[form.kernels] for form in self.forms if form.kernels is not None]
        notes += [OWN_SESSIONS for form in self.forms if form.format == "onnx"]
        return [*lines, "", *(line for note in notes for line in (note, ""))]

    def _tried(self) -> list[str]:
        """The lines on every method that was tried."""
        lines = ["| format | method tried | agreement | SNR, dB |", "|---|---|--:|--:|"]
        lines += [
            f"| {form.format} | {name} | {percent(score.agreement)} | {score.snr_db:.1f} |"
            for form in self.forms
            for name, score in form.scores.items()
        ]
        return [*lines, ""]

    def _layers(self) -> list[str]:
        """The lines on the layers and what 8 bits cost each."""
        if not self.sensitivity:
            return []
        worst = sorted(self.sensitivity, key=lambda one: one.snr_db)[:SHOWN_LAYERS]
        lines = ["The layers that 8 bits hurt most, each rounded alone:", ""]
        lines += ["| layer | SNR of the logits, dB |", "|---|--:|"]
        lines += [f"| {one.name} | {one.snr_db:.1f} |" for one in worst]
        return [*lines, "", *PICTURE, ""]


def _total(operators: Operators) -> int:
    """All operators that are counted."""
    return operators.int8 + sum(operators.others.values())

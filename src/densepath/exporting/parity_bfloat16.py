"""Engines in bfloat16 on the images of the parity report: what `--precision auto` goes by.

A processor without the instructions computes the same numbers on our kernels in float32, slower: so
their report is made on any machine. Other engines are run where it has the instructions. It is
measured, not bound: no bundle is refused for it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from densepath.bundle.bfloat16 import (
    BEST,
    MOST_SCORE,
    OURS,
    TIE,
    BFloat16Report,
    is_judged_by_score,
)
from densepath.bundle.formats import RUNTIMES, Runtime
from densepath.engines.engine import Logits, Normalised
from densepath.engines.machine import has_amx, missing_bfloat16
from densepath.engines.opening import Opening, open_runtime
from densepath.errors import EngineError
from densepath.exporting.parity import compare, score_differences


def is_quick_in_bfloat16(formats: Container[str]) -> bool:
    """Whether this processor multiplies bfloat16, and a format has an engine that does."""
    return any(_rows(formats)) and not missing_bfloat16()


def measure_bfloat16(
    openings: Mapping[str, Opening],
    inputs: Normalised,
    expected: Logits,
    *,
    multi_label: bool,
    temperature: float | None,
    others: bool,
    say: Callable[[str], None] = lambda step: None,
) -> dict[str, BFloat16Report]:
    """The report of each engine on `inputs` and the logits that the reference gives them.

    Engines that cannot be opened are left out: our kernels, where they cannot be compiled.

    Args:
        openings: the network in each format, and how it is to be run.
        inputs: float32 [N, C, H, W].
        expected: float32 [N, classes].
        multi_label: each class is a yes or no of its own.
        temperature: that logits are divided by before they are scores.
        others: engines besides our own are run, too.
        say: is told of each engine.
    """
    reports: dict[str, BFloat16Report] = {}
    for row in _rows(openings):
        if others or row.name == OURS:
            say(f"running {row.format} on {row.name} in bfloat16")
            found = _run(row, replace(openings[row.format], precision="bfloat16"), inputs)
            if found is not None:
                report = report_of(
                    found, expected, multi_label=multi_label, temperature=temperature
                )
                reports[row.name] = replace(report, amx=row.name == OURS and has_amx())
    return reports


def _rows(formats: Container[str]) -> Iterator[Runtime]:
    """The engines that `auto` may take in bfloat16 for one of the formats."""
    for row in RUNTIMES.values():
        if row.is_raced_in("bfloat16") and row.format in formats:
            yield row


def _run(row: Runtime, opening: Opening, inputs: Normalised) -> Logits | None:
    """The logits of the inputs; None where the engine cannot be opened here."""
    try:
        engine = open_runtime(row, opening)
    except EngineError:
        return None
    try:
        return engine.run_tensor(inputs)
    finally:
        engine.close()


def report_of(
    found: Logits, expected: Logits, *, multi_label: bool, temperature: float | None = None
) -> BFloat16Report:
    """The figures of logits [N, classes] beside those of the reference."""
    kind: dict[str, Any] = {"multi_label": multi_label, "temperature": temperature}
    figures = compare(found, expected, **kind, bound=TIE)
    five = [np.argsort(-logits, axis=1, kind="stable")[:, :BEST] for logits in (found, expected)]
    same = (np.sort(five[0]) == np.sort(five[1])).all(1)
    by_score = is_judged_by_score(expected.shape[1], multi_label=multi_label)
    if by_score:
        same = score_differences(found, expected, **kind) <= MOST_SCORE
    return BFloat16Report(
        num_images=len(expected),
        top1=figures["top1"],
        ties=figures["ties"],
        top5=float(same.mean()),
        max_difference=figures["max_difference"],
        relative=figures["relative"],
        score=figures["score"],
        by_score=by_score,
    )

"""Our kernels in bfloat16 on the images of the parity report: what `--precision auto` goes by.

A processor without the instructions computes the same numbers in float32, slower: so the report is
made on any machine. It is measured, not bound: no bundle is refused for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from densepath.bundle.bfloat16 import TIE, BFloat16Report
from densepath.bundle.formats import RUNTIMES
from densepath.engines.engine import Logits, Normalised
from densepath.engines.opening import Opening, open_runtime
from densepath.errors import EngineError
from densepath.exporting.parity import BEST, compare
from densepath.weights.checkpoint import Checkpoint


def measure_bfloat16(
    model: Path, checkpoint: Checkpoint, inputs: Normalised, expected: Logits
) -> BFloat16Report | None:
    """The report on `inputs` and the logits that the reference gives them.

    `model` is the file of the format torch. None where our kernels cannot be compiled.
    """
    opening = Opening(
        model,
        checkpoint.preprocess,
        checkpoint.in_channels,
        checkpoint.num_classes,
        precision="bfloat16",
        mode="latency",
    )
    try:
        engine = open_runtime(RUNTIMES["native"], opening)
    except EngineError:
        return None
    try:
        found = engine.run_tensor(inputs)
    finally:
        engine.close()
    return report_of(found, expected, multi_label=checkpoint.multi_label)


def report_of(found: Logits, expected: Logits, *, multi_label: bool) -> BFloat16Report:
    """The figures of logits [N, classes] beside those of the reference."""
    figures = compare(found, expected, multi_label=multi_label, bound=TIE)
    five = [np.argsort(-logits, axis=1, kind="stable")[:, :BEST] for logits in (found, expected)]
    same = np.sort(five[0]) == np.sort(five[1])
    return BFloat16Report(
        num_images=len(expected),
        top1=figures["top1"],
        ties=figures["ties"],
        top5=float(same.all(1).mean()),
        max_difference=figures["max_difference"],
        relative=figures["relative"],
        score=figures["score"],
    )

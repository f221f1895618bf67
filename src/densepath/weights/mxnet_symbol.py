"""MXNet: what the graph beside a `.params` file says of its BatchNorms and its last layer.

A checkpoint of MXNet's is `NAME-0000.params` with `NAME-symbol.json`. The graph has what the
arrays lack: ε, `fix_gamma` (γ is then taken as 1, whatever is stored), softmax or sigmoid.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densepath.errors import KeyMismatchError, WeightsError
from densepath.wording import first_of

MOST_BYTES = 64 << 20
# The defaults of MXNet's BatchNorm (`src/operator/nn/batch_norm-inl.h`), which a graph leaves out.
DEFAULT_EPS, DEFAULT_FIX_GAMMA = 1e-3, "True"
_SIGMOIDS = ("LogisticRegressionOutput", "sigmoid")


@dataclass(frozen=True)
class Symbol:
    """What a graph says.

    Attributes:
        bn_eps: ε of every BatchNorm; None where it has no BatchNorm.
        fixed: the names of the γ that are taken as 1.
        multi_label: a sigmoid stands behind the last layer.
    """

    bn_eps: float | None
    fixed: frozenset[str]
    multi_label: bool


def symbol_of(path: Path) -> Path:
    """Where the graph of a `.params` file would be."""
    return path.with_name(re.sub(r"(-\d{4})?$", "", path.stem) + "-symbol.json")


def read_symbol(path: Path) -> Symbol:
    """What the graph in a `-symbol.json` says.

    Raises:
        KeyMismatchError: its BatchNorms differ in ε.
        WeightsError: it is no graph of MXNet's.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("it is too large")
        nodes = json.loads(path.read_bytes())["nodes"]
        norms = [node for node in nodes if node["op"] in ("BatchNorm", "BatchNorm_v1")]
        eps = {float(_attributes(node).get("eps", DEFAULT_EPS)) for node in norms}
        fixed = {
            nodes[node["inputs"][1][0]]["name"]
            for node in norms
            if str(_attributes(node).get("fix_gamma", DEFAULT_FIX_GAMMA)) in ("True", "1")
        }
        last = [node for node in nodes if node["op"] != "null"][-1]
        kind = _attributes(last).get("act_type", last["op"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read as a graph of MXNet's: {error}") from error
    if len(eps) > 1:
        raise KeyMismatchError(
            f"{path}: the BatchNorms have different ε ({first_of(sorted(map(str, eps)))}); a "
            "DenseNet or DPN has one for all."
        )
    return Symbol(next(iter(eps), None), frozenset(map(str, fixed)), kind in _SIGMOIDS)


def _attributes(node: dict[str, Any]) -> dict[str, Any]:
    """A node's attributes; older versions of MXNet called them `attr` and `param`."""
    found: dict[str, Any] = {}
    for key in ("param", "attr", "attrs"):
        found |= node.get(key) or {}
    return found

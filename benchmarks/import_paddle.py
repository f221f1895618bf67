"""Inference models that Paddle wrote → `densepath import` → logits, against Paddle's own.

Run: python benchmarks/import_paddle.py FOLDER, which the peer's saver makes:

    benchmarks/peers/install.sh paddleclas
    cd benchmarks/peers/paddleclas
    for form in json pdmodel; do .venv/bin/python save_inference.py $form FOLDER; done

Paddle's logits are those of `tests/parity/logits/paddleclas.npz`, which `logits.py` beside the
saver wrote with the same formula. The results stand in `benchmarks/results/`, as JSON and a table.
"""

from __future__ import annotations

import argparse
import datetime
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from parity import ROOT, SIZES, differences

from densepath.files import write_json, write_text
from densepath.weights.import_file import import_weights

FORMS = {"json": "inference.json", "pdmodel": "inference.pdmodel"}
BOUND = 1e-4
ABOUT = """\
# PaddleClas's inference models, imported, {date}

PaddleClas's own networks, filled with the formula of `src/densepath/weights/formula.py`, saved by
`paddle.jit.save` as its `export_model.py` does: in Paddle 3's form (PIR JSON) and in Paddle 2's
(protobuf), each with its `.pdiparams`. `densepath.import_weights` reads them without Paddle and
finds model, switches and every tensor by the program's structure; our network answers the formula's
image of three sizes (height x width). The cells are max |Δlogit| against PaddleClas's own answers;
the bound is {bound:g}.

Written by: {peer}. Read on PyTorch {torch}, NumPy {numpy}.
Command: `python benchmarks/import_paddle.py FOLDER`, whose first lines say how FOLDER is made.

| model | file | MB | found | tensors | largest logit | {sizes} |
|---|---|---|---|---|---|{rules}
"""


def compare(file: Path, model: str, stored: Any) -> dict[str, Any]:
    """One row: a file against Paddle's logits of its model."""
    notes: list[str] = []
    checkpoint = import_weights(file, say=notes.append)
    upstream = {size: stored[f"{model}/{size}"] for size in SIZES}
    deltas = dict(zip(SIZES, differences(checkpoint, upstream), strict=True))
    if max(deltas.values()) > BOUND:
        raise SystemExit(f"{file}: {deltas}")
    size_bytes = sum(one.stat().st_size for one in (file, file.with_suffix(".pdiparams")))
    return {
        "model": model,
        "file": file.name,
        "size_bytes": size_bytes,
        "found": checkpoint.spec.name,
        "bn_eps": checkpoint.spec.arch.bn_eps,
        "tensors": len(checkpoint.tensors),
        "notes": len(notes),
        "largest_logit": float(np.abs(upstream[SIZES[0]]).max()),
        "deltas": deltas,
    }


def main() -> None:
    """Compares every model in both forms; a form or model that was compared before is left out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    date = datetime.date.today().isoformat()
    stem = ROOT / "benchmarks" / "results" / f"{date}-import-paddle"
    parser.add_argument("--output", type=Path, default=stem)
    given = parser.parse_args()
    stored = np.load(ROOT / "tests" / "parity" / "logits" / "paddleclas.npz")
    about = json.loads(str(stored["about"]))
    kept = given.output.with_suffix(".json")
    rows = json.loads(kept.read_text())["rows"] if kept.is_file() else []
    done = {(row["model"], row["file"]) for row in rows}
    models = list(dict.fromkeys(key.partition("/")[0] for key in stored if key != "about"))
    for model in models:
        for form, name in FORMS.items():
            file = given.folder / form / model / name
            if (model, name) not in done and file.is_file():
                rows.append(compare(file, model, stored))
                write_json(kept, {"date": date, "peer": about["versions"], "rows": rows})
                print(model, name, rows[-1]["deltas"], flush=True)
    write_text(given.output.with_suffix(".md"), page(rows, about["versions"], date))


def page(rows: list[dict[str, Any]], peer: dict[str, str], date: str) -> str:
    """The table of all rows, with what was compared."""
    text = ABOUT.format(
        date=date,
        bound=BOUND,
        peer=", ".join(f"{name} {number}" for name, number in peer.items()),
        torch=version("torch"),
        numpy=version("numpy"),
        sizes=" | ".join(SIZES),
        rules="---|" * len(SIZES),
    )
    for row in rows:
        cells = [
            row["model"],
            row["file"],
            f"{row['size_bytes'] / 1e6:.0f}",
            f"`{row['found']}`, ε {row['bn_eps']:g}",
            str(row["tensors"]),
            f"{row['largest_logit']:.1f}",
            *(f"{row['deltas'][size]:.1e}" for size in SIZES),
        ]
        text += "| " + " | ".join(cells) + " |\n"
    largest = max((max(row["deltas"].values()) for row in rows), default=0.0)
    return f"{text}\n{len(rows)} files, the largest difference {largest:.1e}.\n"


if __name__ == "__main__":
    main()

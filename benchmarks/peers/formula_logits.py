"""What the scripts of the peers share: inputs, parameters by formula, and the files written.

Runs in the peers' environments, where neither torch nor densepath is installed: of densepath's
sources only those parts are imported that need NumPy alone.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from densepath.weights.formula import formula_images, formula_picture, formula_tensor  # noqa: E402
from densepath.weights.key_map import KeyMap, differences  # noqa: E402

# The published size, and two odd ones that tell floor from ceil and one padding from another.
SIZES = ((224, 224), (193, 225), (160, 127))
PICTURES = ((375, 500), (501, 334), (231, 310))
OUTPUT = ROOT / "tests" / "parity"
STEP = 7  # of the preprocessed pixels, every seventh of each row and column is stored


def fill(
    names: KeyMap, shapes: Mapping[str, tuple[int, ...]], transposed: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """The formula's value of each of the peer's tensors, by the peer's names.

    `names` is the whole table of a network: a key of either side that the other lacks ends the
    script. Tensors of ours that are in `transposed` are stored [inputs, outputs] by the peer.
    """
    missing, unexpected = differences(names, shapes)
    if missing or unexpected:
        raise SystemExit(f"missing: {missing[:5]}; unexpected: {unexpected[:5]}")
    values: dict[str, np.ndarray] = {}
    for ours, theirs in names.items():
        shape = list(shapes[theirs[0]])
        shape[0] = sum(shapes[key][0] for key in theirs)
        if ours in transposed:
            shape.reverse()
        whole = formula_tensor(ours, tuple(shape))
        if ours in transposed:
            whole = np.ascontiguousarray(whole.T)
        ends = np.cumsum([shapes[key][0] for key in theirs])[:-1]
        values.update(zip(theirs, np.split(whole, ends), strict=True))
    return values


def inputs() -> Iterator[tuple[str, np.ndarray]]:
    """One image of each size, with the size's name as `224x224` (height, width)."""
    for height, width in SIZES:
        yield f"{height}x{width}", formula_images(1, height, width)


def write_logits(
    peer: str,
    script: str,
    versions: dict[str, str],
    models: list[str],
    predict: Callable[[str], Callable[[np.ndarray], np.ndarray]],
) -> None:
    """The file `tests/parity/logits/PEER.npz` holds the logits of all models, as `MODEL/SIZE`."""
    arrays: dict[str, np.ndarray] = {}
    for model in models:
        run = predict(model)
        for size, images in inputs():
            arrays[f"{model}/{size}"] = run(images)[0].astype(np.float32)
        print(model, float(np.abs(arrays[f"{model}/224x224"]).max()), flush=True)
    _write(OUTPUT / "logits" / f"{peer}.npz", arrays, peer, script, versions)


def write_inputs(
    peer: str,
    script: str,
    versions: dict[str, str],
    preprocess: Mapping[str, Callable[[np.ndarray], np.ndarray]],
) -> None:
    """The file `tests/parity/inputs/PEER.npz` holds what the peer makes of pictures.

    `preprocess` goes from uint8 HWC to float32 CHW, by the name of the published weights that
    are used with it; the arrays are `NAME/HEIGHTxWIDTH`, every seventh pixel.
    """
    arrays = {
        f"{name}/{height}x{width}": np.asarray(way(formula_picture(height, width)), np.float32)[
            :, ::STEP, ::STEP
        ]
        for name, way in preprocess.items()
        for height, width in PICTURES
    }
    _write(OUTPUT / "inputs" / f"{peer}.npz", arrays, peer, script, versions)


def _write(
    path: Path, arrays: dict[str, np.ndarray], peer: str, script: str, versions: dict[str, str]
) -> None:
    """The arrays are in the file, and under `about` what made them."""
    about = {
        "peer": peer,
        "script": script,
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "versions": versions,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, about=np.array(json.dumps(about, sort_keys=True)), **arrays)

"""Small files that upstream's own savers wrote hold, read by us, exactly what was saved.

`benchmarks/peers/*/save.py --samples` wrote them: the tensors of DenseNet-121's stem, filled by
formula, with Paddle 3.3.1, MindSpore 2.10.0, PyTorch 2.13.0 and safetensors 0.8.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from densepath.models.catalogue import find_spec
from densepath.weights import mindspore, paddle
from densepath.weights.formula import formula_tensor
from densepath.weights.match import expected_shapes
from densepath.weights.state_dicts import read_tensors

FILES = Path(__file__).with_name("files")
SPEC = find_spec("densenet121")
STEM = {
    name: shape
    for name, shape in expected_shapes(SPEC, 1000, 3).items()
    if name.startswith(("features.conv0", "features.norm0"))
}
NAMES = {
    "paddle": {name: keys[0] for name, keys in paddle.key_map(SPEC).items()},
    "mindcv": {name: keys[0] for name, keys in mindspore.key_map(SPEC).items()},
    "pytorch": {name: name for name in STEM},
}


def saved_tensor(name, file):
    """What was saved: the formula's values, in the bfloat16 file rounded to that type."""
    whole = torch.from_numpy(formula_tensor(name, STEM[name]))
    return whole.bfloat16().float() if file.startswith("bfloat16") else whole


@pytest.mark.parametrize(
    ("file", "naming"),
    [
        ("protocol2.pdparams", "paddle"),
        ("protocol3.pdparams", "paddle"),
        ("protocol4.pdparams", "paddle"),
        ("plain.ckpt", "mindcv"),
        ("crc.ckpt", "mindcv"),
        ("bfloat16.ckpt", "mindcv"),
        ("zip.pth", None),
        ("legacy.pth", None),
        ("hub.safetensors", None),
    ],
)
def test_a_file_of_upstream_holds_what_was_saved(file, naming):
    found_naming, found = read_tensors(FILES / file)
    assert found_naming == naming
    names = NAMES[naming or "pytorch"]
    found = found.tensors
    kept = {name for name in found if not name.endswith("num_batches_tracked")}
    assert kept == {names[name] for name in STEM}
    for name in STEM:
        assert np.array_equal(found[names[name]], saved_tensor(name, file))

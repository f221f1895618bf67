"""Programs of torch.export: today's archive, and the form of torch 2.1 to 2.7.

Today's is the real file of `tests/parity/torch_files/`, changed; the older form is made here as
`torch._export.serde.serialize` of those versions wrote it: a program in JSON beside files of
`torch.save`.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch

from densepath.errors import WeightsError
from densepath.weights.import_file import import_weights
from densepath.weights.pytorch import read_pth

PROGRAM = Path(__file__).parents[1] / "parity" / "torch_files" / "torch_densenet121_program.pt2"
CONFIG = "data/weights/model_weights_config.json"


def changed(tmp_path, change):
    """The real archive with its members changed by `change` of a table of them."""
    with zipfile.ZipFile(PROGRAM) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    top = next(iter(members)).partition("/")[0]
    members = {name.removeprefix(f"{top}/"): content for name, content in members.items()}
    change(members)
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as new:
        for name, content in members.items():
            new.writestr(f"{top}/{name}", content)
    return tmp_path / "x.pt2"


def set_meta(members, **values):
    table = json.loads(members[CONFIG])
    next(iter(table["config"].values()))["tensor_meta"].update(values)
    members[CONFIG] = json.dumps(table).encode()


def test_the_older_form_has_the_same_tensors(tmp_path):
    whole = read_pth(PROGRAM)
    state = io.BytesIO()
    torch.save(dict(whole), state)
    program = {"nodes": [{"name": "eps", "arg": {"as_float": 0.002}}]}
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as made:
        made.writestr("serialized_exported_program.json", json.dumps(program))
        made.writestr("serialized_state_dict.pt", state.getvalue())
        made.writestr("serialized_constants.pt", b"")
        made.writestr("version", "8.2")
    checkpoint = import_weights(tmp_path / "old.pt2")
    assert checkpoint.spec.arch.bn_eps == 0.002
    assert checkpoint.provenance["kind"] == "a program of torch.export"
    for name, tensor in checkpoint.tensors.items():
        assert torch.equal(tensor, whole[name])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.pop(CONFIG), "with no table of weights"),
        (lambda m: m.update({"data/weights/b_weights_config.json": m[CONFIG]}), "with 2 tables"),
        (lambda m: m.pop("data/weights/weight_0"), "lacks its part data/weights/weight_0"),
        (lambda m: m.update({"data/weights/weight_0": b"1234"}), "not in it whole"),
        (lambda m: set_meta(m, dtype=99), "unknown type 99"),
        (lambda m: set_meta(m, sizes=[{"as_int": 1 << 50}]), "with 4 strides"),
        (lambda m: m.update({CONFIG: b"[" * 100_000}), "cannot be read as a PyTorch file"),
        (lambda m: m.update({CONFIG: b"{}"}), "cannot be read as a PyTorch file"),
    ],
)
def test_a_damaged_archive_is_refused_with_what_is_wrong(tmp_path, change, reason):
    with pytest.raises(WeightsError, match=reason):
        import_weights(changed(tmp_path, change))

"""What a program's description says, and that nothing else is opened as a program: without Vela."""

from __future__ import annotations

import hashlib
import json

import pytest

from densepath.bundle.sealed import write_sealed
from densepath.errors import BundleError, OutputError
from densepath.npu.description import COMPILED, LAYERS, PROGRAM, SOURCE, Description
from densepath.npu.program import Program
from fixtures.documents import changed

FILES = {SOURCE: b"TFL3", COMPILED: b"compiled", LAYERS: b"Target\n", "program.h": b"/* */\n"}
# As densepath wrote it before programs had a seal.
WRITTEN_BEFORE = """{
  "format": "densepath-npu-program",
  "version": 1,
  "model": "densenet_bc_22_12",
  "target": {
    "name": "ethos-u65-512",
    "macs_per_cycle": 512,
    "system_config": "Ethos_U65_High_End",
    "memory_mode": "Dedicated_Sram_512KB",
    "clock_hz": 1000000000.0
  },
  "tools": {"densepath": "0.1.0", "vela": "5.2.0"},
  "labels": ["cat", "Vögel"],
  "multi_label": false,
  "preprocess": {
    "size": [32, 32],
    "resize_short": null,
    "interpolation": "bilinear",
    "side_rounding": "truncate",
    "crop_rounding": "round",
    "mean": [0.4914, 0.4822, 0.4465],
    "std": [0.247, 0.2435, 0.2616]
  },
  "operators": {"npu": 49, "cpu": [], "share": 1.0, "reasons": []},
  "estimate": {
    "inference_ms": 0.325612,
    "cycles": 325612,
    "memory_bytes": {"sram": 169904, "dram": 277424, "on_chip_flash": 0, "off_chip_flash": 0},
    "traffic_bytes": {"sram": 1, "dram": 2, "on_chip_flash": 0, "off_chip_flash": 0},
    "sram_limit_bytes": 524288,
    "macs": 29912370,
    "fits": true,
    "not_counted": {"operators": 0, "macs": 0, "share_of_macs": 0.0, "moved_bytes": 0}
  },
  "layout": {
    "program_bytes": 104336,
    "weights_bytes": 92912,
    "commands_bytes": 7084,
    "scratch_bytes": 169904,
    "fast_bytes": 169904,
    "arena_bytes": 173088,
    "program_memory": "DRAM",
    "arena_memory": "DRAM",
    "fast_memory": "SRAM",
    "program_port": 1,
    "arena_port": 1,
    "operators": ["ethos-u"]
  },
  "files": {}
}
"""


@pytest.fixture
def document() -> dict:
    """A description of `FILES`, without a seal."""
    values = json.loads(WRITTEN_BEFORE)
    values["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    return values


@pytest.fixture
def folder(tmp_path, document):
    """A program as densepath wrote it before there were seals."""
    made = tmp_path / "program"
    made.mkdir()
    for name, data in FILES.items():
        (made / name).write_bytes(data)
    write_description(made, document)
    return made


def write_description(folder, values):
    """The folder's description has these members, whatever they are."""
    text = json.dumps(values, ensure_ascii=False)
    (folder / "program.json").write_text(text, encoding="utf-8")


def test_a_program_from_before_there_were_seals_opens_with_all_it_said(folder, document):
    made = Program.open(folder)
    assert json.loads(made.description.to_text()) == document
    assert (made.labels, made.multi_label) == (["cat", "Vögel"], False)
    assert made.preprocess.size == (32, 32)
    assert made.description.estimate.fits
    assert made.description.layout.operators == ("ethos-u",)
    assert made.model == folder / SOURCE


def test_a_sealed_program_is_read_back_and_needs_its_seal(folder, tmp_path):
    described = Description.from_text(
        json.dumps({**Program.open(folder).description.to_dict(), "seal": PROGRAM.seal}), "here"
    )
    target = tmp_path / "sealed"
    with write_sealed(target, PROGRAM) as (scratch, seal):
        for name, data in FILES.items():
            (scratch / name).write_bytes(data)
        seal(described.to_text())
    assert Program.open(target).description == described
    (target / "program.json.sha256").unlink()
    with pytest.raises(BundleError, match=r"program\.json\.sha256 is missing; copy the whole prog"):
        Program.open(target)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("format", "zip", "does not say that it describes a densepath-npu-program"),
        ("version", 9, "its version is 9; this densepath reads version 1. Compile it again, or"),
        ("version", "1", "its version is '1'"),
        ("version", True, "its version is True"),
        ("labels", ..., "the description lacks labels"),
        ("colour", "red", "the description has the unknown member colour"),
        ("labels", [1], "labels must be a list of names"),
        ("multi_label", 0, "multi_label must be true or false, not 0"),
        ("preprocess.size", 32, "preprocess.size must be a list, not 32"),
        ("preprocess.interpolation", "lanczos", "unknown interpolation 'lanczos'"),
        ("target", "ethos-u55-128", "target must be an object"),
        ("target.clock_hz", "fast", "target.clock_hz must be a number of 0 or more, not 'fast'"),
        ("target.name", "ethos-u99", "target.name must be one of ethos-u55-32"),
        ("target.macs_per_cycle", 1.5, "target.macs_per_cycle must be a whole number, not 1.5"),
        ("operators.share", None, "operators.share must be a number of 0 or more, not None"),
        ("operators.cpu", "none", "operators.cpu must be a list, not 'none'"),
        ("operators.cpu", [1], "operators.cpu: an item must be text, not 1"),
        ("estimate.memory_bytes", {"sram": 1}, "estimate.memory_bytes lacks dram"),
        ("estimate.memory_bytes", {"sram": -1}, "sram must lie in 0"),
        ("estimate.fits", False, "fits is False, and it needs 169,904 of 524,288 bytes of SRAM"),
        ("estimate.fits", ..., "estimate.fits must be true or false, not None"),
        ("estimate.not_counted", ..., "estimate lacks not_counted"),
        ("estimate.not_counted.macs", True, "not_counted.macs must be a whole number, not True"),
        ("layout.arena_port", None, "layout.arena_port must be a whole number, not None"),
        ("layout.extra", 1, "layout has the unknown member extra"),
        ("files", {}, "files lacks model.tflite, program_vela.tflite, layers.csv"),
        ("files", {"../x": "0" * 64}, "a file's name must be a plain one, without folders"),
        ("files", {SOURCE: "0" * 63}, "must be 64 hexadecimal digits"),
        ("files", [], r"files must be an object, not \[\]"),
        ("seal", "other.sha256", "seal must be one of program.json.sha256, not 'other.sha256'"),
    ],
)
def test_a_wrong_field_is_named(folder, document, place, value, reason):
    write_description(folder, changed(document, place, value))
    with pytest.raises(BundleError, match=reason) as caught:
        Program.open(folder)
    assert str(caught.value).startswith(f"{folder}: ")


def test_a_program_appears_whole_or_not_at_all(folder, tmp_path):
    def fail() -> None:
        with write_sealed(folder, PROGRAM, overwrite=True) as (scratch, _):
            (scratch / SOURCE).write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert Program.open(folder).labels == ["cat", "Vögel"]
    assert [path.name for path in tmp_path.iterdir()] == ["program"]


def test_an_old_program_is_replaced_only_when_asked_and_no_other_folder_ever(folder, tmp_path):
    with pytest.raises(OutputError, match="is a program already; --overwrite"):
        write_sealed(folder, PROGRAM).__enter__()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("dear to me")
    with pytest.raises(OutputError, match="a folder with other files in it; name a new one"):
        write_sealed(tmp_path / "thesis", PROGRAM, overwrite=True).__enter__()

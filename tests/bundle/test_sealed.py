"""Bundles and programs for an NPU are sealed folders: damaged in one way, refused in one way."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from densepath.bundle.bundle import Bundle
from densepath.bundle.manifest import BUNDLE, File, Manifest, Tensor
from densepath.bundle.sealed import Kind, write_sealed
from densepath.errors import BundleError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.npu.description import (
    COMPILED,
    LAYERS,
    PROGRAM,
    SOURCE,
    CompiledFor,
    Description,
    OperatorPlacement,
)
from densepath.npu.estimate import Estimate, NotCounted
from densepath.npu.layout import MEMORY_NAMES, Layout
from densepath.npu.program import Program

FILES = {SOURCE: b"TFL3" * 16, COMPILED: b"compiled", LAYERS: b"Target\n"}


def hashes() -> dict[str, str]:
    """Of each file the SHA-256."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


def manifest() -> Manifest:
    """A bundle's description of the files."""
    return Manifest(
        model={"name": "densenet_bc_22_12", "family": "densenet", "num_parameters": 1},
        labels=["cat", "dog"],
        multi_label=False,
        preprocess=Preprocess((32, 32)),
        input=Tensor("images", "float32", (None, 3, 32, 32), "NCHW"),
        output=Tensor("logits", "float32", (None, 2)),
        precision="float32",
        formats={"litert": {"model": SOURCE}},
        files={
            name: File(digest, len(FILES[name]), ("litert",)) for name, digest in hashes().items()
        },
        source={"subject": None, "sha256": None, "provenance": {}},
        tools={},
        parity=None,
        created="2026-11-23T08:00:00Z",
    )


def description() -> Description:
    """A program's description of the same."""
    no_bytes = dict.fromkeys(MEMORY_NAMES.values(), 0)
    return Description(
        model="densenet_bc_22_12",
        target=CompiledFor("ethos-u55-128", 128, "Ethos_U55_High_End_Embedded", "Sram_Only", 5e8),
        tools={"vela": "5.2.0"},
        labels=["cat", "dog"],
        multi_label=False,
        preprocess=Preprocess((32, 32)),
        operators=OperatorPlacement(1, [], 1.0, []),
        estimate=Estimate(1.0, 1, no_bytes, no_bytes, 2048, 1, NotCounted.of([])),
        layout=Layout(0, 0, 0, 0, 0, 0, "SRAM", "SRAM", "SRAM", 0, 0, ("ethos-u",)),
        files=hashes(),
    )


@dataclass(frozen=True)
class Made:
    """A sealed folder, and what opens it with all of its files verified."""

    kind: Kind
    folder: Path
    open: Callable[[Path], object]

    def rewrite(self, data: bytes) -> None:
        """The description is `data`, and its hash is right."""
        (self.folder / self.kind.description).write_bytes(data)
        line = f"{hashlib.sha256(data).hexdigest()}  {self.kind.description}\n"
        (self.folder / self.kind.seal).write_text(line, encoding="ascii")


@pytest.fixture(params=["bundle", "program"])
def made(request, tmp_path) -> Made:
    """A sound folder of each kind."""
    kind, said, opener = {
        "bundle": (BUNDLE, manifest(), lambda folder: Bundle.open(folder, verify="all")),
        "program": (PROGRAM, description(), Program.open),
    }[request.param]
    folder = tmp_path / "made"
    with write_sealed(folder, kind) as (scratch, seal):
        for name, data in FILES.items():
            (scratch / name).write_bytes(data)
        seal(said.to_text())
    return Made(kind, folder, opener)


def test_a_sound_folder_opens_whatever_else_stands_in_it(made):
    (made.folder / "notes.txt").write_text("of somebody's own")
    (made.folder / "photos").mkdir()
    made.open(made.folder)
    made.open(made.folder.parent / "made")


def test_a_folder_may_be_renamed_and_reached_by_a_link(made, tmp_path):
    made.folder.rename(tmp_path / "other")
    made.open(tmp_path / "other")
    (tmp_path / "current").symlink_to("other")
    made.open(tmp_path / "current")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.unlink(), r"model\.tflite is missing; copy the whole {name} again"),
        (lambda p: (p.unlink(), p.mkdir()), r"model\.tflite is missing"),
        (lambda p: p.rename(p.with_name("renamed.tflite")), r"model\.tflite is missing"),
        (
            lambda p: p.write_bytes(b"TFL4" * 16),
            r"model\.tflite was changed: its sha256 is [0-9a-f]{{64}}, not the {word}'s "
            r"[0-9a-f]{{64}}\. Copy the {name} again\.",
        ),
        (lambda p: p.write_bytes(b"TFL3"), r"model\.tflite (has 4 bytes, not|was changed)"),
        (
            lambda p: (p.rename(p.parent.parent / "away"), p.symlink_to("../away")),
            r"model\.tflite is a link, not a file; copy the whole {name} again",
        ),
    ],
)
def test_a_file_that_is_not_what_was_sealed_is_named(made, damage, reason):
    damage(made.folder / SOURCE)
    with pytest.raises(
        BundleError, match=reason.format(name=made.kind.name, word=made.kind.word)
    ) as caught:
        made.open(made.folder)
    assert str(caught.value).startswith(f"{made.folder}: ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": 1, "a": 2}', "names a member twice"),
        (b'{"a": NaN}', "NaN is not a number of JSON"),
        (b'{"a": 1e999}', "too large a number"),
        (b"[]", "does not say that it describes a {format}"),
        (b'{"format": "zip"}', "does not say that it describes a {format}"),
        (b"\xff\xfe{}", "its {word} cannot be read"),
    ],
)
def test_a_description_that_is_none_is_refused(made, data, reason):
    made.rewrite(data)
    wanted = reason.format(format=made.kind.format, word=made.kind.word)
    with pytest.raises(BundleError, match=wanted):
        made.open(made.folder)


@pytest.mark.parametrize("share", [0, 0.3, 0.999])
def test_a_description_that_is_cut_off_is_noticed_by_its_hash(made, share):
    path = made.folder / made.kind.description
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BundleError, match=rf"{made.kind.description} was changed: its sha256 is"):
        made.open(made.folder)


def test_a_description_of_another_version_is_refused_with_both_numbers_and_the_cure(made):
    values = json.loads((made.folder / made.kind.description).read_text(encoding="utf-8"))
    made.rewrite(json.dumps({**values, made.kind.version_field: 2}).encode())
    cure = f"{made.kind.remake.capitalize()} again, or install the densepath that wrote it"
    with pytest.raises(BundleError, match=f"version is 2; this densepath reads version 1. {cure}"):
        made.open(made.folder)


@pytest.mark.parametrize("part", ["description", "seal"])
def test_a_part_of_the_seal_that_is_missing_is_named(made, part):
    name = getattr(made.kind, part)
    (made.folder / name).unlink()
    with pytest.raises(
        BundleError, match=rf"{name} is missing; copy the whole {made.kind.name} again"
    ):
        made.open(made.folder)


def test_what_is_no_such_folder_is_said_with_what_may_have_been_meant(made, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    start = rf"is not {made.kind.title}: it"
    makes = rf"`{made.kind.maker}` makes {made.kind.name}s\."
    for name, reason in (
        ("empty", rf"{start} has no {made.kind.description}\. {makes}"),
        ("file", rf"{start} is not a folder\. {makes}"),
        ("mode", rf"{start} is not a folder\. {makes} Did you mean .*made"),
        (".", rf"{start} has no {made.kind.description}\. {makes} In it are .*made: name one"),
        (f"made/{SOURCE}", rf"is a file of the {made.kind.name} .*made: name that folder"),
    ):
        with pytest.raises(BundleError, match=reason):
            made.open(tmp_path / name)


@pytest.mark.skipif(os.name == "nt", reason="POSIX names")
def test_a_folder_whose_name_is_no_utf_8_is_refused(made, tmp_path):
    named = tmp_path / os.fsdecode(b"caf\xe9")
    made.folder.rename(named)
    with pytest.raises(UsageError, match="is no UTF-8 name"):
        made.open(named)

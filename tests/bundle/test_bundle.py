"""What a bundle is, and that nothing else is opened as one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files as resource_files
from pathlib import Path

import jsonschema
import pytest

from densepath.bundle.bundle import Bundle, check_target, is_bundle, write_bundle
from densepath.bundle.manifest import File, Manifest, Tensor
from densepath.errors import BundleError, OutputError, UnknownNameError
from densepath.images.preprocess import Preprocess
from fixtures.documents import changed

CONTENTS = {
    "model.xml": (b"<net/>", ("openvino",)),
    "model.bin": (b"\x00" * 64, ("openvino",)),
    "preprocess.xml": (b"<pre/>", ("openvino",)),
    "preprocess.bin": (b"\x01" * 8, ("openvino",)),
    "model.safetensors": (b"tensors", ("torch",)),
    "parity.json": (b"{}", ()),
}


def manifest_of(contents: dict[str, tuple[bytes, tuple[str, ...]]]) -> Manifest:
    """A manifest of these files, as export writes it."""
    return Manifest(
        model={"name": "densenet_bc_22_12", "family": "densenet", "num_parameters": 160_000},
        labels=["cat", "dog", "Vögel"],
        multi_label=False,
        preprocess=Preprocess((32, 24), 40, "bicubic"),
        input=Tensor("images", "float32", (None, 3, 32, 24), "NCHW"),
        output=Tensor("logits", "float32", (None, 3)),
        precision="float32",
        formats={
            "openvino": {"model": "model.xml", "preprocess": "preprocess.xml"},
            "torch": {"model": "model.safetensors"},
        },
        files={
            name: File(hashlib.sha256(data).hexdigest(), len(data), formats)
            for name, (data, formats) in contents.items()
        },
        source={"subject": "x.safetensors", "sha256": "0" * 64, "provenance": {"run": 1}},
        tools={"densepath": "0.1.0"},
        parity={"passed": True},
        created="2026-11-23T08:00:00Z",
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """A sound bundle."""
    target = tmp_path / "bundle"
    with write_bundle(target) as (scratch, seal):
        for name, (data, _) in CONTENTS.items():
            (scratch / name).write_bytes(data)
        seal(manifest_of(CONTENTS))
    return target


@pytest.fixture
def document() -> dict:
    """The JSON document of that bundle's manifest."""
    return json.loads(manifest_of(CONTENTS).to_text())


def rewrite_manifest(folder: Path, text: str) -> None:
    """The manifest is `text`, and its hash is right."""
    data = text.encode("utf-8", "surrogatepass")
    (folder / "manifest.json").write_bytes(data)
    line = f"{hashlib.sha256(data).hexdigest()}  manifest.json\n"
    (folder / "manifest.json.sha256").write_text(line, encoding="ascii")


def test_what_was_written_is_read_back(folder):
    bundle = Bundle.open(folder, verify="all")
    assert bundle.manifest == manifest_of(CONTENTS)
    assert bundle.path_of("torch") == folder / "model.safetensors"
    assert bundle.path_of("openvino", "preprocess") == folder / "preprocess.xml"
    assert is_bundle(folder)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_the_manifests_hash_is_in_the_form_of_sha256sum(folder):
    run = subprocess.run(
        ["sha256sum", "-c", "manifest.json.sha256"], cwd=folder, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, "manifest.json: OK\n")


def test_opening_a_bundle_imports_nothing_heavy(folder):
    code = (
        f"from densepath.bundle.bundle import Bundle; Bundle.open({str(folder)!r}, verify='all')\n"
        "import sys; print(*[m for m in ('torch', 'pydantic', 'onnx', 'PIL') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_one_flipped_bit_of_the_manifest_is_noticed(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace("dog", "dig"), encoding="utf-8")
    with pytest.raises(
        BundleError, match=r"manifest\.json was changed: its sha256 is [0-9a-f]{64}"
    ):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "manifest.json").unlink(), r"manifest\.json is missing; copy the whole"),
        (lambda f: (f / "manifest.json.sha256").unlink(), r"manifest\.json\.sha256 is missing"),
        (lambda f: (f / "manifest.json.sha256").write_text(""), r"sha256 says nothing"),
        (lambda f: (f / "manifest.json.sha256").write_bytes(b"\xff"), "manifest cannot be read"),
        (lambda f: rewrite_manifest(f, "{"), r"manifest\.json is not JSON"),
        (lambda f: rewrite_manifest(f, ""), r"manifest\.json is not JSON"),
        (lambda f: rewrite_manifest(f, "[" * 100_000), r"manifest\.json is not JSON"),
        (lambda f: rewrite_manifest(f, "[]"), "does not say that it describes a densepath-bundle"),
        (lambda f: rewrite_manifest(f, '{"format": "zip"}'), "does not say that it describes"),
        (lambda f: rewrite_manifest(f, '"\ud800"'), "manifest cannot be read"),
        (lambda f: rewrite_manifest(f, '{"a": NaN}'), "NaN is not a number of JSON"),
        (lambda f: rewrite_manifest(f, '{"a": -Infinity}'), "-Infinity is not a number of JSON"),
        (lambda f: rewrite_manifest(f, '{"a": 1e999}'), "'1e999' is too large a number"),
        (lambda f: rewrite_manifest(f, '{"a": 1' + "0" * 5000 + "}"), "is not JSON"),
        (lambda f: rewrite_manifest(f, '{"a": 1, "a": 2}'), "names a member twice"),
    ],
)
def test_a_damaged_manifest_is_refused(folder, damage, reason):
    damage(folder)
    with pytest.raises(BundleError, match=reason):
        Bundle.open(folder)


def test_a_manifest_that_would_not_fit_into_memory_is_not_read(folder, monkeypatch):
    monkeypatch.setattr("densepath.bundle.sealed.MOST_BYTES", 100)
    with pytest.raises(BundleError, match="larger than any manifest is"):
        Bundle.open(folder)


# Where, what stands there instead, and what the message says. The schema refuses all of these.
WRONG_FIELDS = [
    ("format", "zip", "does not say that it describes a densepath-bundle"),
    ("schema_version", 2, "its schema version is 2; this densepath reads version 1. Export it"),
    ("schema_version", "1", "its schema version is '1'"),
    ("schema_version", True, "its schema version is True"),
    ("schema_version", ..., "its schema version is None"),
    ("labels", ..., "the manifest lacks labels"),
    ("colour", "red", "the manifest has the unknown member colour"),
    ("labels", [], "labels must be a list of names"),
    ("labels", ["cat", 2, "bird"], "labels must be a list of names"),
    ("labels", "cat", "labels must be a list of names"),
    ("multi_label", 0, "multi_label must be true or false, not 0"),
    ("model", None, "model must be an object, not None"),
    ("model.family", "resnet", "model.family must be one of densenet, dpn, not 'resnet'"),
    ("model.num_parameters", -1, "model.num_parameters must lie in 0"),
    ("model.num_parameters", 10**30, "model.num_parameters must lie in 0"),
    ("model.num_parameters", 1.5, "model.num_parameters must be a whole number, not 1.5"),
    ("model.extra", 1, "model has the unknown member extra"),
    ("preprocess", [], r"preprocess must be an object, not \[\]"),
    ("preprocess.size", 32, "preprocess.size must be a list, not 32"),
    ("preprocess.size", ["32", 24], "a side must be a whole number, not '32'"),
    ("preprocess.size", [32, 10**9], "a side must lie in 1 … 65535"),
    ("preprocess.size", [32], "size is"),
    ("preprocess.resize_short", 0, "a side must lie in 1 … 65535, not 0"),
    ("preprocess.interpolation", "lanczos", "unknown interpolation 'lanczos'"),
    ("preprocess.std", [0.1, 0.1, 0], "std above 0"),
    ("preprocess.mean", [0.1, None, 0.1], "mean and std must be numbers, not None"),
    ("preprocess.gamma", 2, "unknown field of preprocessing 'gamma'"),
    ("preprocess.mean", ..., "preprocess.mean must be a list, not None"),
    ("input.dtype", "uint8", "input.dtype must be one of float32, not 'uint8'"),
    ("input.layout", "NHWC", "input.layout must be one of NCHW, not 'NHWC'"),
    ("input.layout", ..., "input lacks layout"),
    ("input.shape", [None, 3, 32], "input.shape must be 4 sizes above 0 or null"),
    ("input.shape", [None, 3, 0, 24], "input.shape must be 4 sizes above 0 or null"),
    ("output.shape", "many", "output.shape must be 2 sizes above 0 or null, not 'many'"),
    ("precision", "float8", "precision must be one of float32, int8, not 'float8'"),
    ("formats", {}, "formats is empty"),
    ("formats.tensorrt", {"model": "model.xml"}, "must be one of onnx, openvino, torch, aoti"),
    ("formats.torch.preprocess", "preprocess.xml", "formats.torch has the unknown member"),
    ("formats.openvino.preprocess", ..., "formats.openvino lacks preprocess"),
    ("formats.torch.model", 3, "formats.torch.model must be text, not 3"),
    ("formats.torch.model", "../model.safetensors", "needs '../model.safetensors'"),
    ("files.model|xml.sha256", "0" * 63, "sha256 must be 64 hexadecimal digits"),
    ("files.model|xml.sha256", "G" * 64, "sha256 must be 64 hexadecimal digits"),
    ("files.model|xml.size_bytes", -1, "size_bytes must lie in 0"),
    ("files.model|xml.size_bytes", "6", "size_bytes must be a whole number, not '6'"),
    ("files.model|xml.formats", ["tflite"], "formats must be one of onnx, openvino, torch, aoti"),
    ("files.model|xml.mode", "0755", "has the unknown member mode"),
    ("files.model|xml", None, "must be an object, not None"),
    ("source.sha256", "none", "source.sha256 must be 64 hexadecimal digits"),
    ("source.provenance", "a friend", "source.provenance must be an object"),
    ("source.subject", 7, "source.subject must be text, not 7"),
    ("tools.torch", 2.13, "tools.torch must be text, not 2.13"),
    ("parity", "good", "parity must be an object, not 'good'"),
    ("created", "yesterday", "created must be as 2026-01-31T12:00:00Z, not 'yesterday'"),
]
PATHS = ("../x", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "", "c:x", "a\x00b", "manifest ")
WRONG_NAMES = [
    (f"files.{name.replace('.', '|')}", {"sha256": "0" * 64, "size_bytes": 0, "formats": []}, "")
    for name in PATHS
]


@pytest.mark.parametrize(("place", "value", "reason"), WRONG_FIELDS)
def test_a_wrong_field_is_named(folder, document, place, value, reason):
    rewrite_manifest(folder, json.dumps(changed(document, place, value)))
    with pytest.raises(BundleError, match=reason) as caught:
        Bundle.open(folder)
    assert str(caught.value).startswith(f"{folder}: ")


@pytest.mark.parametrize(("place", "value", "_"), WRONG_NAMES)
def test_a_file_name_that_leaves_the_folder_is_refused(folder, document, place, value, _):
    rewrite_manifest(folder, json.dumps(changed(document, place, value)))
    with pytest.raises(BundleError, match="a file's name must be a plain one, without folders"):
        Bundle.open(folder)


# What a schema cannot say: values that do not fit to one another.
@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("labels", ["cat"], "1 labels for 3 logits"),
        ("output.shape", [None, None], "3 labels for None logits"),
        ("input.shape", [None, 1, 32, 24], r"makes images \[3, 32, 24\], input.shape is \[None, 1"),
        ("input.shape", [None, None, 32, 24], "makes images"),
        ("input.shape", [None, 3, 24, 32], "makes images"),
        ("preprocess.std", [0.1, 0.1], "must have one value a channel"),
        ("preprocess.resize_short", 20, "resize_short is 20, less than the crop"),
        ("formats.torch.model", "other", "formats.torch.model needs 'other', which files does not"),
        ("files.model|xml", ..., "formats.openvino.model needs 'model.xml'"),
        ("files.model|bin", ..., "formats.openvino.model needs 'model.bin'"),
        ("files.preprocess|bin", ..., "formats.openvino.preprocess needs 'preprocess.bin'"),
        ("files.model|xml.formats", [], "needs 'model.xml', which files does not list for it"),
        ("files.model|bin.formats", ["torch"], "needs 'model.bin', which files does not list"),
    ],
)
def test_values_that_contradict_each_other_are_refused(folder, document, place, value, reason):
    rewrite_manifest(folder, json.dumps(changed(document, place, value)))
    with pytest.raises(BundleError, match=reason):
        Bundle.open(folder)


def test_a_graph_of_any_size_fits_to_every_preprocessing(folder, document):
    rewrite_manifest(folder, json.dumps(changed(document, "input.shape", [None, 3, None, None])))
    assert Bundle.open(folder).manifest.input.shape == (None, 3, None, None)


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    """The schema that ships, read by the validator that the schema's authors recommend."""
    path = resource_files("densepath.bundle") / "schema" / "manifest-1.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def test_the_schema_takes_what_export_writes(schema, document):
    schema.validate(document)
    schema.validate(changed(document, "parity", None))
    schema.validate({**document, "thresholds": [0.5, 0, 1], "temperature": 1.5})


def test_thresholds_and_temperature_are_read_back(folder):
    assert not {"thresholds", "temperature"} & json.loads(manifest_of(CONTENTS).to_text()).keys()
    chosen = dataclasses.replace(
        manifest_of(CONTENTS), multi_label=True, thresholds=(0.5, 0.1, 1.0), temperature=0.7
    )
    rewrite_manifest(folder, chosen.to_text())
    assert Bundle.open(folder).manifest == chosen


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"thresholds": [0.5, 0.5]}, "2 thresholds for 3 classes"),
        ({"thresholds": [0.5, 0.5, -1]}, "thresholds: a threshold lies in 0 … 1, not at -1"),
        ({"thresholds": [0.5, 0.5, 0.5], "multi_label": False}, "multi_label is false"),
        ({"temperature": "1"}, "temperature must be a number of 0 or more"),
        ({"temperature": 0}, "temperature lies above 0"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(folder, document, values, reason):
    rewrite_manifest(folder, json.dumps({**document, "multi_label": True, **values}))
    with pytest.raises(BundleError, match=reason):
        Bundle.open(folder)


@pytest.mark.parametrize(("place", "value", "_"), [*WRONG_FIELDS, *WRONG_NAMES])
def test_the_schema_refuses_what_the_reader_refuses(schema, document, place, value, _):
    assert not schema.is_valid(changed(document, place, value))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.unlink(), "model.bin is missing; copy the whole bundle again"),
        (lambda p: p.write_bytes(b"\x00" * 63), "model.bin has 63 bytes, not the 64 of the"),
        (lambda p: p.write_bytes(b"\x00" * 63 + b"\x01"), "model.bin was changed: its sha256 is"),
        (lambda p: (p.unlink(), p.mkdir()), "model.bin is missing"),
        (lambda p: (p.rename(p.parent.parent / "b"), p.symlink_to("../b")), "is a link, not a"),
    ],
)
def test_a_file_that_is_not_what_the_manifest_says_is_named(folder, damage, reason):
    damage(folder / "model.bin")
    with pytest.raises(BundleError, match=reason):
        Bundle.open(folder, verify="openvino")
    with pytest.raises(BundleError, match=reason):
        Bundle.open(folder, verify="all")
    # Another format's user is not kept from its files.
    assert Bundle.open(folder, verify="torch").path_of("torch").is_file()


def test_a_damaged_report_is_noticed_when_all_is_verified(folder):
    (folder / "parity.json").write_text("{ }")
    Bundle.open(folder, verify="torch")
    with pytest.raises(BundleError, match=r"parity\.json has 3 bytes"):
        Bundle.open(folder, verify="all")


@pytest.mark.parametrize("format", ["onnx", "aoti"])
def test_a_format_that_the_bundle_lacks_is_named_with_those_it_has(folder, format):
    for ask in (
        lambda: Bundle.open(folder, verify=format),
        lambda: Bundle.open(folder).path_of(format),
    ):
        with pytest.raises(BundleError, match=f"no {format} format; it has openvino, torch. Add"):
            ask()


def test_a_part_that_a_format_lacks_is_named(folder):
    with pytest.raises(BundleError, match="its format torch has no preprocess graph"):
        Bundle.open(folder).path_of("torch", "preprocess")


def test_an_unknown_verification_is_refused_with_the_choices(folder):
    with pytest.raises(
        UnknownNameError,
        match="all, aoti, executorch, litert, manifest, native, onnx, openvino, torch",
    ):
        Bundle.open(folder, verify="everything")


def test_what_is_no_bundle_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, reason in (
        ("none", "is not a folder"),
        ("file", "is not a folder"),
        ("empty", "has no"),
    ):
        with pytest.raises(BundleError, match=rf"{name} is not a bundle: it {reason}"):
            Bundle.open(tmp_path / name)
        assert not is_bundle(tmp_path / name)


def test_a_bundle_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "bundle"

    def fail() -> None:
        with write_bundle(target) as (scratch, _):
            (scratch / "model.xml").write_text("half")
            assert not target.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_old_bundle_is_replaced_whole_and_only_when_asked(folder):
    (folder / "left-over").write_text("of the old one")
    with pytest.raises(OutputError, match="is a bundle already; --overwrite replaces it"):
        check_target(folder, overwrite=False)
    few = {"model.safetensors": (b"new", ("torch",))}
    manifest = manifest_of(few)
    del manifest.formats["openvino"]
    with write_bundle(folder, overwrite=True) as (scratch, seal):
        (scratch / "model.safetensors").write_bytes(b"new")
        assert Bundle.open(folder, verify="all").manifest == manifest_of(CONTENTS)
        seal(manifest)
    assert Bundle.open(folder, verify="all").manifest == manifest
    assert {path.name for path in folder.iterdir()} == {
        *("manifest.json", "manifest.json.sha256", "model.safetensors")
    }
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_failure_leaves_the_old_bundle_in_place(folder):
    with pytest.raises(ZeroDivisionError), write_bundle(folder, overwrite=True):
        raise ZeroDivisionError
    assert Bundle.open(folder, verify="all").manifest == manifest_of(CONTENTS)


def test_no_folder_but_an_old_bundle_is_ever_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere/below")
    for name, reason in (
        ("photos", "a folder with other files in it; name a new one"),
        ("file", "is a file; name a folder"),
        ("dangling", "a link to .*nowhere/below, and there is no folder .*nowhere"),
    ):
        with (
            pytest.raises(OutputError, match=reason),
            write_bundle(tmp_path / name, overwrite=True),
        ):
            pass
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_an_empty_folder_may_become_a_bundle(tmp_path):
    with write_bundle(tmp_path) as (scratch, seal):
        for name, (data, _) in CONTENTS.items():
            (scratch / name).write_bytes(data)
        seal(manifest_of(CONTENTS))
    assert Bundle.open(tmp_path, verify="all")


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_the_files_of_a_bundle_are_for_everybody_who_may_read_new_files(folder, tmp_path):
    (tmp_path / "usual").write_text("")
    usual = (tmp_path / "usual").stat().st_mode
    assert {path.stat().st_mode for path in folder.iterdir()} == {usual}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"cannot write .*file/below"),
        write_bundle(tmp_path / "file" / "below"),
    ):
        pass

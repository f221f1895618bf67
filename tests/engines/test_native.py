"""Our own kernels give PyTorch's logits, for every kind of network, size and number of threads."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from densepath.engines import native
from densepath.engines.native import NativeEngine, read_tensors
from densepath.errors import CheckpointError, EngineError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.kernels import compile as compiling
from densepath.kernels import load
from densepath.models.plan import plan, serialise
from densepath.weights.checkpoint import Checkpoint
from fixtures.on_kernels import SPECS, network, open_engine, tensors_of


def check(engine, model, images):
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(
        engine.run_tensor(images), expected, atol=2e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("size", [(96, 96), (37, 50), (33, 130)], ids=str)
@pytest.mark.parametrize("arch", SPECS.values(), ids=SPECS)
def test_every_kind_of_network_gives_pytorchs_logits(arch, size):
    model = network(arch)
    engine = open_engine(model, size=size, threads=2)
    random = np.random.default_rng(2)
    for count in (1, 2, 5):  # one by all threads; one each; two rounds and one left over
        check(engine, model, random.standard_normal((count, 3, *size)).astype(np.float32))


@pytest.mark.parametrize("planned", [16, 224])
def test_images_of_another_size_than_planned_give_the_same_logits(planned):
    model = network(SPECS["dense, ImageNet stem"])
    engine = open_engine(model, size=(planned, planned), threads=3)
    random = np.random.default_rng(3)
    for size in ((64, 64), (130, 40), (64, 64)):
        check(engine, model, random.standard_normal((2, 3, *size)).astype(np.float32))


@pytest.mark.parametrize("in_channels", [1, 4, 9])
def test_images_may_have_other_channels(in_channels):
    model = network(SPECS["dense, ImageNet stem"], in_channels)
    images = np.random.default_rng(4).standard_normal((1, in_channels, 40, 41))
    check(open_engine(model, threads=1), model, images.astype(np.float32))


def test_any_number_of_threads_gives_the_same_bits():
    model = network(SPECS["dense, ImageNet stem"])
    images = np.random.default_rng(5).standard_normal((3, 3, 80, 80)).astype(np.float32)
    answers = [open_engine(model, threads=threads).run_tensor(images) for threads in (1, 2, 3, 7)]
    assert all(np.array_equal(answers[0], other) for other in answers[1:])


def test_a_value_that_is_not_a_number_stays_one():
    model = network(SPECS["dense, ImageNet stem"])
    images = np.zeros((2, 3, 64, 64), np.float32)
    images[1, 1, 30, 30] = np.nan
    logits = open_engine(model).run_tensor(images)
    assert np.isfinite(logits[0]).all()
    assert np.isnan(logits[1]).all()


def test_images_that_are_too_small_are_refused():
    engine = open_engine(network(SPECS["dense, ImageNet stem"]))
    with pytest.raises(UsageError, match="15 × 64 pixels; this network needs at least 16 × 16"):
        engine.run_tensor(np.zeros((1, 3, 15, 64), np.float32))


def test_a_checkpoint_file_is_read_without_torch(tmp_path):
    model = network(SPECS["dual, 3 channels a group"])
    checkpoint = Checkpoint.of(model, preprocess=Preprocess((64, 64)))
    checkpoint.save(tmp_path / "x.safetensors")
    spec, in_channels, tensors = read_tensors(tmp_path / "x.safetensors")
    assert (spec, in_channels) == (model.spec, 3)
    for name, tensor in checkpoint.tensors.items():
        assert np.array_equal(tensors[name], tensor.numpy())


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"not one")
    with pytest.raises(CheckpointError, match=r"x\.safetensors cannot be read as a safetensors"):
        read_tensors(tmp_path / "x.safetensors")


NORM = "features.denseblock1.denselayer1.norm1"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda t: t.pop(f"{NORM}.bias"), f"it has no tensor {NORM}.bias"),
        (lambda t: t.update({f"{NORM}.bias": np.zeros(5)}), "bias has 5 numbers, and .* needs 24"),
        (
            lambda t: t.update({"classifier.bias": np.zeros(0)}),
            "classes is 0, which no network has",
        ),
        (
            lambda t: t.update({"features.conv0.weight": np.zeros(24 * 3 * 8)}),
            "conv0.weight has 576 numbers, and .* needs 648",
        ),
        (
            lambda t: t.update({"features.transition1.conv.weight": np.zeros(7)}),
            "transition1.conv.weight has 7 numbers, and .* needs 1800",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(damage, reason):
    model = network(SPECS["dense, small stem"])
    tensors = tensors_of(model)
    damage(tensors)
    with pytest.raises(EngineError, match=reason):
        NativeEngine(model.spec, tensors, Preprocess((64, 64)), num_classes=21, in_channels=3)


# Of `PlanLayer` in kernels/plan.hpp.
NUMBERS = (
    "kind",
    "inputs",
    "outputs",
    "kernel",
    "stride",
    "groups",
    "reads",
    "writes",
    "pool",
    "averaged",
    "base",
    "part",
)
DENSE, DUAL = "dense, small stem", "dual, 8 channels a group"
DENSE_LAYER = "features.denseblock1.denselayer1.conv2"
TRANSITION = "features.transition1.conv"
SPREAD, LAST = "features.conv2_1.c3x3_b.conv", "features.conv2_1.c1x1_c.conv"


@pytest.mark.parametrize(
    ("name", "layer", "number", "value", "reason"),
    [
        (DENSE, "features.conv0", "outputs", 0, "outputs of features.conv0 is 0, which no network"),
        (DENSE, "features.conv0", "outputs", 1 << 20, "outputs of features.conv0 is 1048576"),
        (DENSE, "features.conv0", "kernel", 99, "kernel of features.conv0 is 99"),
        (DENSE, "features.conv0", "reads", 1, "features.conv0 does not fit"),
        (DENSE, DENSE_LAYER, "outputs", -1, f"outputs of {DENSE_LAYER} is -1"),
        (DENSE, DENSE_LAYER, "inputs", 47, f"{DENSE_LAYER} does not fit"),
        (DENSE, DENSE_LAYER, "stride", 2, f"{DENSE_LAYER} does not fit"),
        (DENSE, DENSE_LAYER, "writes", 2, f"{DENSE_LAYER} does not fit"),
        (DENSE, DENSE_LAYER, "writes", 3, f"{DENSE_LAYER} does not fit"),
        (DENSE, TRANSITION, "outputs", 31, "features.denseblock2.denselayer1.conv1 does not fit"),
        (DENSE, TRANSITION, "kernel", 3, f"{TRANSITION} does not fit"),
        (DENSE, "classifier", "inputs", 5, "classifier does not fit"),
        (DENSE, "classifier", "kind", 0, "classifier does not fit"),
        (DUAL, SPREAD, "groups", 5, f"{SPREAD} does not fit"),
        (DUAL, SPREAD, "stride", 2, f"{LAST} does not fit"),
        (DUAL, SPREAD, "kernel", 5, "features.conv2_1.c1x1_a.conv does not fit"),
        (DUAL, LAST, "base", 0, f"{LAST} does not fit"),
        (DUAL, LAST, "base", 1 << 20, f"{LAST} does not fit"),
        (DUAL, LAST, "groups", 2, f"{LAST} does not fit"),
    ],
)
def test_a_plan_that_no_network_has_is_refused(monkeypatch, name, layer, number, value, reason):
    def damaged(spec):
        names, numbers = serialise(spec)
        place = [row.name for row in plan(spec)].index(layer)
        numbers[place * len(NUMBERS) + NUMBERS.index(number)] = value
        return names, numbers

    monkeypatch.setattr("densepath.engines.native.serialise", damaged)
    with pytest.raises(EngineError, match=reason):
        open_engine(network(SPECS[name]))


def test_without_a_compiler_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EngineError, match=r"needs a C\+\+ compiler.*apt-get install g\+\+"):
        compiling.compile_library()


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'no such register' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("DENSEPATH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EngineError, match="no such register"):
        compiling.compile_library()
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_another_compiler_or_source_has_another_library(monkeypatch, tmp_path):
    compiler = compiling.find_compiler()
    first = compiling.library_path(compiler)
    assert compiling.library_path([*compiler, "-g"]) != first
    for source in compiling.SOURCES.glob("*.[ch]pp"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(compiling, "SOURCES", tmp_path)
    assert compiling.library_path(compiler) == first
    (tmp_path / "matrix.hpp").write_text("// changed\n")
    assert compiling.library_path(compiler) != first


def test_kernels_of_another_processor_are_compiled_anew_under_a_name_of_their_own(monkeypatch):
    """A cache that has travelled, or an emulator: the CPU's name is not the whole truth."""
    said = iter(["avx512f, avx2", ""])
    opened = []
    monkeypatch.setattr(load, "_opened", {})
    monkeypatch.setattr(load, "_lacking", lambda library: next(said))
    monkeypatch.setattr(
        load, "compile_library", lambda library, lacking="": opened.append(lacking) or ours
    )
    ours = compiling.compile_library()
    native.load_library()
    assert opened == ["", "avx512f, avx2"]
    compiler = compiling.find_compiler()
    assert compiling.library_path(compiler, lacking="avx2") != compiling.library_path(compiler)


def test_where_the_compiler_makes_no_kernels_for_this_processor_the_error_says_what_it_lacks(
    monkeypatch,
):
    ours = compiling.compile_library()
    monkeypatch.setattr(load, "_opened", {})
    monkeypatch.setattr(load, "_lacking", lambda library: "avx512f, avx2")
    monkeypatch.setattr(load, "compile_library", lambda library, lacking="": ours)
    with pytest.raises(EngineError, match=r"this one lacks avx512f, avx2\. Choose another engine"):
        native.load_library()


def test_a_library_that_cannot_be_opened_is_said_and_a_damaged_one_not_kept(monkeypatch, tmp_path):
    damaged = tmp_path / "native.so"
    damaged.write_bytes(b"\x7fELF")
    monkeypatch.setattr(load, "_opened", {})
    monkeypatch.setattr(load, "compile_library", lambda library, lacking="": damaged)
    with pytest.raises(EngineError, match=r"cannot be opened .*\$DENSEPATH_CACHE.*Choose another"):
        native.load_library()
    assert not damaged.exists()
    whole = tmp_path / "whole.so"  # on a disk from which nothing may be run
    whole.write_bytes(b"whole")

    def refuse(path):
        raise OSError(f"{path}: failed to map segment from shared object")

    monkeypatch.setattr(load.ctypes, "CDLL", refuse)
    monkeypatch.setattr(load, "compile_library", lambda library, lacking="": whole)
    with pytest.raises(EngineError, match="failed to map segment"):
        native.load_library()
    assert whole.exists()


def test_this_processor_lacks_nothing_that_was_compiled_for_it():
    assert load._lacking(native.load_library()) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux keeps them")
def test_where_no_thread_can_be_started_the_kernels_say_so():
    """For a whole share of the images, and for one image that all threads work on together."""
    code = """
import resource, numpy as np
import densepath
from densepath.errors import EngineError
engine = densepath.load("cifar10/densenet_bc_22_12", engine="native", threads=40).engine
images = np.zeros((80, 32, 32, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for batch in (images, images[:79], np.zeros((1, 320, 320, 3), np.uint8)):
    try:
        engine.run(batch)
    except EngineError as error:
        print(error)
"""
    # Stacks so large that a few fill the address space.
    script = f"ulimit -s 1000000; exec '{sys.executable}' -W ignore -c '{code}'"
    few = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=few)
    said = "the kernels failed: Resource temporarily unavailable."
    assert done.stdout.splitlines() == [said] * 3, done.stderr

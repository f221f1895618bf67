"""Programs for an NPU: targets, compiling, simulating, profiling."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from densepath.bundle.bundle import Bundle
from densepath.errors import (
    BundleError,
    DataError,
    EngineError,
    OutputError,
    UnknownNameError,
)
from densepath.npu import simulate as simulating
from densepath.npu import vela
from densepath.npu.compile import compile_program
from densepath.npu.description import LAYERS
from densepath.npu.estimate import read_layers
from densepath.npu.figure import draw_profile
from densepath.npu.profile import profile, write_csv
from densepath.npu.program import Program
from densepath.npu.simulate import (
    differing_layers,
    dump_layers,
    read_pixels,
    simulate,
    simulate_batch,
)
from densepath.npu.targets import find_target, memory_modes, target_names
from densepath.predict.load import load
from densepath.quantize.quantize import quantize
from fixtures.networks import SHIPPED, TINY_DUAL, checkpoint_of, new_network

pytestmark = pytest.mark.npu


@pytest.fixture(scope="module")
def bundle(photographs, tmp_path_factory):
    """The shipped network's INT8 bundle for an NPU."""
    folder = tmp_path_factory.mktemp("bundles") / "npu"
    options = {"num_images": 10, "num_held_out": 5, "method": "minmax"}
    return quantize(SHIPPED, folder, data=photographs, purpose="npu", **options)


@pytest.fixture(scope="module")
def program(bundle, tmp_path_factory):
    return compile_program(
        bundle, find_target("ethos-u55-128"), tmp_path_factory.mktemp("programs") / "u55"
    )


def photo(photographs):
    return photographs / "flower-224x224.png"


# Targets


def test_all_of_velas_targets_are_there_with_their_memory_modes():
    code = "import sys; sys.argv[1:] = ['--help']; from ethosu.vela.vela import main; main()"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    theirs = set(re.findall(r"ethos-u\d+-\d+", said.stdout))
    assert theirs == set(target_names())
    for name in target_names():
        target = find_target(name)
        assert target.name.endswith(f"-{target.macs_per_cycle}")
        assert target.memory_mode in memory_modes(target.system_config)
        assert target.clock_hz >= 2e8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "ethos-u55-2048"}, "unknown NPU target"),
        ({"name": "ethos-u55-128", "memory_mode": "Dedicated_Sram"}, "Shared_Sram, Sram_Only"),
        ({"name": "ethos-u65-256", "system_config": "Mine"}, "Ethos_U65_High_End"),
    ],
)
def test_an_unknown_target_or_mode_names_the_choices(wrong, message):
    with pytest.raises(UnknownNameError, match=message):
        find_target(**wrong)


# Compiling


@pytest.mark.parametrize("name", ["ethos-u55-128", "ethos-u65-512", "ethos-u85-2048"])
def test_a_network_is_compiled_for_every_generation_and_runs_on_the_npu_whole(
    bundle, tmp_path, name
):
    made = compile_program(bundle, find_target(name), tmp_path / "p").description
    assert made.operators.share == 1
    assert made.operators.cpu == []
    assert made.estimate.fits
    assert made.estimate.macs == pytest.approx(29.9e6, rel=0.01)
    assert 0.05 < made.estimate.inference_ms < 5


def test_more_multipliers_take_fewer_cycles(bundle, tmp_path):
    small, large = (
        compile_program(bundle, find_target(name), tmp_path / name).description.estimate.cycles
        for name in ("ethos-u55-32", "ethos-u55-256")
    )
    assert large < small / 2


def test_a_network_that_needs_more_memory_than_there_is_does_not_fit(bundle, tmp_path):
    target = find_target("ethos-u55-128", sram_bytes=64 << 10)
    made = compile_program(bundle, target, tmp_path / "p")
    assert not made.description.estimate.fits
    assert any("KiB of SRAM, and there are 64" in line for line in profile(made).advice())


def test_a_program_is_verified_when_it_is_opened(program, tmp_path):
    again = tmp_path / "copy"
    shutil.copytree(program.folder, again)
    assert Program.open(again).labels == program.labels
    (again / "README.md").write_text("changed")
    with pytest.raises(BundleError, match=r"README\.md was changed"):
        Program.open(again)
    (again / "README.md").unlink()
    with pytest.raises(BundleError, match=r"README\.md is missing"):
        Program.open(again)
    (again / "program.json").write_text("{")
    with pytest.raises(BundleError, match=r"program\.json was changed"):
        Program.open(again)
    with pytest.raises(BundleError, match="is not a compiled program"):
        Program.open(tmp_path)


def test_a_compiler_that_fails_is_one_line_and_leaves_nothing(bundle, tmp_path, monkeypatch):
    code = "import os, sys; print('Error: operators exceed the moon'); os.abort()"
    monkeypatch.setattr(vela, "RUN", code)
    with pytest.raises(EngineError, match="for ethos-u55-128: Error: operators exceed the moon"):
        compile_program(bundle, find_target("ethos-u55-128"), tmp_path / "p")
    monkeypatch.setattr(vela, "RUN", "import time; time.sleep(60)")
    monkeypatch.setattr(vela, "SECONDS", 0.2)
    with pytest.raises(EngineError, match=r"in 0\.2 s"):
        compile_program(bundle, find_target("ethos-u55-128"), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_program_is_not_overwritten_and_an_unwritable_place_is_told(bundle, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.txt").write_text("dear to me")
    target = find_target("ethos-u55-128")
    with pytest.raises(OutputError, match="a folder with other files in it"):
        compile_program(bundle, target, tmp_path / "p", overwrite=True)
    compile_program(bundle, target, tmp_path / "q")
    with pytest.raises(OutputError, match="--overwrite"):
        compile_program(bundle, target, tmp_path / "q")
    compile_program(bundle, target, tmp_path / "q", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        compile_program(bundle, target, tmp_path / "file" / "p")


def test_a_bundle_without_the_form_for_npus_is_told_how_to_get_it(photographs, tmp_path):
    made = quantize(
        SHIPPED,
        tmp_path / "b",
        **{"data": photographs, "num_images": 3, "to": ["onnx"], "method": "minmax"},
    )
    with pytest.raises(
        BundleError, match="densepath quantize SUBJECT --data DATA --to onnx,litert"
    ):
        compile_program(made, find_target("ethos-u55-128"), tmp_path / "p")


# Simulating


def test_the_simulator_gives_the_same_bytes_after_another_image(program, photographs):
    """Nothing of an image stays behind; that the bytes are the right ones is the next test's."""
    one, another = sorted(photographs.iterdir())[:2]
    first, between, second = (simulate(program, file) for file in (one, another, one))
    assert first.logits.tobytes() == second.logits.tobytes() != between.logits.tobytes()
    assert len(first.layers) > 40
    for one, other in zip(first.layers, second.layers, strict=True):
        assert one.values.dtype == np.int8
        assert one.values.tobytes() == other.values.tobytes()


def test_our_integers_are_those_of_litert_in_every_layer(program, photographs):
    for file in sorted(photographs.iterdir())[:4]:
        ours, theirs = (
            simulate(program, file, kernels=kernels) for kernels in ("densepath", "litert")
        )
        assert differing_layers(ours, theirs) == []
        assert ours.logits.tobytes() == theirs.logits.tobytes()


def test_our_integers_are_those_of_litert_for_a_dual_path_network(photographs, tmp_path):
    checkpoint = checkpoint_of(new_network(TINY_DUAL), size=16, labels=list("abc"))
    options = {"num_images": 6, "purpose": "npu", "method": "minmax"}
    made = quantize(checkpoint, tmp_path / "b", data=photographs, **options)
    dual = compile_program(made, find_target("ethos-u65-256"), tmp_path / "p")
    assert dual.description.operators.share == 1
    ours, theirs = (
        simulate(dual, photo(photographs), kernels=kernels) for kernels in ("densepath", "litert")
    )
    assert differing_layers(ours, theirs) == []


def test_the_simulator_answers_as_the_float_network_does(program, photographs):
    files = sorted(photographs.iterdir())
    pixels = np.concatenate([read_pixels(file, program.preprocess) for file in files])
    found = simulate_batch(program, pixels)
    with load(SHIPPED, engine="eager") as predictor:
        expected = predictor.engine.run(pixels)
    noise = ((found - expected) ** 2).sum()
    assert 10 * np.log10((expected**2).sum() / noise) > 20
    single = simulate(program, files[3]).prediction
    assert single.class_ids[0] == found[3].argmax()


def test_raw_bytes_are_the_image_as_it_is(program, photographs, tmp_path):
    pixels = read_pixels(photo(photographs), program.preprocess)
    raw = tmp_path / "model_input.bin"
    raw.write_bytes(pixels.tobytes())
    from_image, from_bytes = simulate(program, photo(photographs)), simulate(program, raw)
    assert from_image.logits.tobytes() == from_bytes.logits.tobytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes; the program takes 3,072"),
        (b"x" * 3071, "32 rows of 32 pixels of 3 channels"),
        (b"x" * 12288, "It looks like float32"),
    ],
)
def test_raw_bytes_of_another_number_are_refused(program, tmp_path, data, message):
    raw = tmp_path / "model_input.bin"
    raw.write_bytes(data)
    with pytest.raises(DataError, match=message):
        simulate(program, raw)


def test_a_file_that_is_missing_or_no_image_is_told(program, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        simulate(program, tmp_path / "none.bin")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        simulate(program, tmp_path / "broken.png")


def test_a_crash_of_the_simulator_is_an_error_here(program, photographs, monkeypatch, tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(program.model.read_bytes()[:1000])
    pixels = read_pixels(photo(photographs), program.preprocess)
    with pytest.raises(EngineError, match=r"the simulator failed on broken\.tflite"):
        simulating._run(broken, pixels)
    monkeypatch.setattr(simulating, "SECONDS", 0.01)
    with pytest.raises(EngineError, match="did not end"):
        simulating._run(program.model, pixels)


def test_every_layer_is_written_with_its_scale(program, photographs, tmp_path):
    made = simulate(program, photo(photographs))
    dump_layers(made, tmp_path / "layers")
    lines = (tmp_path / "layers" / "layers.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(made.layers) + 1
    last = np.load(tmp_path / "layers" / f"{len(made.layers) - 1:03d}.npy")
    assert last.dtype == np.int8
    assert last.size == 10
    assert "1x32x32x24" in lines[4]


# Profiling


def test_the_layers_add_up_to_what_the_program_does(program):
    made = profile(program)
    estimate = program.description.estimate
    # An average may be counted as a convolution.
    assert sum(layer.macs for layer in made.layers) == pytest.approx(estimate.macs, rel=0.01)
    assert made.cycles >= estimate.cycles * 0.9
    for shares in (made.share_by("operator"), made.share_by("bound_by")):
        assert sum(shares.values()) == pytest.approx(1)
    assert 0 < made.utilisation() < 1
    assert read_layers(program.folder / LAYERS, program.compiled) == made.layers


def test_a_profile_is_a_table_and_a_picture(program, tmp_path):
    made = profile(program)
    write_csv(made, tmp_path / "layers.csv")
    rows = (tmp_path / "layers.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("name,operator,source,on_npu,ms,cycles,bound_by")
    assert len(rows) == len(made.layers) + 1
    draw_profile(made, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_the_simulator_is_a_process_that_says_what_is_wrong():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "densepath.npu.simulator",
            "densepath",
            "none.tflite",
            "none.npy",
            "none.npz",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 1
    assert "none.npy" in done.stderr


def test_a_bundle_that_was_changed_is_not_compiled(bundle, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(bundle.folder, changed)
    data = bytearray((changed / "model.tflite").read_bytes())
    data[-1] ^= 1
    (changed / "model.tflite").write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.tflite was changed"):
        compile_program(Bundle.open(changed), find_target("ethos-u55-128"), tmp_path / "p")

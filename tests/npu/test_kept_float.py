"""Programs with layers that `--keep-float` left in float32, which the CPU beside the NPU runs."""

from __future__ import annotations

import csv
import io
import re
import shlex
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from densepath.bundle.tflite import read_network
from densepath.errors import EngineError, UnknownNameError
from densepath.evaluation.ladder import measure_ladder
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model
from densepath.models.plan import plan
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from densepath.npu import vela
from densepath.npu.compile import compile_program
from densepath.npu.description import CompiledFor
from densepath.npu.estimate import Estimate, NotCounted
from densepath.npu.figure import _draw
from densepath.npu.fitting import FASTER, MORE_SRAM, WITH_DRAM, more_sram, why_unfit
from densepath.npu.integer import IntegerExecutor
from densepath.npu.litert_reference import LiteRTReference
from densepath.npu.on_cpu import count_bytes, count_macs
from densepath.npu.profile import profile
from densepath.npu.simulate import differing_layers, dump_layers, simulate
from densepath.npu.targets import DEFAULTS, find_target, memory_modes, system_configs
from densepath.quantize.calibration import draw_calibration
from densepath.quantize.litert import write_litert
from densepath.quantize.quantize import quantize
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint
from fixtures.networks import SHIPPED, TINY_DUAL, checkpoint_of, new_network

pytestmark = pytest.mark.npu

OPTIONS = {"num_images": 6, "num_held_out": 2, "method": "minmax", "purpose": "npu"}


@pytest.fixture(scope="module")
def bundle(photographs, tmp_path_factory):
    """The shipped network with a block of three dense layers in float32."""
    folder = tmp_path_factory.mktemp("bundles") / "kept"
    return quantize(
        SHIPPED, folder, data=photographs, keep_float=["features.denseblock2"], **OPTIONS
    )


@pytest.fixture(scope="module")
def program(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs") / "u55"
    return compile_program(bundle, find_target("ethos-u55-128"), folder)


@pytest.fixture(scope="module")
def dual_path():
    """A tiny DPN: projections, grouped convolutions, convolutions that become two."""
    return checkpoint_of(new_network(TINY_DUAL), size=16, labels=list("abc"))


def same_in_every_layer(model, seed=0):
    """Whether all tensors of our executor are LiteRT's reference kernels', byte for byte."""
    network = read_network(model)
    shape = network.input.shape
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    reference = LiteRTReference(network, keep_all=True)
    reference.run(image)
    kept = {}
    IntegerExecutor(network).run(
        image, see=lambda one, values: kept.__setitem__(one.outputs[0].index, values)
    )
    assert {values.dtype for values in kept.values()} == {np.dtype("int8"), np.dtype("float32")}
    return all(
        kept[index].tobytes() == reference.tensor(index).tobytes()
        and kept[index].dtype == reference.tensor(index).dtype
        for index in kept
    )


# Simulating


def test_float_layers_of_a_densenet_have_the_bytes_of_the_reference_kernels(program, photographs):
    for file in sorted(photographs.iterdir())[:3]:
        ours, theirs = (
            simulate(program, file, kernels=kernels) for kernels in ("densepath", "litert")
        )
        assert differing_layers(ours, theirs) == []
    assert {layer.values.dtype.name for layer in ours.layers} == {"int8", "float32"}


@pytest.mark.parametrize(
    "kept",
    [
        slice(None),  # all of them, grouped convolutions among them
        slice(1, 4),  # a projection that became two, and a grouped convolution
    ],
)
def test_float_layers_of_a_dual_path_network_have_the_bytes_of_the_reference_kernels(
    dual_path, photographs, tmp_path, kept
):
    names = [layer.name for layer in plan(dual_path.spec)][kept]
    calibration, _ = draw_calibration(
        photographs, dual_path.preprocess, num_images=4, num_held_out=0, seed=0
    )
    write_litert(dual_path, tmp_path / "x.tflite", calibration=calibration, keep_float=names)
    assert same_in_every_layer(tmp_path / "x.tflite")


def test_a_stem_and_a_classifier_in_float_have_the_bytes_of_the_reference_kernels(
    photographs, tmp_path
):
    checkpoint = open_checkpoint(SHIPPED)
    calibration, _ = draw_calibration(
        photographs, checkpoint.preprocess, num_images=4, num_held_out=0, seed=0
    )
    write_litert(
        checkpoint,
        tmp_path / "x.tflite",
        calibration=calibration,
        keep_float=("features.conv0", "classifier"),
    )
    assert same_in_every_layer(tmp_path / "x.tflite", seed=1)


@pytest.mark.parametrize("stem_width", [5, 8])
def test_layers_that_see_one_channel_each_are_kept_in_float(photographs, tmp_path, stem_width):
    """A gray image's stem and groups of one channel are depthwise convolutions in LiteRT."""
    torch.manual_seed(0)
    made = {
        "gray": ModelSpec("gray", DenseNetArch(4, (2,), stem_width, stem="small"), 16, "none"),
        "groups": ModelSpec(
            "groups", DPNArch(stem_width, 3, 8, 8, (1,), (4,), 1, stem="small"), 16, "none"
        ),
    }
    for name, spec in made.items():
        colours = 1 if name == "gray" else 3
        model = build_model(spec, num_classes=2, in_channels=colours)
        size = Preprocess((16, 24), mean=(0.5,) * colours, std=(0.25,) * colours)
        checkpoint = Checkpoint.of(model, preprocess=size, labels=["a", "b"])
        calibration, _ = draw_calibration(photographs, size, num_images=4, num_held_out=0, seed=0)
        names = [layer.name for layer in plan(checkpoint.spec)]
        path = tmp_path / f"{name}-{stem_width}.tflite"
        write_litert(checkpoint, path, calibration=calibration, keep_float=names)
        kinds = {
            one.kind
            for one in read_network(path).operators
            if one.outputs[0].dtype == np.dtype("float32")
        }
        assert "DEPTHWISE_CONV_2D" in kinds, name
        assert same_in_every_layer(path), name


def test_float_layers_are_written_with_the_scale_of_plain_numbers(program, photographs, tmp_path):
    made = simulate(program, photographs / "flower-224x224.png")
    dump_layers(made, tmp_path / "layers")
    with (tmp_path / "layers" / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    plain = [row for row in rows if row["type"] == "float32"]
    assert len(plain) == 9
    assert {(row["scale"], row["zero_point"]) for row in plain} == {("1.0", "0")}
    number = rows.index(plain[0])
    written = np.load(tmp_path / "layers" / plain[0]["file"])
    before = np.load(tmp_path / "layers" / rows[number - 1]["file"])
    assert made.layers[number].reals().tobytes() == written.tobytes()
    assert np.allclose(made.layers[number - 1].reals(), written)
    assert before.dtype == np.int8


def test_a_program_with_float_layers_is_on_the_ladder(program, photographs, tmp_path):
    for label in program.labels:
        (tmp_path / "images" / label).mkdir(parents=True)
    for number, file in enumerate(sorted(photographs.iterdir())[:4]):
        shutil.copy(file, tmp_path / "images" / program.labels[number] / file.name)
    made = measure_ladder([SHIPPED, program.folder], tmp_path / "images", timed=False)
    assert made.rows[1].report.engine == "simulator"
    assert made.rows[1].report.images == 4
    assert made.rows[1].snr_db > 20


def test_an_operator_that_is_not_known_in_float_is_named():
    tensor = SimpleNamespace(dtype=np.dtype("float32"), data=None, index=0)
    operator = SimpleNamespace(index=7, kind="MEAN", inputs=(tensor,), outputs=(tensor,))
    network = SimpleNamespace(operators=(operator,), output=tensor)
    with pytest.raises(EngineError, match="operator 7 is MEAN in float32; supported in float32"):
        IntegerExecutor(network)


# What is not counted


def test_the_work_of_an_operator_on_the_cpu_is_that_of_its_shapes():
    def tensor(*shape, dtype="float32"):
        dtype = np.dtype(dtype)
        return SimpleNamespace(shape=shape, nbytes=int(np.prod(shape)) * dtype.itemsize)

    def operator(kind, inputs, output):
        return SimpleNamespace(kind=kind, inputs=inputs, outputs=(output,))

    image, output = tensor(1, 8, 8, 6), tensor(1, 4, 4, 10)
    dense = operator("CONV_2D", (image, tensor(10, 3, 3, 6), tensor(10)), output)
    grouped = operator("CONV_2D", (image, tensor(10, 3, 3, 3), None), output)
    depthwise = operator("DEPTHWISE_CONV_2D", (image, tensor(1, 5, 5, 6), None), tensor(1, 8, 8, 6))
    connected = operator("FULLY_CONNECTED", (tensor(1, 6), tensor(10, 6), None), tensor(1, 10))
    bytes_ = operator("QUANTIZE", (image,), tensor(1, 8, 8, 6, dtype="int8"))
    assert count_macs(dense) == 4 * 4 * 10 * 9 * 6
    assert count_macs(grouped) == 4 * 4 * 10 * 9 * 3
    assert count_macs(depthwise) == 8 * 8 * 6 * 25
    assert count_macs(connected) == 60
    assert (count_macs(bytes_), count_bytes(bytes_)) == (0, 384 * 4 + 384)
    assert count_bytes(dense) == 4 * (384 + 540 + 10 + 160)


def test_what_the_cpu_runs_is_counted_in_operators_and_multiply_adds(program):
    left = program.description.estimate.not_counted
    # Three dense layers of k = 12 on a map of 16 × 16 that begins with 30 channels.
    macs = sum(256 * 48 * (30 + 12 * layer) + 256 * 12 * 9 * 48 for layer in range(3))
    assert (left.operators, left.macs) == (12, macs)
    made = profile(program)
    assert made.not_counted.macs == macs
    total = macs + sum(layer.macs for layer in made.on_npu)
    assert left.share_of_macs == pytest.approx(macs / total)
    assert total == pytest.approx(29.9e6, rel=0.01)
    assert len(made.on_cpu) == 12
    assert all(layer.moved_bytes for layer in made.on_cpu)


def test_a_profile_never_shows_the_cpu_as_nothing(program):
    made = profile(program)
    share = f"{100 * made.not_counted.share_of_macs:.1f} %"
    told = f"not counted on the CPU: 12 operators, {share} of the multiply-adds"
    assert any(told in line for line in made.advice())
    assert "CPU" not in made.share_by("bound_by")
    rows = made.to_dict()["layers"]
    assert len(rows) == len(made.layers)
    left = [row for row in rows if not row["on_npu"]]
    assert {(row["ms"], row["cycles"], row["bound_by"]) for row in left} == {(None, None, "CPU")}
    assert sum(row["macs"] for row in left) == made.not_counted.macs
    table = list(csv.DictReader(io.StringIO(made.to_csv())))
    assert [row["ms"] == "" for row in table] == [not row["on_npu"] for row in rows]
    figure = _draw(made)
    texts = " ".join(text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text")))
    assert told in " ".join(texts.split())
    assert "on the CPU: not counted" in texts
    assert "ms an image on the NPU, estimated" in texts


def test_the_reasons_are_those_of_vela_each_once(program):
    said = "\n".join(
        f"Warning (supported operators) operator: {kind}, ofm: 'a;b'\nReason: {reason}"
        for kind, reason in (
            *[("CONV_2D", "Operation has tensor with type X (some/name;1)")] * 2,
            ("MEAN", "Unsupported opType"),
        )
    )
    assert vela.cpu_reasons(said) == [
        "CONV_2D: Operation has tensor with type X",
        "MEAN: Unsupported opType",
    ]
    assert "DEQUANTIZE: Unsupported opType" in program.description.operators.reasons


# Why Vela cannot, and why a program does not fit

TRACEBACK = """Warning: something else failed before
Traceback (most recent call last):
  File "vela.py", line 3, in main
    raise ValueError("cannot " + name)
    ^^^^^^^^^^
{last}
"""


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        (TRACEBACK.format(last="AssertionError"), 1, "it broke off with AssertionError"),
        (
            TRACEBACK.format(last="ethosu.vela.errors.AllocationError: 'Error: Allocation failed'"),
            1,
            "Error: Allocation failed",
        ),
        (TRACEBACK.format(last="ValueError: x") + "Error: too wide", 1, "Error: too wide"),
        ("compiling\nthe operator is unsupported", 1, "the operator is unsupported"),
        ("", -9, r"it was ended by signal 9 \(Killed\), as when memory runs out"),
        ("", 0, "it said nothing"),
    ],
)
def test_the_reason_of_a_compiler_that_fails_is_no_line_of_its_source(said, code, reason):
    assert re.fullmatch(reason, vela._reason(said, code))


def test_a_system_without_dram_has_no_memory_mode_that_needs_one(bundle, tmp_path):
    assert memory_modes("Ethos_U65_Embedded") == memory_modes("Ethos_U85_SYS_Flash_Low")
    target = find_target("ethos-u65-256", system_config="Ethos_U65_Embedded")
    assert target.memory_mode == "Shared_Sram"
    assert compile_program(bundle, target, tmp_path / "p").description.estimate.fits
    with pytest.raises(UnknownNameError, match="Choices: Shared_Sram, Sram_Only"):
        find_target(
            "ethos-u85-128",
            system_config="Ethos_U85_SYS_Flash_High",
            memory_mode="Dedicated_Sram_512KB",
        )


def test_the_systems_and_modes_that_advice_names_are_velas():
    systems = {name for generation in DEFAULTS for name in system_configs(generation)}
    assert {*FASTER, *FASTER.values(), *WITH_DRAM.values()} <= systems
    for system in (*FASTER.values(), *WITH_DRAM.values()):
        assert set(MORE_SRAM) <= set(memory_modes(system))
    target = CompiledFor("ethos-u65-256", 256, "Ethos_U65_High_End", MORE_SRAM[0], 1e9)
    assert MORE_SRAM[1] in more_sram(target)
    assert "Ethos_U65_Client_Server" in more_sram(target)


def describe(name, mode, system, needed, there):
    """What is read of a program's description to say why it does not fit."""
    estimate = Estimate(
        inference_ms=1.0,
        cycles=1,
        memory_bytes={"sram": needed << 10},
        traffic_bytes={},
        sram_limit_bytes=there << 10,
        macs=1,
        not_counted=NotCounted.of([]),
    )
    target = CompiledFor(name, int(name.rsplit("-", 1)[1]), system, mode, 1e9)
    layout = SimpleNamespace(arena_bytes=needed << 10)
    return SimpleNamespace(target=target, estimate=estimate, layout=layout)


@pytest.mark.parametrize(
    ("about", "options"),
    [
        (
            ("ethos-u55-128", "Shared_Sram", "Ethos_U55_High_End_Embedded", 2900, 2048),
            [
                "--target ethos-u55-128 --sram-kib 2900",
                "--target ethos-u65-256 --sram-kib 2048",
            ],
        ),
        (
            ("ethos-u85-512", "Shared_Sram", "Ethos_U85_SYS_DRAM_Low", 900, 400),
            [
                "--target ethos-u85-512 --memory-mode Shared_Sram "
                "--system-config Ethos_U85_SYS_DRAM_Low --sram-kib 900",
                "--target ethos-u85-512 --memory-mode Dedicated_Sram_384KB "
                "--system-config Ethos_U85_SYS_DRAM_Low --sram-kib 400",
            ],
        ),
        (
            ("ethos-u65-512", "Sram_Only", "Ethos_U65_Embedded", 900, 300),
            [
                "--target ethos-u65-512 --memory-mode Sram_Only "
                "--system-config Ethos_U65_Embedded --sram-kib 900",
                "--target ethos-u65-512 --memory-mode Dedicated_Sram_256KB --sram-kib 300",
            ],
        ),
        (
            ("ethos-u65-512", "Dedicated_Sram_256KB", "Ethos_U65_High_End", 300, 256),
            [],
        ),
        (
            ("ethos-u55-32", "Shared_Sram", "Ethos_U55_High_End_Embedded", 166, 64),
            ["--target ethos-u55-32 --sram-kib 166"],
        ),
    ],
)
def test_what_does_not_fit_is_told_options_that_its_target_has(about, options):
    said = why_unfit(describe(*about))
    commands = [
        part.split(" -o DIR")[0] for part in said.split("densepath npu compile BUNDLE ")[1:]
    ]
    assert commands == options
    for command in commands:
        words = shlex.split(command)
        given = dict(zip(words[::2], words[1::2], strict=True))
        find_target(
            given["--target"],
            system_config=given.get("--system-config"),
            memory_mode=given.get("--memory-mode"),
        )
    assert "densepath export SUBJECT --to torch --size N -o DIR" in said

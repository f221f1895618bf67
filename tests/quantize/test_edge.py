"""INT8 for phones and cameras: what is written computes in integers and agrees with the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from densepath.engines.executorch import ExecutorchEngine
from densepath.engines.litert import LiteRtEngine
from densepath.errors import BundleError, UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model
from densepath.models.layers import StemMaxPool
from densepath.models.spec import DenseNetArch, ModelSpec
from densepath.quantize import executorch as executorch_file
from densepath.quantize import litert as litert_file
from densepath.quantize.calibration import Calibration
from densepath.quantize.edge_network import (
    PositiveMaxPool,
    UnpaddedMaxPool,
    build_edge_network,
)
from densepath.quantize.executorch import write_executorch
from densepath.quantize.layers import rewritten_paths
from densepath.quantize.litert import write_litert
from densepath.quantize.operators import count_operators
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint
from fixtures.networks import SHIPPED
from fixtures.networks import TINY_DUAL as DUAL

SIDE, COUNT = 32, 100
LAYER = "features.denseblock2.denselayer1.conv1"
LITERT, EXECUTORCH = pytest.mark.npu("litert_torch"), pytest.mark.npu("executorch.exir")


@pytest.fixture(scope="module")
def subject():
    return open_checkpoint(SHIPPED)


def cut(path, generator):
    """Parts of a photograph at the size of CIFAR-10's images."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    for _ in range(COUNT // 9 + 1):
        side = int(generator.integers(48, 1 + min(picture.size) if min(picture.size) > 48 else 49))
        left, top = (int(generator.integers(0, max(1, end - side))) for end in picture.size)
        part = picture.crop((left, top, left + side, top + side))
        yield np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def calibrations(subject, photographs):
    """Images to calibrate with, and others to try."""
    generator = np.random.default_rng(5)
    paths = sorted(photographs.iterdir())
    images = np.stack([part for path in paths for part in cut(path, generator)])
    images = images[generator.permutation(len(images))]
    halves = images[:COUNT], images[COUNT : 2 * COUNT]
    return [
        Calibration(half, [str(i) for i in range(len(half))], subject.preprocess, "photographs")
        for half in halves
    ]


@pytest.fixture(scope="module")
def tflite(subject, calibrations, tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    write_litert(subject, path, calibration=calibrations[0])
    return path


@pytest.fixture(scope="module")
def pte(subject, calibrations, tmp_path_factory):
    path = tmp_path_factory.mktemp("executorch") / "model.pte"
    write_executorch(subject, path, calibration=calibrations[0])
    return path


def ends(subject):
    return {"in_channels": 3, "num_classes": 10, "size": (SIDE, SIDE)}


def litert_engine(subject, path, **options):
    return LiteRtEngine(path, subject.preprocess, **ends(subject), **options)


def plain(subject, calibration):
    batch = np.concatenate(list(calibration.batches(50)))
    with torch.inference_mode():
        return batch, subject.to_model()(torch.from_numpy(batch)).numpy()


def ratio_db(wanted, found):
    return 10 * np.log10(np.square(wanted).mean() / np.square(found - wanted).mean())


def check_agreement(engine, subject, calibration, least_db):
    _, wanted = plain(subject, calibration)
    found = engine.run(calibration.images)
    engine.close()
    assert engine.info.precision == "int8"
    assert ratio_db(wanted, found) > least_db
    assert np.mean(wanted.argmax(1) == found.argmax(1)) >= 0.9


def interpreter(path):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    made = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    made.allocate_tensors()
    return made


@LITERT
def test_litert_in_int8_answers_as_the_network_does(subject, calibrations, tflite):
    check_agreement(litert_engine(subject, tflite), subject, calibrations[1], 20)


@EXECUTORCH
def test_executorch_in_int8_answers_as_the_network_does(subject, calibrations, pte):
    check_agreement(executorch_engine(subject, pte), subject, calibrations[1], 20)


@LITERT
def test_litert_takes_pixels_as_they_are_and_gives_int8(tflite):
    made = interpreter(tflite)
    (image,), (logits,) = made.get_input_details(), made.get_output_details()
    assert (image["name"], image["dtype"], image["quantization"]) == ("images", np.uint8, (1.0, 0))
    assert image["shape"].tolist() == [1, SIDE, SIDE, 3]
    assert (logits["name"], logits["dtype"]) == ("logits", np.int8)


@LITERT
def test_no_step_of_litert_computes_in_floating_point(tflite):
    made = interpreter(tflite)
    kinds = {tensor["index"]: tensor["dtype"] for tensor in made.get_tensor_details()}
    steps = made._get_ops_details()
    assert len(steps) > 40
    for step in steps:
        used = {kinds[index] for index in (*step["inputs"], *step["outputs"]) if index >= 0}
        assert np.float32 not in used, step
    assert [step["op_name"] for step in steps].count("QUANTIZE") == 1


@LITERT
def test_litert_holds_every_normalised_pixel_whatever_the_calibration_showed(subject, tflite):
    made = interpreter(tflite)
    first = next(s for s in made._get_ops_details() if s["op_name"] == "DEPTHWISE_CONV_2D")
    described = {tensor["index"]: tensor for tensor in made.get_tensor_details()}
    scale, zero = described[first["outputs"][0]]["quantization"]
    low, high = (np.array([-128, 127]) - zero) * scale
    white = subject.preprocess.normalise(np.full((1, 1, 3), 255, np.uint8))
    black = subject.preprocess.normalise(np.zeros((1, 1, 3), np.uint8))
    assert low <= black.min() + scale
    assert high >= white.max() - scale


@LITERT
def test_an_image_of_bytes_comes_back_as_those_bytes(subject, tflite):
    engine = litert_engine(subject, tflite)
    every = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, SIDE, SIDE, 3)
    to_pixels = engine._spread._run_part._to_pixels
    assert to_pixels(every) is every
    np.testing.assert_array_equal(to_pixels(subject.preprocess.normalise(every)), every)
    engine.close()


@LITERT
def test_the_same_input_gives_the_same_litert_file(subject, calibrations, tflite, tmp_path):
    write_litert(subject, tmp_path / "again.tflite", calibration=calibrations[0])
    assert (tmp_path / "again.tflite").read_bytes() == tflite.read_bytes()


@EXECUTORCH
def test_the_same_input_gives_the_same_executorch_file(subject, calibrations, pte, tmp_path):
    write_executorch(subject, tmp_path / "again.pte", calibration=calibrations[0])
    assert (tmp_path / "again.pte").read_bytes() == pte.read_bytes()


@LITERT
def test_litert_can_keep_a_layer_in_floating_point(subject, calibrations, tmp_path, tflite):
    path = tmp_path / "mixed.tflite"
    write_litert(subject, path, calibration=calibrations[0], keep_float=[LAYER])
    made = interpreter(path)
    kinds = {tensor["index"]: tensor["dtype"] for tensor in made.get_tensor_details()}
    floats = [
        step["op_name"]
        for step in made._get_ops_details()
        if kinds[step["inputs"][0]] == kinds[step["outputs"][0]] == np.float32
    ]
    assert floats == ["CONV_2D"]
    counted = count_operators("litert", path)
    assert counted.others == {"CONV_2D": 1}
    assert counted.int8 == count_operators("litert", tflite).int8 - 1 > 40
    check_agreement(litert_engine(subject, path), subject, calibrations[1], 20)


@LITERT
def test_a_range_without_the_outermost_values_is_another_network(
    subject, calibrations, tmp_path, tflite
):
    path = tmp_path / "clipped.tflite"
    write_litert(subject, path, calibration=calibrations[0], method="percentile")
    assert path.read_bytes() != tflite.read_bytes()
    check_agreement(litert_engine(subject, path), subject, calibrations[1], 20)


def test_a_layer_of_a_dual_path_network_is_found_as_its_two_halves():
    torch.manual_seed(3)
    model = build_model(DUAL, num_classes=7).eval()
    checkpoint = Checkpoint.of(model, preprocess=Preprocess((SIDE, SIDE)))
    edge = build_edge_network(model)
    layers = dict(edge.named_modules())
    found = rewritten_paths(checkpoint.spec, edge)
    for name in ("features.conv2_1.c1x1_c.conv", "features.conv2_2.c1x1_c.conv"):
        parts = found[name]
        assert len(parts) == 2
        whole = torch.cat([layers[part].weight for part in parts])
        torch.testing.assert_close(whole, model.get_submodule(name).weight)


@pytest.mark.parametrize("pool", [PositiveMaxPool, UnpaddedMaxPool])
@pytest.mark.parametrize("padding", ["pad1", "same"])
@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 11), (11, 8)])
def test_the_max_pools_for_integers_are_the_stems_own(pool, padding, size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    wanted = StemMaxPool(padding)
    assert torch.equal(pool(wanted)(images), wanted(images))


@LITERT
@EXECUTORCH
@pytest.mark.parametrize("padding", ["pad1", "same"])
def test_the_stem_for_large_images_is_written_and_run(tmp_path, padding):
    """Pads and pools in integers: `load_method` is where XNNPACK refuses what it has not."""
    torch.manual_seed(3)
    arch = DenseNetArch(6, (1, 1), 8, stem_pool=padding)
    model = build_model(ModelSpec("tiny", arch, 64, "none"), num_classes=7).eval()
    checkpoint = Checkpoint.of(model, preprocess=Preprocess((64, 64)))
    pixels = np.random.default_rng(1).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    some = Calibration(pixels, [""] * 20, checkpoint.preprocess, "noise")
    _, wanted = plain(checkpoint, some)
    told = {"in_channels": 3, "num_classes": 7, "size": (64, 64)}
    write_litert(checkpoint, tmp_path / "tflite", calibration=some)
    write_executorch(checkpoint, tmp_path / "pte", calibration=some)
    for engine in (
        LiteRtEngine(tmp_path / "tflite", checkpoint.preprocess, **told),
        ExecutorchEngine(tmp_path / "pte", checkpoint.preprocess, **told),
    ):
        assert ratio_db(wanted, engine.run(pixels)) > 20
        engine.close()


def test_the_edge_network_is_the_same_function_even_where_a_channel_is_switched_off(subject):
    model = subject.to_model()
    with torch.no_grad():
        model.features.denseblock1.denselayer2.norm1.weight[:3] = 0
        images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        made = build_edge_network(model)
        torch.testing.assert_close(made(images), model(images), atol=2e-3, rtol=0)
    assert all(module.weight.abs().min() > 0 for module in made.modules() if depthwise(module))


def depthwise(module):
    return isinstance(module, torch.nn.Conv2d) and module.groups > 1


@pytest.mark.parametrize(
    ("write", "methods"),
    [(write_litert, litert_file.METHODS), (write_executorch, executorch_file.METHODS)],
    ids=["litert", "executorch"],
)
def test_what_cannot_be_written_is_said_before_the_work(
    subject, calibrations, tmp_path, write, methods
):
    path, some = tmp_path / "model", calibrations[0]
    with pytest.raises(UnknownNameError, match=f"unknown method 'minimax'.*{methods[0]}"):
        write(subject, path, calibration=some, method="minimax")
    with pytest.raises(UnknownNameError, match="unknown layer 'conv0'"):
        write(subject, path, calibration=some, keep_float=["conv0"])
    with pytest.raises(UnknownNameError, match=r"unknown layer 'features\.norm5'"):
        write(subject, path, calibration=some, keep_float=["features.norm5"])
    with pytest.raises(UsageError, match="needs a calibration"):
        write(subject, path, calibration=None, keep_float=[LAYER])
    small = Calibration(some.images[:, :16], some.names, some.preprocess, "cut")
    with pytest.raises(UsageError, match=r"images \(100, 16, 32, 3\); the network takes uint8"):
        write(subject, path, calibration=small)
    assert not path.exists()


DAMAGES = {
    "empty": lambda data: b"",
    "text": lambda data: b"not a network, but a letter" * 20,
    "half": lambda data: data[: len(data) // 2],
    "no end": lambda data: data[:-100],
    "only a header": lambda data: data[:8] + bytes(200),
    "changed": lambda data: data[:200] + bytes(x ^ 255 for x in data[200:1200]) + data[1200:],
}


@LITERT
@EXECUTORCH
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(subject, tflite, pte, tmp_path, damage):
    for whole, open_engine in ((tflite, litert_engine), (pte, executorch_engine)):
        path = tmp_path / whole.name
        path.write_bytes(DAMAGES[damage](whole.read_bytes()))
        with pytest.raises(BundleError, match=f"cannot open .*{whole.name}"):
            open_engine(subject, path)


def executorch_engine(subject, path, **options):
    return ExecutorchEngine(path, subject.preprocess, **{**ends(subject), **options})


@pytest.mark.parametrize(
    "open_engine",
    [
        pytest.param(litert_engine, marks=LITERT),
        pytest.param(executorch_engine, marks=EXECUTORCH),
    ],
    ids=["litert", "executorch"],
)
def test_a_file_that_is_not_there_is_refused(subject, tmp_path, open_engine):
    with pytest.raises(BundleError, match="absent"):
        open_engine(subject, tmp_path / "absent")


@LITERT
@EXECUTORCH
def test_another_network_than_the_engine_was_told_is_refused(subject, tflite, pte):
    with pytest.raises(BundleError, match=r"uint8 .* where the engine needs float32"):
        litert_engine(subject, tflite, precision="float32")
    with pytest.raises(BundleError, match=r"\(1, 10\).* needs .*\(1, 11\)"):
        executorch_engine(subject, pte, num_classes=11)


@LITERT
@EXECUTORCH
def test_an_engine_refuses_a_precision_that_it_has_not(subject, tflite, pte):
    for open_engine, path in ((litert_engine, tflite), (executorch_engine, pte)):
        with pytest.raises(UnknownNameError, match="unknown precision 'bfloat16'"):
            open_engine(subject, path, precision="bfloat16")


@LITERT
def test_the_streams_of_litert_answer_alike(subject, calibrations, tflite):
    answers = []
    for options in ({"mode": "latency"}, {"mode": "throughput", "threads": 3}, {"threads": 2}):
        engine = litert_engine(subject, tflite, **options)
        answers.append(engine.run(calibrations[1].images[:9]))
        engine.close()
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


@pytest.mark.parametrize(
    "kind", [pytest.param("tflite", marks=LITERT), pytest.param("pte", marks=EXECUTORCH)]
)
def test_an_image_that_is_not_a_number_has_no_logits(subject, request, kind):
    path = request.getfixturevalue(kind)
    engine = (litert_engine if kind == "tflite" else executorch_engine)(subject, path)
    batch = np.zeros((3, 3, SIDE, SIDE), np.float32)
    batch[1, 0, 5, 5] = np.nan
    found = engine.run_tensor(batch)
    engine.close()
    assert np.isnan(found).any(1).tolist() == [False, True, False]


@EXECUTORCH
def test_executorch_in_int8_is_smaller_than_its_weights_in_float32(subject, pte):
    weights = sum(tensor.numel() for tensor in subject.tensors.values())
    assert weights < pte.stat().st_size < 3 * weights

"""What every engine must do, whatever the runtime; a new engine is one more line in ENGINES."""

from __future__ import annotations

import copy
import threading
import time
import warnings

import numpy as np
import pytest
import torch

from densepath.bundle.formats import RUNTIMES
from densepath.engines.aoti import AotiEngine
from densepath.engines.compiled import CompiledEngine
from densepath.engines.eager import EagerEngine
from densepath.engines.engine import Explainer
from densepath.engines.executorch import ExecutorchEngine
from densepath.engines.litert import LiteRtEngine
from densepath.engines.native import NativeEngine
from densepath.engines.null import NullEngine
from densepath.engines.onnxruntime import OnnxRuntimeEngine
from densepath.engines.openvino import OpenVinoEngine
from densepath.errors import EngineError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.quantize.executorch import write_executorch
from densepath.quantize.litert import write_litert
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import TINY, TINY_DUAL, used_network

CLASSES, SIDE = 7, 32


def network(spec=TINY):
    """The network whose answers are the engines'."""
    return used_network(spec, num_classes=CLASSES, seed=3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The network in the formats that runtimes read: `files(suffix)` is a path."""
    folder, made = tmp_path_factory.mktemp("formats"), {}

    def file(suffix):
        if suffix not in made:
            path = folder / f"model.{suffix}"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporters' own
                EXPORTERS[suffix](network(), path)
            made[suffix] = path
        return made[suffix]

    return file


def exported(model):
    """The graph of the network for any number of images."""
    some = torch.zeros(2, 3, SIDE, SIDE)
    with torch.no_grad():
        return torch.export.export(model, (some,), dynamic_shapes=({0: torch.export.Dim("n")},))


def to_onnx(model, path):
    program = torch.onnx.export(
        exported(model), dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
    )
    program.save(str(path))


def to_openvino(model, path):
    import openvino

    network = openvino.convert_model(exported(model))
    network.reshape([-1, 3, SIDE, SIDE])
    openvino.save_model(network, path, compress_to_fp16=False)


def to_aoti(model, path):
    torch._inductor.aoti_compile_and_package(exported(model), package_path=str(path))


def to_litert(model, path):
    write_litert(checkpoint(model), path, calibration=None)


def to_executorch(model, path):
    write_executorch(checkpoint(model), path, calibration=None)


def checkpoint(model):
    return Checkpoint.of(model, preprocess=PREPROCESS)


PREPROCESS = Preprocess((SIDE, SIDE))
EXPORTERS = {
    "onnx": to_onnx,
    "xml": to_openvino,
    "pt2": to_aoti,
    "tflite": to_litert,
    "pte": to_executorch,
    "dpn.tflite": lambda _, path: to_litert(network(TINY_DUAL), path),
    "dpn.pte": lambda _, path: to_executorch(network(TINY_DUAL), path),
}


def tensors(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def native(spec, **options):
    options = {"num_classes": CLASSES, "in_channels": 3, **options}
    return NativeEngine(spec, tensors(network(spec)), PREPROCESS, **options)


def eager_of(threads, **options):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return EagerEngine(network(), PREPROCESS, **options)
    finally:
        torch.set_num_threads(before)


def litert(file, **options):
    return LiteRtEngine(file, PREPROCESS, **EDGE, **options)


def onnxruntime(files, **options):
    return OnnxRuntimeEngine(files("onnx"), PREPROCESS, **options)


def openvino(files, suffix="xml", **options):
    return OpenVinoEngine(files(suffix), PREPROCESS, **options)


def executorch(file, **options):
    return ExecutorchEngine(file, PREPROCESS, **EDGE, **options)


EDGE = {
    "in_channels": 3,
    "num_classes": CLASSES,
    "size": (SIDE, SIDE),
    "precision": "float32",
}
ENGINES = {
    "null": lambda _: NullEngine(PREPROCESS, CLASSES),
    "eager, 1 thread": lambda _: eager_of(1),
    "eager, 3 threads": lambda _: eager_of(3),
    "eager, latency": lambda _: eager_of(2, mode="latency"),
    "eager, throughput": lambda _: eager_of(2, mode="throughput"),
    "eager, DPN": lambda _: EagerEngine(network(TINY_DUAL), PREPROCESS),
    "compiled": lambda _: CompiledEngine(network(), PREPROCESS),
    "aoti": lambda files: AotiEngine(
        files("pt2"), PREPROCESS, in_channels=3, num_classes=CLASSES, size=(SIDE, SIDE)
    ),
    "onnxruntime, latency": lambda files: onnxruntime(files, mode="latency"),
    "onnxruntime, 3 streams": lambda files: onnxruntime(files, threads=3),
    "openvino, latency": lambda files: openvino(files, mode="latency"),
    "openvino, throughput": lambda files: openvino(files, mode="throughput"),
    "openvino, 3 streams": lambda files: openvino(files, threads=3),
    "openvino, of ONNX": lambda files: openvino(files, "onnx", threads=2),
    "litert, latency": lambda files: litert(files("tflite"), mode="latency"),
    "litert, 3 streams": lambda files: litert(files("tflite"), threads=3),
    "litert, DPN": lambda files: litert(files("dpn.tflite"), threads=1),
    "executorch": lambda files: executorch(files("pte"), threads=2),
    "executorch, DPN": lambda files: executorch(files("dpn.pte"), threads=1),
    "native, latency": lambda _: native(TINY, mode="latency", threads=2),
    "native, 3 streams": lambda _: native(TINY, threads=3),
    "native, DPN": lambda _: native(TINY_DUAL, threads=2),
    "native, bfloat16": lambda _: native(TINY, threads=2, precision="bfloat16"),
    "native, bfloat16, DPN": lambda _: native(TINY_DUAL, threads=2, precision="bfloat16"),
}

MARKS = {
    "compiled": pytest.mark.slow,  # it compiles the network first
    "aoti": pytest.mark.slow,
    "litert": pytest.mark.npu("litert_torch"),
    "executorch": pytest.mark.npu("executorch.exir"),
}
NAMES = [
    pytest.param(name, marks=[mark for kind, mark in MARKS.items() if name.startswith(kind)])
    for name in ENGINES
]


def images(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def tensor(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, 3, SIDE, SIDE), dtype=np.float32)


# Every way to run an engine, and what makes batches for it.
WAYS = {"run": images, "run_share": images, "run_tensor": tensor, "run_tensor_share": tensor}


@pytest.fixture(scope="module", params=NAMES)
def engine(request, files):
    made = ENGINES[request.param](files)
    yield made
    made.close()
    made.close()


def plain(spec, batch):
    with torch.inference_mode():
        return network(spec)(torch.from_numpy(batch)).numpy()


def ways(engine):
    """Every way to run it, with what makes batches for that way."""
    return [(getattr(engine, way), make) for way, make in WAYS.items()]


def test_logits_are_float32_with_one_row_an_image_and_one_column_a_class(engine):
    for run, make in ways(engine):
        logits = run(make(3))
        assert logits.dtype == np.float32
        assert logits.shape == (3, CLASSES)
    assert engine.info.num_classes == CLASSES
    assert engine.info.in_channels == 3


def test_no_images_give_no_logits(engine):
    for run, make in ways(engine):
        logits = run(make(0))
        assert logits.shape == (0, CLASSES)
        assert logits.dtype == np.float32


def test_the_logits_are_those_of_the_plain_network(engine, request):
    if engine.info.name == "null":
        pytest.skip("it has no network")
    batch = tensor(5)
    wanted = plain(TINY_DUAL if "DPN" in request.node.callspec.params["engine"] else TINY, batch)
    assert 1 < np.abs(wanted).max() < 100
    near = 0.02 * np.abs(wanted).max() if engine.info.precision == "bfloat16" else 1e-4
    np.testing.assert_allclose(engine.run_tensor(batch), wanted, atol=near)
    np.testing.assert_allclose(engine.run_tensor_share(batch), wanted, atol=near)


@pytest.mark.parametrize("count", [1, 5, 17])
def test_images_give_the_logits_of_the_tensor_that_they_are_normalised_to(engine, count):
    batch = images(count, seed=count)
    normalised = PREPROCESS.normalise(batch)
    wanted = [engine.run_tensor(normalised), engine.run_tensor_share(normalised)]
    found = [engine.run(batch), engine.run_share(batch)]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    if engine.info.name in ("native", "null"):  # no library that rounds as memory lies
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("count", [1, 2, 5, 17])
def test_an_image_is_answered_alike_in_any_batch(engine, count):
    batch = images(count)
    alone = np.concatenate([engine.run(batch[i : i + 1]) for i in range(count)])
    np.testing.assert_allclose(engine.run(batch), alone, atol=1e-4)
    np.testing.assert_allclose(engine.run_share(batch), alone, atol=1e-4)


def test_an_image_that_is_not_a_number_spoils_no_other(engine):
    batch = tensor(4)
    wanted = engine.run_tensor(batch)
    batch[2] = np.nan
    for run in (engine.run_tensor, engine.run_tensor_share):
        found = run(batch)
        assert np.isnan(found[2]).any()
        np.testing.assert_allclose(found[[0, 1, 3]], wanted[[0, 1, 3]], atol=1e-4)


def test_the_images_are_left_as_they_were(engine):
    for run, make in ways(engine):
        batch = make(9)
        before = batch.copy()
        run(batch)
        np.testing.assert_array_equal(batch, before)


def test_logits_stay_as_they_were_when_the_engine_runs_again(engine):
    for run, make in ways(engine):
        first = run(make(2))
        kept = first.copy()
        run(make(2, seed=1))
        np.testing.assert_array_equal(first, kept)


def other_order(batch):
    """Channels last in memory where they are first in shape, and the other way round."""
    axes = (0, 2, 3, 1) if batch.shape[1] == 3 else (0, 3, 1, 2)
    return np.ascontiguousarray(batch.transpose(axes)).transpose(np.argsort(axes))


def read_only(batch):
    batch = batch.copy()
    batch.flags.writeable = False
    return batch


@pytest.mark.parametrize(
    "reorder",
    [
        other_order,
        read_only,
        lambda b: b[::-1][::-1],
        lambda b: b[:, :, ::-1].copy()[:, :, ::-1],
        lambda b: b.repeat(2, axis=2)[:, :, ::2],
    ],
    ids=["other order", "read-only", "backwards twice", "mirrored in memory", "with gaps"],
)
def test_images_in_another_order_of_memory_are_taken(engine, reorder):
    for run, make in ways(engine):
        batch = make(3)
        np.testing.assert_allclose(run(reorder(batch)), run(batch), atol=1e-4)


# What is wrong: a shape for images, and one for a tensor.
WRONG = {
    "channels": ((1, SIDE, SIDE, 4), (1, 4, SIDE, SIDE)),
    "no batch": ((SIDE, SIDE, 3), (3, SIDE, SIDE)),
    "the other layout": ((1, 3, SIDE, SIDE), (1, SIDE, SIDE, 3)),
    "no sides at all": ((), ()),
}


def refuses(run, batch):
    """Raise unless the batch is refused with what is taken, and where the other kind goes."""
    sides = "(height, width|32, 32)"
    said = rf"takes float32 \[N, 3, {sides}\], normalised.* go into run\."
    if run.__name__ in ("run", "run_share"):
        said = rf"takes uint8 \[N, {sides}, 3\], resized.* goes into run_tensor\."
    with pytest.raises(UsageError, match=said):
        run(batch)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_batch_of_another_shape_is_refused_with_what_is_taken(engine, wrong):
    for run, make in ways(engine):
        refuses(run, np.zeros(WRONG[wrong][make is tensor], make(0).dtype))


def test_a_batch_of_another_type_is_refused_with_what_is_taken(engine):
    for run, make in ways(engine):
        right = make(1)
        for kind in {np.uint8, np.int8, np.float32, np.float64} - {right.dtype.type}:
            refuses(run, right.astype(kind))


def test_a_network_for_one_size_refuses_others(engine):
    if engine.info.size is None:
        pytest.skip("it takes any size")
    for run, make in ways(engine):
        refuses(run, make(1).repeat(2, axis=2))


@pytest.mark.parametrize("way", WAYS)
def test_threads_that_share_an_engine_get_their_own_answers(engine, way):
    run = getattr(engine, way)
    batches = [WAYS[way](1 + seed % 3, seed) for seed in range(6)]
    wanted = [run(batch) for batch in batches]
    found = [None] * 6

    def work(i):
        found[i] = run(batches[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_an_engine_fits_images_as_its_preprocess_does(engine):
    assert engine.preprocess == PREPROCESS
    photo = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(engine.fit(photo), PREPROCESS.fit(photo))


def test_an_engine_explains_where_its_row_says_so(engine):
    row = RUNTIMES.get(engine.info.name)
    assert isinstance(engine, Explainer) == (row is not None and row.explains)
    assert not engine.lost


def test_an_engine_leaves_the_threads_of_torch_as_they_were(engine):
    before = torch.get_num_threads()
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    engine.run(images(5))
    engine.run_share(images(5))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *found] == [before, before]


def test_what_an_engine_is_can_be_written_as_json(engine):
    said = engine.info.to_dict()
    assert said["name"] == engine.info.name
    assert said["streams"] >= 1
    assert said["batch_size"] >= 1


@pytest.mark.parametrize("name", NAMES)
def test_closing_an_engine_that_is_still_running_harms_no_answer(name, files):
    engine = ENGINES[name](files)
    batch = images(4)
    wanted, found, failed, running = engine.run(batch), [], [], threading.Barrier(4)

    def work():
        running.wait()
        while len(found) < 300:
            try:
                found.append(engine.run_share(batch))
            except Exception as error:
                failed.append(error)
                return

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    running.wait()
    until = time.monotonic() + 60
    while len(found) < 3 and not failed and time.monotonic() < until:
        time.sleep(0.001)
    engine.close()
    for thread in threads:
        thread.join()
    assert {str(error) for error in failed if "closed" not in str(error)} == set()
    assert len(found) >= 3
    for answer in found:
        np.testing.assert_allclose(answer, wanted, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_closed_engine_ends_its_threads_and_says_that_it_is_closed(name, files):
    if name == "null":
        pytest.skip("it has nothing to close")
    before = threading.active_count()
    engine = ENGINES[name](files)
    engine.close()
    engine.close()
    assert threading.active_count() == before
    with pytest.raises(UsageError, match="closed"):
        engine.run(images(1))


IN_BFLOAT16 = {
    "eager": lambda _: EagerEngine(copy.deepcopy(network()), PREPROCESS, precision="bfloat16"),
    "native": lambda _: native(TINY, precision="bfloat16"),
    "openvino": lambda files: openvino(files, precision="bfloat16"),
}


@pytest.mark.parametrize("name", IN_BFLOAT16)
def test_bfloat16_answers_are_near_those_of_float32(name, files):
    batch = tensor(4)
    full = plain(TINY, batch)
    try:
        half = IN_BFLOAT16[name](files)
    except EngineError as error:  # OpenVINO's, on a processor without
        if name != "openvino" or "this processor has no bfloat16 arithmetic" not in str(error):
            raise
        pytest.skip(str(error))
    found = half.run_tensor(batch)
    half.close()
    assert half.info.precision == "bfloat16"
    assert 0 < np.abs(found - full).max() < 0.05 * np.abs(full).max()

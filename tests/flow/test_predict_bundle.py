"""From a bundle to answers: which engine, without what, and what stands in the way of others."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import densepath
from densepath.bundle.bfloat16 import BFloat16Report
from densepath.bundle.bundle import Bundle, write_bundle
from densepath.bundle.formats import FORMATS, RUNTIMES
from densepath.bundle.manifest import File
from densepath.engines import choose as choosing
from densepath.engines import machine, obstacles
from densepath.engines import precision as judging
from densepath.engines.choose import choose
from densepath.engines.request import MANY_IMAGES, EngineRequest
from densepath.errors import (
    BundleError,
    EngineError,
    MissingPackageError,
    UnknownNameError,
    UsageError,
)
from densepath.exporting.export import export
from densepath.extras import packages_of
from densepath.images.preprocess import Preprocess
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import TINY, new_network

LABELS = ["ant", "bee", "cat", "dog"]
HEAVY = (
    "torch",
    "matplotlib",
    "sklearn",
    "torchmetrics",
    "huggingface_hub",
    "pydantic",
    "rich",
    "onnx",
    "onnxscript",
    "openvino_telemetry",
    "urllib.request",
)
GRAPHS = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the bundle `bundle`, its checkpoint `tiny.safetensors` and `photos`."""
    folder = tmp_path_factory.mktemp("made")
    model = new_network(TINY, num_classes=4)
    torch.nn.init.normal_(model.classifier.weight, 0, 3.0)
    checkpoint = Checkpoint.of(model, preprocess=Preprocess((32, 32), 36), labels=LABELS)
    checkpoint.save(folder / "tiny.safetensors")
    (folder / "photos").mkdir()
    for i in range(9):
        size = (40 + 3 * i, 60 - 2 * i, 3)
        noise = np.random.default_rng(i).integers(0, 256 - 20 * i, size, dtype=np.uint8)
        Image.fromarray(noise).save(folder / "photos" / f"{i}.png")
    (folder / "photos" / "4a.png").write_bytes(b"not an image")
    export(checkpoint, folder / "bundle", images=[folder / "photos" / "0.png"], batch_sizes=[1])
    return folder


@pytest.fixture
def opened(made):
    """The bundle, as if it had been made on another machine."""
    opened = Bundle.open(made / "bundle")
    parity = {k: v for k, v in (opened.manifest.parity or {}).items() if k != "speeds"}
    return dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, parity=parity))


@pytest.fixture
def compiled(monkeypatch):
    """Our kernels count as compiled, whether they are or not; bfloat16 is not tried on them."""
    from densepath.kernels import compile

    for module in (choosing, judging):
        monkeypatch.setattr(module, "missing_bfloat16", lambda: "it has none")
    monkeypatch.setattr(compile, "find_compiler", lambda: ["c++"])
    monkeypatch.setattr(compile, "library_path", lambda compiler: Path(compile.__file__))
    monkeypatch.setattr(machine, "failing_kernels", lambda: None)


@pytest.fixture
def no_compiler(monkeypatch):
    from densepath.kernels import compile

    monkeypatch.setattr(compile, "find_compiler", lambda: None)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(machine, "has_gpu", lambda: False)


def only(bundle, *formats):
    """The bundle as if it had these formats only."""
    kept = {name: parts for name, parts in bundle.manifest.formats.items() if name in formats}
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, formats=kept))


@pytest.mark.parametrize("engine", ["auto", "native", *GRAPHS])
def test_answers_from_a_bundle_import_neither_torch_nor_anything_else_heavy(made, engine):
    code = f"""
import sys
from densepath.cli.app import main
images = ["photos/0.png", "photos/1.png"]
sys.argv = ["densepath", "predict", "bundle", *images, "--engine", "{engine}"]
try:
    main()
except SystemExit as end:
    assert not end.code
print("heavy:", *[name for name in {HEAVY} if sys.modules.get(name)], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=made, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "heavy:"
    assert len(done.stdout.splitlines()) == 1 + 2 * 4


def test_every_engine_gives_the_answers_of_eager_in_order_with_failures_in_place(run, made):
    answers = {}
    for engine in ("eager", "native", *GRAPHS):
        for mode in ("auto", "latency", "throughput"):
            code, out, err = run(
                "predict",
                made / "bundle",
                made / "photos",
                "--engine",
                engine,
                "--mode",
                mode,
                "--threads",
                3,
                "--precision",
                "float32",
                "--json",
            )
            assert code == 0
            assert "engine " not in err
            answers[engine, mode] = [json.loads(line) for line in out.splitlines()]
    wanted = answers["eager", "auto"]
    assert len(wanted) == 10
    assert len({a["scores"][0] for a in wanted if "scores" in a}) == 9
    for found in answers.values():
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine["path"] == theirs["path"]
            assert mine.get("error") == theirs.get("error")
            if "labels" in mine:
                assert mine["labels"] == theirs["labels"]
                assert mine["scores"] == pytest.approx(theirs["scores"], abs=1e-4)


def test_a_bundle_and_its_checkpoint_answer_alike(made):
    images = sorted((made / "photos").glob("?.png"))
    scores = []
    for subject in ("bundle", "tiny.safetensors"):
        with densepath.load(made / subject, engine="native", precision="float32") as predictor:
            scores.append([a.scores for a in predictor.predict(images)])
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_an_image_that_comes_alone_has_all_cores_from_the_start(made):
    with densepath.load(made / "bundle", engine="onnxruntime", threads=3, num_images=1) as one:
        assert one.engine.info.streams == 1
    with densepath.load(made / "bundle", engine="onnxruntime", threads=3) as many:
        assert many.engine.info.streams == 3


# What auto chooses, and why.


def test_auto_says_on_standard_error_what_it_chose_and_why(run, made, no_gpu):
    run("predict", made / "bundle", made / "photos", "--engine", "native")  # compiles it
    _, out, err = run("predict", made / "bundle", made / "photos", "--json")
    assert err.startswith("engine native: ready soonest for 10 images; in ")
    assert all(line.startswith("{") for line in out.splitlines())


@pytest.fixture
def in_bfloat16(made, monkeypatch):
    """The bundle, made on another machine with bfloat16, with a report that is good enough."""
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    for module in (choosing, judging):
        monkeypatch.setattr(module, "missing_bfloat16", lambda: "")
    monkeypatch.setattr(choosing, "speeds_here", lambda bundle, **options: None)
    # Whether it is, is a matter of this processor: of four classes the scores decide.
    monkeypatch.setattr(BFloat16Report, "is_enough", True)
    return made / "bundle"


def test_bfloat16_that_auto_took_is_said_and_float32_is_always_there(run, made, in_bfloat16):
    code, out, err = run("predict", in_bfloat16, made / "photos", "--json")
    assert code == 0
    said = "in bfloat16: by the bundle's report on bfloat16 the best class is the same on all of 1"
    assert f"engine native: ready soonest for 10 images; {said} image" in err
    named = ("--engine", "native", "--json")
    assert run("predict", in_bfloat16, made / "photos", *named)[1] == out
    half = run("predict", in_bfloat16, made / "photos", *named, "--precision", "bfloat16")
    assert half[1] == out
    code, whole, err = run(
        "predict", in_bfloat16, made / "photos", "--json", "--precision", "float32"
    )
    assert code == 0
    assert whole != out
    assert "bfloat16" not in err


def test_the_precision_that_was_taken_goes_along_to_another_process(made, in_bfloat16, monkeypatch):
    photo = made / "photos" / "0.png"
    with densepath.load(in_bfloat16) as predictor:
        assert predictor.engine.info.precision == predictor.choice.precision == "bfloat16"
        [wanted] = predictor.predict(photo)
        [explained] = predictor.explain(photo)
        sent = pickle.dumps(predictor)
    monkeypatch.setattr(judging, "missing_bfloat16", lambda: "it has none")
    with pickle.loads(sent) as again:
        assert again.engine.info.precision == "bfloat16"
        assert next(again.predict(photo)).scores == wanted.scores
    with densepath.load(in_bfloat16, precision="float32") as plain:
        assert plain.engine.info.precision == "float32"
        [whole] = plain.predict(photo)
    assert wanted.scores != whole.scores
    # PyTorch explains, in float32: the report is not about it.
    assert explained.prediction.scores == pytest.approx(whole.scores, abs=1e-6)


def test_an_int8_predictor_answers_alike_where_it_is_sent(made, tmp_path):
    """Its precision is stored in its bundle: no process can ask for it."""
    drawn = {"num_images": 4, "num_held_out": 2, "method": "minmax"}
    densepath.quantize(
        made / "tiny.safetensors", tmp_path / "int8", data=made / "photos", to=["native"], **drawn
    )
    photo = made / "photos" / "3.png"
    for precision in ("auto", "float32"):
        with densepath.load(tmp_path / "int8", precision=precision) as predictor:
            [wanted] = predictor.predict(photo)
            sent = pickle.dumps(predictor)
        with pickle.loads(sent) as again:
            assert again.engine.info.precision == "int8"
            assert next(again.predict(photo)).scores == wanted.scores


@pytest.mark.parametrize(
    ("formats", "num_images", "engine"),
    [
        (("onnx", "openvino", "torch"), 1, "native"),
        (("onnx", "openvino", "torch"), None, "native"),
        (("onnx", "openvino"), 1, "onnxruntime"),
        (("onnx", "openvino"), MANY_IMAGES, "openvino"),
        (("onnx",), None, "onnxruntime"),
        (("openvino",), 1, "openvino"),
    ],
)
def test_auto_takes_the_fastest_or_for_few_images_the_one_that_is_ready_soonest(
    opened, compiled, no_gpu, formats, num_images, engine
):
    choice = choose(EngineRequest(num_images=num_images), only(opened, *formats))
    assert choice.engine == engine
    if "torch" not in formats:
        assert "has no torch format" in choice.reason


def test_without_a_compiler_the_next_engine_is_taken_and_the_reason_said(
    opened, no_compiler, no_gpu
):
    choice = choose(EngineRequest(), opened)
    assert choice.engine == "openvino"
    assert "needs a C++ compiler" in choice.reason
    with pytest.raises(EngineError, match=r"Install g\+\+"):
        choose(EngineRequest(engine="native"), opened)


def test_kernels_are_compiled_for_many_images_only(opened, compiled, no_gpu, monkeypatch, tmp_path):
    from densepath.kernels import compile

    made = []
    monkeypatch.setattr(compile, "library_path", lambda compiler: tmp_path / "none.so")
    monkeypatch.setattr(machine, "failing_kernels", lambda: made.append(1))
    few = choose(EngineRequest(num_images=3), opened)
    assert few.engine == "onnxruntime"
    assert "not compiled yet" in few.reason
    assert choose(EngineRequest(num_images=MANY_IMAGES - 1), opened).engine != "native"
    assert not made
    many = EngineRequest(precision="float32", num_images=MANY_IMAGES)
    assert choose(many, opened).engine == "native"
    assert made
    assert choose(EngineRequest(engine="native"), opened).engine == "native"


def test_a_checkpoint_is_answered_by_our_kernels_or_by_torch(compiled, no_gpu, monkeypatch):
    assert choose(EngineRequest(), None).engine == "native"
    assert choose(EngineRequest(precision="bfloat16"), None).engine == "native"
    assert choose(EngineRequest(explains=True), None).engine == "eager"
    assert choose(EngineRequest(mean_max=True), None).engine == "eager"


def test_bfloat16_takes_an_engine_that_computes_in_it(opened, compiled, no_gpu):
    half = EngineRequest(precision="bfloat16")
    assert choose(half, opened).engine == "native"
    assert choose(half, only(opened, "openvino")).engine == "openvino"
    assert choose(dataclasses.replace(half, mean_max=True), opened).engine == "eager"
    with pytest.raises(EngineError, match="no engine can answer this"):
        choose(EngineRequest(precision="bfloat16"), only(opened, "onnx"))


def test_a_gpu_is_used_when_there_is_one(opened, compiled, monkeypatch):
    from densepath.engines import onnxruntime

    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(onnxruntime, "missing_provider", lambda provider: None)
    assert choose(EngineRequest(), opened).engine == "cuda"
    assert choose(EngineRequest(device="cpu"), opened).engine == "native"
    monkeypatch.undo()
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose(EngineRequest(), opened).engine == "eager"
    assert choose(EngineRequest(), None).engine == "eager"


@pytest.mark.gpu
def test_a_gpu_answers_as_the_cpu_does(made):
    """On the GPU itself, for what chooses it above is told of one that is not there."""
    photos = sorted((made / "photos").glob("?.png"))
    found = []
    for device in ("cpu", "cuda"):
        subject = made / "tiny.safetensors"
        with densepath.load(subject, engine="eager", device=device) as predictor:
            assert predictor.engine.info.device.partition(":")[0] == device
            found.append([one.scores for one in predictor.predict(photos)])
    assert len(found[0]) == len(photos) == 9
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


# What stands in the way, and the cure.


@pytest.mark.parametrize("engine", list(RUNTIMES))
def test_an_engine_whose_format_is_missing_says_how_to_export_it(opened, engine):
    row = RUNTIMES[engine]
    others = {"onnx", "openvino", "torch"} - {row.format}
    verb = "export" if FORMATS[row.format].write else "quantize"
    cure = "" if row.format == "torch" else f".*densepath {verb} "
    with pytest.raises(BundleError, match=f"no {row.format} format{cure}"):
        choose(EngineRequest(engine=engine), only(opened, *others))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "aoti"])
def test_an_engine_that_reads_bundles_says_so_of_a_checkpoint(made, engine):
    with pytest.raises(UsageError, match=r"of bundles, and the subject is none.*densepath export"):
        densepath.load(made / "tiny.safetensors", engine=engine)


@pytest.mark.parametrize(
    ("engine", "package", "extra"),
    [("openvino", "openvino", "openvino"), ("onnxruntime", "onnxruntime", "onnx")],
)
def test_a_missing_package_is_named_with_its_extra(opened, monkeypatch, engine, package, extra):
    monkeypatch.setattr(obstacles, "find_spec", lambda name: None)
    wanted = " ".join(packages_of(extra))
    with pytest.raises(MissingPackageError, match=rf"{package}.*pip install {wanted}"):
        choose(EngineRequest(engine=engine), opened)


@pytest.mark.parametrize("engine", ["cuda", "tensorrt"])
def test_an_engine_for_gpus_says_when_there_is_none(opened, no_gpu, engine):
    with pytest.raises(EngineError, match="needs an NVIDIA GPU; this machine has none"):
        choose(EngineRequest(engine=engine), opened)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            EngineRequest(engine="onnxruntime", precision="bfloat16"),
            r"Engines that do: native, openvino, eager",
        ),
        (
            EngineRequest(engine="aoti", precision="bfloat16"),
            r"computes in float32, not in bfloat16",
        ),
        (EngineRequest(engine="openvino", explains=True), r"'eager' can"),
        (EngineRequest(engine="openvino", mean_max=True), r"pools by the mean"),
        (EngineRequest(engine="native", mean_max=True), r"pools by the mean"),
        (EngineRequest(engine="openvino", device="cuda"), r"computes on the CPU, not on 'cuda'"),
        (EngineRequest(engine="cuda", device="cpu"), r"computes on an NVIDIA GPU, not on 'cpu'"),
        (
            EngineRequest(engine="openvino", size=(48, 48)),
            r"for images of 32 × 32 pixels, not of 48 × 48",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_one_that_can(opened, asked, message):
    with pytest.raises(UsageError, match=message):
        choose(asked, opened)


@pytest.mark.parametrize(
    ("options", "near"),
    [({"engine": "openvno"}, "openvino"), ({"device": "tpu"}, "cpu"), ({"mode": "fast"}, "auto")],
)
def test_unknown_names_are_refused_with_the_choices(made, options, near):
    with pytest.raises(UnknownNameError, match=near):
        densepath.load(made / "bundle", **options)


def test_another_size_takes_an_engine_that_is_free_of_the_graph(opened, compiled, no_gpu):
    assert choose(EngineRequest(size=(48, 48)), opened).engine == "native"


def test_engines_that_are_free_of_the_graph_agree_at_another_size(made):
    image = made / "photos" / "0.png"
    with densepath.load(made / "bundle", engine="eager", size=48) as one:
        assert one.preprocess.size == (48, 48)
        [wanted] = one.predict(image)
    with densepath.load(made / "bundle", engine="native", precision="float32", size=48) as other:
        [found] = other.predict(image)
    assert found.scores == pytest.approx(wanted.scores, abs=1e-4)


def test_machine_code_for_another_machine_is_refused(opened):
    parts = {"model": "model.pt2", "machine": "sparc", "system": "Linux"}
    manifest = dataclasses.replace(opened.manifest, formats={"aoti": parts})
    with pytest.raises(EngineError, match="for sparc; this is"):
        choose(EngineRequest(engine="aoti"), dataclasses.replace(opened, manifest=manifest))


def test_compiled_has_no_throughput_mode(made):
    with pytest.raises(UsageError, match="one stream"):
        densepath.load(made / "bundle", engine="compiled", mode="throughput")


def test_explaining_a_bundle_takes_its_torch_format(run, made, tmp_path):
    code, out, err = run(
        "predict",
        made / "bundle",
        made / "photos" / "0.png",
        "--json",
        "--explain",
        tmp_path / "why",
    )
    assert code == 0
    assert len(out.splitlines()) == 1
    assert len(list((tmp_path / "why").iterdir())) == 1
    assert "engine eager" in err


EXPLAINED = ["native", "onnxruntime", "openvino", "eager", "auto"]


@pytest.mark.parametrize("engine", EXPLAINED)
def test_every_engine_on_a_bundle_is_explained_alike(made, engine):
    """Whatever is chosen, and so whatever has been compiled, changes nothing."""
    photo = made / "photos" / "0.png"
    with densepath.load(made / "bundle", engine="eager") as reference:
        [expected] = reference.explain(photo)
    with densepath.load(made / "bundle", engine=engine) as predictor:
        [found] = predictor.explain(photo)
        [again] = predictor.explain(photo)
    assert found.prediction.labels == expected.prediction.labels
    assert np.allclose(found.heat, expected.heat, atol=1e-5)
    assert np.array_equal(found.heat, again.heat)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_checkpoint_is_explained_whether_kernels_are_compiled_or_not(
    made, tmp_path, monkeypatch, compiled
):
    from densepath.kernels import compile

    if not compiled:
        monkeypatch.setattr(compile, "library_path", lambda compiler: tmp_path / "none.so")
    copy = shutil.copy(made / "tiny.safetensors", tmp_path / "x.safetensors")
    with densepath.load(copy) as predictor:
        copy.unlink()  # a training may write it anew meanwhile
        [found] = predictor.explain(made / "photos" / "0.png", top_k=2)
    assert found.heat is not None
    assert len(found.prediction.labels) == 2


def test_an_int8_bundle_or_one_without_torch_says_what_to_explain_with(opened, monkeypatch):
    int8 = dataclasses.replace(
        opened, manifest=dataclasses.replace(opened.manifest, precision="int8")
    )
    with pytest.raises(UsageError, match=r"int8: it has no float weights.*was made\s+of \("):
        choose(EngineRequest(explains=True), int8)
    with pytest.raises(UsageError, match=r"no torch format.*--to onnx,torch -o DIR"):
        choose(EngineRequest(explains=True), only(opened, "onnx"))
    monkeypatch.setattr(obstacles, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="explaining takes PyTorch"):
        choose(EngineRequest(explains=True), None)


def test_a_bundle_without_torch_is_predicted_and_its_explanation_refused_at_the_call(copy, made):
    opened = Bundle.open(copy)
    (copy / "model.safetensors").unlink()
    with densepath.load(copy, engine="onnxruntime") as predictor:
        assert len(list(predictor.predict(made / "photos" / "0.png"))) == 1
        with pytest.raises(BundleError, match=r"model\.safetensors is missing"):
            predictor.explain(made / "photos" / "0.png")
    assert "torch" in opened.manifest.formats


# A bundle is verified before anything of it is used.


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made / "bundle", tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.mark.parametrize(
    ("engine", "file"),
    [
        ("openvino", "model.bin"),
        ("openvino", "model.xml"),
        ("onnxruntime", "model.onnx"),
        ("native", "model.safetensors"),
        ("eager", "model.safetensors"),
    ],
)
def test_a_changed_file_is_refused_by_the_engine_that_reads_it_and_by_no_other(
    run, made, copy, engine, file
):
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(data)
    image = made / "photos" / "0.png"
    code, out, err = run("predict", copy, image, "--engine", engine)
    assert (code, out) == (1, "")
    assert f"{file} was changed" in err
    other = "onnxruntime" if file != "model.onnx" else "openvino"
    assert run("predict", copy, image, "--engine", other)[0] == 0


def test_a_file_that_is_no_graph_is_refused_although_its_hash_is_right(tmp_path, opened):
    from densepath.files import sha256

    formats = {name: opened.manifest.formats[name] for name in ("onnx", "openvino")}
    with write_bundle(tmp_path / "junk") as (folder, seal):
        files = {}
        for name, file in opened.manifest.files.items():
            if set(file.formats) & formats.keys():
                (folder / name).write_bytes(b"junk" * 9)
                files[name] = File(sha256(folder / name), 36, file.formats)
        seal(dataclasses.replace(opened.manifest, formats=formats, files=files))
    for engine, said in (("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")):
        with pytest.raises(BundleError, match=f"{said} cannot open"):
            densepath.load(tmp_path / "junk", engine=engine)


# Long runs: memory, and being stopped.

ENDLESS = ("predict", "bundle", "-", "--json", "--precision", "float32", "--engine")
PROGRAM = Path(sys.executable).with_name("densepath")


@pytest.mark.parametrize("engine", ["native", *GRAPHS])
def test_memory_stays_flat_however_many_images_there_are(made, engine):
    """Resident memory of the process: what runtimes allocate is not Python's.

    A runtime may once take some megabytes more; what grows with the images grows at every reading.
    """
    pixels = np.asarray(Image.open(made / "photos" / "0.png"))
    with densepath.load(made / "bundle", engine=engine, threads=2) as predictor:
        answers = predictor.predict(itertools.repeat(pixels, 5000))
        readings = []
        for _ in range(5):
            assert sum(1 for _ in itertools.islice(answers, 1000)) == 1000
            readings.append(resident_bytes())
        assert next(answers, None) is None
    # An image and its batch are 15 kB: kept, 1,000 of them would be 15 MB.
    growth = [late - early for early, late in itertools.pairwise(readings)]
    assert min(growth) < 2 << 20, growth


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


@pytest.mark.parametrize("engine", ["native", *GRAPHS, "eager"])
def test_ctrl_c_ends_a_run_at_once_with_what_was_done_and_no_traceback(made, engine):
    with subprocess.Popen(
        [PROGRAM, *ENDLESS, engine],
        cwd=made,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
    ) as process:
        feeder = threading.Thread(target=feed, args=(process.stdin,))
        feeder.start()
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, said = process.stdout.read(), process.stderr.read().decode()
        process.wait(60)
        feeder.join()
    assert process.returncode == 130
    assert said.startswith("interrupted after ")
    assert len(said.splitlines()) == 1
    for line in (first + rest).splitlines()[:-1]:
        assert json.loads(line)["path"] == "photos/0.png"


def heed_ctrl_c():
    """What runs in the background is started by its shell with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def feed(pipe):
    """Names without end, until nobody reads them."""
    try:
        while True:
            pipe.write(b"photos/0.png\n" * 100)
    except BrokenPipeError:
        pass
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def test_a_reader_that_has_enough_ends_the_run_without_a_word(made):
    command = f"yes photos/0.png | {PROGRAM} {' '.join(ENDLESS)} native | head -3"
    done = subprocess.run(
        ["bash", "-c", command], cwd=made, capture_output=True, text=True, timeout=120
    )
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == ""

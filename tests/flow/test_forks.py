"""Predictors after `os.fork`, and predictors that are sent to other processes."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from importlib.util import find_spec

import numpy as np
import pytest

import densepath
from densepath.engines.null import NullEngine
from densepath.errors import (
    BundleError,
    CheckpointError,
    DensepathError,
    EngineError,
    ImageError,
    MissingPackageError,
    UnknownNameError,
    UsageError,
)
from densepath.images.preprocess import Preprocess
from densepath.predict.predictor import Predictor

MODEL = "cifar10/densenet_bc_22_12"
# What waits for threads that are gone waits for ever; the child ends itself long before pytest.
LIMIT_SECONDS = 240
START = f"""
import os, pickle, signal, sys
import numpy as np
import densepath

def images(count=5):
    numbers = np.random.default_rng(0)
    return [numbers.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(count)]

def same(some, others):
    some, others = list(some), list(others)
    assert [a.labels for a in some] == [b.labels for b in others]
    for a, b in zip(some, others, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    return True

def in_child(do, name="child"):
    if (number := os.fork()) == 0:
        signal.alarm({LIMIT_SECONDS})
        do()
        print(name, "did it", flush=True)
        sys.exit(0)
    assert os.waitpid(number, 0)[1] == 0, name
"""


def run_script(text, *words, folder=None):
    script = START + textwrap.dedent(text)
    run = subprocess.run(
        [sys.executable, "-c", script, *map(os.fspath, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=2 * LIMIT_SECONDS,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The trained network that comes with densepath, in every format that can be written here."""
    folder = tmp_path_factory.mktemp("bundles") / "small"
    formats = ["torch"]
    formats += [name for name in ("onnx", "openvino") if find_spec(name)]
    densepath.export(MODEL, folder, to=formats, num_images=2, batch_sizes=[1])
    return folder


FORKED = """
engine, bundle = sys.argv[1:]
predictor = densepath.load(bundle, engine=engine, precision="float32")
closed = densepath.load(bundle, engine=engine, precision="float32")
list(closed.predict(images()))  # its threads may be kept for others
closed.close()
wanted, alone = list(predictor.predict(images())), list(predictor.predict(images(1)))

def answer():
    same(predictor.predict(images()), wanted)
    same(predictor.predict(images(1)), alone)
    another = densepath.load(bundle, engine=engine, precision="float32")
    same(another.predict(images()), wanted)
    same([e.prediction for e in predictor.explain(images(2))], wanted[:2])
    another.close()

def twice():
    answer()
    in_child(answer, "grandchild")

in_child(answer)
list(predictor.explain(images(2)))
in_child(twice if engine != "openvino" else answer)
assert list(predictor.predict(images())) == wanted
"""


@pytest.mark.parametrize("engine", ["native", "onnxruntime", "openvino", "eager"])
def test_a_predictor_answers_in_a_forked_child(engine, bundle):
    if not find_spec({"native": "numpy", "eager": "torch"}.get(engine, engine)):
        pytest.skip(f"{engine} is not installed")
    said = run_script(FORKED, engine, bundle)
    assert said.stdout.split().count("did") == (2 if engine == "openvino" else 3)
    assert "PyTorch computes with one thread here" in said.stderr  # it explains, at the least


@pytest.mark.slow
def test_engines_that_a_fork_takes_from_a_process_say_so_with_the_cure(tmp_path):
    bundle = tmp_path / "compiled"
    densepath.export(MODEL, bundle, to=["torch", "aoti"], num_images=1, batch_sizes=[1])
    run_script(
        """
        from densepath.errors import EngineError, DensepathError
        predictor = densepath.load(sys.argv[1], engine="aoti")
        wanted = list(predictor.predict(images()))
        begun = predictor.predict(images())
        next(begun)
        engine = predictor.engine

        def refuses(act):
            try:
                act()
            except EngineError as error:
                assert "forked" in str(error), error
                assert "spawn" in str(error) or "Call predict here" in str(error), error
            else:
                raise AssertionError("no error")

        def child():
            refuses(lambda: list(predictor.predict(images())))
            refuses(lambda: densepath.load(sys.argv[1], engine="aoti"))
            refuses(lambda: densepath.load(sys.argv[1], engine="compiled"))
            refuses(lambda: engine.run(np.zeros((1, 32, 32, 3), np.uint8)))
            refuses(lambda: next(begun))
            another = densepath.load(sys.argv[1], precision="float32")
            same(another.predict(images()), wanted)
            repr(predictor)
            predictor.close()

        in_child(child)
        """,
        bundle,
    )


def test_a_bundle_that_was_replaced_is_not_opened_in_a_child_or_elsewhere(bundle, tmp_path):
    pytest.importorskip("onnxruntime")
    run_script(
        """
        import shutil
        from densepath.errors import BundleError
        old, folder = sys.argv[1:]
        shutil.copytree(old, folder)
        predictor = densepath.load(folder, engine="onnxruntime")
        sent = pickle.dumps(predictor)
        same(pickle.loads(sent).predict(images()), list(predictor.predict(images())))
        model = "cifar10/densenet_bc_22_12"
        densepath.export(
            model, folder, to="onnx", overwrite=True, num_images=1, batch_sizes=[1]
        )

        def refused():
            for act in (lambda: list(predictor.predict(images())), lambda: pickle.loads(sent)):
                try:
                    act()
                except BundleError as error:
                    assert "replaced" in str(error) and folder in str(error), error
                else:
                    raise AssertionError("no error")

        in_child(refused)
        list(predictor.predict(images()))  # here it is what it was
        """,
        bundle,
        tmp_path / "bundle",
    )


def test_a_bundle_by_a_link_is_opened_again_where_the_link_led(bundle, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(bundle)
    predictor = densepath.load(link, engine="native")
    sent = pickle.dumps(predictor)
    link.unlink()
    assert list(pickle.loads(sent).predict(image())) == list(predictor.predict(image()))


def test_names_are_sent_so_that_another_folder_finds_them(bundle, tmp_path, monkeypatch):
    checkpoint = bundle / "model.safetensors"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_bytes(checkpoint.read_bytes())
    monkeypatch.chdir(tmp_path)
    for subject in (MODEL, "run", "run/best.safetensors", densepath.Checkpoint.load(checkpoint)):
        predictor = densepath.load(subject, engine="eager", size=40)
        sent = pickle.dumps(predictor)
        monkeypatch.chdir("/")
        received = pickle.loads(sent)
        monkeypatch.chdir(tmp_path)
        assert list(received.predict(image())) == list(predictor.predict(image()))
        assert received.preprocess.size == (40, 40)
        if subject in (MODEL, "run"):
            assert len(sent) < 5_000


def test_a_checkpoint_that_goes_on_training_is_not_what_was_sent(bundle, tmp_path):
    checkpoint = densepath.Checkpoint.load(bundle / "model.safetensors")
    checkpoint.save(tmp_path / "best.safetensors")
    sent = pickle.dumps(densepath.load(tmp_path, engine="eager"))
    pickle.loads(sent)
    checkpoint.tensors["classifier.bias"][0] += 1
    checkpoint.save(tmp_path / "best.safetensors")
    with pytest.raises(CheckpointError, match="replaced"):
        pickle.loads(sent)
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        pickle.loads(sent)


def test_what_is_sent_answers_as_it_was_changed_and_by_the_engine_that_was_chosen(bundle):
    predictor = densepath.load(bundle, num_images=1)
    predictor.labels = [label.upper() for label in predictor.labels]
    for another in (pickle.loads(pickle.dumps(predictor)), copy.deepcopy(predictor)):
        assert another is not predictor
        assert another.choice == predictor.choice
        assert list(another.predict(image())) == list(predictor.predict(image()))
        another.close()
    assert next(predictor.predict(image())).labels[0].isupper()


def test_what_cannot_be_sent_says_what_can(bundle):
    predictor = densepath.load(bundle, engine="eager")
    for engine in (predictor.engine, densepath.load(bundle, engine="native").engine):
        with pytest.raises(EngineError, match=r"densepath\.load can"):
            pickle.dumps(engine)
    with pytest.raises(EngineError, match=r"densepath\.load can"):
        copy.copy(Predictor(NullEngine(Preprocess((8, 8)), 2), ["a", "b"]))
    predictor.close()
    with pytest.raises(UsageError, match="closed"):
        pickle.dumps(predictor)


@pytest.mark.parametrize("verb", ["export", "quantize"])
def test_verbs_that_are_packages_can_be_sent_and_copied(verb):
    function = getattr(densepath, verb)
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy({verb: [function]})[verb][0] is function


@pytest.mark.parametrize(
    "error",
    [
        UnknownNameError("engine", "navite", ["native", "eager"]),
        ImageError("a.png", "broken"),
        MissingPackageError("onnx", "onnx", {"openvino": "openvino"}),
        BundleError("it is no bundle"),
    ],
)
def test_errors_come_back_from_other_processes_as_they_were(error):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert isinstance(back, DensepathError)


WAYS = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import densepath
from densepath.errors import DensepathError

IMAGES = list(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))

def labels(predictor):
    return [answer.labels[0] for answer in predictor.predict(IMAGES)]

class Data:
    def __init__(self, predictor):
        self.predictor = predictor
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return next(self.predictor.predict(IMAGES[index])).labels[0]

if __name__ == "__main__":
    way, bundle = sys.argv[1:]
    predictor = densepath.load(bundle, engine="native" if way == "spawn" else "onnxruntime")
    wanted = labels(predictor)
    if way in ("fork", "forkserver", "spawn"):
        context = multiprocessing.get_context(way)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(labels, [predictor] * 2)) == [wanted] * 2
            try:
                pool.submit(densepath.load, "no/such.safetensors").result()
            except DensepathError as error:
                assert "no/such" in str(error)
            else:
                raise AssertionError("no error")
            back = pool.submit(densepath.load, bundle, engine="native").result()
            assert labels(back) == wanted
    elif way == "joblib":
        from joblib import Parallel, delayed
        made = Parallel(2)(delayed(lambda one: labels(one))(predictor) for _ in range(2))
        assert made == [wanted] * 2
    else:
        from torch.utils.data import DataLoader
        context = way.partition(" ")[2]
        loader = DataLoader(
            Data(predictor), num_workers=2, batch_size=2, multiprocessing_context=context
        )
        assert sum(map(list, loader), []) == wanted
    print("done")
"""


@pytest.mark.parametrize(
    "way",
    [
        "fork",
        "spawn",
        "joblib",
        "loader fork",
        *(pytest.param(way, marks=pytest.mark.slow) for way in ("forkserver", "loader spawn")),
    ],
)
def test_other_processes_answer_with_the_predictor_that_they_are_given(way, bundle, tmp_path):
    pytest.importorskip("onnxruntime")
    if way == "joblib":
        pytest.importorskip("joblib")
    script = tmp_path / "script.py"
    script.write_text(WAYS)
    run = subprocess.run(
        [sys.executable, script, way, bundle],
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_SECONDS,
    )
    assert (run.returncode, run.stdout.split()) == (0, ["done"]), run.stdout + run.stderr


def image():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)

"""Files read for their values in the C++ program: Python's bytes, Python's words, its answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import densepath
from densepath.images.intensity import Intensity
from densepath.images.preprocess import Preprocess
from densepath.images.read_as import ReadAs
from fixtures.bundles import flowers
from fixtures.commands import PROGRAM
from fixtures.deep_files import load_fuzz, needs_pydicom, seeds

pytestmark = [pytest.mark.slow, needs_pydicom]
DAMAGED = 800


@pytest.fixture(scope="module")
def mutate():
    return load_fuzz("mutate")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Every file of `value_seeds`, and the samples of pydicom's wheel."""
    folder = tmp_path_factory.mktemp("values")
    for name, data in seeds.value_seeds().items():
        (folder / name.replace("<", "little ").replace(">", "big ").replace("|", "")).write_bytes(
            data
        )
    package = Path(find_spec("pydicom").origin).parent
    return sorted(folder.iterdir()) + sorted((package / "data" / "test_files").glob("*.dcm"))


def lines_of(cpp, mutate, files, read_as) -> list[str]:
    names = "".join(f"{path}\n" for path in files).encode()
    run = subprocess.run(
        mutate.command(cpp.decoder, read_as), input=names, capture_output=True, timeout=120
    )
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    assert run.stderr == b""  # neither of libtiff nor of us
    return run.stdout.decode().splitlines()


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(
    "text", ["file", "range:100,3000", "window:40,400", "percentiles:1,99", "percentiles:0,100"]
)
def test_every_kind_of_file_has_python_s_bytes_or_is_refused_with_its_words(
    cpp, mutate, files, channels, text
):
    read_as = ReadAs(channels, Intensity.parse(text))
    lines = lines_of(cpp, mutate, files, read_as)
    python = [mutate.in_python(path, read_as) for path in files]
    without = [i for i, line in enumerate(lines) if "built without libtiff" in line]
    kept = [i for i in range(len(files)) if i not in without]
    assert {files[i].suffix for i in without} <= {".tif"}
    differing = {files[i].name: (lines[i], python[i]) for i in kept if lines[i] != python[i]}
    assert differing == {}
    assert sum(line.startswith("pixels") for line in lines) > (3 if channels == 5 else 40)


def test_damaged_files_never_crash_it_and_are_never_read_as_other_pixels(
    cpp, mutate, files, tmp_path
):
    rng = np.random.default_rng(0)
    whole = [path for path in files if path.suffix != ".tif"]  # of which libtiff says more
    paths, read_as = [], ReadAs(1, Intensity.parse("percentiles:1,99"))
    for i in range(DAMAGED):
        paths.append(tmp_path / f"{i}.img")
        source = whole[rng.integers(len(whole))].read_bytes()
        paths[-1].write_bytes(mutate.mutate(source, rng))
    lines = lines_of(cpp, mutate, paths, read_as)
    found = [
        mutate.verdict(line, mutate.in_python(path, read_as))
        for path, line in zip(paths, lines, strict=True)
    ]
    assert "DIFFERENT PIXELS" not in found
    assert found.count("equal pixels") > DAMAGED / 10
    # Of a damaged run-length coding pydicom refuses some that are long enough.
    assert found.count("READ, BUT PYTHON REFUSES") < DAMAGED / 25
    assert found.count("REFUSED, BUT PYTHON READS") < DAMAGED / 25


@pytest.mark.parametrize(
    ("channels", "text"), [(1, "window:40,400"), (3, "file"), (5, "percentiles:1,99")]
)
def test_the_program_answers_as_python_does(cpp, files, tmp_path, channels, text):
    preprocess = Preprocess(
        (32, 32),
        36,
        "bicubic",
        mean=(0.4,) * channels,
        std=(0.2,) * channels,
        intensity=Intensity.parse(text),
    )
    bundle = tmp_path / "bundle"
    densepath.export(flowers(preprocess), bundle, to=["torch"], num_images=2, batch_sizes=[1])
    folder = tmp_path / "files"
    folder.mkdir()
    for i, path in enumerate(files):
        (folder / f"{i:03}{path.suffix.upper()}").write_bytes(path.read_bytes())
    words = [bundle, folder, "--precision", "float32"]  # else each its own, by the times
    python = json_lines([PROGRAM, "predict", *words, "--json", "--engine", "native"])
    ours = json_lines([cpp.predict, *words, "--backend", "native"])
    assert [one["path"] for one in ours] == [one["path"] for one in python]
    assert len(ours) == len(files)
    compared = 0
    for one, other in zip(ours, python, strict=True):
        if "built without libtiff" in one.get("error", ""):
            continue
        assert ("error" in one) == ("error" in other), (one, other)
        if "error" not in one:
            assert one["class_ids"] == other["class_ids"]
            np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-5)
            compared += 1
    assert compared >= (4 if channels == 5 else 30)


def json_lines(words) -> list[dict]:
    run = subprocess.run(list(map(os.fspath, words)), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "SECRET" not in run.stdout + run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_a_bundle_with_a_setting_that_is_none_is_refused(cpp, tmp_path):
    changed = Preprocess((32, 32), intensity=Intensity.parse("window:40,400"))
    bundle = tmp_path / "bundle"
    densepath.export(flowers(changed), bundle, to=["torch"], num_images=2, batch_sizes=[1])
    script = (
        "import hashlib, json, pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1], 'manifest.json')\n"
        "values = json.loads(path.read_text()); values['preprocess']['intensity'] = "
        "{'kind': 'window', 'values': [40, 0]}\n"
        "path.write_text(json.dumps(values))\n"
        "digest = hashlib.sha256(path.read_bytes()).hexdigest()\n"
        "path.with_name('manifest.json.sha256').write_text(f'{digest}  manifest.json\\n')\n"
    )
    subprocess.run([sys.executable, "-c", script, bundle], check=True)
    run = subprocess.run([cpp.predict, bundle, bundle], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "preprocess.intensity has a width below 1" in run.stderr

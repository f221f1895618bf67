"""densepath's C++ in a project of somebody else's: installed or built with it, static or shared."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CPP = ROOT / "deploy" / "cpp"
CONSUMER = CPP / "examples" / "consumer"
# As the fixture `cpp` has it: kept from run to run, so that only what changed is built again.
SHARED = ROOT / "build" / "cpp-consumer"
STRICT = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror"
DENSEPATH = Path(sys.executable).with_name("densepath")
KERNELS_ALONE = ("-DDENSEPATH_OPENVINO=OFF", "-DDENSEPATH_ONNXRUNTIME=OFF")


def run(*words: str | Path, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(os.fspath, words)), capture_output=True, text=True, **more)


def run_well(*words: str | Path, **more) -> str:
    done = run(*words, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def configure(source: Path, build: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run("cmake", "-S", source, "-B", build, *options)


def build_consumer(build: Path, *options: str) -> Path:
    """The example of the consumer's project."""
    configured = configure(CONSUMER, build, "-DCMAKE_BUILD_TYPE=Release", *options)
    assert configured.returncode == 0, configured.stderr
    run_well("cmake", "--build", build, "--parallel", "2")
    return build / "example"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    run_well(DENSEPATH, "export", "cifar10/densenet_bc_22_12", "-o", folder, "--to", "torch")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Images of several kinds, an empty file and one that is no image."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, shape in (("a.jpg", (60, 80, 3)), ("b.png", (32, 32)), ("c.png", (9, 200, 4))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    (folder / "text.jpg").write_text("no image")
    (folder / "half.jpg").write_bytes((folder / "a.jpg").read_bytes()[:900])
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def installed(cpp, tmp_path_factory) -> Path:
    """Where the static library of the fixture `cpp` is installed; the folder was moved since."""
    first, moved = (tmp_path_factory.mktemp("prefix") / name for name in ("first", "moved"))
    run_well("cmake", "--install", cpp.predict.parent, "--prefix", first)
    first.rename(moved)
    return moved


@pytest.fixture(scope="module")
def shared(cpp) -> Path:
    """The consumer's program, built with the library as a part of its project, a shared one.

    Its own target is called `example`, and its own warnings end its build.
    """
    return build_consumer(
        SHARED,
        f"-DDENSEPATH_SOURCE={CPP}",
        "-DBUILD_SHARED_LIBS=ON",
        "-DDENSEPATH_INSTALL=ON",
        *KERNELS_ALONE,
    )


def expected_lines(cpp, bundle: Path, images: list[Path]) -> list[str]:
    """What the consumer's program prints, by the answers of densepath-predict."""
    lines = []
    for answer in run_well(cpp.predict, bundle, *images, "--backend", "native").splitlines():
        told = json.loads(answer)
        best = told.get("error") or f"{told['labels'][0]} {told['scores'][0]:.6f}"
        lines.append(f"{told['path']}: {best}")
    return lines


def test_an_installed_library_is_found_and_answers_from_memory(
    cpp, installed, bundle, images, tmp_path
):
    program = build_consumer(
        tmp_path, f"-DCMAKE_PREFIX_PATH={installed}", f"-DCMAKE_CXX_FLAGS={STRICT}"
    )
    done = run(program, bundle, *images)
    assert done.stdout.splitlines() == expected_lines(cpp, bundle, images)
    assert done.stderr == (
        f"densepath {version()}, native: densenet_bc_22_12, 10 classes, 32 x 32 pixels\n"
    )
    assert {path.name for path in (installed / "include").iterdir()} == {"densepath"}
    assert run_well(installed / "bin" / "densepath-predict", "--version").startswith("densepath")


def test_a_project_has_the_shared_library_as_a_part_of_its_own(cpp, shared, bundle, images):
    assert run_well(shared, bundle, *images).splitlines() == expected_lines(cpp, bundle, images)
    refused = run(shared, bundle.parent, images[0])
    assert refused.returncode == 1  # thrown in the library, caught by its type in the program
    assert "is not a bundle: it has no manifest.json" in refused.stderr
    [library] = SHARED.rglob("libdensepath.so")
    assert f"libdensepath.so.{version()}" == library.resolve().name


def test_an_installed_shared_library_needs_no_packages_to_link(shared, bundle, images, tmp_path):
    run_well("cmake", "--install", SHARED, "--prefix", tmp_path / "prefix")
    program = build_consumer(tmp_path / "build", f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}")
    assert "JPEG" not in (tmp_path / "build" / "CMakeCache.txt").read_text()
    assert run_well(program, bundle, *images) == run_well(shared, bundle, *images)


def test_a_version_that_is_not_there_is_refused(installed, tmp_path):
    for name in ("CMakeLists.txt", "main.cpp"):
        shutil.copy(CONSUMER / name, tmp_path)
    text = (tmp_path / "CMakeLists.txt").read_text()
    (tmp_path / "CMakeLists.txt").write_text(text.replace("densepath 0.1 ", "densepath 0.2 "))
    done = configure(tmp_path, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed}")
    assert done.returncode != 0
    assert f"densepath-config.cmake, version: {version()}" in done.stderr


def test_the_shared_library_shows_what_its_headers_name(shared):
    [library] = SHARED.rglob("libdensepath.so")
    shown = run_well("nm", "-DC", "--defined-only", library)
    functions = re.findall(r" T densepath::([\w:]+)", shown)
    allowed = {"Predictor", "Error", "UsageError", "BundleError", "ImageError"}
    allowed |= {"to_json", "backend_names", "processor_obstacle"}
    assert {name.partition("::")[0] for name in functions} == allowed


def test_the_targets_have_names_of_their_own(tmp_path):
    """A project of many parts has an `example` already, and may have any other name."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(whole LANGUAGES CXX)\n"
        f"set(DENSEPATH_PROGRAMS ON)\nset(DENSEPATH_FUZZ ON)\nadd_subdirectory({CPP} densepath)\n"
        f"get_property(names DIRECTORY {CPP} PROPERTY BUILDSYSTEM_TARGETS)\n"
        'message(STATUS "targets: ${names}")\n'
    )
    done = configure(tmp_path, tmp_path / "build", *KERNELS_ALONE)
    assert done.returncode == 0, done.stderr
    names = re.search(r"targets: (.*)", done.stdout)[1].split(";")
    assert {"densepath", "densepath-predict", "densepath-example"} <= set(names)
    assert [name for name in names if not name.startswith("densepath")] == []


def test_others_are_not_held_to_our_warnings(cpp, tmp_path):
    done = configure(CPP, tmp_path, *KERNELS_ALONE, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")
    assert done.returncode == 0, done.stderr
    assert "-Werror" not in (tmp_path / "compile_commands.json").read_text()


def version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_header_has_the_version_of_the_package():
    text = (CPP / "include" / "densepath" / "version.hpp").read_text()
    parts = re.findall(r"define DENSEPATH_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text)
    assert ".".join(parts) == version()
    assert f'define DENSEPATH_VERSION "{version()}"' in text


# What a C++ program can ask for, in a few lines each; each prints "right".
PROGRAMS = {
    "pixels and bytes are the same image": """
  densepath::Prediction named = predictor.predict(image);
  densepath::Prediction bytes = predictor.predict_bytes(file.data(), file.size());
  right = named.class_ids == bytes.class_ids && named.scores == bytes.scores &&
          bytes.path == "image";
""",
    "a stream takes bytes, names and failures": """
  const auto kept = std::make_shared<const std::vector<std::uint8_t>>(file.begin(), file.end());
  std::vector<densepath::Source> sources = {
      {"upload", std::nullopt, kept}, {image}, {"gone.jpg"}, {"late", std::string("no reason")},
      {"empty", std::nullopt, std::make_shared<const std::vector<std::uint8_t>>()}};
  std::vector<densepath::Prediction> answers;
  std::size_t at = 0;
  predictor.predict(
      [&]() -> std::optional<densepath::Source> {
        if (at == sources.size()) return std::nullopt;
        return sources[at++];
      },
      [&](const densepath::Prediction& answer) {
        answers.push_back(answer);
        return true;
      });
  right = answers.size() == 5 && answers[0].scores == answers[1].scores &&
          answers[0].path == "upload" && *answers[2].error == "no such file or directory" &&
          *answers[3].error == "no reason" && *answers[4].error == "the file is empty";
""",
    "labels and sizes are told": """
  densepath::InputSize size = predictor.input_size();
  right = predictor.labels().size() == 10 && predictor.labels()[0] == "airplane" &&
          size.channels == 3 && size.height == 32 && size.count() == 3072 &&
          !predictor.is_multi_label() && predictor.settings().backend == "native" &&
          predictor.settings().threads > 0 && predictor.settings().batch_size > 0;
""",
    "what cannot be is thrown, and the next call is answered": """
  int thrown = 0;
  const auto expect = [&](const std::function<void()>& call) {
    try {
      call();
    } catch (const densepath::UsageError& error) {
      if (error.exit_code() == 2) ++thrown;
    }
  };
  expect([&] { predictor.predict(image, 0); });
  expect([&] { predictor.predict_bytes(nullptr, 4); });
  expect([&] { predictor.predict(densepath::Image{4, 4, 1, std::vector<std::uint8_t>(16)}); });
  expect([&] { predictor.predict(densepath::Image{4, 4, 3, std::vector<std::uint8_t>(47)}); });
  expect([&] { densepath::Predictor(argv[1], {"tensorrt"}); });
  right = thrown == 5 && predictor.predict(image, 99).labels.size() == 10 &&
          predictor.predict_bytes("", 0).error == std::string("the file is empty");
""",
    "what the caller's own functions throw comes out again": """
  struct Own {};
  int thrown = 0;
  for (bool by_next : {true, false}) {
    try {
      predictor.predict(
          [&]() -> std::optional<densepath::Source> {
            if (by_next) throw Own();
            return densepath::Source{image};
          },
          [](const densepath::Prediction&) -> bool { throw Own(); });
    } catch (const Own&) {
      ++thrown;
    }
  }
  right = thrown == 2 && !predictor.predict(image).error;
""",
    "many threads get the answers of one": """
  const densepath::Prediction alone = predictor.predict(image);
  std::atomic<int> same{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        const auto answer = i % 2 == 0 ? predictor.predict(image)
                                       : predictor.predict_bytes(file.data(), file.size());
        if (answer.scores == alone.scores) ++same;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  right = same == 120;
""",
}
FRAME = """
#include <densepath/predictor.hpp>
#include <atomic>
#include <fstream>
#include <iostream>
#include <iterator>
#include <thread>

bool run_@(densepath::Predictor& predictor, const std::string& image,
           const std::string& file, char** argv) {{
  bool right = false;
  static_cast<void>(argv);
{0}
  return right;
}}
"""
MAIN = """
int main(int, char** argv) {{
  densepath::Predictor predictor(argv[1]);
  std::ifstream stream(argv[2], std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(stream)), {{}});
{0}
}}
"""


@pytest.fixture(scope="module")
def asked(installed, bundle, images, tmp_path_factory) -> dict[str, str]:
    """What all of `PROGRAMS` say, as one program."""
    folder = tmp_path_factory.mktemp("asked")
    parts, calls = [], []
    for number, (name, body) in enumerate(PROGRAMS.items()):
        parts.append(FRAME.format(body).replace("run_@", f"run_{number}"))
        call = f"run_{number}(predictor, argv[2], file, argv)"
        calls.append(f'  std::cout << "{name}\\t" << ({call} ? "right" : "wrong") << std::endl;')
    (folder / "main.cpp").write_text("".join(parts) + MAIN.format("\n".join(calls)))
    shutil.copy(CONSUMER / "CMakeLists.txt", folder)
    options = [f"-DCMAKE_PREFIX_PATH={installed}", "-DCMAKE_BUILD_TYPE=Debug"]
    assert configure(folder, folder / "build", *options).returncode == 0
    run_well("cmake", "--build", folder / "build")
    [photo] = [image for image in images if image.name == "a.jpg"]
    said = run_well(folder / "build" / "example", bundle, photo)
    return dict(line.split("\t") for line in said.splitlines())


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_public_header_keeps_its_word(asked, name):
    assert asked[name] == "right"


def test_a_frame_of_a_camera_is_answered_as_its_file_is(cpp, shared, bundle, tmp_path):
    """Bytes that were never a file: encoded here, written only to hand them over."""
    frame = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(frame, "JPEG")
    (tmp_path / "frame").write_bytes(frame.getvalue())  # no suffix
    assert run_well(shared, bundle, tmp_path / "frame").splitlines() == expected_lines(
        cpp, bundle, [tmp_path / "frame"]
    )

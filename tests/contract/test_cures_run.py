"""Situations that users get into, and the way out that the message names: it is run, and works.

What a message says is not repeated here: its commands are taken out of it as a reader would, with
the names of this folder in the place of SUBJECT, DATA, DIR and the like.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest
from safetensors.torch import save_file

from densepath.images.preprocess import Preprocess
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import TINY, new_network
from fixtures.pictures import write_classes, write_noise

LABELS = ["cat", "dog", "owl"]
COMMAND = re.compile(r"densepath ((?:(?! or | which |[.,;:] |\.$|densepath ).)+)")


@dataclass(frozen=True)
class Situation:
    """A command that fails, and what its message has to lead to.

    Attributes:
        fails: the command.
        told: a part of the message.
        names: what stands for a message's names.
        cure: what is chosen of the message, by its number among the commands; or an option of it,
            which the failing command gets. `{new}` is a folder that is not there.
        then: what works after that.
        before: commands that lead there.
    """

    fails: str
    told: str
    cure: int | str = 0
    names: dict[str, str] = field(default_factory=dict)
    then: str | None = None
    before: tuple[str, ...] = ()


def quantised(name, formats, more=""):
    """A command that makes the bundle."""
    options = "--data images/train --images 6 --held-out 2 --method minmax"
    return f"quantize tiny.safetensors {options} --to {formats} -o {name} {more}"


INT8 = {"SUBJECT": "tiny.safetensors", "DATA": "images/train --method minmax --images 6"}
FLOAT = {"SUBJECT": "tiny.safetensors"}
DATA = (
    "train tiny-recipe.yaml --epochs 1 --output {new} --data",
    "evaluate tiny.safetensors --data",
)
SITUATIONS = {
    "a float bundle without an engine's format": Situation(
        "predict torch-bundle cat.png --engine openvino",
        "no openvino format",
        0,
        {**FLOAT, "DIR": "more"},
        then="predict more cat.png --engine openvino",
        before=("export tiny.safetensors --to torch -o torch-bundle",),
    ),
    "an INT8 bundle without an engine's format": Situation(
        "predict int8-bundle cat.png --engine native",
        "no native format",
        0,
        {**INT8, "DIR": "more"},
        then="predict more cat.png --engine native",
        before=(quantised("int8-bundle", "onnx"),),
    ),
    "an INT8 bundle that an engine of float weights is asked for": Situation(
        "predict int8-bundle cat.png --engine eager",
        "Engines that do: native,",
        "--engine native",
        before=(quantised("int8-bundle", "native"),),
    ),
    "an INT8 bundle whose float weights are asked for": Situation(
        "export int8-bundle --to onnx -o {new}",
        "never has it",
        0,
        {**FLOAT, "DIR": "more"},
        then="export more --to onnx -o {new}",
        before=(quantised("int8-bundle", "native"),),
    ),
    "a checkpoint that an engine of bundles is asked for": Situation(
        "predict tiny.safetensors cat.png --engine onnxruntime",
        "the subject is none",
        0,
        {**FLOAT, "DIR": "more"},
        then="predict more cat.png --engine onnxruntime",
    ),
    "a checkpoint that compiled machine code is asked for": Situation(
        "predict tiny.safetensors cat.png --engine aoti",
        "the subject is none",
        0,
        {**FLOAT, "DIR": "more"},
        then="predict more cat.png --engine aoti",
    ),
    "no engine for what a bundle has": Situation(
        "predict onnx-bundle cat.png --size 48",
        "no engine can answer",
        0,
        {**FLOAT, "DIR": "more"},
        then="predict more cat.png --size 48",
        before=("export tiny.safetensors --to onnx -o onnx-bundle",),
    ),
    "a graph of another size": Situation(
        "predict onnx-bundle cat.png --size 48 --engine onnxruntime",
        "not of 48 × 48",
        0,
        {**FLOAT, "DIR": "more"},
        then="predict more cat.png --size 48 --engine onnxruntime",
        before=("export tiny.safetensors --to onnx -o onnx-bundle",),
    ),
    "a graph of another size beside float weights": Situation(
        "predict both-bundle cat.png --size 48 --engine onnxruntime",
        "not of 48 × 48",
        "--engine eager",
        before=("export tiny.safetensors --to onnx,torch -o both-bundle",),
    ),
    "an explanation without float weights": Situation(
        "predict onnx-bundle cat.png --explain {new}",
        "from which explanations are made",
        0,
        {**FLOAT, "DIR": "more"},
        then="predict more cat.png --explain {new}",
        before=("export tiny.safetensors --to onnx -o onnx-bundle",),
    ),
    "an integer graph of another size": Situation(
        "predict int8-bundle cat.png --size 48 --engine onnxruntime",
        "not of 48 × 48",
        0,
        {**FLOAT, "FLOAT": "more"},
        then="quantize more --data images/train --to onnx --method minmax --images 6 -o {new}",
        before=(quantised("int8-bundle", "onnx"),),
    ),
    "a bundle that stands there": Situation(
        "export tiny.safetensors --to torch -o torch-bundle",
        "is a bundle already",
        "--overwrite",
        before=("export tiny.safetensors --to torch -o torch-bundle",),
    ),
    "an INT8 bundle that stands there": Situation(
        quantised("int8-bundle", "native"),
        "is a bundle already",
        "--overwrite",
        before=(quantised("int8-bundle", "native"),),
    ),
    "a file of another system's weights": Situation(
        "predict foreign.safetensors cat.png",
        "Import it first",
        0,
        {"-o x.safetensors": "-o own.safetensors"},
        then="predict own.safetensors cat.png",
    ),
    "a method that one format lacks": Situation(
        "quantize tiny.safetensors --data images/train --images 6 --method entropy "
        "--to native,openvino -o {new}",
        "Formats that have it",
        "--to onnx",
    ),
    "an address where nothing is downloaded": Situation(
        "predict tiny.safetensors http://localhost:1/x.png", "--allow-urls", "--allow-urls"
    ),
    "a data set without some classes, measured": Situation(
        "evaluate tiny.safetensors --data two-classes",
        "data set lacks",
        "--missing-classes allow",
    ),
    "a data set without some classes, on the ladder": Situation(
        "ladder tiny.safetensors --data two-classes",
        "data set lacks",
        "--missing-classes allow",
    ),
    "an image that cannot be read, measured": Situation(
        "evaluate tiny.safetensors --data damaged", "leaves such images out", "--on-error skip"
    ),
    "an image that cannot be read, on the ladder": Situation(
        "ladder tiny.safetensors --data damaged", "leaves such images out", "--on-error skip"
    ),
    "a run that is to be shorter than it was planned": Situation(
        "train runs/tiny --epochs 1",
        "is planned for 2 epochs",
        0,
        {"NEW_FOLDER": "runs/short"},
        before=("train tiny.yaml --data images --epochs 2 --output runs/tiny",),
    ),
    "a run folder that stands there": Situation(
        "train tiny.yaml --data images --epochs 1 --output runs/tiny",
        "",
        0,
        before=("train tiny.yaml --data images --epochs 1 --output runs/tiny",),
    ),
    "a training whose images have moved": Situation(
        "evaluate runs/tiny",
        "is not there",
        "--data images",
        before=(
            "train tiny.yaml --data moved --epochs 1 --output runs/tiny",
            "MOVE moved elsewhere",
        ),
    ),
    "a run folder's place that is taken": Situation(
        "train --data images --epochs 1 --output photos tiny.yaml",
        "is no run folder",
        "--output {new}",
    ),
}
PROGRAM = "npu compile npu-bundle --target ethos-u55-64 -o small"
NPU_SITUATIONS = {
    "a float bundle for an NPU": Situation(
        "npu compile torch-bundle --target ethos-u55-64 -o small",
        "an NPU computes in INT8|no litert format",
        0,
        {**INT8, "DIR": "npu-bundle"},
        then=PROGRAM,
        before=("export tiny.safetensors --to torch -o torch-bundle",),
    ),
    "an INT8 bundle for servers, for an NPU": Situation(
        "npu compile int8-bundle --target ethos-u55-64 -o small",
        "no litert format",
        0,
        {**INT8, "DIR": "npu-bundle"},
        then=PROGRAM,
        before=(quantised("int8-bundle", "onnx"),),
    ),
    "a checkpoint for the engine of phones": Situation(
        "predict tiny.safetensors cat.png --engine litert",
        "the subject is none",
        0,
        {**INT8, "DIR": "more"},
        then="predict more cat.png --engine litert",
    ),
    "a program that does not fit": Situation(
        f"{PROGRAM} --sram-kib 4",
        "does not fit",
        0,
        {"BUNDLE": "npu-bundle", "DIR": "large"},
        then="npu profile large",
        before=(quantised("npu-bundle", "litert", "--for npu"),),
    ),
    "a program that does not fit, for smaller images": Situation(
        f"{PROGRAM} --sram-kib 4",
        "does not fit",
        1,
        {**FLOAT, "--size N": "--size 16", "DIR": "smaller"},
        then="quantize smaller --data images/train --images 6 --method minmax --for npu -o {new}",
        before=(quantised("npu-bundle", "litert", "--for npu"),),
    ),
    "a program that stands there": Situation(
        PROGRAM,
        "is a program already",
        "--overwrite",
        before=(quantised("npu-bundle", "litert", "--for npu"), PROGRAM),
    ),
    "a memory mode that needs a DRAM": Situation(
        f"{PROGRAM} --memory-mode Dedicated_Sram",
        "unknown memory mode",
        "--memory-mode Shared_Sram",
        before=(quantised("npu-bundle", "litert", "--for npu"),),
    ),
    "a folder that is no program": Situation(
        "npu profile npu-bundle",
        "is not a compiled program",
        0,
        {"": " npu-bundle --target ethos-u55-32 -o small"},
        then="npu profile small",
        before=(quantised("npu-bundle", "litert", "--for npu"),),
    ),
}
for _verb, _command in {
    "train": "train tiny.yaml --epochs 1 --output {new} --data",
    "inspect": "data inspect",
    "evaluate": "evaluate tiny.safetensors --data",
    "quantize": "quantize tiny.safetensors --to native --method minmax --images 4 -o {new} --data",
    "ladder": "ladder tiny.safetensors --data",
}.items():
    SITUATIONS |= {
        f"a table of columns with other names, to {_verb}": Situation(
            f"{_command} odd.csv --set data.label_column=what",
            "columns",
            "--set data.path_column=pic",
        ),
        f"a table whose classes are not known, to {_verb}": Situation(
            f"{_command} odd.csv --set data.path_column=pic", "", "--set data.label_column=what"
        ),
    }


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A folder with a network, images and data sets that are not as they should be."""
    folder = tmp_path_factory.mktemp("stage")
    model = new_network(TINY, num_classes=len(LABELS))
    made = Checkpoint.of(model, preprocess=Preprocess((32, 32)), labels=LABELS)
    made.save(folder / "tiny.safetensors")
    rng = np.random.default_rng(0)
    for split, each in (("train", 6), ("validation", 2)):
        write_classes(folder / "images" / split, LABELS, each=each, shape=(40, 40, 3), seed=rng)
    shutil.copytree(folder / "images" / "validation", folder / "two-classes")
    shutil.rmtree(folder / "two-classes" / "owl")
    shutil.copytree(folder / "images" / "validation", folder / "damaged")
    (folder / "damaged" / "owl" / "0.png").write_bytes(b"no image")
    write_noise(folder / "cat.png", (40, 40, 3), seed=rng)
    write_noise(folder / "photos" / "dog.png", (40, 40, 3), seed=rng)
    rows = [f"images/train/{label}/{n}.png,{label}" for n in range(4) for label in LABELS]
    (folder / "odd.csv").write_text("\n".join(["pic,what", *rows]) + "\n")
    recipe = "model: {name: densenet_bc_22_12}\npreprocess: {size: 32}\ndata: {batch_size: 8}\n"
    (folder / "tiny.yaml").write_text(recipe)
    save_file(new_network().state_dict(), str(folder / "foreign.safetensors"))
    return folder


@pytest.fixture
def run(run, stage, tmp_path, monkeypatch):
    """Run a command in a copy of the folder → exit code and all that was said."""
    folder = shutil.copytree(stage, tmp_path / "stage")
    shutil.copytree(folder / "images", folder / "moved")
    monkeypatch.chdir(folder)
    count = 0

    def start(command):
        nonlocal count
        count += 1
        words = shlex.split(command.replace("{new}", f"new-{count}"))
        if words[0] == "MOVE":
            return shutil.move(*words[1:]) and 0, ""
        code, out, err = run(*words)
        return code, f"{err} {' '.join(out.split())}"

    return start


def chosen(said, situation):
    """The command that a reader of the message runs."""
    if isinstance(situation.cure, str):
        words = situation.cure
        option, value = words.split()[0], words.split()[-1].split("=")[0]
        assert option in said or value in said, said
        kept = situation.fails
        name = words.split()[0]
        if name != "--set":  # in the place of the value that was refused
            kept = re.sub(rf" {name} \S+", "", kept)
        return f"{kept} {words}"
    command = COMMAND.findall(said.replace("`", ". "))[situation.cure].strip()
    for name, value in situation.names.items():
        command = (
            re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", value, command) if name else command + value
        )
    return command


def cases():
    """All of them; those that train, export or quantise are of the slow tier."""
    for name, situation in SITUATIONS.items():
        commands = " ".join((situation.fails, *situation.before, str(situation.names)))
        long = re.search(r"\b(train|export|quantize|--to|bundle|DIR)\b", commands)
        yield pytest.param(name, marks=[pytest.mark.slow] if long else [], id=name)


@pytest.mark.parametrize("name", list(cases()))
def test_what_a_message_says_to_run_works(run, name):
    follow(run, SITUATIONS[name])


@pytest.mark.npu
@pytest.mark.slow
@pytest.mark.parametrize("name", NPU_SITUATIONS)
def test_what_a_message_on_an_npu_says_to_run_works(run, name):
    follow(run, NPU_SITUATIONS[name])


def follow(run, situation):
    """Run what fails, then what its message says."""
    for command in situation.before:
        code, said = run(command)
        assert code == 0, said
    code, said = run(situation.fails)
    assert code in (1, 2), said
    assert re.search(situation.told, said), said
    cure = chosen(said, situation)
    code, answer = run(cure)
    if "localhost:1" not in cure:
        assert code == 0, f"{said}\n→ {cure}\n{answer}"
    if situation.then is not None:
        code, answer = run(situation.then)
        assert code == 0, answer

"""`densepath import`: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import json

import pytest
import torch

from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import SMALL, new_network


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save({"state_dict": new_network().state_dict()}, path)
    return path


def test_a_file_becomes_a_checkpoint_with_the_given_labels(run, file, tmp_path):
    output, labels = tmp_path / "x.safetensors", tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nbird\n")
    code, out, err = run("import", file, "--model", SMALL, "-o", output, "--labels", labels)
    assert (code, out) == (0, "")
    assert "3 classes" in err
    checkpoint = Checkpoint.load(output)
    assert checkpoint.labels == ["cat", "dog", "bird"]
    assert torch.equal(
        checkpoint.tensors["classifier.weight"],
        torch.load(file, weights_only=True)["state_dict"]["classifier.weight"],
    )


def test_json_is_one_object_on_standard_output(run, file, tmp_path):
    output = tmp_path / "x.safetensors"
    code, out, err = run("import", file, "--model", SMALL, "-o", output, "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert (summary["model"], summary["num_classes"], summary["output"]) == (SMALL, 3, str(output))
    assert summary["provenance"]["imported_from"] == "theirs.pth"


@pytest.mark.parametrize(
    ("model", "output", "code", "reason"),
    [
        ("densenet_bc_40_12", "x.safetensors", 1, f"weights of {SMALL}: name that model"),
        ("densenet121", "x.safetensors", 1, f"weights of {SMALL}: name that model"),
        ("densnet121", "x.safetensors", 2, "Did you mean densenet121"),
        (SMALL, "x.pth", 2, "must end in .safetensors"),
    ],
)
def test_a_mistake_is_told_and_leaves_no_file(run, file, tmp_path, model, output, code, reason):
    found, out, err = run("import", file, "--model", model, "-o", tmp_path / output)
    assert (found, out) == (code, "")
    assert reason in " ".join(err.split())
    assert not (tmp_path / output).exists()


# Preprocessing that is not in a weights file


def shown(err):
    return " ".join(err.split())


def test_the_guessed_preprocessing_is_printed_with_where_it_is_from_and_what_changes_it(
    run, file, tmp_path
):
    code, _, err = run("import", file, "--model", SMALL, "-o", tmp_path / "x.safetensors")
    assert code == 0
    assert (
        "preprocessing: resized to 32 × 32, bilinear; mean 0.485 0.456 0.406, std 0.229 0.224 "
        "0.225 of values from 0 to 1 it is guessed: the model's own size, ImageNet's mean and "
        "deviation. Other values: --size, --resize-short, --crop-pct, --interpolation, --mean, "
        "--std"
    ) in shown(err)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--size 48", {"size": (48, 48)}),
        ("--size 40x56", {"size": (40, 56)}),
        ("--size 40×56", {"size": (40, 56)}),
        ("--size 48 --crop-pct 0.75", {"size": (48, 48), "resize_short": 64}),
        ("--crop-pct 0.8", {"size": (32, 32), "resize_short": 40}),
        ("--resize-short 36", {"resize_short": 36}),
        ("--size 48 --resize-short 52", {"size": (48, 48), "resize_short": 52}),
        ("--resize-short none", {"resize_short": None}),
        ("--interpolation bicubic", {"interpolation": "bicubic"}),
        ("--mean 0.5 --std 0.25", {"mean": (0.5,) * 3, "std": (0.25,) * 3}),
        ("--mean 0.1,0.2,0.3", {"mean": (0.1, 0.2, 0.3)}),
    ],
)
def test_options_take_the_place_of_guesses_and_travel_with_the_weights(
    run, file, tmp_path, options, expected
):
    output = tmp_path / "x.safetensors"
    code, _, err = run("import", file, "--model", SMALL, "-o", output, *options.split())
    assert code == 0
    found = Checkpoint.load(output).preprocess.to_dict()
    assert {name: found[name] for name in expected} == expected
    assert "as given" in err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            "--mean 123.675,116.28,103.53",
            "up to 255. Here values are scaled to 0…1 first: give 0.48",
        ),
        ("--mean 1,2", "mean has 2 values for 3 channels"),
        ("--mean a,b,c", "--mean is 'a,b,c'; it must be numbers"),
        ("--std nan", "std is (nan,)"),
        ("--std 0", "std above 0"),
        ("--size 0", "it must be a height and a width of 1 or more"),
        ("--size 12x", "--size is '12x'"),
        ("--size 1x2x3", "or height and width"),
        ("--crop-pct 1.5", "must lie in (0, 1]"),
        ("--crop-pct 0.9 --resize-short 40", "say the same: give one"),
        ("--resize-short 8", "less than the crop"),
        ("--resize-short x", "--resize-short is 'x'"),
        ("--interpolation nearest", "'nearest' is not one of"),
    ],
)
def test_an_impossible_preprocessing_is_refused_and_leaves_no_file(
    run, file, tmp_path, options, reason
):
    output = tmp_path / "x.safetensors"
    code, _, err = run("import", file, "--model", SMALL, "-o", output, *options.split())
    assert code == 2
    assert reason in shown(err).replace("│ ", "").replace(" │", "")
    assert not output.exists()


def test_a_size_below_the_networks_least_is_refused(run, tmp_path):
    torch.save(new_network("densenet121").state_dict(), tmp_path / "x.pth")
    output = tmp_path / "x.safetensors"
    code, _, err = run(
        "import", tmp_path / "x.pth", "--model", "densenet121", "-o", output, "--size", "16"
    )
    assert code == 2
    assert "densenet121 needs at least 32 × 32 pixels" in shown(err)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "guessed: what torchvision's DenseNet weights usually take"),
        ("timm/densenet121.tv_in1k", "that of timm/densenet121.tv_in1k"),
    ],
)
def test_the_guess_names_whose_habit_it_is(run, tmp_path, source, said):
    torch.save(new_network("densenet121").state_dict(), tmp_path / "x.pth")
    options = () if source is None else ("--source", source)
    output = tmp_path / "x.safetensors"
    code, _, err = run(
        "import", tmp_path / "x.pth", "--model", "densenet121", "-o", output, *options
    )
    assert code == 0
    assert said in shown(err)
    assert ("Other values" in err) == (source is None)
    assert "short side resized to 256, centre crop 224 × 224" in err
    assert Checkpoint.load(output).provenance["preprocess"] == said


def test_what_is_left_aside_is_said_on_standard_error_and_kept(run, file, tmp_path):
    state = torch.load(file, weights_only=True)
    state["state_dict"]["criterion.weight"] = torch.ones(3)
    torch.save(state | {"epoch": 7, "optimizer": {}}, file)
    output = tmp_path / "x.safetensors"
    code, _, err = run("import", file, "--model", SMALL, "-o", output)
    assert code == 0
    said = "left aside criterion.weight, and from beside the network: epoch, optimizer."
    assert said in shown(err)
    assert Checkpoint.load(output).provenance["notes"] == [f"theirs.pth: {said}"]


def test_convert_prints_and_takes_the_same(run, file, tmp_path):
    code, _, err = run(
        "convert",
        file,
        "--model",
        SMALL,
        "--to",
        "torch",
        "-o",
        tmp_path / "b",
        "--size",
        "40",
        "--mean",
        "0.5",
        "--std",
        "0.5",
        "--num-images",
        "1",
    )
    assert code == 0
    assert "resized to 40 × 40, bilinear; mean 0.5 0.5 0.5" in shown(err)
    assert "it is guessed: the model's own size" in shown(err)
    assert "size, mean, std as given" in shown(err)

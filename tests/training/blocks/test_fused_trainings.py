"""Trainings with `compute.block`: the curve of the modules, and what is said."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from threading import local

import pytest
import torch

from densepath.errors import EngineError, RecipeError
from densepath.models.build import resolve_spec
from densepath.training.blocks import native
from densepath.training.blocks.choose import wants_fused
from densepath.training.blocks.worth import count_flops, why_not_worth
from densepath.training.recipe import Recipe
from densepath.training.recipe_file import make_recipe
from fixtures.networks import SMALL
from fixtures.ranks import in_threads
from fixtures.runs import DIGITS, train_quietly

# A low rate, so that rounding is not blown up from step to step.
FIELDS = DIGITS | {"optimizer.lr": 0.003, "data.evaluate_on": "test"}
RICH = {
    "distributed.accumulate": 2,
    "ema.decay": 0.9,
    "augment.mixup": 0.2,
    "model.drop_rate": 0.1,
    "model.drop_path_rate": 0.1,
    "compute.channels_last": True,
}


def losses(folder: Path) -> list[float]:
    """Of training and evaluation, of every epoch."""
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [float(row[name]) for row in rows for name in ("train_loss", "loss")]


def said(folder: Path) -> list[str]:
    """What the log says of blocks."""
    lines = (folder / "train.log").read_text().splitlines()
    return [line.split(maxsplit=2)[2] for line in lines if "compute." in line]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "plain"
    train_quietly("digits", folder, FIELDS | RICH)
    return folder


def test_a_training_with_fused_blocks_has_the_curve_of_one_with_modules(plain, tmp_path):
    """With accumulation, an average, mixed images, dropout and drop-path, on our own kernels."""
    train_quietly("digits", tmp_path / "fused", FIELDS | RICH, compute__block="fused")
    assert losses(tmp_path / "fused") == pytest.approx(losses(plain), rel=2e-5)
    assert said(tmp_path / "fused") == [
        "compute.block fused: blocks are one operation each, on densepath's own kernels."
    ]
    assert said(plain) == []


@pytest.mark.parametrize("block", ["auto", "fused"])
def test_a_training_that_computes_maps_again_has_the_same_curve(plain, tmp_path, block):
    """And is fused, however short it is."""
    fields = FIELDS | RICH | {"compute.block": block, "compute.recompute": True}
    train_quietly("digits", tmp_path / "again", fields)
    assert losses(tmp_path / "again") == pytest.approx(losses(plain), rel=2e-5)
    assert said(tmp_path / "again") == [
        f"compute.block {block}: blocks are one operation each, on densepath's own kernels, and "
        "keep as little as they can."
    ]


def test_without_a_compiler_pytorch_computes_the_blocks(plain, tmp_path, monkeypatch):
    def fail():
        raise EngineError("no C++ compiler is here.")

    monkeypatch.setattr(native, "load_library", fail)
    train_quietly("digits", tmp_path / "fused", FIELDS | RICH, compute__block="fused")
    assert losses(tmp_path / "fused") == pytest.approx(losses(plain), rel=2e-5)
    assert said(tmp_path / "fused") == [
        "compute.block fused: blocks are one operation each, without densepath's own kernels "
        "(no C++ compiler is here), on PyTorch's."
    ]


def test_a_training_that_is_gone_on_with_says_again_what_computes(tmp_path):
    frozen = {"model.freeze": "stem", "schedule.name": "constant"}
    fields = FIELDS | frozen | {"compute.block": "fused"}
    train_quietly("digits", tmp_path / "run", fields)
    train_quietly(None, tmp_path / "run", subject=tmp_path / "run", epochs=2)
    assert len(losses(tmp_path / "run")) == 4
    assert len(said(tmp_path / "run")) == 2


@pytest.mark.parametrize(
    ("has_bfloat16", "has_amx", "text"),
    [
        (False, False, "not in blocks, which are in float32"),
        (
            True,
            False,
            "in blocks the 1×1 convolutions and groups of even width; all else is in float32",
        ),
        (True, True, "in blocks the convolutions; all else is in float32"),
    ],
)
def test_what_of_a_block_is_in_bfloat16_is_said(tmp_path, monkeypatch, has_bfloat16, has_amx, text):
    monkeypatch.setattr(native.NativeOperations, "has_bfloat16", has_bfloat16)
    monkeypatch.setattr(native.NativeOperations, "has_amx", has_amx)
    fields = FIELDS | {"compute.block": "fused", "compute.precision": "bfloat16"}
    train_quietly("digits", tmp_path / "run", fields)
    assert said(tmp_path / "run")[1:] == [f"compute.precision bfloat16: {text}."]


def test_a_training_in_bfloat16_has_the_curve_of_one_with_modules(plain, tmp_path, monkeypatch):
    """But for what is rounded: 8 bits of each number."""
    monkeypatch.setattr(native.NativeOperations, "has_bfloat16", True)
    fields = FIELDS | RICH | {"compute.block": "fused", "compute.precision": "bfloat16"}
    train_quietly("digits", tmp_path / "run", fields)
    found = losses(tmp_path / "run")
    assert found == pytest.approx(losses(plain), rel=0.02)
    assert found != pytest.approx(losses(plain), rel=1e-6)


QAT = {"model": {"weights": f"cifar10/{SMALL}"}, "quantization": {"target": "int8"}}
SYNCED = {"distributed": {"sync_bn": True}}
COMPILED = {"compute": {"compile": True}}


def test_norms_that_count_the_images_of_all_processes_leave_no_block_to_its_modules(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("densepath.training.blocks.worth.LEAST_FLOPS", 1e3)
    for block in ("auto", "fused"):
        recipe = make_recipe(SYNCED | {"compute": {"block": block}})
        assert recipe.why_plain_blocks() is None
        train_quietly("digits", tmp_path / block, FIELDS | SYNCED, compute__block=block)
        assert said(tmp_path / block) == [
            f"compute.block {block}: blocks are one operation each, on densepath's own kernels."
        ]


def test_all_processes_fuse_blocks_where_the_leader_does(monkeypatch):
    """One of two machines has no compiler."""
    recipe = make_recipe(
        {"epochs": 1000, "data": {"channels": 3}, "preprocess": {"size": 224}}
        | {"compute": {"block": "auto"}}
    )
    spec, place = resolve_spec("densenet121"), local()
    monkeypatch.setattr("densepath.training.blocks.worth.find_compiler", lambda: place.compiler)

    def decide(ranks, compilers):
        """What one of two processes does, and says."""
        place.compiler, told = compilers[ranks.rank], []
        fused = wants_fused(
            spec, recipe, torch.device("cpu"), told.append, num_images=10**6, ranks=ranks
        )
        return fused, len(told)

    for compilers in (("g++", None), (None, "g++"), ("g++", "g++")):
        found, _ = in_threads(2, partial(decide, compilers=compilers))
        assert [fused for fused, _ in found] == [compilers[0] is not None] * 2
        assert [told for _, told in found] == [int(one is None) for one in compilers]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (QAT, "quantization.target"),
        (COMPILED, "compute.compile"),
    ],
)
def test_a_recipe_whose_modules_are_needed_one_by_one_cannot_ask_for_fused_blocks(fields, reason):
    compute = fields.get("compute", {})
    with pytest.raises(RecipeError, match=f"{reason}.*set compute.block=auto"):
        make_recipe(fields | {"compute": compute | {"block": "fused"}})
    recipe = make_recipe(fields | {"compute": compute | {"block": "auto"}})
    assert reason in str(recipe.why_plain_blocks())
    with pytest.raises(RecipeError, match=f"{reason}.*set compute.recompute=false"):
        make_recipe(fields | {"compute": compute | {"recompute": True}})


def test_modules_compute_nothing_again():
    with pytest.raises(RecipeError, match=r"compute.block is plain; set compute.recompute=false"):
        make_recipe({"compute": {"block": "plain", "recompute": True}})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"compute.precision": "bfloat16"}, "compute.precision is bfloat16, and the kernels have"),
        ({}, "the training is short"),
    ],
)
def test_auto_says_why_it_takes_the_modules_to_those_who_asked_for_it(
    tmp_path, monkeypatch, fields, reason
):
    monkeypatch.setattr("densepath.training.blocks.worth.multiplies_bfloat16", lambda: False)
    fields = {**FIELDS, **fields}
    train_quietly("digits", tmp_path / "asked", fields | {"compute.block": "auto"})
    (line,) = said(tmp_path / "asked")
    assert line.startswith("compute.block auto: blocks are computed by the modules, because ")
    assert reason in line
    train_quietly("digits", tmp_path / "not asked", fields)
    assert said(tmp_path / "not asked") == []


def test_auto_takes_the_kernels_for_a_training_that_is_long(tmp_path, monkeypatch):
    monkeypatch.setattr("densepath.training.blocks.worth.LEAST_FLOPS", 1e3)
    train_quietly("digits", tmp_path / "run", FIELDS)
    assert said(tmp_path / "run") == [
        "compute.block auto: blocks are one operation each, on densepath's own kernels."
    ]


def test_auto_takes_the_modules_where_there_is_no_compiler_or_a_gpu(monkeypatch):
    fields = {"epochs": 1000, "data": {"channels": 3}, "preprocess": {"size": 224}}
    recipe, lower = make_recipe(fields), make_recipe(fields, {"compute": {"precision": "bfloat16"}})
    spec, cpu = resolve_spec("densenet121"), torch.device("cpu")
    assert why_not_worth(spec, recipe, cpu, 10**6) is None
    assert "cuda" in str(why_not_worth(spec, recipe, torch.device("cuda"), 10**6))
    monkeypatch.setattr("densepath.training.blocks.worth.multiplies_bfloat16", lambda: True)
    assert why_not_worth(spec, lower, cpu, 10**6) is None
    monkeypatch.setattr("densepath.training.blocks.worth.find_compiler", lambda: None)
    assert "install g++" in str(why_not_worth(spec, recipe, cpu, 10**6))


def test_the_operations_of_a_training_are_those_of_its_steps():
    """DenseNet-121 has 2.87 · 10⁹ multiplications an image (arXiv:1608.06993, table 1)."""
    recipe = make_recipe({"epochs": 2, "data": {"channels": 3}, "preprocess": {"size": 224}})
    flops = count_flops(resolve_spec("densenet121"), recipe, 100)
    assert flops == pytest.approx(2 * 100 * 3 * 2 * 2.87e9, rel=0.02)


def test_recipes_of_blocks_that_are_chosen_are_written_as_ever():
    assert "block" not in Recipe().to_dict()["compute"]
    assert make_recipe({"compute": {"block": "plain"}}).to_dict()["compute"]["block"] == "plain"

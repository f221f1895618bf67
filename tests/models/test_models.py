"""The networks: options, shapes, first weights, test pooling."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from densepath.errors import UnknownNameError, UsageError
from densepath.models.build import build_model
from densepath.models.catalogue import CATALOGUE, find_spec
from densepath.models.layers import DropPath, StemMaxPool, pool_and_classify
from densepath.models.spec import ModelSpec


def meta_model(name: str, **options):
    with torch.device("meta"):
        return build_model(name, **options)


@pytest.mark.parametrize("name", ["densenet121", "dpn68", "densenet_bc_22_12", "densenet_40_12"])
@pytest.mark.parametrize("size", [(32, 32), (45, 61)])
def test_any_size_from_32_pixels_gives_logits_and_stage_maps(name, size):
    model = build_model(name, num_classes=7, in_channels=2).eval()
    images = torch.rand(2, 2, *size)
    with torch.inference_mode():
        stages = model.forward_stages(images)
        features = model.forward_features(images)
        logits = model(images)
    assert logits.shape == (2, 7)
    assert features.shape[:2] == (2, model.num_features)
    assert len(stages) == len(model.spec.arch.blocks)
    assert stages[-1].shape == features.shape
    assert torch.equal(model.forward_head(features), logits)


@pytest.mark.parametrize("name", ["densenet121", "dpn92"])
def test_the_small_stem_keeps_the_resolution_of_small_images(name):
    model = meta_model(name, stem="small", num_classes=10)
    images = torch.empty(1, 3, 32, 32, device="meta")
    assert model.forward_stages(images)[0].shape[2:] == (32, 32)
    assert model.spec.input_size == 32


def test_a_wrong_image_shape_is_refused_with_the_cure():
    model = build_model("densenet_bc_22_12", num_classes=2)
    with pytest.raises(UsageError, match=r"takes \[N, 3, H, W\].*in_channels"):
        model(torch.rand(1, 1, 32, 32))
    with pytest.raises(UsageError, match="needs at least 32 × 32"):
        meta_model("densenet121")(torch.empty(1, 3, 16, 64, device="meta"))


def test_an_unknown_name_is_refused_with_the_nearest_names():
    with pytest.raises(UnknownNameError, match="Did you mean densenet121"):
        find_spec("densnet121")
    assert find_spec("DenseNet-121") is CATALOGUE["densenet121"]
    assert find_spec("DPN68") is CATALOGUE["dpn68"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"in_channels": -1}, "in_channels is -1"),
        ({"drop_rate": 1.0}, "drop_rate is 1.0"),
        ({"drop_path_rate": -0.1}, "drop_path_rate is -0.1"),
        ({"stem": "tiny"}, "unknown stem 'tiny'.*imagenet, small"),
        ({"bn_eps": 0.0}, "bn_eps is 0.0"),
        ({"stem_pool": "valid"}, "unknown stem pool 'valid'"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        build_model("densenet_bc_22_12", **options)


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_spec_survives_json(name):
    spec = CATALOGUE[name]
    read = ModelSpec.from_dict(spec.to_dict())
    assert (read.name, read.arch, read.input_size) == (spec.name, spec.arch, spec.input_size)


def test_a_broken_description_is_a_clear_error():
    good = CATALOGUE["dpn68"].to_dict()
    with pytest.raises(UsageError, match="unknown model family 'resnet'"):
        ModelSpec.from_dict({**good, "family": "resnet"})
    with pytest.raises(UsageError, match="not a model description"):
        ModelSpec.from_dict({**good, "arch": {**good["arch"], "colour": 3}})
    with pytest.raises(UsageError, match="not a model description"):
        ModelSpec.from_dict({"name": "x"})


def test_dropped_paths_keep_the_expected_value_and_are_off_in_evaluation():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    ones = torch.ones(20000, 1, 1, 1)
    dropped = drop(ones)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(ones), ones)


@pytest.mark.parametrize("name", ["densenet_bc_22_12", "dpn68"])
def test_dropout_and_drop_path_act_in_training_only(name):
    model = build_model(name, num_classes=3, drop_rate=0.5, drop_path_rate=0.5)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(model(images), model(images))
        model.eval()
        assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("size", [7, 8, 111, 112])
def test_the_same_padded_pool_follows_mindspores_rule(size):
    # One dimension is enough: windows start at -pad, pad = max((⌈n/2⌉-1)*2+3-n, 0) // 2.
    row = torch.arange(size, dtype=torch.float32)
    outputs = math.ceil(size / 2)
    pad = max((outputs - 1) * 2 + 3 - size, 0) // 2
    expected = [min(2 * i - pad + 2, size - 1) for i in range(outputs)]
    image = row.expand(1, 1, size, size)
    assert StemMaxPool("same")(image)[0, 0, 0].tolist() == expected


def test_mean_max_pooling_is_the_mean_of_average_and_largest_window():
    classifier = torch.nn.Linear(2, 3)
    features = torch.rand(1, 2, 3, 2)
    # The map is 2 wide and the window 2: one column, so no larger than the window.
    assert torch.allclose(
        pool_and_classify(features, classifier, "mean_max", 2),
        classifier(features.mean((2, 3))),
    )
    wide = torch.cat([features, features], 3)
    pooled = F.avg_pool2d(wide, 2, 1)[0].flatten(1).T
    every = classifier(pooled)
    expected = 0.5 * (every.mean(0) + every.max(0).values)
    assert torch.allclose(pool_and_classify(wide, classifier, "mean_max", 2)[0], expected)


def test_first_weights_have_the_spread_of_the_upstream_initialisation():
    torch.manual_seed(0)
    model = build_model("dpn68")
    grouped = model.features.conv3_2.c3x3_b.conv
    assert grouped.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.02)
    assert model.classifier.weight.abs().max().item() <= 0.01
    assert not model.classifier.bias.any()
    classifier = build_model("densenet121").classifier
    bound = 1 / math.sqrt(1024)
    assert 0.99 * bound < classifier.weight.abs().max().item() <= bound

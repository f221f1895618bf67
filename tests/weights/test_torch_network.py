"""The network, its head and its model are found in what PyTorch's programs save."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from densepath.errors import KeyMismatchError, UsageError
from densepath.models.build import build_model
from densepath.models.catalogue import find_spec
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from densepath.weights.import_file import import_weights
from densepath.weights.match import expected_shapes
from densepath.weights.model_of_shapes import find_model


def narrow(**changes):
    """A DenseNet that the catalogue has not."""
    arch = DenseNetArch(4, (2, 1), 8, **changes)
    return ModelSpec("narrow", arch, 64, "test")


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    tensors = build_model(narrow(), num_classes=5).state_dict()
    return {name: tensor for name, tensor in tensors.items() if "num_batches" not in name}


def features_of(state):
    return {name: tensor for name, tensor in state.items() if name.startswith("features.")}


def read(tmp_path, value):
    """The checkpoint and what was said."""
    torch.save(value, tmp_path / "x.pth")
    said = []
    return import_weights(tmp_path / "x.pth", say=said.append), " ".join(said)


def assert_is(checkpoint, state):
    assert set(checkpoint.tensors) == set(state)
    for name, tensor in state.items():
        assert torch.equal(checkpoint.tensors[name], tensor), name


def renamed(state, old, new):
    return {
        new + name.removeprefix(old) if name.startswith(old) else name: tensor
        for name, tensor in state.items()
    }


# Where the network stands


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "model.net.", "module._orig_mod.", "timm_model.", "encoder.0."],
)
def test_a_network_of_its_own_numbers_is_found_behind_every_prefix(tmp_path, state, prefix):
    checkpoint, said = read(tmp_path, {f"{prefix}{name}": t for name, t in state.items()})
    assert_is(checkpoint, state)
    assert checkpoint.spec.arch == narrow().arch
    assert not said


@pytest.mark.parametrize("start", ["0.0.", "backbone.", "encoder.features_", "features_", ""])
def test_features_without_their_word_are_found(tmp_path, state, start):
    features = renamed(features_of(state), "features.", start)
    head = {"fc.weight": state["classifier.weight"], "fc.bias": state["classifier.bias"]}
    assert_is(read(tmp_path, features | head)[0], state)


@pytest.mark.parametrize("start", ["", "0.", "features.", "model.features."])
def test_numbered_features_are_found_by_their_order(tmp_path, state, start):
    places = ["conv0", "norm0", "relu0", "pool0", "denseblock1", "transition1", "denseblock2"]
    numbers = {name: str(place) for place, name in enumerate([*places, "norm5"])}
    numbered = {}
    for name, tensor in features_of(state).items():
        _, part, rest = name.split(".", 2)
        numbered[f"{start}{numbers[part]}.{rest}"] = tensor
    head = {f"{start.removesuffix('features.')}classifier.{leaf}": state[f"classifier.{leaf}"]
            for leaf in ("weight", "bias")}  # fmt: skip
    assert_is(read(tmp_path, numbered | head)[0], state)


def test_monai_s_names_are_known(tmp_path, state):
    theirs = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if "denselayer" in name:
            parts.insert(3, "layers")
        theirs[".".join(parts).replace("classifier", "class_layers.out")] = tensor
    checkpoint, said = read(tmp_path, theirs)
    assert_is(checkpoint, state)
    assert checkpoint.provenance["names"] == "monai"
    assert checkpoint.preprocess.mean == (0.0,) * 3
    assert not said


def test_one_network_under_two_names_is_one(tmp_path, state):
    twice = state | {f"backbone.{name}": tensor for name, tensor in state.items()}
    assert_is(read(tmp_path, twice)[0], state)


# The head


@pytest.mark.parametrize(
    "module",
    [
        *("classifier.1", "classifier.fc", "fc", "head", "head.fc", "last_linear", "linear", "out"),
        *("output", "model.fc", "classification_head.3", "logits"),
    ],
)
def test_a_head_of_every_usual_name_is_the_classifier(tmp_path, state, module):
    checkpoint, said = read(tmp_path, renamed(state, "classifier.", f"{module}."))
    assert_is(checkpoint, state)
    assert not said


def test_a_head_of_an_unusual_name_is_taken_where_it_alone_can_be_it_and_that_is_said(
    tmp_path, state
):
    checkpoint, said = read(tmp_path, renamed(state, "classifier.", "verdict."))
    assert_is(checkpoint, state)
    assert "took verdict for the classifier: it alone reads the 12 features" in said


def test_a_head_without_a_bias_gets_zeros_and_that_is_said(tmp_path, state):
    without = {name: t for name, t in state.items() if name != "classifier.bias"}
    checkpoint, said = read(tmp_path, renamed(without, "classifier.", "fc."))
    assert torch.equal(checkpoint.tensors["classifier.bias"], torch.zeros(5))
    assert "fc has no bias" in said


def test_a_head_of_one_by_one_convolution_is_flattened(tmp_path, state):
    turned = state | {"classifier.weight": state["classifier.weight"][:, :, None, None]}
    assert_is(read(tmp_path, renamed(turned, "classifier.", "last_linear."))[0], state)


def heads(state):
    """Heads that are none of ours."""
    wide = state["classifier.weight"].shape[1]
    return {
        "none": {},
        "two layers": {
            "classifier.0.weight": torch.ones(7, wide), "classifier.0.bias": torch.ones(7),
            "classifier.3.weight": torch.ones(5, 7), "classifier.3.bias": torch.ones(5),
        },
        "fastai's": {
            "1.2.weight": torch.ones(2 * wide), "1.2.bias": torch.ones(2 * wide),
            "1.4.weight": torch.ones(8, 2 * wide), "1.8.weight": torch.ones(5, 8),
        },
        "two tasks": {
            "age.weight": torch.ones(1, wide), "age.bias": torch.ones(1),
            "sex.weight": torch.ones(2, wide), "sex.bias": torch.ones(2),
        },
        "a decoder": {
            "decoder.conv.weight": torch.ones(4, wide, 3, 3),
            "segmentation_head.0.weight": torch.ones(1, 4, 3, 3),
        },
        "a norm before it": {
            "head.0.weight": torch.ones(wide), "head.0.bias": torch.ones(wide),
            "head.1.weight": torch.ones(5, wide), "head.1.bias": torch.ones(5),
        },
    }  # fmt: skip


@pytest.mark.parametrize("kind", heads({"classifier.weight": torch.ones(5, 16)}))
def test_a_network_without_a_classifier_of_ours_becomes_a_backbone(tmp_path, state, kind):
    head = heads(state)[kind]
    checkpoint, said = read(tmp_path, features_of(state) | head)
    features = features_of(state)
    assert {name: checkpoint.tensors[name] for name in features}.keys() == features.keys()
    assert checkpoint.provenance["backbone"] is True
    assert checkpoint.labels == ["(no classifier)"]
    assert "taken as a backbone" in said
    assert ("left aside" in said) == bool(head)
    assert "answers without" not in said


# Whole networks say more than their tensors


class Wrapped(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.inner = network


def whole():
    return build_model(narrow(), num_classes=5)


def test_a_whole_network_says_its_epsilon(tmp_path):
    checkpoint, _ = read(tmp_path, Wrapped(build_model(narrow(bn_eps=3e-3))))
    assert checkpoint.spec.arch.bn_eps == 3e-3


def test_batchnorms_of_several_epsilons_are_refused(tmp_path):
    network = whole()
    network.features.norm5.eps = 0.1
    with pytest.raises(KeyMismatchError, match=r"several ε \(1e-05, 0\.1\)"):
        read(tmp_path, network)


@pytest.mark.parametrize(
    ("name", "layer", "said"),
    [
        ("act", nn.SiLU(), "is a SiLU"),
        ("pool0", nn.MaxPool2d(2, 2), r"is a MaxPool2d of kernel \(2, 2\)"),
        ("pool0", nn.MaxPool2d(3, 2, 1, ceil_mode=True), "is a MaxPool2d of kernel"),
        ("pool1", nn.AvgPool2d(3, 2), r"is an AvgPool2d of kernel \(3, 3\)"),
        ("conv9", nn.Conv2d(1, 1, 3, dilation=2), r"is a Conv2d of dilation \(2, 2\)"),
    ],
)
def test_a_layer_that_computes_something_else_is_refused_by_its_name(tmp_path, name, layer, said):
    network = whole()
    network.features.add_module(name, layer)
    with pytest.raises(KeyMismatchError, match=rf"its layer features\.{name} {said}"):
        read(tmp_path, network)


def test_what_else_is_in_a_head_is_said(tmp_path):
    network = whole()
    network.classifier = nn.Sequential(network.classifier, nn.Softplus())
    assert "also has Softplus, without which this checkpoint answers" in read(tmp_path, network)[1]


# Models


@pytest.mark.parametrize(
    "arch",
    [
        DenseNetArch(4, (2, 1), 8),
        DenseNetArch(6, (1, 2, 1), 10, bottleneck=2),
        DenseNetArch(4, (1, 1), 8, compression=1.0),
        DenseNetArch(4, (2, 1), 8, stem="small"),
        DPNArch(4, 3, 8, 2, (1, 2), (4, 8), 1),
        DPNArch(4, 7, 8, 4, (1, 1, 1, 1), (4, 4, 8, 8), 1),
    ],
)
def test_numbers_that_no_table_has_are_found_in_the_shapes(tmp_path, arch):
    model = build_model(ModelSpec("own", arch, 64, "test"), num_classes=3, in_channels=2)
    checkpoint, _ = read(tmp_path, model.state_dict())
    assert checkpoint.spec.arch == arch
    assert (checkpoint.num_classes, checkpoint.in_channels) == (3, 2)


def test_timm_s_dpn48b_which_has_no_relu_is_refused_by_its_name():
    spec = find_spec("dpn68")
    arch = dataclasses.replace(spec.arch, blocks=(3, 4, 6, 3))
    shapes = expected_shapes(dataclasses.replace(spec, arch=arch), 2, 3)
    with pytest.raises(KeyMismatchError, match="timm's dpn48b, whose activation is SiLU"):
        find_model(shapes)


@pytest.mark.parametrize(
    ("sides", "what"), [((7, 7, 7), "3 dim.*volumes"), ((7,), "1 dim.*series")]
)
def test_networks_for_volumes_and_series_are_refused(tmp_path, state, sides, what):
    broken = state | {"features.conv0.weight": torch.zeros(8, 3, *sides)}
    with pytest.raises(KeyMismatchError, match=what):
        read(tmp_path, broken)


# Backbones


@pytest.fixture
def backbone(tmp_path, state):
    checkpoint, _ = read(tmp_path, features_of(state))
    checkpoint.save(tmp_path / "backbone.safetensors")
    return tmp_path / "backbone.safetensors"


def test_a_backbone_answers_nothing_and_the_cure_is_said(backbone):
    import densepath

    for ask in (
        lambda: densepath.load(backbone),
        lambda: densepath.export(backbone, backbone.parent / "b", to=["torch"]),
        lambda: densepath.evaluate(backbone, "digits"),
        lambda: densepath.quantize(backbone, backbone.parent / "q", data="digits"),
    ):
        with pytest.raises(UsageError, match=r"is a backbone: .*Train one on it: densepath train"):
            ask()


def test_a_backbone_s_features_begin_a_network_of_as_many_classes_as_one_likes(backbone, state):
    from densepath.weights.adapt import adapt_model
    from densepath.weights.subject import open_checkpoint

    checkpoint = open_checkpoint(backbone, to_train=True)
    for classes in (1, 4):
        model = adapt_model(checkpoint, num_classes=classes)
        assert torch.equal(model.features.conv0.weight, state["features.conv0.weight"])
        assert len(model.classifier.weight) == classes
        assert model.classifier.weight.abs().sum() > 0
    with pytest.raises(UsageError, match="is a backbone"):
        adapt_model(checkpoint)


def test_a_training_begins_with_a_backbone_s_features_and_a_classifier_of_its_own(backbone, state):
    from densepath.training.network import build_network, open_weights
    from densepath.training.recipe import Recipe

    recipe = Recipe.model_validate({"model": {"weights": str(backbone)}, "data": {"channels": 3}})
    checkpoint = open_weights(recipe.model)
    for labels in (["(no classifier)"], ["a", "b"]):
        network = build_network(recipe, checkpoint, labels, torch.device("cpu"))
        assert torch.equal(network.features.norm5.weight, state["features.norm5.weight"])
        assert network.classifier.weight.abs().sum() > 0

"""The maps inside a backbone, as those who build on it ask for them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import densepath
from densepath.errors import UnknownNameError, UsageError
from densepath.models.catalogue import find_spec
from densepath.models.feature_info import feature_points, take_indices
from densepath.models.intermediates import FeatureNet
from fixtures.networks import TINY, TINY_DUAL, used_network

# `timm.create_model(name, features_only=True).feature_info` of timm 1.0.31: channels.
TIMM = {
    "densenet121": [64, 256, 512, 1024, 1024],
    "densenet161": [96, 384, 768, 2112, 2208],
    "densenet169": [64, 256, 512, 1280, 1664],
    "densenet201": [64, 256, 512, 1792, 1920],
    "dpn68": [10, 144, 320, 704, 832],
    "dpn92": [64, 336, 704, 1552, 2688],
    "dpn98": [96, 336, 768, 1728, 2688],
    "dpn107": [128, 376, 1152, 2432, 2688],
    "dpn131": [128, 352, 832, 1984, 2688],
}


@pytest.mark.parametrize("name", TIMM)
def test_channels_and_reductions_are_timm_s(name):
    points = feature_points(find_spec(name))
    assert [point.num_chs for point in points] == TIMM[name]
    assert [point.reduction for point in points] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("name", ["densenet121", "dpn68", "densenet_bc_22_12", "densenet_40_12"])
def test_the_maps_have_the_shapes_that_feature_info_says(name):
    with torch.device("meta"):
        backbone = densepath.create_model(name, features_only=True, in_channels=2)
        maps = backbone(torch.empty(1, 2, 64, 96))
    info = backbone.feature_info
    assert [tuple(found.shape[1:]) for found in maps] == [
        (point.num_chs, 64 // point.reduction, 96 // point.reduction) for point in info
    ]
    assert info.module_name()[0] in ("features.relu0", "features.conv1_1", "features.conv0")


@pytest.fixture(params=[TINY, TINY_DUAL], ids=["densenet", "dpn"])
def network(request):
    return used_network(request.param)


IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_all_points_and_the_last_features_are_those_of_the_network(network):
    features, maps = network.forward_intermediates(IMAGES)
    assert torch.equal(features, network.forward_features(IMAGES))
    assert all(map(torch.equal, maps[1:], network.forward_stages(IMAGES)))
    normed = network.forward_intermediates(IMAGES, norm=True, intermediates_only=True)
    assert torch.equal(normed[-1], features)
    assert not torch.equal(maps[-1], features)
    assert all(map(torch.equal, normed[:-1], maps[:-1]))
    # The last map, by the last BatchNorm and ReLU.
    norm = network.features.norm5 if network.spec.family == "densenet" else network.features[-1].bn
    assert torch.allclose(F.relu(norm(maps[-1])), features)
    assert maps[0].shape[2:] == (32, 32)


@torch.inference_mode()
def test_points_are_chosen_as_timm_has_them_and_nothing_behind_the_last_is_computed(network):
    _, every = network.forward_intermediates(IMAGES)
    _, last = network.forward_intermediates(IMAGES, 2)
    assert [torch.equal(*pair) for pair in zip(last, every[-2:], strict=True)] == [True, True]
    seen = []
    network.features[-1].register_forward_hook(lambda *_: seen.append(1))
    [first] = network.forward_intermediates(IMAGES, [-3], stop_early=True, intermediates_only=True)
    assert torch.equal(first, every[0])
    assert seen == []
    [flat] = network.forward_intermediates(IMAGES, [1], output_fmt="NLC", intermediates_only=True)
    assert torch.equal(flat.transpose(1, 2).reshape(every[1].shape), every[1])


@torch.inference_mode()
@pytest.mark.parametrize("indices", [None, (0, 1), (1,), (2,), (-1, 0)])
def test_a_backbone_gives_the_same_maps_and_has_nothing_behind_them(network, indices):
    norm = network.spec.family == "densenet"
    wanted = network.forward_intermediates(IMAGES, indices, norm=norm, intermediates_only=True)
    names = set(dict(network.named_parameters()))
    backbone = FeatureNet(network, indices).eval()
    found = backbone(IMAGES)
    assert len(found) == len(backbone.feature_info)
    assert all(map(torch.equal, found, wanted))
    own = set(dict(backbone.named_parameters()))
    assert own < names
    assert not any(name.startswith("classifier") for name in own)
    assert len(own) < len(names) - 4 or max(backbone.feature_info.out_indices) == 2


def test_a_backbone_learns_and_takes_weights(tmp_path):
    from fixtures.networks import checkpoint_of, new_network

    kept = new_network()
    checkpoint_of(kept).save(tmp_path / "x.safetensors")
    backbone = densepath.create_model(
        "densenet_bc_22_12",
        weights=tmp_path / "x.safetensors",
        features_only=True,
        out_indices=(1, 3),
    ).train()
    maps = backbone(torch.rand(2, 3, 32, 32))
    sum(found.mean() for found in maps).backward()
    assert backbone.features.conv0.weight.grad.abs().sum() > 0
    assert torch.equal(backbone.features.conv0.weight, kept.features.conv0.weight)
    assert (backbone.feature_info.channels(), backbone.feature_info.reduction()) == (
        [60, 69],
        [1, 4],
    )
    assert [row["index"] for row in backbone.feature_info.get_dicts()] == [1, 3]


@pytest.mark.parametrize(
    ("how", "error", "part"),
    [
        ({"indices": 9}, UsageError, r"the points 0 \(the stem\) to 2"),
        ({"indices": (3,)}, UsageError, "the points 0"),
        ({"indices": "all"}, UsageError, "the points 0"),
        ({"output_fmt": "NHWC"}, UnknownNameError, "NCHW"),
        ({"stop_early": True}, UsageError, "intermediates_only"),
    ],
)
def test_what_cannot_be_is_refused(network, how, error, part):
    with pytest.raises(error, match=part):
        network.forward_intermediates(IMAGES, **how)


def test_points_are_sorted_and_none_comes_twice():
    assert take_indices(5, (4, 1, -1)) == [1, 4]
    with pytest.raises(UsageError, match="features_only"):
        densepath.create_model("densenet_bc_22_12", out_indices=(1,))
    with pytest.raises(UsageError, match="at least one"):
        densepath.create_model("densenet_bc_22_12", features_only=True, out_indices=())

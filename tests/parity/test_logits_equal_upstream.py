"""Our networks and upstream's, filled from one formula of name and shape, give equal logits.

The stored logits were written by `benchmarks/peers/*/logits.py`, which run upstream's own
networks in their own environments; `about` in each file says with which versions.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

BOUND = 1e-4
SIZES = ("224x224", "193x225", "160x127")

_DENSENETS = ("densenet121", "densenet161", "densenet169", "densenet201")
_DPNS = ("dpn92", "dpn98", "dpn107", "dpn131")
MODELS = {
    "torchvision": _DENSENETS,
    "mindcv": (*_DENSENETS, *_DPNS),
    "timm": (*_DENSENETS, "dpn68", "dpn68b", *_DPNS),
    "keras": ("densenet121", "densenet169", "densenet201"),
    "mxnet": (*_DENSENETS, "dpn68", "dpn68b", *_DPNS),
    "paddleclas": (
        *("DenseNet121", "DenseNet161", "DenseNet169", "DenseNet201", "DenseNet264"),
        *("DPN68", "DPN92", "DPN98", "DPN107", "DPN131"),
    ),
}
# How a publisher's DPN differs from the catalogue's: densepath.weights.published.
DPN_SWITCHES = {"paddleclas": {"bn_eps": 1e-5}, "mindcv": {"stem_pool": "same"}, "timm": {}}
SAME_DPN = {"paddleclas": (), "mindcv": (), "timm": ("mxnet",)}

DENSENETS = [model for model in MODELS["paddleclas"] if model.startswith("DenseNet")]
DPNS = [
    (model, peer)
    for model in ("dpn68", "dpn68b", "dpn92", "dpn98", "dpn107", "dpn131")
    for peer in DPN_SWITCHES
    if model in map(str.lower, MODELS[peer])
]


def assert_equal_logits(ours, theirs):
    """Within the bound, on logits of an order for which the bound means something."""
    assert 1 < np.abs(theirs).max() < 20
    assert theirs.std() > 0.5
    assert np.abs(ours - theirs).max() <= BOUND


@pytest.mark.parametrize("name", DENSENETS)
def test_a_densenet_gives_the_logits_of_every_upstream(
    name, upstream, formula_model, formula_logits
):
    model = formula_model(name.lower())
    same = [(peer, m) for peer, ms in MODELS.items() for m in ms if m.lower() == name.lower()]
    for size in SIZES:
        ours = formula_logits(model, size)
        for peer, theirs in same:
            assert_equal_logits(ours, upstream[peer][f"{theirs}/{size}"])


@pytest.mark.parametrize(("name", "peer"), DPNS)
def test_a_dpn_gives_the_logits_of_upstream(name, peer, upstream, formula_model, formula_logits):
    model = formula_model(name, **DPN_SWITCHES[peer])
    theirs = name.upper() if peer == "paddleclas" else name
    for size in SIZES:
        ours = formula_logits(model, size)
        for one in (peer, *SAME_DPN[peer]):
            assert_equal_logits(ours, upstream[one][f"{theirs}/{size}"])


@pytest.mark.parametrize(
    ("peer", "wrong"),
    [
        ("paddleclas", {"bn_eps": 1e-3}),
        ("mindcv", {"stem_pool": "pad1"}),
        ("mindcv", {"stem_pool": "same", "bn_eps": 1e-5}),
        ("timm", {"bn_eps": 1e-5}),
    ],
)
def test_the_comparison_tells_a_wrong_switch(peer, wrong, upstream, formula_model, formula_logits):
    name = "DPN92" if peer == "paddleclas" else "dpn92"
    ours = formula_logits(formula_model("dpn92", **wrong), "224x224")
    assert np.abs(ours - upstream[peer][f"{name}/224x224"]).max() > 100 * BOUND


@pytest.mark.parametrize("peer", MODELS)
def test_the_stored_logits_say_what_made_them_and_hold_every_model(peer, upstream):
    about = json.loads(str(upstream[peer]["about"]))
    assert about["peer"] == peer
    assert about["script"].startswith("benchmarks/peers/")
    assert all(about["versions"].values())
    expected = {f"{model}/{size}" for model in MODELS[peer] for size in SIZES}
    assert set(upstream[peer].files) == {"about", *expected}

"""Weights files on a knife's edge: two names of one tensor, and metadata that just fit."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from densepath.errors import KeyMismatchError
from densepath.models.build import build_model
from densepath.weights.checkpoint import write_tensors
from densepath.weights.torch_names import find_names

OURS = "features.denseblock1.denselayer1.norm1.weight"
OLD = "features.denseblock1.denselayer1.norm.1.weight"  # torchvision's before 0.2


@pytest.mark.parametrize("prefix", ["", "module.", "model.net."])
@pytest.mark.parametrize("order", list(itertools.permutations([OURS, OLD])))
def test_two_names_of_the_same_tensor_are_refused_and_not_chosen_between(prefix, order):
    values = build_model("densenet121", num_classes=3).state_dict()
    tensor = values.pop(OURS)
    first, second = (prefix + name for name in order)
    file = {prefix + name: value for name, value in values.items()}
    assert find_names(file | {first: tensor}).features[OURS] == first
    with pytest.raises(KeyMismatchError) as caught:
        find_names({first: tensor, **file, second: tensor + 1})
    assert f"{first} and {second} are both the network's {OURS}" in str(caught.value)


@pytest.mark.parametrize("length", range(8))
def test_metadata_of_any_length_are_written_in_order(tmp_path, length):
    """The format fills its header up to eight bytes; of one in eight there is nothing to fill."""
    path = tmp_path / "x.safetensors"
    metadata = {name: name * 3 for name in "hgfedcb"} | {"a": "x" * length}
    write_tensors(path, {"t": torch.zeros(2)}, metadata)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert list(header["__metadata__"].items()) == sorted(metadata.items())

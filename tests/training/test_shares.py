"""training/shares.py: which process computes what, and how few images suffice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from densepath.errors import RecipeError
from densepath.models.build import build_model
from densepath.training.distributed import Ranks
from densepath.training.optimizer import freeze
from densepath.training.recipe_file import make_recipe
from densepath.training.shares import check_batch, count_least_images, share_step


def shares(counts, *, num_parts=1, least_images=1, synced=False):
    return [
        share_step(counts, rank, num_parts=num_parts, least_images=least_images, synced=synced)
        for rank in range(len(counts))
    ]


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    num_parts=st.integers(1, 4),
    least_images=st.integers(1, 2),
    synced=st.booleans(),
)
@example(counts=[1], num_parts=1, least_images=2, synced=False)
@example(counts=[1, 1], num_parts=4, least_images=2, synced=True)
@example(counts=[0, 8], num_parts=4, least_images=2, synced=False)
@example(counts=[4, 3], num_parts=4, least_images=2, synced=True)
def test_all_processes_agree_and_no_pass_has_too_few_images(
    counts, num_parts, least_images, synced
):
    synced = synced and len(counts) > 1
    found = shares(counts, num_parts=num_parts, least_images=least_images, synced=synced)
    assert len({(share.num_images, share.num_parts) for share in found}) == 1
    parts = [
        [len(part) for part in share.split(torch.zeros(count, 1)[: count - share.left_out])]
        for share, count in zip(found, counts, strict=True)
    ]
    assert all(len(sizes) == found[0].num_parts <= num_parts for sizes in parts)
    assert sum(map(sum, parts)) == found[0].num_images
    assert found[0].num_images + sum(share.left_out for share in found) == sum(counts)
    for together in zip(*parts, strict=True):
        if synced:
            assert sum(together) >= least_images
        else:
            assert all(size == 0 or size >= least_images for size in together)
    # Only what cannot be computed is left out.
    assert all(share.left_out < least_images for share in found)


def test_a_whole_step_is_computed_in_the_parts_that_were_asked_for():
    assert [share.own_parts for share in shares([8, 8], num_parts=4, least_images=2)] == [4, 4]


def test_one_image_of_a_process_is_left_out_and_the_others_train():
    first, second = shares([31, 1], least_images=2)
    assert (first.num_images, second.own_parts, second.left_out) == (31, 0, 1)


@pytest.mark.parametrize(
    ("model", "size", "least"),
    [
        ("densenet121", (32, 32), 2),
        ("densenet121", (32, 64), 1),
        ("dpn68", (32, 32), 2),
        ("dpn68", (33, 33), 1),
        ("densenet_bc_22_12", (4, 4), 2),
        ("densenet_bc_22_12", (8, 8), 1),
    ],
)
def test_two_images_are_needed_where_the_last_maps_are_one_pixel(model, size, least):
    """As PyTorch has it, which refuses one image there and takes it elsewhere."""
    network = build_model(model, num_classes=3, drop_rate=0.1, drop_path_rate=0.1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert count_least_images(network, [], size) == least
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    if least == 2:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            network(torch.zeros(1, 3, *size))
    network(torch.zeros(least, 3, *size))


def test_a_frozen_batch_norm_needs_no_second_image():
    network = build_model("densenet121", num_classes=3)
    frozen = freeze(network, "features")
    assert count_least_images(network, frozen, (32, 32)) == 1
    network(torch.zeros(1, 3, 32, 32))


def check(num_images, batch_size, *, processes=1, **settings):
    recipe = make_recipe(
        {"model": {"name": "dpn68"}, "data": {"batch_size": batch_size}, "distributed": settings}
    )
    check_batch(recipe, Ranks(world_size=processes), (32, 32), num_images, 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"num_images": 9, "batch_size": 1}, ["data.batch_size is 1", "--batch-size 2 or more"]),
        (
            {"num_images": 90, "batch_size": 4, "accumulate": 4},
            ["accumulate is 4", "--batch-size 8 or more", "--set distributed.accumulate=2"],
        ),
        (
            {"num_images": 90, "batch_size": 8, "processes": 8},
            ["there are 8 processes", "--batch-size 16 or more", "distributed.sync_bn=true"],
        ),
        ({"num_images": 1, "batch_size": 64}, ["has 1 training image", "more images"]),
        (
            {"num_images": 1, "batch_size": 64, "processes": 2, "sync_bn": True},
            ["has 1 training image"],
        ),
    ],
)
def test_too_few_images_at_a_time_are_refused_with_cures_that_work(call, said):
    with pytest.raises(RecipeError) as caught:
        check(**call)
    for part in ["At 32 × 32 pixels", "dpn68", "--freeze features", *said]:
        assert part in str(caught.value)


def test_enough_images_at_a_time_pass():
    check(num_images=2, batch_size=64)
    check(num_images=9, batch_size=2)
    check(num_images=90, batch_size=8, accumulate=4)
    check(num_images=90, batch_size=8, processes=8, sync_bn=True)
    check(num_images=90, batch_size=16, processes=8)

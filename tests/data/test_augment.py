"""Augmentations and mixing: what they may do, and where their randomness comes from."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from densepath.data.augment import Augment
from densepath.data.mixing import Mixing
from densepath.data.randaugment import OPERATIONS, color_jitter, rand_augment
from densepath.data.randomness import EpochRandomness, rng_for
from densepath.errors import UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess, resize

SIDE = 8
SMALL = Preprocess(size=(SIDE, SIDE), mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
"""Normalised values are the pixels themselves."""
PLAIN = Augment(SMALL, crop="none", hflip=0.0)


def noise(height=SIDE, width=SIDE, channels=3, low=0):
    rng = np.random.default_rng(0)
    return rng.integers(low, 256, (height, width, channels), dtype=np.uint8)


def as_pixels(values):
    return np.rint(values).astype(np.uint8).transpose(1, 2, 0)


def drawn(augment, image, count=200):
    return [as_pixels(augment(image, rng_for(0, 0, i))) for i in range(count)]


def test_the_numbers_of_a_sample_depend_on_seed_epoch_and_index_alone():
    triples = [*itertools.product([0, 1, 2**40], repeat=3)]
    draws = {triple: tuple(rng_for(*triple).random(4)) for triple in triples}
    assert len(set(draws.values())) == len(triples)
    for seed, epoch in itertools.product([0, 1, 2**40], repeat=2):
        randomness = EpochRandomness(seed, epoch)
        for index in (2**40, 0, 1, 0):
            # In any order, and however much of another sample was drawn before.
            assert tuple(randomness.at(index).random(4)) == draws[seed, epoch, index]


def test_the_numbers_of_neighbouring_samples_are_uniform_and_uncorrelated():
    draws = np.array([rng_for(0, 0, i).random(3) for i in range(4000)])
    # A uniform number has mean 1/2 and standard deviation 1/√12; 5 standard errors are allowed.
    bound = 5 / np.sqrt(12 * len(draws))
    assert np.abs(draws.mean(0) - 0.5).max() < bound
    correlation = np.corrcoef(np.hstack([draws[:-1], draws[1:]]).T)
    assert np.abs(correlation - np.eye(6)).max() < 5 / np.sqrt(len(draws))


def test_without_any_change_the_image_is_the_evaluated_one():
    image = noise(20, 30)
    preprocess = Preprocess(size=(8, 8), resize_short=10)
    augment = Augment(preprocess, crop="none", hflip=0.0)
    np.testing.assert_array_equal(augment(image, rng_for(0, 0, 0)), preprocess(image))


@pytest.mark.parametrize(("name", "axis"), [("hflip", 1), ("vflip", 0)])
def test_mirroring_happens_at_its_rate(name, axis):
    image = noise()
    mirrored = np.flip(image, axis)
    for rate in (0.0, 0.25, 1.0):
        images = drawn(dataclasses.replace(PLAIN, **{name: rate}), image)
        count = sum(np.array_equal(found, mirrored) for found in images)
        others = sum(np.array_equal(found, image) for found in images)
        assert count + others == len(images)
        assert abs(count - 200 * rate) <= 5 * np.sqrt(200 * rate * (1 - rate))


def test_a_padded_crop_is_the_image_moved_over_black():
    image = noise(low=1)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    windows = {
        padded[top : top + SIDE, left : left + SIDE].tobytes(): (top, left)
        for top, left in itertools.product(range(5), repeat=2)
    }
    found = {
        windows[crop.tobytes()]
        for crop in drawn(dataclasses.replace(PLAIN, crop="pad_crop", padding=2), image, 400)
    }
    assert found == set(itertools.product(range(5), repeat=2))


def test_padding_wider_than_the_image_can_move_it_out():
    crops = drawn(dataclasses.replace(PLAIN, crop="pad_crop", padding=20), noise(low=1))
    assert any(not crop.any() for crop in crops)


@pytest.mark.parametrize("crop", ["random_resized_crop", "clamped_crop"])
def test_a_random_box_keeps_its_area_and_ratio_inside_the_image(crop):
    augment = Augment(SMALL, crop=crop, scale=(0.2, 0.5), ratio=(0.5, 2.0))
    draw = augment._random_box if crop == "random_resized_crop" else augment._clamped_box
    height, width = 300, 400
    areas, ratios = [], []
    for index in range(500):
        top, left, h, w = draw(height, width, rng_for(0, 0, index))
        assert 0 <= top <= height - h
        assert 0 <= left <= width - w
        areas.append(h * w / (height * width))
        ratios.append(w / h)
    slack = 0.02  # Sides are whole.
    assert 0.2 - slack < min(areas) < 0.25
    assert 0.45 < max(areas) < 0.5 + slack
    assert 0.5 - slack < min(ratios) < 0.6
    assert 1.8 < max(ratios) < 2.0 + slack


def test_torchvisions_aspect_is_uniform_in_the_logarithm_and_paddleclass_in_itself():
    ratio = (0.25, 4.0)
    medians = {}
    for crop in ("random_resized_crop", "clamped_crop"):
        augment = Augment(SMALL, crop=crop, scale=(0.01, 0.01), ratio=ratio)
        draw = augment._random_box if crop == "random_resized_crop" else augment._clamped_box
        boxes = [draw(1000, 1000, rng_for(0, 0, i)) for i in range(1000)]
        medians[crop] = float(np.median([w / h for _, _, h, w in boxes]))
    # The medians of the two laws: √(1/4 · 4) = 1, and (1/4 + 4) / 2 = 2.125.
    assert medians["random_resized_crop"] == pytest.approx(1.0, abs=0.15)
    assert medians["clamped_crop"] == pytest.approx(2.125, abs=0.15)


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        # torchvision: the whole width and width / (3/4) of the height, in the middle; or the
        # whole height and height · 4/3 of the width.
        ((300, 30), (130, 0, 40, 30)),
        ((30, 300), (0, 130, 30, 40)),
        ((30, 30), (0, 0, 30, 30)),
    ],
)
def test_when_no_draw_fits_the_largest_centred_box_is_taken(shape, box):
    augment = Augment(SMALL, scale=(4.0, 4.0), ratio=(3 / 4, 4 / 3))
    assert augment._random_box(*shape, rng_for(0, 0, 0)) == box


@pytest.mark.parametrize("crop", ["random_resized_crop", "clamped_crop"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_random_crops_take_images_of_any_shape(crop, shape):
    augment = Augment(SMALL, crop=crop)
    for found in drawn(augment, noise(*shape), 20):
        assert found.shape == (SIDE, SIDE, 3)


def test_a_random_resized_crop_is_a_resized_part_of_the_image():
    image = noise(40, 50)
    augment = dataclasses.replace(PLAIN, crop="random_resized_crop")
    rng = rng_for(0, 0, 3)
    rng.random(2)  # The mirrors' draws come first.
    top, left, height, width = augment._random_box(40, 50, rng)
    expected = resize(image[top : top + height, left : left + width], (SIDE, SIDE), "bilinear")
    np.testing.assert_array_equal(as_pixels(augment(image, rng_for(0, 0, 3))), expected)


def test_erasing_sets_one_box_of_the_papers_area_to_the_mean():
    size = 64
    preprocess = Preprocess(size=(size, size))
    augment = Augment(preprocess, crop="none", hflip=0.0, random_erasing=1.0)
    image = noise(size, size)
    plain = preprocess(image)
    for index in range(50):
        values = augment(image, rng_for(0, 0, index))
        erased = (values != plain).any(0)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        assert (values[:, *box] == 0).all()
        assert erased.sum() == erased[box].size
        assert 0.01 < erased.mean() < 0.35


def test_erasing_happens_at_its_rate():
    augment = dataclasses.replace(PLAIN, random_erasing=0.25)
    changed = sum(not np.array_equal(found, noise()) for found in drawn(augment, noise(), 400))
    assert abs(changed - 100) <= 5 * np.sqrt(400 * 0.25 * 0.75)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_of_randaugment_keeps_the_shape(name, channels, monkeypatch):
    monkeypatch.setattr("densepath.data.randaugment.OPERATIONS", {name: OPERATIONS[name]})
    image = noise(12, 10, channels)
    for magnitude in (0.0, 5.0, 10.0):
        found = rand_augment(image, 1, magnitude, rng_for(0, 0, 0))
        assert found.shape == image.shape
        assert found.dtype == np.uint8


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"autocontrast", "equalize"}))
def test_at_magnitude_0_an_operation_changes_nothing(name, monkeypatch):
    monkeypatch.setattr("densepath.data.randaugment.OPERATIONS", {name: OPERATIONS[name]})
    image = noise(12, 10)
    np.testing.assert_array_equal(rand_augment(image, 1, 0.0, rng_for(0, 0, 0)), image)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"identity"}))
def test_at_the_largest_magnitude_an_operation_changes_the_image(name, monkeypatch):
    monkeypatch.setattr("densepath.data.randaugment.OPERATIONS", {name: OPERATIONS[name]})
    image = noise(40, 40) // 3 + 20  # Of little contrast: there is something to stretch.
    assert not np.array_equal(rand_augment(image, 1, 10.0, rng_for(0, 0, 0)), image)


def test_randaugment_draws_every_operation():
    image = noise(12, 10)
    results = {rand_augment(image, 1, 7.0, rng_for(0, 0, i)).tobytes() for i in range(300)}
    # Most of the 14 operations have two signs.
    assert len(results) > len(OPERATIONS)


def test_colour_jitter_stays_within_its_strength():
    gray = np.full((4, 4, 3), 100, np.uint8)
    # Contrast and saturation leave an even gray alone: what is left is brightness in 0.6 … 1.4.
    found = [color_jitter(gray, 0.4, rng_for(0, 0, i))[0, 0, 0] for i in range(300)]
    assert 60 <= min(found) < 65
    assert 135 < max(found) <= 140


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": "padcrop"}, "Did you mean pad_crop"),
        ({"hflip": 1.5}, "hflip is 1.5"),
        ({"random_erasing": -0.1}, "random_erasing is -0.1"),
        ({"scale": (0.5, 0.1)}, "scale is"),
        ({"ratio": (0.0, 1.0)}, "ratio is"),
    ],
)
def test_impossible_augmentations_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(PLAIN, **fields)


def test_colours_of_five_channels_are_refused():
    five = Preprocess(size=(4, 4), mean=(0.5,) * 5, std=(0.5,) * 5)
    assert Augment(five)(noise(6, 6, 5), rng_for(0, 0, 0)).shape == (5, 4, 4)
    for fields in ({"color_jitter": 0.4}, {"randaugment_ops": 2}):
        with pytest.raises(UsageError, match="1 or 3 channels, not of 5"):
            Augment(five, **fields)


def batch(count=6, classes=3):
    images = torch.rand(count, 3, 10, 12, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(count) % classes


def test_without_mixing_the_batch_is_as_it_was():
    images, targets = batch()
    found = Mixing(3)(images, targets, seed=0, epoch=0, step=0)
    assert found[0] is images
    assert found[1] is targets


def test_mixup_mixes_images_and_targets_in_the_same_share():
    images, targets = batch()
    mixed, soft = Mixing(3, mixup=0.8)(images, targets, seed=0, epoch=1, step=2)
    one_hot = torch.eye(3)[targets]
    # Image 0 (class 0) is mixed with image 5 (class 2): the share can be read off its target.
    share = soft[0, 0]
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.flip(0))
    torch.testing.assert_close(soft, share * one_hot + (1 - share) * one_hot.flip(0))


def test_cutmix_takes_a_box_whose_area_is_the_share():
    for step in range(20):
        images, targets = batch()
        mixed, soft = Mixing(3, cutmix=1.0)(images, targets, seed=0, epoch=0, step=step)
        from_partner = (mixed[0] == images[-1]).all(0)
        from_itself = (mixed[0] == images[0]).all(0)
        assert (from_partner ^ from_itself).all()
        assert soft[0, 0].item() == pytest.approx(from_itself.float().mean().item())
        rows, columns = from_partner.any(1), from_partner.any(0)
        assert from_partner.sum() == rows.sum() * columns.sum()


def test_mixing_depends_on_seed_epoch_and_step_alone():
    mixing = Mixing(3, mixup=0.8, cutmix=1.0)
    keys = [*itertools.product([0, 1], repeat=3)]
    shares = set()
    for seed, epoch, step in keys:
        first, second = (mixing(*batch(), seed=seed, epoch=epoch, step=step)[1] for _ in range(2))
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        shares.add(first[0, 0].item())
    assert len(shares) > len(keys) // 2


def test_soft_targets_sum_to_one_and_several_labels_are_mixed_as_they_are():
    images, targets = batch()
    _, soft = Mixing(3, mixup=0.4, cutmix=0.4)(images, targets, seed=0, epoch=0, step=0)
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    several = torch.tensor([[1.0, 1.0, 0.0]] * 6)
    _, soft = Mixing(3, mixup=0.4)(images, several, seed=0, epoch=0, step=0)
    torch.testing.assert_close(soft, several)


def test_unknown_crops_list_the_known_ones():
    with pytest.raises(UnknownNameError, match="clamped_crop, none, pad_crop"):
        Augment(SMALL, crop="five_crop")


@pytest.mark.parametrize(
    ("ratio", "height", "width"), [(4.0, 25, 100), (0.25, 100, 25), (1.0, 100, 100)]
)
def test_a_clamped_box_is_the_largest_of_its_aspect_where_all_of_the_image_is_asked_for(
    ratio, height, width
):
    augment = Augment(SMALL, crop="clamped_crop", scale=(1.0, 1.0), ratio=(ratio, ratio))
    _, _, *sides = augment._clamped_box(100, 100, rng_for(0, 0, 0))
    # Sides are whole, and rounded down.
    assert sides == pytest.approx([height, width], abs=1)


@pytest.mark.parametrize("crop", ["random_resized_crop", "clamped_crop"])
@pytest.mark.parametrize("ratio", [1 / 9, 9.0])
def test_a_box_has_a_pixel_however_small_its_share(crop, ratio):
    augment = Augment(SMALL, crop=crop, scale=(1e-4, 1e-4), ratio=(ratio, ratio))
    draw = augment._random_box if crop == "random_resized_crop" else augment._clamped_box
    for index in range(20):
        *_, height, width = draw(6, 6, rng_for(0, 0, index))
        assert min(height, width) >= 1

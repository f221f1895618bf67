"""Limits of what activations were: within the extremes, and each by the one meaning of its name."""

from __future__ import annotations

import numpy as np
import pytest

from densepath.errors import UnknownNameError
from densepath.quantize.observer import (
    LITERT,
    NATIVE,
    ONNX,
    RANGE_METHODS,
    SHARES,
    Observer,
    check_method,
)
from densepath.quantize.sharing import share_ranges

MAPS = 32  # of ONNX.most_values values, so that each is counted: 2,097,152, of which 20 are 0.001 %


def observed(*maps):
    observer = Observer(ONNX)
    for values in maps:
        observer.see(np.asarray(values, np.float32))
    return observer


def test_minimum_and_maximum_are_those_of_all_images_and_hold_zero():
    assert observed([-1, 2], [-3, 1]).range("minmax") == (-3, 2)
    assert observed([1, 2]).range("minmax") == (0, 2)
    low, high = observed([-2, -1]).range("minmax")
    assert low == -2
    assert 0 < high < 1e-6


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_a_range_lies_within_the_extremes_and_does_not_depend_on_the_order(method):
    maps = np.random.default_rng(0).normal(size=(6, 4000)).astype(np.float32)
    low, high = observed(*maps).range(method)
    assert maps.min() <= low < 0 < high <= maps.max()
    backwards = observed(*maps[::-1]).range(method)
    assert backwards == pytest.approx((low, high), rel=0.02)


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_one_value_far_away_does_not_take_the_levels_of_all_others(method):
    values = np.random.default_rng(0).uniform(0, 1, 400_000).astype(np.float32)
    values[7] = 30.0
    observer = Observer(ONNX)
    for part in np.split(values, 10):
        observer.see(part)
    assert observer.range("minmax")[1] == 30
    assert observer.range(method)[1] < 25


def test_the_squared_error_that_mse_minimises_is_that_of_the_values():
    values = np.abs(np.random.default_rng(3).standard_t(3, 60_000)).astype(np.float32)
    observer = observed(values)

    def error(high):
        step = high / 255
        return ((np.round(np.clip(values, 0, high) / step) * step - values) ** 2).sum()

    tried = [error(values.max() * share) for share in SHARES]
    assert error(observer.range("mse")[1]) <= 1.02 * min(tried) < error(values.max())


def test_an_unknown_method_names_the_choices():
    with pytest.raises(UnknownNameError, match="entropy, minmax, mse, percentile"):
        check_method("median")
    with pytest.raises(UnknownNameError, match=r"unknown method 'mse'.*minmax, percentile"):
        check_method("mse", ("minmax", "percentile"))


@pytest.mark.parametrize(("few", "many"), [(20, 21), (1, 200)])
def test_a_percentile_leaves_out_a_thousandth_of_a_percent_at_either_end(few, many):
    """So many values far away at one end are left out, a few more at the other are not."""
    values = np.linspace(-1, 1, MAPS * ONNX.most_values, dtype=np.float32)
    values[:few], values[-many:] = -10, 10
    upwards, downwards = Observer(ONNX), Observer(ONNX)
    for part in np.split(np.random.default_rng(0).permutation(values), MAPS):
        upwards.see(part)
        downwards.see(-part)
    low, high = upwards.range("percentile")
    assert (low, high) == pytest.approx((-1, 10), abs=0.02)
    assert downwards.range("percentile") == pytest.approx((-high, -low), abs=0.02)


@pytest.mark.parametrize(("below", "above"), [(3, 3), (3, 4), (4, 3), (0, 0)])
def test_a_range_of_litert_leaves_out_one_in_a_million_on_either_side(below, above):
    """Of 3.5 million three at each end; a bin of four stays whole."""
    width = 4 / LITERT.bins
    ends = (*(-1 + 1.5 * width,) * 10, *(3 - width,) * 10)
    values = np.full(3_500_000, 1, np.float32)
    values[: len(ends)] = ends
    values[100 : 100 + below], values[200 : 200 + above] = -1, 3
    observer = Observer(LITERT)
    observer.see(np.array([-1, 3], np.float32))
    observer.count(values)
    low, high = observer.range("percentile")
    assert low == (-1 if below > 3 else pytest.approx(-1 + width))
    assert high == (3 if above > 3 else pytest.approx(3 - width))
    assert observer.range("minmax") == (-1, 3)


def channels_of(*scales, count=40_000, maps=5):
    """What ReLUs give [maps, C, n], each channel of its own width."""
    values = np.random.default_rng(4).normal(size=(maps, len(scales), count))
    return (np.maximum(values, 0) * np.array(scales)[:, None]).astype(np.float32)


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_each_channel_has_the_limits_that_it_has_alone(method):
    maps = channels_of(1, 0.03, 0, 200)
    maps[0, 1] = 0  # its histogram begins later
    together, alone = Observer(NATIVE, channels=4), [Observer(NATIVE) for _ in range(4)]
    for values in maps:
        together.see(values)
        for observer, channel in zip(alone, values, strict=True):
            observer.see(channel)
    lows, highs = together.limits(method)
    assert lows.tolist() == [0, 0, 0, 0]
    assert highs.tolist() == [observer.range(method)[1] for observer in alone]
    assert highs[2] == 0


def test_the_moments_are_those_of_the_values():
    maps, observer = channels_of(1, 3), Observer(NATIVE, channels=2, moments=True)
    for values in maps:
        observer.see(values)
    values = maps.transpose(1, 0, 2).reshape(2, -1).astype(np.float64)
    np.testing.assert_allclose(observer.mean, values.mean(1), rtol=1e-12)
    np.testing.assert_allclose(observer.mean_square, np.square(values).mean(1), rtol=1e-12)


def test_a_channel_keeps_all_but_one_in_ten_thousand_of_its_values():
    values = np.linspace(0, 1, 100_000, dtype=np.float32)
    for few, held in ((10, 1), (11, 50)):
        shown = values.copy()
        shown[-few:] = 50
        observer = Observer(NATIVE)
        observer.see(shown)
        assert observer.range("percentile")[1] == pytest.approx(held, abs=50 / NATIVE.bins)


def test_the_squared_error_of_a_channel_is_that_of_its_values():
    values = np.abs(np.random.default_rng(3).standard_t(3, 60_000)).astype(np.float32)
    observer = Observer(NATIVE)
    observer.see(values)

    def error(high):
        step = high / 255
        return ((np.round(np.clip(values, 0, high) / step) * step - values) ** 2).sum()

    tried = [error(values.max() * share) for share in SHARES]
    assert error(observer.range("mse")[1]) <= 1.05 * min(tried) < error(values.max())


def test_a_histogram_that_widens_still_counts_every_value():
    values = np.random.default_rng(2).uniform(0, 1, 10_000).astype(np.float32)
    for counting, sign in ((ONNX, 1), (ONNX, -1), (NATIVE, 1)):
        grown, whole = Observer(counting), Observer(counting)
        whole.see(np.append(values, np.float32(64)) * sign)
        grown.see(values * sign)
        grown.see(np.array([64 * sign], np.float32))
        for method in ("minmax", "percentile", "mse"):
            assert grown.range(method) == pytest.approx(whole.range(method), rel=0.05)


def test_tensors_that_are_joined_have_the_widest_range_of_theirs():
    ranges = {"a": (0.0, 1.0), "b": (-2.0, 0.5), "c": (-1.0, 3.0), "d": (0.0, 9.0)}
    shared = share_ranges(ranges, [("b", "a", "unmeasured"), ("c", "b")])
    assert shared == dict.fromkeys("abc", (-2.0, 3.0)) | {"d": (0.0, 9.0)}


def test_a_percentile_is_the_middle_of_its_bin():
    # Of 4,096 bins from −1 to 1, 200,000 values are in that of ±0.5 and two are beyond.
    maps = [np.full(50_000, value, np.float32) for value in (0.5, 0.5, -0.5, -0.5)]
    low, high = observed([1.0, -1.0], *maps).range("percentile")
    assert high == pytest.approx(0.5, abs=1.01 / 4096)
    assert low == pytest.approx(-0.5, abs=1.01 / 4096)

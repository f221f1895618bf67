"""How many values a range by percentiles leaves out, to the value."""

from __future__ import annotations

import numpy as np
import pytest

from densepath.quantize import litert_ranges
from densepath.quantize.ranges import MOST_VALUES, Observer

MAPS = 32  # of MOST_VALUES values, so that each is counted: 2,097,152, of which 20 are 0.001 %


@pytest.mark.parametrize(("few", "many"), [(20, 21), (1, 200)])
def test_a_percentile_leaves_out_a_thousandth_of_a_percent_at_either_end(few, many):
    """So many values far away at one end are left out, a few more at the other are not."""
    values = np.linspace(-1, 1, MAPS * MOST_VALUES, dtype=np.float32)
    values[:few], values[-many:] = -10, 10
    upwards, downwards = Observer(), Observer()
    for part in np.split(np.random.default_rng(0).permutation(values), MAPS):
        upwards.see(part)
        downwards.see(-part)
    low, high = upwards.range("percentile")
    assert (low, high) == pytest.approx((-1, 10), abs=0.02)
    assert downwards.range("percentile") == pytest.approx((-high, -low), abs=0.02)


@pytest.mark.parametrize(("below", "above"), [(3, 3), (3, 4), (4, 3), (0, 0)])
def test_a_range_of_litert_leaves_out_one_in_a_million_on_either_side(below, above):
    """Of 3.5 million three at each end; a bin of four stays whole."""
    bins = litert_ranges.BINS
    counts = np.zeros(bins, np.int64)
    counts[[0, 1, bins // 2, -2, -1]] = below, 10, 3_500_000, 10, above
    low, high = litert_ranges._hold((-1.0, 3.0), counts)
    width = 4 / bins
    assert low == (-1 if below > 3 else pytest.approx(-1 + width))
    assert high == (3 if above > 3 else pytest.approx(3 - width))

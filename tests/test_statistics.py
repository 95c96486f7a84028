"""Statistics of measured shares, against published numbers and their definition."""

import pytest

from libra.statistics import wilson

# Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
PUBLISHED = {
    (81, 263): (0.2553, 0.3662),
    (15, 148): (0.0624, 0.1605),
    (0, 20): (0.0, 0.1611),
    (1, 29): (0.0061, 0.1718),
}


@pytest.mark.parametrize("counts", PUBLISHED)
def test_wilson_interval_is_the_published_one(counts):
    right, asked = counts
    assert wilson(right, asked) == pytest.approx(PUBLISHED[counts], abs=5e-5)
    low, high = wilson(asked - right, asked)  # of those that are wrong
    assert (1 - high, 1 - low) == pytest.approx(PUBLISHED[counts], abs=5e-5)


@pytest.mark.parametrize(("right", "asked"), [(7, 20), (95, 100), (9.5, 15.5)])
def test_wilson_interval_ends_where_the_score_test_just_rejects(right, asked):
    share, (low, high) = right / asked, wilson(right, asked)
    assert low < share < high
    for end in (low, high):
        assert abs(share - end) == pytest.approx(1.959964 * (end * (1 - end) / asked) ** 0.5)

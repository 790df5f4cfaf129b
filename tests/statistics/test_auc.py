"""The area under the ROC curve and its variance, three ways alike: pairs, placements, histograms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from controller.core.statistics import (
    delong,
    delong_from_histogram,
    delong_paired,
    delong_paired_from_histogram,
)

POSITIVE = [0.9, 0.8, 0.7, 0.6, 0.55, 0.4]
NEGATIVE = [0.85, 0.5, 0.45, 0.4, 0.3, 0.2, 0.1]
scores = st.lists(st.integers(0, 9), min_size=2, max_size=25)


def wins(positive: list[float], negative: list[float]) -> np.ndarray:
    """For each pair of a positive and a negative row: 1, 1/2 for a tie, 0."""
    return np.array([[(p > n) + 0.5 * (p == n) for n in negative] for p in positive])


def by_pairs(a: np.ndarray, b: np.ndarray) -> float:
    """DeLong's covariance of two AUCs from the matrices of all pairs."""
    rows = np.cov(a.mean(axis=1), b.mean(axis=1))[0, 1] / a.shape[0]
    return float(rows + np.cov(a.mean(axis=0), b.mean(axis=0))[0, 1] / a.shape[1])


def histogram(values: list[int]) -> np.ndarray:
    return np.bincount(values, minlength=10)


def test_the_published_example_has_its_area_and_variance() -> None:
    for auc, variance in (
        delong(POSITIVE, NEGATIVE),
        delong_from_histogram(
            [row in POSITIVE for row in sorted({*POSITIVE, *NEGATIVE})],
            [row in NEGATIVE for row in sorted({*POSITIVE, *NEGATIVE})],
        ),
    ):
        assert auc == pytest.approx(0.8214285714, abs=5e-11)
        assert variance == pytest.approx(0.01738473167, abs=5e-12)


@given(scores, scores)
def test_area_and_variance_are_those_of_all_pairs(positive: list[int], negative: list[int]) -> None:
    pairs = wins(positive, negative)
    assert delong(positive, negative) == pytest.approx((pairs.mean(), by_pairs(pairs, pairs)), abs=1e-13)


@given(scores, scores)
def test_a_histogram_that_separates_the_scores_loses_nothing(positive: list[int], negative: list[int]) -> None:
    found = delong_from_histogram(histogram(positive), histogram(negative))
    assert found == pytest.approx(delong(positive, negative), abs=1e-13)


def test_the_area_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(3000) < 0.1
    values = np.round(rng.normal(labels * 0.8, 1.0), 1)
    assert delong(values[labels], values[~labels])[0] == pytest.approx(roc_auc_score(labels, values), abs=1e-14)


def test_the_variance_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(2)
    found = [delong(rng.normal(1.0, 1.0, 60), rng.normal(0.0, 1.0, 240)) for _ in range(4000)]
    area, variance = np.array(found).T
    # The variance of 4,000 areas is known to 2.2 % (one standard error).
    assert np.mean(variance) == pytest.approx(np.var(area), rel=0.07)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=4, max_size=30))
def test_paired_areas_have_the_covariance_of_all_pairs(rows: list[tuple[int, int, bool]]) -> None:
    positive = [row for row in rows if row[2]] + [(5, 4, True), (7, 7, True)]
    negative = [row for row in rows if not row[2]] + [(5, 5, False), (1, 2, False)]
    a = wins([row[0] for row in positive], [row[0] for row in negative])
    b = wins([row[1] for row in positive], [row[1] for row in negative])
    expected = (a.mean(), b.mean(), by_pairs(a, a), by_pairs(b, b), by_pairs(a, b), by_pairs(b - a, b - a))
    first, second, label = zip(*positive, *negative, strict=True)
    assert delong_paired(label, first, second) == pytest.approx(expected, abs=1e-13)
    grids = [np.zeros((10, 10)), np.zeros((10, 10))]
    for one, other, said in positive + negative:
        grids[not said][one, other] += 1
    assert delong_paired_from_histogram(*grids) == pytest.approx(expected, abs=1e-13)


def test_a_model_paired_with_itself_differs_from_itself_by_nothing() -> None:
    rng = np.random.default_rng(3)
    labels, values = rng.random(500) < 0.3, rng.random(500)
    pair = delong_paired(labels, values, values)
    assert pair.champion == pair.challenger
    assert pair.champion_variance + pair.challenger_variance - 2 * pair.covariance == pytest.approx(0, abs=1e-18)
    assert pair.difference_variance == 0


def test_rare_positives_among_a_billion_rows_do_not_overflow() -> None:
    # 1e9 rows a bin, shares of positives 1 in 1e3 rising to 3 in 1e3: areas of exact arithmetic.
    positive, negative = [10**6, 2 * 10**6, 3 * 10**6], [10**9, 10**9, 10**9]
    auc, variance = delong_from_histogram(positive, negative)
    assert auc == pytest.approx((1 / 6 + 2 * 3 / 6 + 3 * 5 / 6) / 6, abs=1e-12)
    assert 0 < variance < 1e-6


@pytest.mark.parametrize(("positive", "negative"), [([1.0], [0.0, 0.5]), ([1.0, 2.0], [0.0]), ([1.0], [0.0])])
def test_one_row_of_a_label_gives_an_area_without_a_known_variance(
    positive: list[float], negative: list[float]
) -> None:
    assert delong(positive, negative) == (1.0, math.inf)


def test_ties_alone_are_an_area_of_one_half_with_no_variance() -> None:
    assert delong([1.0] * 5, [1.0] * 7) == (0.5, 0.0)
    assert delong_from_histogram([0, 5, 0], [0, 7, 0]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("positive", "negative", "said"),
    [
        ([], [1.0], "positive_scores and negative_scores"),
        ([1.0], [], "positive_scores and negative_scores"),
        ([math.nan], [1.0], "positive_scores"),
        ([1.0], [math.inf], "negative_scores"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused_by_name(
    positive: list[float], negative: list[float], said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{said} must be"):
        delong(positive, negative)


@pytest.mark.parametrize(
    ("positive", "negative"), [([1, 2], [1, 2, 3]), ([0, 0], [1, 2]), ([1, -1], [1, 2]), ([1, math.nan], [1, 2])]
)
def test_histograms_that_cannot_be_are_refused(positive: list[float], negative: list[float]) -> None:
    with pytest.raises(ValueError, match=r"positive_counts( and negative_counts)? must be"):
        delong_from_histogram(positive, negative)


def test_labels_must_be_of_both_kinds() -> None:
    with pytest.raises(ValueError, match="labels must be of both kinds"):
        delong_paired([1, 1], [0.1, 0.2], [0.1, 0.2])
    with pytest.raises(ValueError, match="labels must be 0 or 1"):
        delong_paired([1, 2], [0.1, 0.2], [0.1, 0.2])

"""Ratios, CUPED, F1, strata and drift figures equal their references and other people's programs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, linregress, mannwhitneyu, permutation_test
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import StratifiedTable
from statsmodels.stats.meta_analysis import combine_effects
from tea_tasting.aggr import Aggregates

from controller.core.statistics import combine_inverse_variance, cuped, f1, js_divergence, psi, ratio_of_means

NUMERATORS = np.array([1, 0, 3, 2, 5, 1, 0, 4])
DENOMINATORS = np.array([10, 5, 22, 18, 40, 9, 4, 31])
VALUES = np.array([3, 5, 2, 8, 6, 7, 1, 4])
COVARIATES = np.array([2, 4, 1, 7, 6, 5, 2, 3])
numbers = st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 50)), min_size=2, max_size=30)


def aggregates(left: np.ndarray, right: np.ndarray) -> Aggregates:
    moments = np.cov(left, right)
    return Aggregates(
        count_=left.size,
        mean_={"left": float(left.mean()), "right": float(right.mean())},
        var_={"left": float(moments[0, 0]), "right": float(moments[1, 1])},
        cov_={("left", "right"): float(moments[0, 1])},
    )


def test_the_ratio_of_the_published_example() -> None:
    ratio, variance = ratio_of_means(NUMERATORS, DENOMINATORS)
    assert ratio == pytest.approx(0.1151079137, abs=5e-11)
    assert variance == pytest.approx(6.708335355e-5, abs=5e-15)


@given(numbers)
def test_the_variance_of_a_ratio_is_that_of_tea_tasting(rows: list[tuple[int, int]]) -> None:
    top, bottom = np.array(rows).T
    expected = aggregates(top, bottom).ratio_var("left", "right") / top.size
    assert ratio_of_means(top, bottom)[1] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_variance_of_a_ratio_is_near_that_of_the_jackknife() -> None:
    size = NUMERATORS.size
    without = np.array([np.delete(NUMERATORS, i).sum() / np.delete(DENOMINATORS, i).sum() for i in range(size)])
    jackknife = (size - 1) / size * np.sum((without - without.mean()) ** 2)
    assert jackknife == pytest.approx(6.93e-5, abs=5e-8)
    assert ratio_of_means(NUMERATORS, DENOMINATORS)[1] == pytest.approx(jackknife, rel=0.05)


def test_a_ratio_by_unit_ignores_how_views_are_split_into_rows() -> None:
    # 1,000 views of one unit are one observation, not 1,000.
    assert ratio_of_means([50.0], [1000.0]) == (0.05, math.inf)
    with pytest.raises(ValueError, match="the sum of denominators must be other than zero"):
        ratio_of_means([1.0, 2.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="numerators and denominators must be of one length"):
        ratio_of_means([1.0, 2.0], [1.0])


def test_a_ratio_of_very_large_or_small_numbers_is_that_of_their_multiples() -> None:
    ratio, variance = ratio_of_means(NUMERATORS, DENOMINATORS)
    for top, bottom in ((1e200, 1e200), (1e-200, 1e-200), (1e160, 1e150)):
        scale = top / bottom
        assert ratio_of_means(NUMERATORS * top, DENOMINATORS * bottom) == pytest.approx(
            (ratio * scale, variance * scale**2), rel=1e-12
        )


def test_cuped_of_the_published_example() -> None:
    theta, variance = cuped(VALUES, COVARIATES)
    assert theta == pytest.approx(1.079365079, abs=5e-10)
    assert np.var(VALUES, ddof=1) == 6.0
    assert variance == pytest.approx(0.7573696145, abs=5e-11)
    adjusted = VALUES - theta * COVARIATES
    assert adjusted[4:].mean() - adjusted[:4].mean() == pytest.approx(-0.5396825397, abs=5e-11)


@given(numbers.filter(lambda rows: len({x for _, x in rows}) > 1))
def test_cuped_is_the_residual_of_a_regression(rows: list[tuple[int, int]]) -> None:
    y, x = np.array(rows, dtype=np.float64).T
    line = linregress(x, y)
    theta, variance = cuped(y, x)
    assert theta == pytest.approx(line.slope, rel=1e-9, abs=1e-9)
    assert variance == pytest.approx(np.var(y - line.slope * x, ddof=1), rel=1e-9, abs=1e-9)
    assert variance <= np.var(y, ddof=1) * (1 + 1e-12)


@pytest.mark.parametrize("size", [3, 7, 10, 1000, 99_999])
@pytest.mark.parametrize("constant", [0.1, 1 / 3, 1e-9, 123456.7, -0.7])
def test_the_rounding_of_equal_covariates_is_no_variance(size: int, constant: float) -> None:
    values = np.random.default_rng(size).normal(10, 1, size)
    assert cuped(values, np.full(size, constant)) == (0.0, pytest.approx(float(np.var(values, ddof=1))))
    rising = np.linspace(1.0, 1.0 + 1e-12, size)  # small, and no rounding
    assert cuped(3 * rising, rising)[0] == pytest.approx(3.0, rel=1e-2)


def test_a_constant_covariate_explains_nothing() -> None:
    assert cuped(VALUES, np.full(8, 3.0)) == (0.0, pytest.approx(6.0))
    assert cuped([1.0], [2.0]) == (0.0, math.inf)
    assert cuped([4.0, 4.0], [1.0, 2.0]) == (0.0, 0.0)


def test_f1_of_the_published_example() -> None:
    value, variance = f1(80, 20, 40)
    assert value == pytest.approx(0.7272727273, abs=5e-11)
    assert variance == pytest.approx(0.001147462605, abs=5e-13)
    truth = [1] * 80 + [0] * 20 + [1] * 40 + [0] * 860
    said = [1] * 100 + [0] * 900
    assert value == pytest.approx(f1_score(truth, said), abs=1e-14)


def test_the_variance_of_f1_is_that_of_repeated_samples() -> None:
    drawn = np.random.default_rng(4).multinomial(10_000, [0.08, 0.02, 0.04, 0.86], 200_000)
    values = 2 * drawn[:, 0] / (2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2])
    assert f1(800, 200, 400)[1] == pytest.approx(np.var(values), rel=0.015)


def test_f1_at_its_limits() -> None:
    assert f1(0, 0, 0) == (0.0, math.inf)
    assert f1(0, 3, 4) == (0.0, 0.0)
    assert f1(9, 0, 0) == (1.0, 0.0)
    assert f1(10**12, 10**12, 10**12)[0] == 0.5
    with pytest.raises(ValueError, match="counts must be"):
        f1(-1, 0, 0)


# statsmodels divides by a heterogeneity that may be zero.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(1e-6, 1e6)), min_size=2, max_size=10))
def test_strata_combine_as_a_fixed_effect_meta_analysis(strata: list[tuple[float, float]]) -> None:
    theta, variances = np.array(strata).T
    fixed = combine_effects(theta, variances).summary_frame().loc["fixed effect"]
    found = combine_inverse_variance(theta, variances)
    assert found == pytest.approx((fixed["eff"], fixed["sd_eff"] ** 2), rel=1e-9, abs=1e-9)


def test_strata_show_nothing_where_pooling_shows_twelve_per_cent() -> None:
    # (units, events) of champion and challenger before and after the weight rose, rates alike within each epoch.
    epochs = np.array([[[9900, 495], [100, 5]], [[5000, 300], [5000, 300]]])
    pooled = epochs.sum(axis=0)
    lift = (pooled[1, 1] / pooled[1, 0]) / (pooled[0, 1] / pooled[0, 0]) - 1
    assert lift == pytest.approx(0.1208533728, abs=5e-11)
    n, rate = epochs[..., 0], epochs[..., 1] / epochs[..., 0]
    difference = rate[:, 1] - rate[:, 0]
    assert combine_inverse_variance(difference, (rate * (1 - rate) / n).sum(axis=1))[0] == 0.0
    tables = [[[y_b, n_b - y_b], [y_a, n_a - y_a]] for (n_a, y_a), (n_b, y_b) in epochs]
    assert StratifiedTable(np.array(tables).transpose(1, 2, 0)).oddsratio_pooled == pytest.approx(1.0, abs=1e-12)


def test_strata_without_a_usable_variance_are_left_out() -> None:
    assert combine_inverse_variance([1.0, 9.0, 9.0, math.nan], [0.5, 0.0, math.inf, 1.0]) == (1.0, 0.5)
    assert combine_inverse_variance([9.0], [0.0]) == (0.0, math.inf)
    assert combine_inverse_variance([], []) == (0.0, math.inf)
    assert combine_inverse_variance([1.0, 3.0], [1e-320, 1e-320])[0] == 2.0


REFERENCE, CURRENT = [0.1, 0.2, 0.4, 0.2, 0.1], [0.15, 0.25, 0.3, 0.2, 0.1]


def test_drift_figures_of_the_published_example() -> None:
    assert psi(REFERENCE, CURRENT) == pytest.approx(0.06019864022, abs=5e-12)
    assert js_divergence(REFERENCE, CURRENT) == pytest.approx(0.007492376636, abs=5e-13)


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=2, max_size=20))
def test_drift_figures_are_those_of_scipy(bins: list[tuple[int, int]]) -> None:
    p, q = np.array(bins, dtype=np.float64).T
    assert psi(p, q) == pytest.approx(entropy(p, q) + entropy(q, p), abs=1e-12)
    assert js_divergence(p, q) == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-12)


def test_drift_figures_are_finite_where_bins_are_empty() -> None:
    assert js_divergence([1, 0], [0, 1]) == pytest.approx(math.log(2))
    assert psi([1, 0], [0, 1]) == pytest.approx(2 * (1 - 1e-4) * math.log(1e4))
    with pytest.raises(ValueError, match="current_counts must be not all zero"):
        psi([1, 0], [0, 0])


def test_the_rank_test_of_sparse_errors_that_we_do_not_use() -> None:
    # The reason: six points with errors against six without are no finding for it.
    errors, none = [0, 1, 2, 1, 0, 0], [0] * 6
    found = mannwhitneyu(errors, none, method="asymptotic")
    assert (found.statistic, found.pvalue) == (27.0, pytest.approx(0.07313979966, abs=5e-12))

    def statistic(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(mannwhitneyu(x, y, axis=axis, method="asymptotic").statistic)

    exact = permutation_test((errors, none), statistic, vectorized=True, n_resamples=math.inf)
    assert exact.pvalue == pytest.approx(0.1818181818, abs=5e-11)

"""What people read beside a verdict does not contradict it, and covers."""

import math

import numpy as np
import pytest

from controller.core import intervals
from controller.core.betting import log_e_harm_counts
from controller.core.sequential import log_e_one_sided_mixture, log_e_two_sided


def test_an_interval_holds_the_effects_that_none_of_its_three_tests_rejects() -> None:
    for theta, se, tau in ((0.01, 0.004, 0.0025), (0.3, 0.06, 0.008), (-0.2, 1.5, 0.01)):
        lower, upper = intervals.shown(theta, se**2, tau)
        for edge in (float(lower), float(upper)):
            found = [log_e_two_sided(theta - edge, se**2, f * tau) for f in intervals.TAU_FACTORS]
            assert max(found) == pytest.approx(math.log(60), abs=1e-9)


def test_a_harm_that_is_proven_at_one_in_two_hundred_is_never_beside_an_interval_with_zero_in_it() -> None:
    rng = np.random.default_rng(1)
    theta, se = rng.normal(0, 0.1, 4000), 10 ** rng.uniform(-4, -0.5, 4000)
    harm = log_e_one_sided_mixture(theta, se**2, [f * 0.01 for f in intervals.TAU_FACTORS])
    lower, _ = intervals.shown(theta, se**2, 0.01)
    proven = harm >= math.log(200)
    assert proven.sum() > 500
    assert (lower[proven] > 0).all()


def rates(a: int, n_a: int, b: int, n_b: int, tau: float = 0.01) -> tuple[float, float]:
    spread, units = np.array([[1 / n_a], [1 / n_b]]), np.array([[n_a], [n_b]], dtype=float)
    lower, upper = intervals.shown_rates([b / n_b - a / n_a], spread, units, [a + b], [tau])
    return float(lower[0]), float(upper[0])


def test_four_failures_against_none_in_ten_times_the_traffic_lie_above_zero() -> None:
    lower, upper = rates(0, 2129, 4, 194)
    assert 0 < lower < 4 / 194 < upper < 0.1


def test_no_failure_in_either_arm_leaves_about_nine_over_n() -> None:
    lower, upper = rates(0, 1000, 0, 1000)
    assert lower == pytest.approx(-upper)
    assert 5 / 1000 < upper < 20 / 1000


@pytest.mark.parametrize(("a", "n_a", "b", "n_b"), [(0, 1, 0, 1), (0, 50, 3, 3), (50, 50, 0, 9), (7, 7, 5, 5)])
def test_few_and_extreme_counts_give_an_interval_within_one_that_holds_the_estimate(
    a: int, n_a: int, b: int, n_b: int
) -> None:
    lower, upper = rates(a, n_a, b, n_b)
    assert -1 <= lower <= b / n_b - a / n_a <= upper <= 1


def test_intervals_of_rates_cover_at_every_look() -> None:
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(200):
        a, b = np.cumsum(rng.binomial(450, 0.01, 40)), np.cumsum(rng.binomial(50, 0.02, 40))
        n = np.arange(1, 41)
        units = np.stack([450.0 * n, 50.0 * n])
        lower, upper = intervals.shown_rates(b / units[1] - a / units[0], 1 / units, units, a + b, np.full(40, 0.005))
        missed += bool(((lower > 0.01) | (upper < 0.01)).any())
    # 5 % of 200 is 10; more than 18 comes up in one of a hundred times.
    assert missed <= 18


def test_the_counting_test_and_its_interval_agree_on_failures_of_one_arm_only() -> None:
    blocks = [[200] * 10, [0] * 10, [20] * 10, [0, 1, 0, 1, 0, 0, 1, 0, 1, 0]]
    assert float(np.ravel(log_e_harm_counts(*blocks, p_hist=0.0001))[-1]) > math.log(200)
    assert rates(0, 2129, 4, 194)[0] > 0

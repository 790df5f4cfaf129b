"""Averages of e-values and the multiplicity rules equal their definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from statsmodels.stats.multitest import multipletests

from controller.core.sequential import e_bh, log_mean_exp


def test_e_bh_rejects_the_three_of_the_published_example() -> None:
    found = e_bh(np.log([100, 60, 40, 5, 1]), 0.05)
    assert found.indices == (0, 1, 2)
    assert found.log_threshold == pytest.approx(math.log(5 / (3 * 0.05)))


def test_the_benjamini_hochberg_oracle_gives_the_published_adjusted_p_values() -> None:
    adjusted = multipletests([0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205], method="fdr_bh")[1]
    np.testing.assert_allclose(adjusted, [0.008, 0.032, 0.0672, 0.0672, 0.0672, 0.08, 0.074 * 8 / 7, 0.205], atol=1e-12)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.2]))
def test_e_bh_rejects_what_benjamini_hochberg_rejects_on_inverse_e_values(logs: list[float], alpha: float) -> None:
    rejected = multipletests(np.minimum(np.exp(-np.array(logs)), 1.0), alpha, method="fdr_bh")[0]
    assert e_bh(logs, alpha).indices == tuple(np.flatnonzero(rejected).tolist())


@given(st.lists(st.one_of(st.floats(-9, 9), st.just(math.inf), st.just(-math.inf)), min_size=1, max_size=7))
def test_e_bh_finds_the_largest_set_whose_members_all_reach_its_bar(logs: list[float]) -> None:
    alpha, size = 0.05, len(logs)
    sets = (s for k in range(size, 0, -1) for s in itertools.combinations(range(size), k))
    largest = next((s for s in sets if all(logs[i] >= math.log(size / (len(s) * alpha)) for i in s)), ())
    assert e_bh(logs, alpha).indices == largest


def test_e_bh_controls_false_discoveries_of_strongly_dependent_hypotheses() -> None:
    # One shared coin makes eight nulls worth 1/p at once, with probability p: each an e-value, all dependent.
    rng = np.random.default_rng(11)
    alpha, replications, false_rate = 0.1, 4000, 0.0
    lucky = rng.random(replications) < 0.05
    for luck in lucky:
        log_e = np.log(np.where(np.arange(10) < 8, 20.0 if luck else 1e-9, 400.0))
        rejected = e_bh(log_e, alpha).indices
        false_rate += sum(i < 8 for i in rejected) / max(len(rejected), 1) / replications
    assert 0.02 < false_rate <= alpha


def test_e_bh_counts_a_value_exactly_at_its_bar() -> None:
    assert e_bh([math.log(1 / 0.05)], 0.05).indices == (0,)
    assert e_bh([math.log(2 / 0.05), math.log(2 / (2 * 0.05))], 0.05).indices == (0, 1)


def test_e_bh_of_nothing_rejects_nothing() -> None:
    assert e_bh([], 0.05).indices == ()
    assert e_bh([-1.0, 0.0], 0.05) == ((), pytest.approx(math.log(40)))


def test_e_bh_refuses_what_is_not_evidence() -> None:
    with pytest.raises(ValueError, match="log_e must be"):
        e_bh([0.0, math.nan], 0.05)
    with pytest.raises(ValueError, match="alpha must be"):
        e_bh([0.0], 1.0)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20))
def test_the_log_of_a_mean_is_that_of_scipy_without_overflow(logs: list[float]) -> None:
    assert log_mean_exp(logs) == pytest.approx(float(logsumexp(logs)) - math.log(len(logs)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ([-math.inf, -math.inf], -math.inf),
        ([math.inf, 0.0], math.inf),
        ([-math.inf, 0.0], -math.log(2)),
        ([1e6, 1e6], 1e6),
    ],
)
def test_the_log_of_a_mean_has_its_limits(logs: list[float], expected: float) -> None:
    assert log_mean_exp(logs) == expected


def test_the_log_of_a_mean_goes_along_the_axis_asked_for() -> None:
    logs = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    np.testing.assert_allclose(log_mean_exp(logs, axis=0), np.log(np.exp(logs).mean(axis=0)), rtol=1e-14)
    np.testing.assert_allclose(log_mean_exp(logs), np.log(np.exp(logs).mean(axis=1)), rtol=1e-14)


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="values must be"):
        log_mean_exp([])

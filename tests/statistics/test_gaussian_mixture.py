"""The Gaussian mixtures equal their definitions, and never decide on nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from controller.core.sequential import (
    confidence_sequence,
    log_e_one_sided,
    log_e_one_sided_mixture,
    log_e_two_sided,
    log_mean_exp,
    tau_for_information,
)

EFFECTS = [(0.0, 1e-4, 0.01), (0.008, 1e-5, 0.0025), (-0.02, 4e-5, 0.01), (1.3, 0.2, 5.0), (-3.0, 0.5, 0.3)]
thetas = st.floats(-1e6, 1e6)
variances = st.floats(1e-12, 1e12)
scales = st.floats(1e-6, 1e6)


def integrated(theta: float, se2: float, tau: float, lower: float) -> float:
    """The mean likelihood ratio over N(0, tau^2) restricted to effects above `lower`, by quadrature."""
    peak = theta * tau**2 / (tau**2 + se2)
    width = math.sqrt(se2 * tau**2 / (tau**2 + se2))
    top = (theta * peak - peak * peak / 2) / se2
    mass = norm.sf(lower, scale=tau)

    def ratio(effect: float) -> float:
        return math.exp((theta * effect - effect**2 / 2) / se2 - top) * norm.pdf(effect, scale=tau) / mass

    low, high = max(lower, peak - 12 * width), max(lower, peak) + 40 * width
    value = quad(ratio, low, high, points=[max(peak, low)], epsabs=0, epsrel=1e-12, limit=400)[0]
    return math.log(value) + top


@pytest.mark.parametrize(("theta", "se2", "tau"), EFFECTS)
def test_two_sided_is_the_mean_likelihood_ratio_over_normal_effects(theta: float, se2: float, tau: float) -> None:
    assert log_e_two_sided(theta, se2, tau) == pytest.approx(integrated(theta, se2, tau, -math.inf), abs=1e-9, rel=1e-9)


@pytest.mark.parametrize(("theta", "se2", "tau"), EFFECTS)
def test_one_sided_is_the_mean_likelihood_ratio_over_half_normal_effects(theta: float, se2: float, tau: float) -> None:
    assert log_e_one_sided(theta, se2, tau) == pytest.approx(integrated(theta, se2, tau, 0.0), abs=1e-9, rel=1e-9)


def test_two_sided_is_the_msprt_of_two_proportions() -> None:
    rates = np.array([0.05, 0.058])
    se2 = float((rates * (1 - rates)).sum()) / 10_000
    log_e = log_e_two_sided(0.008, se2, 0.0025)
    assert math.exp(log_e) == pytest.approx(2.587467989, abs=5e-9)
    assert math.exp(-log_e) == pytest.approx(0.3864782112, abs=5e-10)


def test_interval_reproduces_the_sequential_interval_of_a_relative_effect() -> None:
    # 500 and 580 of 10,000, lift .16 with its delta-method variance, tuned for 5,000 units in the approximate way.
    variance, total = 0.00474208, 20_000
    loss = -2 * math.log(0.05)
    rho2 = (loss + math.log(loss + 1)) / 5_000
    lower, upper = confidence_sequence(0.16, variance, math.sqrt(rho2 * total * variance), 0.05)
    assert lower == pytest.approx(-0.05534171725, abs=2e-8)
    assert upper == pytest.approx(0.3753417172, abs=2e-8)
    log_e = log_e_two_sided(0.16, variance, math.sqrt(rho2 * total * variance))
    assert math.exp(-log_e) == pytest.approx(0.4179325837, abs=2e-7)


@pytest.mark.parametrize(("tau2", "radius"), [(0.00158723092, 0.03061477219), (0.001642393612, 0.03064003115)])
def test_interval_of_ten_thousand_unit_variance_values(tau2: float, radius: float) -> None:
    lower, upper = confidence_sequence(0.0, 1e-4, math.sqrt(tau2), 0.05)
    assert (lower, upper) == pytest.approx((-radius, radius), abs=1e-10)
    root = brentq(lambda x: log_e_two_sided(x, 1e-4, math.sqrt(tau2)) - math.log(20), 0.0, 1.0, xtol=1e-14)
    assert root == pytest.approx(radius, abs=1e-10)


def test_planned_information_gives_the_exact_tuning() -> None:
    assert tau_for_information(5_000, 0.05) ** 2 == pytest.approx(0.001642393612, abs=1e-12)


@pytest.mark.parametrize(("information", "alpha"), [(5_000.0, 0.05), (3.0, 0.001), (1e9, 0.5)])
def test_no_other_tuning_gives_a_narrower_interval_at_the_planned_information(information: float, alpha: float) -> None:
    best = minimize_scalar(
        lambda log_tau: confidence_sequence(0.0, 1 / information, math.exp(log_tau), alpha)[1],
        bracket=(math.log(0.1 / math.sqrt(information)), math.log(10 / math.sqrt(information))),
        tol=1e-12,
    )
    ours = confidence_sequence(0.0, 1 / information, tau_for_information(information, alpha), alpha)[1]
    assert ours == pytest.approx(best.fun, rel=1e-12)


@given(thetas, variances, scales, st.floats(1e-6, 0.99))
def test_interval_ends_exactly_where_the_two_sided_test_rejects(
    theta: float, se2: float, tau: float, alpha: float
) -> None:
    _, radius = confidence_sequence(0.0, se2, tau, alpha)
    assert confidence_sequence(theta, se2, tau, alpha) == (theta - radius, theta + radius)
    assert log_e_two_sided(radius, se2, tau) == pytest.approx(-math.log(alpha), rel=1e-9, abs=1e-9)


@given(thetas, thetas, variances, scales)
def test_one_sided_evidence_never_falls_when_the_estimate_rises(
    one: float, other: float, se2: float, tau: float
) -> None:
    low, high = sorted((one, other))
    below, above = log_e_one_sided(low, se2, tau), log_e_one_sided(high, se2, tau)
    assert below <= above + 1e-12 * abs(above)


@given(thetas, variances, scales)
def test_the_two_sides_average_to_the_two_sided_value(theta: float, se2: float, tau: float) -> None:
    both = log_mean_exp([log_e_one_sided(theta, se2, tau), log_e_one_sided(-theta, se2, tau)])
    assert both == pytest.approx(log_e_two_sided(theta, se2, tau), rel=1e-9, abs=1e-9)


def test_one_sided_evidence_keeps_its_digits_far_on_the_wrong_side() -> None:
    # For w << 0 the half-normal mixture tends to 2 phi(0) / |w| over sqrt(1 + k).
    theta, se2, tau = -1.0, 1e-14, 1.0
    w, k = 1e7, 1e14
    expected = math.log(2 / math.sqrt(2 * math.pi) / w) - math.log(k) / 2
    assert log_e_one_sided(theta, se2, tau) == pytest.approx(expected, abs=1e-12)


def test_mixture_over_taus_is_the_log_of_the_mean_e_value() -> None:
    taus = [0.01, 0.04, 0.16]
    mean = sum(math.exp(log_e_one_sided(0.05, 4e-4, tau)) for tau in taus) / 3
    assert log_e_one_sided_mixture(0.05, 4e-4, taus) == pytest.approx(math.log(mean), abs=1e-12)


def test_mixture_over_taus_loses_at_most_the_log_of_their_number_to_the_best_of_them() -> None:
    taus = [0.01, 0.04, 0.16]
    theta, se2 = np.linspace(-0.5, 0.5, 101), np.full(101, 1e-4)
    best = np.max([log_e_one_sided(theta, se2, tau) for tau in taus], axis=0)
    mixed = log_e_one_sided_mixture(theta, se2, taus)
    assert np.all(mixed <= best + 1e-12)
    assert np.all(mixed >= best - math.log(3) - 1e-12)


@pytest.mark.parametrize(
    ("theta", "se2"),
    [(0.5, 0.0), (0.0, 0.0), (0.5, -1.0), (0.5, math.nan), (0.5, math.inf), (math.nan, 1.0), (math.inf, 1.0)],
)
def test_an_estimate_without_a_usable_variance_is_no_evidence(theta: float, se2: float) -> None:
    assert log_e_two_sided(theta, se2, 0.1) == 0.0
    assert log_e_one_sided(theta, se2, 0.1) == 0.0
    assert log_e_one_sided_mixture(theta, se2, [0.1, 0.4]) == 0.0
    assert confidence_sequence(theta, se2, 0.1, 0.05) == (-math.inf, math.inf)


@given(
    st.floats(allow_nan=False),
    st.floats(min_value=0.0, allow_nan=False),
    st.floats(5e-324, 1e308),
    st.floats(1e-300, 0.999),
)
def test_no_figure_is_ever_nan(theta: float, se2: float, tau: float, alpha: float) -> None:
    lower, upper = confidence_sequence(theta, se2, tau, alpha)
    figures = [log_e_two_sided(theta, se2, tau), log_e_one_sided(theta, se2, tau), lower, upper]
    assert not any(map(math.isnan, figures))
    assert lower <= upper


def test_arrays_broadcast_and_agree_with_numbers() -> None:
    theta, se2, tau = np.array([[0.1], [-0.2]]), np.array([1e-3, 0.0, 2.0]), 0.05
    for function in (log_e_two_sided, log_e_one_sided):
        found = function(theta, se2, tau)
        assert isinstance(found, np.ndarray)
        assert found.shape == (2, 3)
        alone = [[function(float(t), float(s), tau) for s in se2] for t in theta[:, 0]]
        assert all(isinstance(value, float) for row in alone for value in row)
        np.testing.assert_allclose(found, alone, rtol=1e-14)
    lower, upper = confidence_sequence(theta, se2, tau, 0.05)
    assert (lower[1, 2], upper[1, 2]) == pytest.approx(confidence_sequence(-0.2, 2.0, tau, 0.05), rel=1e-14)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_cannot_be_is_refused_by_name(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be positive and finite"):
        log_e_one_sided(0.1, 0.1, tau)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_a_level_that_cannot_be_is_refused_by_name(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be"):
        confidence_sequence(0.1, 0.1, 0.1, alpha)
    with pytest.raises(ValueError, match="alpha must be"):
        tau_for_information(10.0, alpha)

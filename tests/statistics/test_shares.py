"""The tests on shares equal their definitions to the last digits, also at a trillion units."""

import decimal
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import gammaln
from scipy.stats import beta, chisquare, multinomial

from controller.core.sequential import log_e_dirichlet, log_e_discordant, log_e_share

Digits = decimal.Decimal
# B(2n) of Stirling's series, n from 1
BERNOULLI = [(1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6)]


def decimal_gammaln(z: Digits) -> Digits:
    """log Gamma in the current decimal context: Stirling's series after shifting beyond 400 (good to 35 digits)."""
    shift = Digits(1)
    while z < 400:
        shift *= z
        z += 1
    series = sum(
        Digits(top) / Digits(bottom) / (2 * n * (2 * n - 1)) / z ** (2 * n - 1)
        for n, (top, bottom) in enumerate(BERNOULLI, 1)
    )
    half_log_two_pi = Digits("0.91893853320467274178032973640561763986139747363778341")
    return (z - Digits("0.5")) * z.ln() - z + half_log_two_pi + series - shift.ln()


def exact_dirichlet(counts: list[int], probabilities: list[float], alphas: list[float]) -> float:
    with decimal.localcontext(prec=60):
        alpha = [Digits(a) for a in alphas]
        n, k = sum(counts), sum(alpha)
        log_e = decimal_gammaln(k) - decimal_gammaln(k + n)
        for x, p, a in zip(counts, probabilities, alpha, strict=True):
            log_e += decimal_gammaln(a + x) - decimal_gammaln(a) - x * Digits(p).ln()
        return float(log_e)


def test_the_oracle_is_the_gamma_function() -> None:
    with decimal.localcontext(prec=60):
        for z in ("0.5", "3", "77.25", "12345.5"):
            assert float(decimal_gammaln(Digits(z))) == pytest.approx(float(gammaln(float(z))), rel=1e-14)
        assert abs(decimal_gammaln(Digits(101)) - Digits(math.factorial(100)).ln()) < Digits("1e-33")


def test_shares_of_three_arms_with_a_uniform_prior() -> None:
    batches = np.array([[20, 17, 9], [18, 21, 8], [4, 6, 4], [18, 19, 11]])
    log_e = log_e_dirichlet(batches.sum(axis=0), (0.4, 0.4, 0.2), (1, 1, 1))
    assert log_e == pytest.approx(-4.183813982, abs=5e-10)
    assert log_e == pytest.approx(-19.96484521 + 15.78103123, abs=1e-8)


@pytest.mark.parametrize(("concentration", "expected"), [(100, 89.66864651), (1e4, 58.03898013)])
def test_shares_of_a_known_sample_ratio_mismatch(concentration: float, expected: float) -> None:
    assert log_e_dirichlet([9463, 7681], [0.5, 0.5], concentration) == pytest.approx(expected, abs=1e-8)
    assert chisquare([9463, 7681]).pvalue == pytest.approx(3.502192273e-42, rel=1e-9)


@pytest.mark.parametrize("counts", [[0, 0], [1, 0], [503, 497], [10**5 + 800, 10**5], [10**9, 10**9 + 10**5]])
@pytest.mark.parametrize("alpha", [1.0, 50.0, 5000.0])
def test_dirichlet_has_all_its_digits(counts: list[int], alpha: float) -> None:
    expected = exact_dirichlet(counts, [0.5, 0.5], [alpha, alpha])
    assert log_e_dirichlet(counts, [0.5, 0.5], 2 * alpha) == pytest.approx(expected, rel=1e-11, abs=1e-9)


@pytest.mark.parametrize("gap", [0, 10**6, 3 * 10**6, 10**7])
def test_dirichlet_keeps_its_digits_at_a_trillion_units(gap: int) -> None:
    counts, p = [750 * 10**9 - gap, 250 * 10**9 + gap], [0.75, 0.25]
    found = log_e_dirichlet(counts, p, 1e4)
    assert found == pytest.approx(exact_dirichlet(counts, p, [7500.0, 2500.0]), abs=1e-7)


@given(st.lists(st.integers(0, 10**6), min_size=3, max_size=3), st.floats(0.1, 1e6))
def test_dirichlet_is_its_formula_in_gamma_functions(counts: list[int], k: float) -> None:
    p, x = np.array([0.6, 0.3, 0.1]), np.array(counts)
    terms = [gammaln(k), -gammaln(k + x.sum()), *gammaln(k * p + x), *-gammaln(k * p), *-x * np.log(p)]
    assert log_e_dirichlet(counts, p, k) == pytest.approx(sum(terms), abs=1e-13 * np.abs(terms).sum() + 1e-11)


def test_dirichlet_has_mean_one_under_its_null() -> None:
    p, n, mean = [0.7, 0.2, 0.1], 9, 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        if a + b <= n:
            counts = [a, b, n - a - b]
            mean += multinomial.pmf(counts, n, p) * math.exp(log_e_dirichlet(counts, p, 30.0))
    assert mean == pytest.approx(1.0, abs=1e-12)


def test_dirichlet_of_a_table_is_that_of_each_row() -> None:
    table = np.array([[90, 10], [0, 0], [10**6, 10**5]])
    found = log_e_dirichlet(table, [0.9, 0.1], 1e4)
    assert isinstance(found, np.ndarray)
    alone = [log_e_dirichlet(row, [0.9, 0.1], 1e4) for row in table.tolist()]
    assert all(isinstance(value, float) for value in alone)
    np.testing.assert_allclose(found, alone, rtol=1e-13)
    assert alone[1] == 0.0


def test_a_unit_where_none_can_be_is_proof_and_its_absence_says_nothing() -> None:
    assert log_e_dirichlet([5, 5, 1], [0.5, 0.5, 0.0], 10.0) == math.inf
    with_empty = log_e_dirichlet([50, 31, 0], [0.5, 0.5, 0.0], 10.0)
    assert with_empty == log_e_dirichlet([50, 31], [0.5, 0.5], 10.0)


@pytest.mark.parametrize(
    ("counts", "probabilities", "concentration", "said"),
    [
        ([1, -1], [0.5, 0.5], 1.0, "counts"),
        ([1, math.nan], [0.5, 0.5], 1.0, "counts"),
        ([1, 1], [0.5, 0.6], 1.0, "probabilities"),
        ([1, 1], [1.5, -0.5], 1.0, "probabilities"),
        ([1, 1, 1], [0.5, 0.5], 1.0, "counts and probabilities"),
        ([1, 1], [0.5, 0.5], 0.0, "concentration"),
        ([1, 1], [0.5, 0.5], [1.0], "concentration"),
    ],
)
def test_impossible_shares_are_refused_by_name(
    counts: list[float], probabilities: list[float], concentration: float | list[float], said: str
) -> None:
    with pytest.raises(ValueError, match=f"{said} must be"):
        log_e_dirichlet(counts, probabilities, concentration)


def integrated(x: float, y: float, share: float, a: float, b: float) -> float:
    """The mean likelihood ratio over the truncated prior, by quadrature from the edge or around the peak."""
    peak = min(max((x + a - 1) / max(x + y + a + b - 2, 1e-9), share * (1 + 1e-12)), 1 - 1e-12)

    def log_ratio(p: float) -> float:
        return x * math.log(p / share) + y * math.log((1 - p) / (1 - share)) + float(beta.logpdf(p, a, b))

    top = log_ratio(peak)
    width = 1 / math.sqrt(x + y + 4) + abs(1 / (y / (1 - share) - x / share + 1e-9))
    cuts = [c for c in (peak - 8 * width, peak - width, peak, peak + width, peak + 8 * width) if share < c < 1]
    pieces = itertools.pairwise([share, *cuts, 1.0])
    total = sum(
        quad(lambda p: math.exp(log_ratio(p) - top), low, high, epsabs=0, epsrel=1e-11, limit=400)[0]
        for low, high in pieces
        if high > low
    )
    return math.log(total) + top - float(beta.logsf(share, a, b))


@pytest.mark.parametrize(
    ("hits", "misses", "share", "a", "b"),
    [
        (0, 0, 0.5, 1.0, 1.0),
        (10, 1, 0.5, 1.0, 1.0),
        (3, 900, 0.5, 1.0, 1.0),
        (500, 4_000, 0.5, 1.0, 1.0),
        (60, 1_000, 0.05, 5.0, 95.0),
        (20, 1_000, 0.05, 5.0, 95.0),
        (1, 4_000, 0.05, 5.0, 95.0),
        (300, 200, 0.5, 50.0, 50.0),
    ],
)
def test_share_is_the_mean_likelihood_ratio_over_the_truncated_prior(
    hits: int, misses: int, share: float, a: float, b: float
) -> None:
    expected = integrated(hits, misses, share, a, b)
    assert log_e_share(hits, misses, share, a, b) == pytest.approx(expected, abs=1e-8)


def test_share_is_continuous_where_the_way_of_computing_it_changes() -> None:
    hits = np.arange(300.0, 700.0)
    log_e = log_e_share(hits, 1000.0 - hits, 0.5, 1.0, 1.0)
    assert np.all(np.diff(log_e) > 0)
    bend = np.diff(log_e, 2)
    assert np.all((bend > 0) & (bend < 0.02))


@given(st.integers(0, 12), st.floats(0.01, 0.99), st.floats(0, 1), st.floats(0.5, 20), st.floats(0.5, 20))
def test_share_has_mean_at_most_one_for_every_share_up_to_the_tested_one(
    n: int, share: float, below: float, a: float, b: float
) -> None:
    p = share * below
    mean = sum(
        math.comb(n, x) * p**x * (1 - p) ** (n - x) * math.exp(log_e_share(x, n - x, share, a, b)) for x in range(n + 1)
    )
    assert mean <= 1 + 1e-9


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(1e-4, 1 - 1e-4))
def test_no_count_gives_nan(hits: int, misses: int, share: float) -> None:
    assert math.isfinite(log_e_share(hits, misses, share, 1.0, 1.0))
    assert math.isfinite(log_e_discordant(hits, misses))


def test_discordant_pairs_mix_uniformly_over_shares_above_one_half() -> None:
    # 2 * integral of (2p)^11 over (1/2, 1)
    assert log_e_discordant(11, 0) == pytest.approx(math.log((2**12 - 1) / 12), abs=1e-12)
    assert log_e_discordant(0, 0) == 0.0
    found = log_e_discordant(np.array([11.0, 0.0]), np.array([0.0, 0.0]))
    np.testing.assert_allclose(found, [math.log(4095 / 12), 0.0], atol=1e-12)


def test_eleven_discordant_pairs_that_are_all_worse_prove_harm_at_half_a_percent() -> None:
    assert log_e_discordant(10, 0) < math.log(1 / 0.005) <= log_e_discordant(11, 0)


def test_each_worse_pair_adds_evidence_and_each_better_one_takes_some_away() -> None:
    step = np.arange(0.0, 3000.0)
    assert np.all(np.diff(log_e_discordant(step, np.full(3000, 700.0))) > 0)
    assert np.all(np.diff(log_e_discordant(np.full(3000, 700.0), step)) < 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((-1, 0, 0.5, 1, 1), "hits and misses"),
        ((0, math.nan, 0.5, 1, 1), "hits and misses"),
        ((1, 1, 0.0, 1, 1), "share"),
        ((1, 1, 0.5, 0, 1), "prior_hits and prior_misses"),
    ],
)
def test_impossible_trials_are_refused_by_name(arguments: tuple[float, ...], said: str) -> None:
    with pytest.raises(ValueError, match=f"{said} must be"):
        log_e_share(*arguments)

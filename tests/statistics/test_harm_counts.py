"""The 2x2 block test equals its definition, has mean at most 1 under every null, and survives every count."""

import decimal
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from controller.core.sequential import (
    RISK_RATIOS,
    fold_harm_counts,
    log_e_harm_counts,
    log_e_two_by_two,
    log_mean_exp,
)

rates = st.floats(1e-6, 0.999)


def ratio_of_likelihoods(n_a: int, y_a: int, n_b: int, y_b: int, t_a: float, t_b: float) -> float:
    pooled = (n_a * t_a + n_b * t_b) / (n_a + n_b)
    alternative = binom.logpmf(y_a, n_a, t_a) + binom.logpmf(y_b, n_b, t_b)
    return float(alternative - binom.logpmf(y_a, n_a, pooled) - binom.logpmf(y_b, n_b, pooled))


@pytest.mark.parametrize(
    ("counts", "p", "ratio"),
    [
        ((990, 1, 10, 2), 0.001, 2.0),
        ((990, 1, 10, 2), 0.001, 30.0),
        ((500, 40, 500, 61), 0.07, 1.5),
        ((3, 0, 5, 5), 0.3, 3.0),
        ((1000, 0, 1000, 0), 0.01, 5.0),
    ],
)
def test_a_block_is_the_ratio_of_binomial_likelihoods(
    counts: tuple[int, int, int, int], p: float, ratio: float
) -> None:
    n_a, y_a, n_b, y_b = counts
    expected = ratio_of_likelihoods(n_a, y_a, n_b, y_b, p, p * ratio)
    assert log_e_two_by_two(n_a, y_a, n_b, y_b, p, ratio) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 6), st.integers(0, 6), rates, rates, rates, st.sampled_from([1.5, 3.0, 30.0, 1e6]))
def test_a_block_has_mean_at_most_one_wherever_the_challenger_is_no_worse(
    n_a: int, n_b: int, one: float, other: float, guess: float, ratio: float
) -> None:
    p_b, p_a = sorted((one, other))
    mean = sum(
        binom.pmf(y_a, n_a, p_a)
        * binom.pmf(y_b, n_b, p_b)
        * math.exp(log_e_two_by_two(n_a, y_a, n_b, y_b, guess, ratio))
        for y_a in range(n_a + 1)
        for y_b in range(n_b + 1)
    )
    assert mean <= 1 + 1e-9


@pytest.mark.parametrize("p", [0.0005, 0.05, 0.4])
def test_the_running_value_has_mean_at_most_one_after_each_of_three_blocks(p: float) -> None:
    sizes = [(2, 1), (3, 2), (1, 2)]
    means = np.zeros(3)
    outcomes = itertools.product(*(range(n + 1) for pair in sizes for n in pair))
    for events in outcomes:
        pairs = list(zip(events[::2], events[1::2], strict=True))
        chance = math.prod(
            binom.pmf(y_a, n_a, p) * binom.pmf(y_b, n_b, p) for (n_a, n_b), (y_a, y_b) in zip(sizes, pairs, strict=True)
        )
        running = log_e_harm_counts(
            [n for n, _ in sizes], [y for y, _ in pairs], [n for _, n in sizes], [y for _, y in pairs], p, 3.0
        )
        means += chance * np.exp(running)
    assert np.all(means <= 1 + 1e-12)


def step_by_step(table: np.ndarray, p_hist: float, weight: float) -> list[float]:
    """The accumulator as its description reads: one block and one risk ratio at a time."""
    seen_n, seen_events, running = 0.0, 0.0, []
    logs = dict.fromkeys(RISK_RATIOS, 0.0)
    for n_a, y_a, n_b, y_b in table.T:
        t_a = (weight * max(p_hist, 1e-4) + seen_events) / (weight + seen_n)
        for ratio in RISK_RATIOS:
            if n_a and n_b:
                logs[ratio] += ratio_of_likelihoods(n_a, y_a, n_b, y_b, t_a, t_a * ratio)
        seen_n, seen_events = seen_n + n_a, seen_events + y_a
        running.append(math.log(sum(map(math.exp, logs.values())) / len(logs)))
    return running


@pytest.mark.parametrize(("p_hist", "weight"), [(0.001, 2000.0), (0.0, 2000.0), (0.01, 50.0)])
def test_the_running_value_uses_only_earlier_blocks_of_the_champion(p_hist: float, weight: float) -> None:
    rng = np.random.default_rng(5)
    n_a, n_b = rng.integers(0, 400, 40), rng.integers(0, 30, 40)
    table = np.array([n_a, rng.binomial(n_a, 0.01), n_b, rng.binomial(n_b, 0.02)])
    found = log_e_harm_counts(*table, p_hist, weight)
    np.testing.assert_allclose(found, step_by_step(table, p_hist, weight), atol=1e-9)


def test_many_series_at_once_are_the_series_one_by_one() -> None:
    rng = np.random.default_rng(6)
    n_a, n_b = rng.integers(0, 400, (3, 2, 25)), rng.integers(0, 30, (3, 2, 25))
    y_a, y_b = rng.binomial(n_a, 0.01), rng.binomial(n_b, 0.02)
    history = rng.uniform(0, 0.02, (3, 2))
    together = log_e_harm_counts(n_a, y_a, n_b, y_b, history)
    for place in np.ndindex(3, 2):
        alone = log_e_harm_counts(n_a[place], y_a[place], n_b[place], y_b[place], history[place])
        np.testing.assert_allclose(together[place], alone, rtol=1e-12)


@given(st.lists(st.integers(0, 60), min_size=0, max_size=6), st.integers(0, 2**32 - 1))
def test_folding_in_pieces_gives_the_same_bits_as_at_once(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_a, n_b = rng.integers(0, 5000, 60), rng.integers(0, 300, 60)
    table = np.array([n_a, rng.binomial(n_a, 0.003), n_b, rng.binomial(n_b, 0.01)])
    whole, at_once = fold_harm_counts(None, *table, 0.002)
    fold, pieces = None, []
    for low, high in itertools.pairwise([0, *sorted(cuts), 60]):
        fold, running = fold_harm_counts(fold, *table[:, low:high], 0.002)
        pieces.append(running)
    assert np.concatenate(pieces).tobytes() == at_once.tobytes()
    assert fold is not None
    assert all(one.tobytes() == other.tobytes() for one, other in zip(fold, whole, strict=True))


@given(
    st.lists(
        st.tuples(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 1), st.floats(0, 1)),
        min_size=1,
        max_size=8,
    ),
    st.floats(0, 1),
)
def test_no_count_gives_nan(blocks: list[tuple[int, int, float, float]], p_hist: float) -> None:
    table = [(n_a, math.floor(n_a * a), n_b, math.floor(n_b * b)) for n_a, n_b, a, b in blocks]
    found = log_e_harm_counts(*np.array(table, dtype=np.float64).T, p_hist)
    assert np.all(np.isfinite(found))


@pytest.mark.parametrize(("n_a", "n_b"), [(0, 0), (0, 7), (7, 0)])
def test_a_block_with_an_empty_arm_says_nothing(n_a: int, n_b: int) -> None:
    for events in (0, 1):
        y_a, y_b = min(events, n_a), min(events, n_b)
        assert log_e_two_by_two(n_a, y_a, n_b, y_b, 0.01, 5.0) == 0.0


def test_more_events_of_the_challenger_are_more_evidence_and_of_the_champion_less() -> None:
    events = np.arange(0, 101)
    assert np.all(np.diff(log_e_two_by_two(900, 9, 100, events, 0.01, 5.0)) > 0)
    assert np.all(np.diff(log_e_two_by_two(900, events, 100, 3, 0.01, 5.0)) < 0)


def test_a_challenger_without_events_is_never_harm() -> None:
    found = log_e_harm_counts(np.full(500, 99), np.full(500, 1), np.full(500, 1), np.zeros(500), 0.01)
    assert np.all(found <= 0)


def test_an_alternative_beyond_certainty_is_kept_below_it() -> None:
    certain = log_e_two_by_two(10, 5, 10, 10, 0.5, 30.0)
    assert math.isfinite(certain)
    assert certain == pytest.approx(ratio_of_likelihoods(10, 5, 10, 10, 0.5, 0.9995), abs=1e-9)


def test_one_block_takes_a_vector_of_risk_ratios() -> None:
    found = log_e_two_by_two(990, 1, 10, 2, 0.001, RISK_RATIOS)
    assert found.tolist() == [log_e_two_by_two(990, 1, 10, 2, 0.001, ratio) for ratio in RISK_RATIOS]
    running = log_e_harm_counts([990], [1], [10], [2], 0.001)
    assert running[-1] == pytest.approx(log_mean_exp(found), abs=1e-14)


def test_counts_at_a_trillion_units_agree_with_fifty_decimal_digits() -> None:
    n, events, p, ratio = 10**12, (10**6, 2 * 10**6), 0.000001, 2.0
    with decimal.localcontext(prec=50):
        t_a = decimal.Decimal(p)
        t_b, pooled = 2 * t_a, 3 * t_a / 2
        expected = sum(
            y * (t / pooled).ln() + (n - y) * ((1 - t) / (1 - pooled)).ln()
            for t, y in zip((t_a, t_b), events, strict=True)
        )
    assert log_e_two_by_two(n, events[0], n, events[1], p, ratio) == pytest.approx(float(expected), abs=1e-8)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((10, 11, 10, 0, 0.1, 2.0), "champion_n and champion_events"),
        ((10, 0, 10, -1, 0.1, 2.0), "challenger_n and challenger_events"),
        ((math.nan, 0, 10, 0, 0.1, 2.0), "champion_n and champion_events"),
        ((math.inf, 0, 10, 0, 0.1, 2.0), "champion_n and champion_events"),
        ((10, 0, 10, 0, 0.0, 2.0), "p_champion"),
        ((10, 0, 10, 0, 1.0, 2.0), "p_champion"),
        ((10, 0, 10, 0, 0.1, 0.0), "risk_ratio"),
    ],
)
def test_impossible_counts_are_refused_by_name(arguments: tuple[float, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        log_e_two_by_two(*arguments)


def test_a_history_that_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="p_hist"):
        log_e_harm_counts([10], [1], [10], [1], math.nan)
    with pytest.raises(ValueError, match="prior_weight"):
        log_e_harm_counts([10], [1], [10], [1], 0.1, 0.0)
    with pytest.raises(ValueError, match="risk_ratios"):
        log_e_harm_counts([10], [1], [10], [1], 0.1, 1.0, [])

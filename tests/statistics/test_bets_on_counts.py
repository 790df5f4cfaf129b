"""The bets on counts equal their definition unit by unit and have mean at most 1 at the margin."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.sequential import (
    BET_FRACTIONS,
    fold_count_non_inferior,
    log_e_bet,
    log_e_count_non_inferior,
)


def capital(units: list[tuple[int, int]], pi: float, margin: float, fraction: float) -> float:
    """The capital after betting on each unit (arm, event) as the definition says."""
    stake = fraction / (1 / pi - margin)
    product = 1.0
    for arm, event in units:
        difference = arm * event / pi - (1 - arm) * event / (1 - pi)
        product *= 1 + stake * (margin - difference)
    return product


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=30),
    st.floats(0.01, 0.99),
    st.floats(-0.5, 0.5),
    st.sampled_from(BET_FRACTIONS),
)
def test_a_block_is_the_product_of_the_bets_on_its_units(
    units: list[tuple[int, int]], pi: float, margin: float, fraction: float
) -> None:
    n_b, n_a = sum(arm for arm, _ in units), sum(1 - arm for arm, _ in units)
    y_b, y_a = sum(event for arm, event in units if arm), sum(event for arm, event in units if not arm)
    found = log_e_bet(n_a, y_a, n_b, y_b, pi, margin, fraction)
    assert found == pytest.approx(math.log(capital(units, pi, margin, fraction)), abs=1e-9)


nulls = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(-0.9, 0.9)).filter(lambda t: t[1] - t[0] >= t[2])


@given(nulls, st.floats(0.01, 0.99), st.sampled_from(BET_FRACTIONS))
def test_a_bet_on_a_randomised_unit_has_mean_at_most_one_under_the_null(
    null: tuple[float, float, float], pi: float, fraction: float
) -> None:
    p_a, p_b, margin = null
    mean = (
        pi * p_b * math.exp(log_e_bet(0, 0, 1, 1, pi, margin, fraction))
        + pi * (1 - p_b) * math.exp(log_e_bet(0, 0, 1, 0, pi, margin, fraction))
        + (1 - pi) * p_a * math.exp(log_e_bet(1, 1, 0, 0, pi, margin, fraction))
        + (1 - pi) * (1 - p_a) * math.exp(log_e_bet(1, 0, 0, 0, pi, margin, fraction))
    )
    assert mean <= 1 + 1e-9


def test_a_bet_on_a_randomised_unit_is_fair_exactly_at_the_margin() -> None:
    p_a, margin, pi, fraction = 0.02, 0.005, 0.05, 0.4
    mean = (
        pi * (p_a + margin) * math.exp(log_e_bet(0, 0, 1, 1, pi, margin, fraction))
        + pi * (1 - p_a - margin) * math.exp(log_e_bet(0, 0, 1, 0, pi, margin, fraction))
        + (1 - pi) * p_a * math.exp(log_e_bet(1, 1, 0, 0, pi, margin, fraction))
        + (1 - pi) * (1 - p_a) * math.exp(log_e_bet(1, 0, 0, 0, pi, margin, fraction))
    )
    assert mean == pytest.approx(1.0, abs=1e-13)


def chance(events: int, n: int, p: float) -> float:
    """Binomial probability, also for rates so small that scipy's overflows."""
    return math.comb(n, events) * p**events * (1 - p) ** (n - events)


@given(nulls, st.integers(0, 6), st.integers(0, 6), st.sampled_from(BET_FRACTIONS))
def test_at_the_share_found_a_block_has_mean_at_most_one_given_the_counts_of_units(
    null: tuple[float, float, float], n_a: int, n_b: int, fraction: float
) -> None:
    p_a, p_b, margin = null
    mean = sum(
        chance(y_a, n_a, p_a) * chance(y_b, n_b, p_b) * math.exp(log_e_bet(n_a, y_a, n_b, y_b, None, margin, fraction))
        for y_a, y_b in itertools.product(range(n_a + 1), range(n_b + 1))
    )
    assert mean <= 1 + 1e-9


@given(nulls, st.sampled_from(BET_FRACTIONS), st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_at_the_share_found_units_may_differ_as_long_as_the_mean_rates_do_not(
    null: tuple[float, float, float], fraction: float, spread: list[float]
) -> None:
    # Two units of the champion and three of the challenger, each with its own rate; the means stay p_a and p_b.
    p_a, p_b, margin = null
    room_a, room_b = min(p_a, 1 - p_a), min(p_b, 1 - p_b)
    champion = [p_a + spread[0] * room_a, p_a - spread[0] * room_a]
    challenger = [p_b + spread[1] * room_b, p_b - spread[1] * room_b, p_b]
    mean = 0.0
    for events in itertools.product((0, 1), repeat=5):
        weight = math.prod(p if y else 1 - p for p, y in zip(champion + challenger, events, strict=True))
        mean += weight * math.exp(log_e_bet(2, sum(events[:2]), 3, sum(events[2:]), None, margin, fraction))
    assert mean <= 1 + 1e-9


def test_exchanging_the_arms_and_the_sign_of_the_margin_tests_the_other_side() -> None:
    # H0: p_B - p_A <= .01, by the definition with margin - D replaced by D - margin.
    n_a, y_a, n_b, y_b, pi, margin, fraction = 40, 2, 10, 3, 0.2, 0.01, 0.4
    stake = fraction / (1 / (1 - pi) + margin)
    expected = (
        (n_a + n_b - y_a - y_b) * math.log1p(-stake * margin)
        + y_b * math.log1p(stake * (1 / pi - margin))
        + y_a * math.log1p(stake * (-1 / (1 - pi) - margin))
    )
    assert log_e_bet(n_b, y_b, n_a, y_a, 1 - pi, -margin, fraction) == pytest.approx(expected, abs=1e-12)


def test_the_running_value_is_the_mean_over_fractions_of_products_over_blocks() -> None:
    rng = np.random.default_rng(8)
    pi = np.repeat([0.01, 0.05, 0.25], 20)
    n_b = rng.binomial(500, pi)
    y_a, y_b = rng.binomial(500 - n_b, 0.004), rng.binomial(n_b, 0.003)
    found = log_e_count_non_inferior(500 - n_b, y_a, n_b, y_b, pi, 0.002)
    capitals = dict.fromkeys(BET_FRACTIONS, 0.0)
    expected = []
    for block, share in enumerate(pi):
        for fraction in BET_FRACTIONS:
            capitals[fraction] += log_e_bet(
                500 - n_b[block], y_a[block], n_b[block], y_b[block], share, 0.002, fraction
            )
        expected.append(math.log(sum(map(math.exp, capitals.values())) / 5))
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_the_share_found_is_the_share_of_each_block() -> None:
    n_a, n_b = np.array([90, 40, 0, 7]), np.array([10, 60, 5, 0])
    y_a, y_b = np.array([1, 0, 0, 2]), np.array([0, 2, 1, 0])
    found = log_e_count_non_inferior(n_a, y_a, n_b, y_b, None, 0.01)
    both = log_e_count_non_inferior(n_a[:2], y_a[:2], n_b[:2], y_b[:2], np.array([0.1, 0.6]), 0.01)
    np.testing.assert_allclose(found, [*both, both[-1], both[-1]], atol=1e-14)


@pytest.mark.parametrize("pi", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("known", [True, False])
def test_two_arms_without_an_event_are_proven_equal_after_about_eleven_thousand_challenger_units(
    pi: float, known: bool
) -> None:
    blocks = 40_000
    n_b = np.full(blocks, 1)
    n_a = np.full(blocks, round(1 / pi) - 1)
    log_e = log_e_count_non_inferior(n_a, 0 * n_a, n_b, 0 * n_b, pi if known else None, 0.0005)
    assert 11_000 <= int(np.argmax(log_e >= math.log(20))) <= 11_600


def test_many_series_at_once_are_the_series_one_by_one() -> None:
    rng = np.random.default_rng(9)
    n_a, n_b = rng.integers(0, 400, (4, 25)), rng.integers(0, 30, (4, 25))
    y_a, y_b = rng.binomial(n_a, 0.01), rng.binomial(n_b, 0.02)
    margin = np.array([0.001, 0.01, 0.1, 0.0])
    for pi in (0.07, None):
        together = log_e_count_non_inferior(n_a, y_a, n_b, y_b, pi, margin)
        for row in range(4):
            alone = log_e_count_non_inferior(n_a[row], y_a[row], n_b[row], y_b[row], pi, margin[row])
            np.testing.assert_allclose(together[row], alone, rtol=1e-12, atol=1e-12)


@given(st.lists(st.integers(0, 60), max_size=6), st.integers(0, 2**32 - 1), st.sampled_from([None, 0.06]))
def test_folding_in_pieces_gives_the_same_bits_as_at_once(cuts: list[int], seed: int, pi: float | None) -> None:
    rng = np.random.default_rng(seed)
    n_a, n_b = rng.integers(0, 5000, 60), rng.integers(0, 300, 60)
    table = np.array([n_a, rng.binomial(n_a, 0.003), n_b, rng.binomial(n_b, 0.01)])
    whole, at_once = fold_count_non_inferior(None, *table, pi, 0.001)
    fold, pieces = None, []
    for low, high in itertools.pairwise([0, *sorted(cuts), 60]):
        fold, running = fold_count_non_inferior(fold, *table[:, low:high], pi, 0.001)
        pieces.append(running)
    assert np.concatenate(pieces).tobytes() == at_once.tobytes()
    assert fold is not None
    assert fold.tobytes() == whole.tobytes()


@given(
    st.lists(
        st.tuples(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 1), st.floats(0, 1)),
        min_size=1,
        max_size=8,
    ),
    st.one_of(st.none(), st.floats(1e-6, 1 - 1e-6)),
    st.floats(-0.999, 0.999),
)
def test_no_count_gives_nan(blocks: list[tuple[int, int, float, float]], pi: float | None, margin: float) -> None:
    table = [(n_a, math.floor(n_a * a), n_b, math.floor(n_b * b)) for n_a, n_b, a, b in blocks]
    found = log_e_count_non_inferior(*np.array(table, dtype=np.float64).T, pi, margin)
    assert np.all(np.isfinite(found))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((10, 11, 10, 0, 0.5, 0.01, 0.1), "champion_n and champion_events"),
        ((10, 0, 10, 11, 0.5, 0.01, 0.1), "challenger_n and challenger_events"),
        ((10, 0, 10, 0, 0.0, 0.01, 0.1), "pi"),
        ((10, 0, 10, 0, 1.0, 0.01, 0.1), "pi"),
        ((10, 0, 10, 0, 0.5, 1.0, 0.1), "margin"),
        ((10, 0, 10, 0, 0.5, math.nan, 0.1), "margin"),
        ((10, 0, 10, 0, 0.5, 0.01, 1.0), "fraction"),
    ],
)
def test_impossible_arguments_are_refused_by_name(arguments: tuple[float, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        log_e_bet(*arguments)

"""Looking after every block, no test raises more false alarms than its level; and each finds what is there.

Every series is looked at after each block and counted if it ever reaches log(1/alpha). What is allowed are as many
as chance gives in one case of a thousand when each series alarms with probability alpha.
"""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from controller.core.sequential import (
    confidence_sequence,
    log_e_count_non_inferior,
    log_e_dirichlet,
    log_e_discordant,
    log_e_harm_counts,
    log_e_one_sided,
    log_e_one_sided_mixture,
    log_e_share,
    log_e_two_sided,
    log_mean_exp,
)

ALPHA = 0.05
SERIES = 2000
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def alarms(log_e: Floats) -> int:
    return int((log_e.max(axis=-1) >= math.log(1 / ALPHA)).sum())


def allowed(series: int = SERIES) -> int:
    return int(binom.ppf(0.999, series, ALPHA))


def walk(seed: int, effect: float, blocks: int = 1000) -> tuple[Floats, Floats]:
    """The running mean of values of unit variance after each block, and its variance."""
    steps = np.random.default_rng(seed).normal(effect, 1.0, (SERIES, blocks))
    n = np.arange(1, blocks + 1)
    return np.cumsum(steps, axis=1) / n, np.broadcast_to(1 / n, steps.shape)


@pytest.mark.parametrize("tau", [0.02, 0.1, 1.0])
def test_gaussian_mixtures_hold_their_level_over_a_thousand_looks(tau: float) -> None:
    theta, se2 = walk(21, 0.0)
    assert alarms(log_e_two_sided(theta, se2, tau)) <= allowed()
    assert alarms(log_e_one_sided(theta, se2, tau)) <= allowed()
    assert alarms(log_e_one_sided_mixture(theta, se2, [tau, 4 * tau, 16 * tau])) <= allowed()
    naive = np.abs(theta) / np.sqrt(se2) > 1.96
    assert naive.any(axis=1).mean() > 0.4


@pytest.mark.parametrize("tau", [0.02, 0.1, 1.0])
def test_gaussian_mixtures_find_an_effect(tau: float) -> None:
    theta, se2 = walk(22, 0.2)
    assert alarms(log_e_two_sided(theta, se2, tau)) >= 0.95 * SERIES
    assert alarms(log_e_one_sided(theta, se2, tau)) >= 0.95 * SERIES
    assert alarms(log_e_one_sided(-theta, se2, tau)) <= 0.01 * SERIES


def test_the_interval_covers_the_effect_at_all_looks_at_once() -> None:
    theta, se2 = walk(23, 0.3)
    lower, upper = confidence_sequence(theta, se2, 0.1, ALPHA)
    missed = ((lower > 0.3) | (upper < 0.3)).any(axis=1).sum()
    assert missed <= allowed()


def arms(seed: int, p_a: float, p_b: float, units: int, pi: Floats) -> tuple[Integers, Integers, Integers, Integers]:
    """Blocks of `units` fresh units, each in the challenger with the block's probability."""
    rng = np.random.default_rng(seed)
    n_b = rng.binomial(units, pi, (SERIES, pi.size))
    n_a = units - n_b
    return n_a, rng.binomial(n_a, p_a), n_b, rng.binomial(n_b, p_b)


RAMP = np.repeat([0.01, 0.05, 0.25, 0.5], 50)


@pytest.mark.parametrize(("p", "history"), [(0.01, 0.01), (0.01, 0.0001), (0.01, 0.2), (0.0005, 0.0005), (0.4, 0.4)])
def test_harm_counts_hold_their_level_over_a_ramp_whatever_the_history_said(p: float, history: float) -> None:
    assert alarms(log_e_harm_counts(*arms(31, p, p, 500, RAMP), np.full(SERIES, history))) <= allowed()


def test_harm_counts_hold_their_level_while_the_base_rate_moves() -> None:
    p = 0.01 * np.exp(np.sin(np.arange(200) / 10))
    n_a, _, n_b, _ = arms(32, 0.0, 0.0, 500, RAMP)
    rng = np.random.default_rng(33)
    found = log_e_harm_counts(n_a, rng.binomial(n_a, p), n_b, rng.binomial(n_b, p), 0.01)
    assert alarms(found) <= allowed()


@pytest.mark.parametrize(("pi", "challenger_units"), [(0.01, 185), (0.05, 220)])
def test_errors_risen_twentyfold_are_found_within_two_hundred_challenger_requests(
    pi: float, challenger_units: int
) -> None:
    per_block = 10 if pi == 0.01 else 25
    rng = np.random.default_rng(34)
    shape = (SERIES, 40)
    n_b = np.full(shape, per_block)
    n_a = np.full(shape, round(per_block * (1 - pi) / pi))
    log_e = log_e_harm_counts(n_a, rng.binomial(n_a, 0.001), n_b, rng.binomial(n_b, 0.02), np.full(SERIES, 0.001))
    reached = log_e >= math.log(100)
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, math.inf) * per_block
    assert np.median(first) <= challenger_units


@pytest.mark.parametrize(("p", "margin"), [(0.01, 0.002), (0.0005, 0.0005), (0.2, 0.02), (0.0, 0.001)])
@pytest.mark.parametrize("known", [True, False])
def test_non_inferiority_is_not_proven_of_a_challenger_at_the_margin(p: float, margin: float, known: bool) -> None:
    log_e = log_e_count_non_inferior(
        *arms(41, p, p + margin, 500, RAMP), RAMP if known else None, np.full(SERIES, margin)
    )
    assert alarms(log_e) <= allowed()


@pytest.mark.parametrize("known", [True, False])
def test_non_inferiority_is_proven_of_an_equal_challenger(known: bool) -> None:
    pi = np.full(300, 0.25)
    log_e = log_e_count_non_inferior(*arms(42, 0.002, 0.002, 500, pi), pi if known else None, 0.002)
    assert alarms(log_e) >= 0.98 * SERIES


def returning(seed: int, lost: float) -> tuple[Integers, Integers, Integers, Integers]:
    """2,000 units that keep their arm and come back by chance to 500 blocks; the challenger at the margin .002."""
    rng = np.random.default_rng(seed)
    ours = rng.binomial(2000, 0.05, SERIES)[:, None]
    n_b = rng.binomial(ours, 0.2 * (1 - lost), (SERIES, 500))
    n_a = rng.binomial(2000 - ours, 0.2, (SERIES, 500))
    return n_a, rng.binomial(n_a, 0.01), n_b, rng.binomial(n_b, 0.012)


@pytest.mark.parametrize("lost", [0.0, 0.1, 0.3])
def test_the_share_found_is_not_misled_by_returning_units_or_by_an_arm_that_loses_some(lost: float) -> None:
    assert alarms(log_e_count_non_inferior(*returning(43, lost), None, 0.002)) <= allowed()


def test_the_designed_share_is_misled_by_an_arm_that_loses_units() -> None:
    # Why evidence passes None: fewer counted units look like fewer events.
    assert alarms(log_e_count_non_inferior(*returning(43, 0.3), 0.05, 0.002)) > 0.5 * SERIES


@pytest.mark.parametrize("concentration", [1.0, 100.0, 1e4])
def test_the_sample_ratio_test_holds_its_level_over_epochs(concentration: float) -> None:
    rng = np.random.default_rng(51)
    total, sums = np.zeros((SERIES, 1)), []
    for pi in (0.01, 0.05, 0.25, 0.5):
        ours = np.cumsum(rng.binomial(1000, pi, (SERIES, 50)), axis=1)
        seen = 1000 * np.arange(1, 51)
        log_e = log_e_dirichlet(np.stack([seen - ours, ours], axis=-1), [1 - pi, pi], concentration)
        sums.append(total + log_e)
        total = sums[-1][:, -1:]
    assert alarms(np.concatenate(sums, axis=1)) <= allowed()


def test_the_sample_ratio_test_finds_three_per_cent_of_lost_units() -> None:
    rng = np.random.default_rng(52)
    theirs, ours = (np.cumsum(rng.binomial(2500, kept, (SERIES, 80)), axis=1) for kept in (1.0, 0.97))
    assert alarms(log_e_dirichlet(np.stack([theirs, ours], axis=-1), [0.5, 0.5], 1e4)) >= 0.98 * SERIES


def discordant(seed: int, share: float) -> Floats:
    """1,500 discordant pairs, looked at after every tenth."""
    worse = np.cumsum(np.random.default_rng(seed).binomial(10, share, (SERIES, 150)), axis=1, dtype=np.float64)
    return log_e_discordant(worse, 10.0 * np.arange(1, 151) - worse)


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_discordant_pairs_hold_their_level(share: float) -> None:
    assert alarms(discordant(61, share)) <= allowed()


def test_discordant_pairs_find_a_challenger_that_is_worse_in_sixty_per_cent() -> None:
    assert alarms(discordant(62, 0.6)) >= 0.98 * SERIES


def test_a_share_of_one_in_twenty_holds_its_level_and_finds_a_loss() -> None:
    rng = np.random.default_rng(63)
    for seen, wanted in ((0.05, False), (0.045, True)):
        ours = np.cumsum(rng.binomial(2000, seen, (SERIES, 100)), axis=1).astype(np.float64)
        rest = 2000.0 * np.arange(1, 101) - ours
        found = alarms(log_e_share(rest, ours, 0.95, 9500.0, 500.0))
        assert (found >= 0.98 * SERIES) if wanted else (found <= allowed())


def test_the_mean_of_dependent_tests_holds_their_level() -> None:
    # Five edges of one latency distribution: the counts above them are nested, the mean of the five is one e-value.
    rng = np.random.default_rng(71)
    tails = np.array([0.5, 0.1, 0.05, 0.01, 0.001])
    n_a, n_b = 475, 25
    slow = [(rng.random((SERIES, 40, n))[..., None] < tails).sum(axis=2) for n in (n_a, n_b)]
    edges = [
        log_e_harm_counts(
            np.full((SERIES, 40), n_a), slow[0][..., i], np.full((SERIES, 40), n_b), slow[1][..., i], tail
        )
        for i, tail in enumerate(tails)
    ]
    found = log_mean_exp(np.stack(edges), axis=0)
    assert isinstance(found, np.ndarray)
    assert alarms(found) <= allowed()

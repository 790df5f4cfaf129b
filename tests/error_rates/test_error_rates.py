"""A small campaign: the promised rates are not refuted. The long one is `make error-rates`."""

import numpy as np
from scipy.stats import binomtest

from controller.status import Progress, Reason
from tests.error_rates import journalled, peers, returning, single
from tests.error_rates.world import Truth, play

REFUTED = 1e-4  # a true promise fails this test once in ten thousand seeds; the seeds are fixed


def refutes(hits: int, runs: int, promised: float) -> bool:
    """More hits than a rate of ``promised`` could explain."""
    return bool(binomtest(hits, runs, promised, alternative="greater").pvalue < REFUTED)


def test_equal_arms_are_promoted_and_not_rolled_back_while_naive_looks_roll_most_of_them_back() -> None:
    endings = [play(seed, Truth("A/A")) for seed in range(40)]
    assert not refutes(sum(e.rolled_back for e in endings), 40, 0.02)
    assert not refutes(sum(not e.promoted for e in endings), 40, 0.02)
    assert sum(peers.naive_z(e.drawn) == "RollBack" for e in endings) > 20


def test_harm_at_a_margin_is_not_promoted() -> None:
    for ratios in ({"ctr": 0.95}, {"errors": 1.5}):
        endings = [play(seed, Truth("harm", ratios)) for seed in range(100, 115)]
        assert not refutes(sum(e.promoted for e in endings), 15, 0.02)


def test_lost_units_end_as_a_mismatch_without_another_step() -> None:
    endings = [play(seed, Truth("lost", lost=0.03)) for seed in range(200, 212)]
    assert not refutes(sum(e.reason is not Reason.SAMPLE_RATIO_MISMATCH for e in endings), 12, 0.01)
    assert not any(e.advanced for e in endings)


def test_returning_users_are_not_taken_for_new_ones() -> None:
    ends = [returning.play(seed) for seed in range(30)]
    assert not refutes(sum(end is Progress.ROLLING_BACK for end in ends), 30, 0.02)


def test_purchases_at_one_percent_raise_no_false_alarm() -> None:
    assert not refutes(sum(single.gmv_false_alarm(seed) for seed in range(30)), 30, 0.01)


def test_gross_harm_is_found_within_the_promised_number_of_requests() -> None:
    for weight, errors, slow in ((1.0, 185, 180), (5.0, 220, 180)):
        assert np.median([single.errors_found_after(seed, weight) for seed in range(200)]) <= errors
        assert np.median([single.slowness_found_after(seed, weight) for seed in range(100)]) <= slow


def test_through_journals_and_engine_the_rule_decides_as_on_the_plain_engine() -> None:
    equal = journalled.replay(1, journalled.Rates())
    worse = journalled.replay(2, journalled.Rates(right=0.6))
    assert (equal.different, worse.different) == (0, 0)
    assert (equal.progress, equal.metric) == (Progress.PROMOTING, "clicks")
    assert (worse.reason, worse.metric) == (Reason.OUTCOME_HARM, "right")

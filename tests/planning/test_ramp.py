"""Who meets a bad challenger until it is found, over the whole ramp and under the rule's clock."""

import numpy as np
import pytest
from scipy.stats import binomtest

from controller.planning.champion import Given
from controller.planning.forecast import forecast
from controller.planning.ramp import Course, clock, courses
from controller.planning.steps import DAY, allocations, baseline_lead
from tests.planning.examples import CTR, DECISION, ERRORS, GMV, LATENCY, one

RUNS = 200


def _courses(metric: str, harms: list[float], units: float = 1e6, runs: int = RUNS, **more: str) -> list[Course]:
    spec, simulated = one(metric, **more)
    steps = allocations(spec, units)
    return courses(spec, simulated, steps, harms, 1.0, 0, runs, np.random.default_rng(1))


@pytest.mark.parametrize("metric", [CTR, ERRORS, LATENCY, GMV])
def test_gross_harm_meets_fewer_units_than_two_margins_and_more_traffic_finds_it_sooner(metric: str) -> None:
    simulated = one(metric)[1]
    small, gross = _courses(metric, [2 * simulated.margin(), simulated.gross()])
    assert gross.found == 1.0
    assert gross.mean < small.mean
    assert small.mean <= small.worst_5
    again = _courses(metric, [simulated.gross()], 5e6)[0]
    assert gross.median_days is not None
    assert again.median_days is not None
    assert again.median_days < gross.median_days


@pytest.mark.parametrize("metric", [CTR.replace("margin:", "harmMargin: 0, margin:"), ERRORS, LATENCY])
def test_an_equal_challenger_is_not_rolled_back_more_often_than_the_rule_allows(metric: str) -> None:
    (equal,) = _courses(metric, [0.0], runs=600)
    hits = round(600 * equal.found)
    assert binomtest(hits, 600, 0.02, alternative="greater").pvalue > 1e-4


def test_a_step_does_not_end_before_the_baseline_that_it_waits_for() -> None:
    """50 challenger units an hour for the two hours that a p99 takes, whatever the hold says, then 500."""
    steps = "[{weight: 5, hold: 30m}, {weight: 50, hold: 30m}]"
    spec, simulated = one(
        "{name: latency, kind: Latency, margin: 10%}", steps=steps, decision="{minUnits: 20, maxDuration: 4h}"
    )
    planned = allocations(spec, 24_000)
    lead = baseline_lead(spec, simulated, planned, 1.0)
    (equal,) = courses(spec, simulated, planned, [0.0], 1.0, lead, RUNS, np.random.default_rng(1))
    assert equal.mean == pytest.approx(2 * 50 + 2 * 500, rel=0.1)


def test_what_is_never_found_meets_everybody_until_the_end() -> None:
    """5 %, 25 % and 50 % of a million a day, one day each, and eleven more days at 50 %."""
    (quiet,) = _courses(CTR, [0.0])
    assert quiet.found == 0.0
    assert quiet.mean == pytest.approx(1e6 * (0.05 + 0.25 + 12 * 0.5), rel=1e-6)


def test_most_exposed_is_the_fastest_ramp_to_the_end() -> None:
    spec, _ = one(CTR)
    said = forecast(spec, Given(), 1e6, runs=20)
    assert said.most_exposed == pytest.approx(1e6 * (0.05 + 0.25 + 12 * 0.5))


def test_nobody_can_be_spared_before_the_first_outcomes_are_due() -> None:
    """With a window of two days, all of the first step and a day of the second go by before any evidence."""
    slow = CTR.replace("30m", "2d")
    (gross,) = _courses(slow, [0.05])
    assert gross.found == 1.0
    assert gross.mean > 1e6 * (0.05 + 0.25)
    (quick,) = _courses(CTR, [0.05])
    assert quick.mean < 1e6 * 0.05


def test_a_step_lasts_until_its_least_units_have_come() -> None:
    held = DECISION.replace("minUnits: 100", "minUnits: 250000")
    (longer,) = _courses(CTR, [0.0], decision=held)
    # 5 days at 5 %, one at 25 %, eight at 50 %
    assert longer.mean == pytest.approx(1e6 * (5 * 0.05 + 0.25 + 8 * 0.5), rel=0.02)


def test_the_gate_keeps_a_visibly_bad_challenger_at_the_smallest_weight() -> None:
    """One that harm tests must tolerate (a huge harm margin) but whose estimate lies beyond its margin."""
    tolerant = CTR.replace("margin: 0.25pp", "margin: 0.25pp, harmMargin: 4pp")
    (kept,) = _courses(tolerant, [0.02])
    assert kept.found == 0.0
    assert kept.worst_5 == pytest.approx(14 * 1e6 * 0.05, rel=0.02)


def test_the_proof_of_the_ramp_comes_when_its_last_metric_is_proven() -> None:
    spec, simulated = one(CTR)
    (equal,) = _courses(CTR, [0.0])
    assert equal.proven == 1.0
    assert equal.proven_days is not None
    times = clock(spec, allocations(spec, 1e6), simulated.champion.plan.block, 0) / DAY
    assert times[-1] == 14
    assert np.any(np.isclose(times, 1.0))
    assert np.all(np.diff(times) > 0)
    more = _courses(CTR, [0.0], 3e5)[0]
    assert more.proven_days is None or more.proven_days > equal.proven_days
    # A challenger at twice the margin is hardly ever proven not worse.
    (worse,) = _courses(CTR, [0.005])
    assert worse.proven <= 0.05


def test_steps_of_one_weight_are_one_epoch_and_the_course_knows_it() -> None:
    split = "[{weight: 5, hold: 12h}, {weight: 5, hold: 12h}, {weight: 25, hold: 1d}, {weight: 50, hold: 1d}]"
    spec, _ = one(ERRORS, steps=split)
    assert [s.epoch for s in allocations(spec, 1e6)] == [0, 0, 1, 2]
    (whole,) = _courses(ERRORS, [0.019])
    (halves,) = _courses(ERRORS, [0.019], steps=split)
    assert halves.mean == pytest.approx(whole.mean, rel=0.3)

"""Units with habits that come back in every block neither feign harm nor hide it."""

import math

import numpy as np

from controller.core.cells import Block, CountCell, EpochPlan, LatencyCell, StatisticsQuery
from controller.core.counts import count_tests
from controller.core.sequential import log_mean_exp
from controller.edges.engine import ExposureRow
from router.assignment import challenger_share_ppm
from tests.engine.twins import Twins
from tests.error_rates import sticky
from tests.error_rates.test_error_rates import refutes
from tests.error_rates.world import MINUTE


def test_units_that_always_fail_are_no_harm_of_the_arm_they_fell_to() -> None:
    for ramp in (sticky.RAMP, (50,)):
        alarms = sum(sticky.false_alarm(sticky.errors(), seed, ramp) for seed in range(80))
        assert not refutes(alarms, 80, sticky.ALPHA)


def test_units_that_are_always_slow_are_no_harm_of_the_arm_they_fell_to() -> None:
    for ramp in (sticky.RAMP, (50,)):
        alarms = sum(sticky.false_alarm(sticky.latency(), seed, ramp) for seed in range(40))
        assert not refutes(alarms, 40, sticky.ALPHA)


def test_harm_at_the_margin_is_not_proven_to_be_none_for_units_with_habits() -> None:
    proofs = 0
    for seed in range(40):
        crowd = sticky.Crowd(sticky.errors(), seed)
        *_, last = sticky.states(crowd, worse=sticky.RATE + crowd.plan.margin)
        proofs += count_tests(crowd.plan, last).non_inferior >= math.log(20)
    assert not refutes(proofs, 40, 0.05)


def test_units_that_are_broken_for_good_are_never_diluted_by_those_that_come_back() -> None:
    # First failures alone fall below any margin: they would have promoted these rollouts.
    plan, proofs, diluted = sticky.errors(), 0, 0
    for seed in range(40):
        crowd, promoted, passed = sticky.Crowd(plan, seed), False, False
        for state in sticky.states(crowd, (50,), broken=2 * plan.margin):
            promoted = promoted or count_tests(plan, state).non_inferior >= math.log(20)
            passed = passed or log_mean_exp(state.bets) >= math.log(20)
        proofs, diluted = proofs + promoted, diluted + passed
    assert not refutes(proofs, 40, 0.05)
    assert diluted >= 38


def test_gross_harm_to_units_that_return_is_found_as_soon_as_to_new_ones() -> None:
    plan, found = sticky.errors()._replace(p_hist=0.001), []
    for seed in range(40):
        crowd, served = sticky.Crowd(plan, seed), 0
        for number, state in enumerate(sticky.states(crowd, (1,), worse=0.02), 1):
            served = number
            if state.ever_harm >= -math.log(sticky.ALPHA):
                break
        found.append(served * sticky.UNITS * 0.01 * sticky.VISITS)
    assert np.median(found) <= 185  # challenger requests, as promised of new units at 1 %


def test_the_cells_of_this_campaign_are_those_that_the_engine_counts() -> None:
    for plan in (sticky.errors(), sticky.latency()):
        crowd = sticky.Crowd(plan, 5, units=60)
        crowd.always[:12] = True
        engine, epochs, expected, slow = Twins(), [], [], 0
        for number in range(12):
            weight, control = (10.0, 30.0)[number // 6], 40.0
            epoch = 1 + number // 6
            expected.append(crowd.block(number, epoch, weight, control))
            for unit, level in crowd.last.items():
                row = _row(crowd, number, epoch, unit, level, weight, control)
                engine.ingest([row])
                slow += row.evidence and level > (plan.edges or (0,))[-1]
        for number, weight in ((1, 1000), (2, 3000)):
            epochs.append(EpochPlan(number, "weight", challenger_share_ppm(weight, 4000), {}))
        asked = StatisticsQuery("drawn", 1, tuple(epochs), (plan,), (), 0)
        for until in (3, 7, 12):
            engine.advance(asked, until * MINUTE)
        assert engine.blocks() == expected
        assert 0 < sum(_events(block) for block in expected) < slow


def _row(
    crowd: sticky.Crowd, number: int, epoch: int, unit: int, level: int, weight: float, control: float
) -> ExposureRow:
    place, failures = crowd.place[unit], crowd.plan.family == "failures"
    challenger = bool(place < weight)
    return ExposureRow(
        1, epoch, number * MINUTE + unit, f"{unit}@{number}", f"u{unit}", challenger, True,
        evidence=challenger or bool(place >= control), usable=not (failures and level),
        latency_us=0 if failures else math.floor(1.02**level),
    )  # fmt: skip


def _events(block: Block) -> int:
    """Failures of both arms, or requests slower than the last edge."""
    cells = [
        cell.at(sticky.latency().edges[-1]) if isinstance(cell, LatencyCell) else cell
        for cell in (block.champion, block.challenger)
    ]
    return sum(cell.events for cell in cells if isinstance(cell, CountCell))

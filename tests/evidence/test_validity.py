"""Each reason to distrust evidence, what it takes, and whether it passes."""

import math
from typing import Any

import pytest

from controller.core.cells import EpochCounts, Losses
from controller.core.fold import EMPTY, Statistics
from controller.core.sequential import log_e_dirichlet
from controller.core.validity import judge, sample_ratio
from controller.spec import RolloutSpec
from controller.status import Epoch, Reason, RolloutStatus
from tests.decide.rollouts import fresh, rollout

SECOND = 1_000_000
NOW = 10_000 * SECOND
SPEC: RolloutSpec = rollout(decision={"tick": "5s", "block": "60s"}).spec


def running(*shares: int, kind: str = "weight", **fields: Any) -> RolloutStatus:
    epochs = tuple(
        Epoch(number=i + 1, kind=kind, step=i, weight_bp=100, pi_ppm=share, opened_at=0)
        for i, share in enumerate(shares)
    )
    return fresh(epochs=epochs, epoch=len(epochs), **fields)


def seen(*counts: EpochCounts, watermark: int = NOW, **losses: int) -> Statistics:
    known = {c.epoch: c for c in counts}
    return EMPTY._replace(counts=known, watermark=watermark, losses=Losses(**losses))


def first(epoch: int, a: int, b: int) -> EpochCounts:
    return EpochCounts(epoch, a, b, a, b, 0, a, b)


def test_nothing_speaks_against_units_that_arrive_as_allocated() -> None:
    found = judge(SPEC, running(100_000), seen(first(1, 9000, 1000), received=10_000), NOW)
    assert (found.reason, found.message) == (None, "")
    assert found.mismatch_log_e < 0


def test_lost_units_are_a_mismatch_that_names_the_shares() -> None:
    found = judge(SPEC, running(500_000), seen(first(1, 100_000, 96_000), received=10**6), NOW)
    assert found.reason is Reason.SAMPLE_RATIO_MISMATCH
    assert "epoch 1: 48.98 % instead of 50.00 %" in found.message
    assert found.mismatch_log_e == pytest.approx(float(log_e_dirichlet((100_000, 96_000), (0.5, 0.5), 1e4)))


def test_a_mismatch_stays_for_the_attempt_though_its_evidence_passes() -> None:
    good = seen(first(1, 9000, 1000), received=10_000)
    found = judge(SPEC, running(100_000, mismatch_since=NOW - 1), good, NOW)
    assert found.reason is Reason.SAMPLE_RATIO_MISMATCH
    assert judge(SPEC, running(100_000), good, NOW).reason is None


def test_the_ratio_takes_only_first_exposures_each_epoch_by_its_own_share_and_adds_logs() -> None:
    status = running(20_000, 90_909, 500_000)
    counts = (first(1, 9700, 300), first(2, 9000, 1000), first(3, 5000, 4800))
    returning = tuple(c._replace(champion_units=10**6, challenger_units=5) for c in counts)
    parts = [
        float(log_e_dirichlet((c.first_champion, c.first_challenger), (1 - e.pi_ppm / 1e6, e.pi_ppm / 1e6), 1e4))
        for c, e in zip(counts, status.epochs, strict=True)
    ]
    assert sample_ratio(status, seen(*counts)) == pytest.approx(sum(parts))
    assert sample_ratio(status, seen(*returning)) == pytest.approx(sum(parts))


def test_a_mirror_and_an_epoch_nobody_was_counted_in_say_nothing_of_the_ratio() -> None:
    assert sample_ratio(running(0, kind="mirror"), seen(first(1, 10_000, 0))) == 0.0
    assert sample_ratio(running(100_000, 500_000), seen(first(1, 0, 0))) == 0.0


@pytest.mark.parametrize(("overlap", "reason"), [(10, None), (11, Reason.OVERLAPPING_UNITS)])
def test_units_in_both_arms_are_a_reason_above_one_in_a_thousand(overlap: int, reason: Reason | None) -> None:
    counts = first(1, 9000, 1000)._replace(overlap=overlap)
    assert judge(SPEC, running(100_000), seen(counts, received=10**6), NOW).reason is reason


def test_one_unit_in_both_arms_is_no_reason_among_few() -> None:
    assert judge(SPEC, running(500_000), seen(first(1, 5, 5)._replace(overlap=1)), NOW).reason is None


def test_in_a_mirror_every_unit_is_in_both_arms() -> None:
    counts = EpochCounts(1, 1000, 1000, 1000, 1000, 0, 0, 0, 1000)
    assert judge(SPEC, running(0, kind="mirror"), seen(counts), NOW).reason is None


@pytest.mark.parametrize(("lag", "reason"), [(60, None), (61, Reason.STALE)])
def test_a_minute_without_events_is_stale_and_the_next_event_ends_it(lag: int, reason: Reason | None) -> None:
    status = running(100_000)
    assert judge(SPEC, status, seen(watermark=NOW - lag * SECOND), NOW).reason is reason
    assert judge(SPEC, status, seen(watermark=NOW), NOW).reason is None


def test_what_is_stale_names_who_does_not_answer() -> None:
    silent = seen(watermark=NOW - 75 * SECOND)._replace(awaited=("late-router-1: no answer in time",))
    found = judge(SPEC, running(100_000), silent, NOW)
    assert (found.reason, found.message) == (Reason.STALE, "no events for 75 s; late-router-1: no answer in time")


@pytest.mark.parametrize(("behind", "reason"), [(60, None), (61, Reason.STALE), (7200, Reason.STALE)])
def test_a_clock_that_was_set_back_is_named(behind: int, reason: Reason | None) -> None:
    """Events are stamped with the latest time that was seen until the clock has caught up: no block ends before."""
    status = running(100_000, clock=NOW)
    found = judge(SPEC, status, seen(watermark=NOW), NOW - behind * SECOND)
    assert found.reason is reason
    assert reason is None or f"the clock was set back by {behind} s" in found.message


def test_stale_is_four_ticks_where_ticks_are_long_and_counts_from_the_epoch_on() -> None:
    slow = rollout(decision={"tick": "60s", "block": "60s"}).spec
    status = running(100_000)
    assert judge(slow, status, seen(watermark=NOW - 240 * SECOND), NOW).reason is None
    assert judge(slow, status, seen(watermark=NOW - 241 * SECOND), NOW).reason is Reason.STALE
    young = status.model_copy(update={"epochs": (status.epochs[0].model_copy(update={"opened_at": NOW - SECOND}),)})
    assert judge(SPEC, young, EMPTY, NOW).reason is None


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        ({"received": 9900, "lost": 100}, None),
        ({"received": 9899, "lost": 101}, Reason.JOIN_LOSS),
        ({"received": 10_000, "late": 101}, Reason.JOIN_LOSS),
        ({"received": 10_000, "unknown": 1000}, None),
        ({"received": 10_000, "unknown": 1001}, Reason.JOIN_LOSS),
        ({"received": 10_000, "duplicates": 10_000, "no_unit": 10_000, "malformed": 10_000}, None),
        ({"received": 9900, "duplicates": 100, "clashes": 100}, None),
        ({"received": 9899, "duplicates": 101, "clashes": 101}, Reason.JOIN_LOSS),
        ({}, None),
    ],
)
def test_lost_and_late_events_and_unknown_outcomes_are_join_loss(losses: dict[str, int], reason: Reason | None) -> None:
    assert judge(SPEC, running(100_000), seen(first(1, 900, 100), **losses), NOW).reason is reason


def test_join_loss_passes_when_enough_arrives() -> None:
    status = running(100_000)
    assert judge(SPEC, status, seen(received=5000, lost=100), NOW).reason is Reason.JOIN_LOSS
    assert judge(SPEC, status, seen(received=9900, lost=100), NOW).reason is None


def test_the_gravest_reason_is_named() -> None:
    bad = first(1, 100_000, 90_000)._replace(overlap=5000)
    everything = seen(bad, watermark=0, received=100, lost=100)
    worlds = (
        everything,
        everything._replace(counts={1: bad._replace(first_challenger=100_000)}),
        everything._replace(counts={}),
        everything._replace(counts={}, watermark=NOW),
    )
    reasons = [judge(SPEC, running(500_000), statistics, NOW).reason for statistics in worlds]
    assert reasons == [Reason.SAMPLE_RATIO_MISMATCH, Reason.OVERLAPPING_UNITS, Reason.STALE, Reason.JOIN_LOSS]


def test_the_level_of_the_ratio_is_one_in_a_thousand() -> None:
    from controller.core.validity import MISMATCH_ALPHA

    status = running(500_000)
    edge = next(b for b in range(50_000, 0, -1) if judge(SPEC, status, seen(first(1, 50_000, b)), NOW).reason)
    assert sample_ratio(status, seen(first(1, 50_000, edge))) >= -math.log(MISMATCH_ALPHA)
    assert sample_ratio(status, seen(first(1, 50_000, edge + 1))) < -math.log(MISMATCH_ALPHA)

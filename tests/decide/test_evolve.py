"""The life of a rollout: which state follows which, and what each asks of the world."""

import pytest

from controller.core.allocation import with_table
from controller.core.cells import EpochCounts, Losses
from controller.core.evolve import Transition, evolve
from controller.core.fold import EMPTY, Statistics
from controller.core.record import canonical
from controller.spec import RolloutSpec
from controller.status import PersonRequest, Progress, Reason, RolloutStatus, Verb
from tests.decide.rollouts import fresh, ready, rollout

MINUTE = 60_000_000
START = 1_000 * MINUTE
SPEC = rollout().spec


def counts(units: int, *epochs: int, now: int) -> Statistics:
    """Nothing but units that arrive as allocated, and a source that is up to date."""
    return EMPTY._replace(
        counts={e: EpochCounts(e, units, units, units, units) for e in epochs}, losses=Losses(units), watermark=now
    )


def step(status: RolloutStatus, now: int, spec: RolloutSpec = SPEC, **observed: object) -> Transition:
    status = status.model_copy(update={"observed": status.observed.model_copy(update=observed)})
    return evolve(spec, status, counts(1000, *(e.number for e in status.epochs), now=now), now)


def running(spec: RolloutSpec = SPEC) -> RolloutStatus:
    return evolve(spec, fresh(), EMPTY, START).status


def test_the_first_tick_pins_the_versions_and_opens_the_first_weight() -> None:
    status = running()
    assert status.progress is Progress.RUNNING
    assert status.attempt is not None
    assert (status.attempt.champion, status.attempt.challenger) == ("1", "2")
    assert status.table is not None
    assert (status.table.weight_bp, status.table.control_from_bp, status.table.generation) == (1000, 5000, 1)
    assert status.current_epoch is not None
    assert status.current_epoch.pi_ppm == 166_667


@pytest.mark.parametrize(
    ("observed", "reason"),
    [
        ({"registry_error": "down"}, Reason.REGISTRY_UNAVAILABLE),
        ({"registry_error": "no model 'm'", "model_missing": True}, Reason.MODEL_MISSING),
        ({"champion_alias": None}, Reason.VERSION_MISSING),
        ({"challenger_alias": None}, Reason.VERSION_MISSING),
        ({"challenger_alias": "1"}, Reason.SAME_VERSION),
        ({"challenger_signed": False}, Reason.NO_SIGNATURE),
        ({"challenger_ready": False}, Reason.SERVERS_NOT_READY),
    ],
)
def test_nothing_is_served_to_anyone_while_something_is_missing(observed: dict[str, object], reason: Reason) -> None:
    status = evolve(SPEC, fresh(observed=ready(**observed)), EMPTY, START).status
    assert (status.progress, status.reason) == (Progress.PENDING, reason)
    assert status.table is None or status.table.challenger is None


def test_the_hold_counts_only_while_the_table_is_confirmed_and_the_clock_goes_forward() -> None:
    status = step(running(), START + MINUTE, confirmed=0).status
    assert status.step_elapsed == 0
    status = step(status, START + 2 * MINUTE, confirmed=1).status
    assert status.step_elapsed == MINUTE
    status = step(status, START - 100 * MINUTE).status
    assert (status.step_elapsed, status.clock) == (MINUTE, START + 2 * MINUTE)


def test_a_clock_that_was_set_back_for_long_holds_the_rollout_and_says_so() -> None:
    now = START + 5 * MINUTE
    status = step(running(), now, confirmed=1).status
    back = step(status, START, confirmed=1).status
    assert (back.progress, back.reason) == (Progress.RUNNING, Reason.STALE)
    assert "the clock was set back by 300 s" in back.message
    assert step(back, now + MINUTE, confirmed=1).status.reason is not Reason.STALE


def test_a_pause_keeps_the_weight_and_stops_the_step_clock_until_resumed() -> None:
    pause = PersonRequest(id="1", verb="pause", who="a person")
    status = step(running(), START + MINUTE, requests=(pause,)).status
    assert (status.paused, status.reason, status.table and status.table.weight_bp) == (True, Reason.PAUSED, 1000)
    elapsed = status.step_elapsed
    status = step(status, START + 60 * MINUTE).status
    assert status.step_elapsed == elapsed
    status = step(status, START + 61 * MINUTE, requests=(pause, PersonRequest(id="2", verb="resume"))).status
    assert not status.paused


def test_an_approval_during_a_pause_is_kept_once_however_often_it_is_given() -> None:
    status = step(running(), START + MINUTE, requests=(PersonRequest(id="1", verb="pause"),)).status
    for number in range(2, 5):
        asked = tuple(PersonRequest(id=f"{number}-{n}", verb="approve") for n in range(2))
        status = step(status, START + number * MINUTE, requests=asked).status
    assert status.paused
    assert status.approved == (1,)


def test_abort_takes_all_traffic_back_and_then_the_alias_and_a_repeated_request_changes_nothing() -> None:
    abort = PersonRequest(id="1", verb="abort", who="a person", why="bad day")
    status = step(running(), START + MINUTE, requests=(abort,)).status
    assert (status.progress, status.reason, status.table and status.table.weight_bp) == (
        Progress.ROLLING_BACK,
        Reason.ABORTED,
        0,
    )
    assert status.alias_moves == ()
    status = step(status, START + MINUTE + 1).status
    assert [(m.alias, m.version) for m in status.alias_moves] == [("challenger", None)]
    status = step(status, START + MINUTE + 2, challenger_alias=None).status
    assert (status.progress, status.end, status.message) == (
        Progress.ROLLED_BACK,
        "RolledBack",
        "aborted by a person bad day",
    )
    again = step(status, START + 2 * MINUTE, requests=(abort,)).status
    assert (again.sequence, again.progress) == (status.sequence, Progress.ROLLED_BACK)


def test_a_rolled_back_rollout_begins_again_only_with_another_challenger() -> None:
    status = _aborted()
    assert step(status, START + 9 * MINUTE, challenger_alias="2").status.progress is Progress.ROLLED_BACK
    status = step(status, START + 10 * MINUTE, challenger_alias="3").status
    assert status.progress is Progress.PENDING  # what was looked at is the other challenger's server
    status = step(status, START + 11 * MINUTE, challenger_ready=True, challenger_upstreams=("127.0.0.1:3",)).status
    assert status.attempt is not None
    assert (status.progress, status.attempt.number, status.attempt.challenger) == (Progress.RUNNING, 2, "3")
    assert status.attempt.salt.endswith("/2")
    assert status.past == ("2",)


def test_what_is_aborted_while_the_registry_is_away_does_not_begin_when_it_comes_back() -> None:
    away = ready(registry_error="down", champion_alias=None, challenger_alias=None)
    request = PersonRequest(id="1", verb="abort")
    status = step(fresh(observed=away), START, requests=(request,)).status
    assert (status.progress, status.reason) == (Progress.ROLLED_BACK, Reason.ABORTED)
    back = {"registry_error": None, "champion_alias": "1", "challenger_alias": "2"}
    for minute in range(1, 4):
        status = step(status, START + minute * MINUTE, **back).status
        assert (status.progress, status.reason) == (Progress.ROLLED_BACK, Reason.ABORTED)
    status = step(status, START + 4 * MINUTE, challenger_alias="3").status
    assert status.attempt is not None
    assert (status.progress, status.attempt.challenger) == (Progress.RUNNING, "3")


def _aborted() -> RolloutStatus:
    status = step(running(), START + MINUTE, requests=(PersonRequest(id="1", verb="abort"),)).status
    status = step(status, START + MINUTE + 1).status
    return step(status, START + MINUTE + 2, challenger_alias=None).status


def test_promotion_moves_traffic_then_the_alias_announced_then_reads_back() -> None:
    by_hand = PersonRequest(id="1", verb="promote", who="a person")
    status = step(running(), START + MINUTE, requests=(by_hand,)).status
    assert (status.progress, status.decision, status.alias_moves) == (Progress.PROMOTING, Verb.PROMOTE, ())
    status = step(status, START + MINUTE + 1).status
    assert status.table is not None
    assert (status.table.weight_bp, status.table.generation) == (10_000, 2)
    status = step(status, START + MINUTE + 2, confirmed=1).status
    assert status.alias_moves == ()
    status = step(status, START + MINUTE + 3, confirmed=2).status
    assert [(m.alias, m.version, m.was) for m in status.alias_moves] == [
        ("champion", "2", "1"),
        ("challenger", None, "2"),
    ]
    status = step(status, START + MINUTE + 4, champion_alias="2").status
    assert status.progress is Progress.PROMOTING
    status = step(status, START + MINUTE + 5, challenger_alias=None).status
    assert (status.progress, status.end) == (Progress.PROMOTED, "Promoted")
    assert status.table is not None
    assert (status.table.champion.version, status.table.challenger) == ("2", None)
    assert status.table.champion.upstreams == ("127.0.0.1:2",)
    # Where the next look at the servers fails, nobody is sent back to where the old champion was seen.
    assert with_table(rollout().spec, status).table == status.table


def test_a_holdback_keeps_the_old_champion_as_control_of_the_first_units() -> None:
    spec = rollout(afterPromotion={"holdback": 5, "hold": "1h"}).spec
    status = step(running(spec), START + MINUTE, spec, requests=(PersonRequest(id="1", verb="promote"),)).status
    status = step(status, START + MINUTE + 1, spec).status
    assert status.table is not None
    table = status.table
    assert (table.weight_bp, table.control_from_bp, table.counted_bp) == (9500, 9500, 5000)
    status = step(status, START + MINUTE + 2, spec).status
    moved = {"champion_alias": "2", "challenger_alias": None}
    status = step(status, START + MINUTE + 3, spec, **moved).status
    assert status.progress is Progress.HOLDBACK
    for minute in range(11, 62, 10):
        assert (status.progress, status.table and status.table.weight_bp) == (Progress.HOLDBACK, 9500)
        status = step(status, START + minute * MINUTE, spec, **moved).status
    status = step(status, START + 64 * MINUTE, spec, **moved).status
    assert status.table is not None
    assert (status.progress, status.table.weight_bp) == (Progress.HOLDBACK, 10_000)
    status = step(status, START + 65 * MINUTE, spec, confirmed=status.table.generation, **moved).status
    assert status.progress is Progress.PROMOTED


def test_an_alias_that_somebody_else_moved_stops_the_rollout_once_it_is_seen_twice() -> None:
    status = step(running(), START + MINUTE, champion_alias="7").status
    assert status.progress is Progress.RUNNING
    status = step(status, START + 2 * MINUTE, champion_alias="7").status
    assert (status.progress, status.reason) == (Progress.ROLLING_BACK, Reason.ALIAS_MOVED)
    assert "champion names 7 now, not 1" in status.message


def test_one_stale_read_of_an_alias_is_forgiven() -> None:
    status = step(running(), START + MINUTE, champion_alias="7").status
    status = step(status, START + 2 * MINUTE, champion_alias="1").status
    status = step(status, START + 3 * MINUTE, champion_alias="7").status
    assert status.progress is Progress.RUNNING


def test_a_changed_plan_supersedes_the_attempt_and_starts_it_again() -> None:
    other = rollout(steps=[{"weight": 20, "hold": "10m"}]).spec
    status = step(running(), START + MINUTE, other).status
    assert (status.progress, status.reason) == (Progress.ROLLING_BACK, Reason.SUPERSEDED)
    status = step(status, START + MINUTE + 1, other).status
    status = step(status, START + MINUTE + 2, other).status
    assert (status.progress, status.attempt and status.attempt.number) == (Progress.RUNNING, 2)
    assert status.table is not None
    assert status.table.weight_bp == 2000


def test_a_superseded_attempt_whose_challenger_is_gone_waits_for_another_and_says_so() -> None:
    other = rollout(steps=[{"weight": 20, "hold": "10m"}]).spec
    status = step(running(), START + MINUTE, other).status
    status = step(status, START + MINUTE + 1, other, challenger_alias=None).status
    status = step(status, START + MINUTE + 2, other, challenger_alias=None).status
    assert (status.progress, status.reason) == (Progress.PENDING, Reason.VERSION_MISSING)
    assert "challenger" in status.message
    status = step(status, START + MINUTE + 3, other, challenger_alias="3").status
    assert status.attempt is not None
    assert (status.attempt.number, status.attempt.challenger) == (2, "3")


@pytest.mark.parametrize("progress", [Progress.RUNNING, Progress.PROMOTING, Progress.HOLDBACK])
def test_a_plan_that_becomes_shorter_than_the_step_in_force_breaks_nothing(progress: Progress) -> None:
    """Running it starts again; what is decided already goes on to its end."""
    status = running().model_copy(update={"step": len(SPEC.steps) - 1, "progress": progress})
    shorter = rollout(steps=[{"weight": 5, "hold": "10m"}]).spec
    assert len(shorter.steps) < len(SPEC.steps)
    for minute in range(1, 4):
        status = step(status, START + minute * MINUTE, shorter).status
    assert status.step < len(shorter.steps) if progress is Progress.RUNNING else status.progress is not Progress.RUNNING


def test_what_does_not_touch_the_plan_is_applied_at_once_without_a_restart() -> None:
    longer = rollout(decision={"maxDuration": "3h"}).spec
    status = step(running(), START + MINUTE, longer).status
    assert status.attempt is not None
    assert (status.progress, status.attempt.number) == (Progress.RUNNING, 1)


def test_every_transition_has_one_record_and_one_message_and_a_quiet_tick_has_none() -> None:
    first = evolve(SPEC, fresh(), EMPTY, START)
    assert first.record is not None
    assert (first.record.sequence, len(first.status.notices)) == (1, 1)
    hold = step(first.status, START + MINUTE)
    assert hold.record is not None
    quiet = step(hold.status, START + 2 * MINUTE)
    assert quiet.record is None
    assert quiet.status.notices == first.status.notices


def test_the_same_arguments_give_the_same_bytes() -> None:
    status = running()
    one, two = step(status, START + MINUTE), step(status, START + MINUTE)
    assert canonical(one.status) == canonical(two.status)
    assert RolloutStatus.model_validate_json(one.status.model_dump_json(by_alias=True)) == one.status

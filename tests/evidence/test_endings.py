"""How a rollout ends where its start, its references or its end are out of the ordinary."""

import pytest

from controller.core.allocation import servers_wanted
from controller.core.decide import Decision
from controller.core.endings import due_moves, roll_back
from controller.core.evolve import evolve
from controller.core.fold import EMPTY
from controller.spec import RolloutSpec
from controller.status import PersonRequest, Progress, Reason, RolloutStatus, Verb
from tests.decide.rollouts import fresh, ready, rollout

MINUTE = 60_000_000
START = 1_000 * MINUTE
SPEC = rollout().spec
PROMOTE = PersonRequest(id="p", verb="promote")


def tick(status: RolloutStatus, spec: RolloutSpec = SPEC, **observed: object) -> RolloutStatus:
    """The status one second later, with parts of the world replaced and a source that is up to date."""
    status = status.model_copy(update={"observed": status.observed.model_copy(update=observed)})
    now = max(status.clock, START) + 1_000_000
    return evolve(spec, status, EMPTY._replace(watermark=now), now).status


@pytest.mark.parametrize("alias", [None, "1", "2"])
def test_an_abort_before_any_version_was_pinned_ends_the_rollout(alias: str | None) -> None:
    abort = PersonRequest(id="a", verb="abort", who="a person")
    world = ready(champion_alias="1", challenger_alias=alias, challenger_signed=False, requests=(abort,))
    status = tick(fresh(observed=world))
    assert (status.progress, status.end, status.reason) == (Progress.ROLLED_BACK, "RolledBack", Reason.ABORTED)
    assert tick(status).progress is Progress.ROLLED_BACK
    assert tick(status, challenger_alias="3", challenger_signed=True).progress is Progress.RUNNING


def test_a_promotion_by_version_numbers_has_no_alias_to_move_and_ends() -> None:
    spec = rollout(model={"champion": "1", "challenger": "2"}).spec
    status = tick(tick(fresh(), spec), spec, requests=(PROMOTE,))
    for _ in range(4):
        status = tick(status, spec)
    assert (status.progress, status.end, status.alias_moves) == (Progress.PROMOTED, "Promoted", ())


def test_a_new_attempt_serves_under_the_name_of_its_rollout_from_its_first_table_on() -> None:
    status = tick(fresh())
    for world in ({"requests": (PersonRequest(id="a", verb="abort"),)}, {}, {"challenger_alias": None}, {}):
        status = tick(status, **world)
    assert status.progress is Progress.ROLLED_BACK
    status = tick(status, challenger_alias="3")
    status = tick(status, challenger_ready=True, challenger_upstreams=("127.0.0.1:3",))
    assert status.table is not None
    assert (status.progress, status.table.attempt, status.table.rollout) == (Progress.RUNNING, 2, "late")
    assert all(notice.title.startswith("late: ") for notice in status.notices)


def test_a_rollback_amid_a_promotion_no_longer_asks_for_the_champion_alias_to_move_up() -> None:
    status = tick(tick(fresh()), requests=(PROMOTE,))
    for _ in range(3):
        status = tick(status)
    assert [m.version for m in status.alias_moves if m.alias == "champion"] == ["2"]
    harmed = roll_back(status, Decision(Verb.ROLL_BACK, Reason.OUTCOME_HARM, "worse"))
    assert not [m for m in harmed.alias_moves if m.version == "2" or m.version is None]


def test_a_champion_alias_that_moved_up_is_moved_back_once_no_worker_serves_the_challenger() -> None:
    status = tick(tick(fresh()), requests=(PROMOTE,))
    for _ in range(3):
        status = tick(status)
    assert status.table is not None
    old = status.table.generation
    harmed = roll_back(status, Decision(Verb.ROLL_BACK, Reason.OUTCOME_HARM, "worse"))
    waiting = tick(harmed, champion_alias="2", confirmed=old)
    assert not [m for m in waiting.alias_moves if m.was == "2"]
    moved = tick(waiting, champion_alias="2", confirmed=old + 1)
    assert [(m.version, m.was) for m in moved.alias_moves if m.alias == "champion"] == [("1", "2")]
    # Nobody moved it in the meantime: then nothing is asked for.
    untouched = tick(waiting, champion_alias="1", confirmed=old + 1)
    assert not [m for m in untouched.alias_moves if m.alias == "champion" and m.version != m.was]


@pytest.mark.parametrize("after", [None, {"holdback": 5, "hold": "1s"}])
def test_a_promoted_version_is_served_where_it_is_served_and_not_at_the_old_champions_address(after: object) -> None:
    spec = rollout(afterPromotion=after).spec if after else SPEC
    status = tick(tick(fresh(), spec), spec, requests=(PROMOTE,))
    moved = {"champion_alias": "2", "challenger_alias": None}
    for world in ({}, {}, {}, moved, moved, moved, moved):
        status = tick(status, spec, **world)
        if status.progress is Progress.PROMOTED:
            break
    assert status.table is not None
    served = (status.table.champion.version, status.table.champion.upstreams, status.table.challenger)
    assert (status.progress, served) == (Progress.PROMOTED, ("2", ("127.0.0.1:2",), None))
    # From then on its server is the champion's; while that moves, the last table stays.
    late = tick(status, spec, champion_upstreams=("127.0.0.1:7",), challenger_upstreams=(), challenger_ready=False)
    assert late.table is not None
    assert late.table.champion.upstreams == ("127.0.0.1:7",)
    assert tick(status, spec, champion_upstreams=(), challenger_upstreams=()).table == status.table


def test_an_attempt_that_is_aborted_before_anybody_was_sent_to_it_leaves_the_aliases_alone() -> None:
    status = tick(fresh(observed=ready(challenger_ready=False)))
    status = tick(status, requests=(PersonRequest(id="a", verb="abort"),))
    for _ in range(3):
        assert status.alias_moves == ()
        status = tick(status)
    assert (status.progress, status.reason, status.attempts) == (Progress.ROLLED_BACK, Reason.ABORTED, 1)


def test_a_challenger_that_never_gets_ready_gives_way_to_another_version() -> None:
    status = tick(fresh(observed=ready(challenger_ready=False)))
    assert status.attempt is not None
    assert (status.progress, status.attempt.challenger) == (Progress.PENDING, "2")
    for _ in range(3):
        status = tick(status, challenger_alias="3", challenger_ready=False)
    assert status.attempt is not None
    assert (status.progress, status.attempt.challenger) == (Progress.PENDING, "3")
    assert tick(status, challenger_ready=True).progress is Progress.RUNNING


def test_both_servers_of_a_promotion_stay_until_every_worker_sends_to_the_champions_own() -> None:
    status = tick(tick(fresh()), requests=(PROMOTE,))
    moved = {"champion_alias": "2", "challenger_alias": None}
    for world in ({}, {}, {}, moved):
        status = tick(status, **world)
    assert status.progress is Progress.PROMOTED
    assert servers_wanted(status) == {"champion": "2", "challenger": "2"}
    assert status.table is not None
    old = status.table.generation
    status = tick(status, champion_upstreams=(), confirmed=old)
    assert servers_wanted(status)["challenger"] == "2"
    status = tick(status, champion_upstreams=("127.0.0.1:1",), confirmed=old)
    assert (status.table and status.table.generation, servers_wanted(status)["challenger"]) == (old + 1, "2")
    status = tick(status, confirmed=old + 1)
    assert servers_wanted(status) == {"champion": "2", "challenger": None}


def test_a_clock_that_steps_back_does_not_put_the_next_tick_off() -> None:
    status = tick(fresh())
    earlier = status.clock - 60 * MINUTE
    again = evolve(SPEC, status, EMPTY, earlier)
    assert (again.status.clock, again.wake_at) == (status.clock, earlier + SPEC.decision.tick)


@pytest.mark.parametrize("after", [None, {"holdback": 5, "hold": "1s"}])
def test_once_promoted_no_alias_is_moved_again_whoever_moves_it(after: object) -> None:
    spec = rollout(afterPromotion=after).spec if after else SPEC
    status = tick(tick(fresh(), spec), spec, requests=(PROMOTE,))
    moved = {"champion_alias": "2", "challenger_alias": None}
    for world in ({}, {}, {}, moved, moved, moved, moved):
        status = tick(status, spec, **world)
    assert (status.progress, status.alias_moves) == (Progress.PROMOTED, ())
    assert tick(status, spec, champion_alias="1").alias_moves == ()


def test_a_rollout_that_is_paused_before_its_first_step_waits_for_the_person() -> None:
    pause = PersonRequest(id="s", verb="pause")
    status = tick(fresh(observed=ready(challenger_ready=False, requests=(pause,))))
    status = tick(status, challenger_ready=True)
    assert (status.progress, status.reason, status.epochs) == (Progress.PENDING, Reason.PAUSED, ())
    resumed = tick(status, requests=(pause, PersonRequest(id="r", verb="resume")))
    assert resumed.progress is Progress.RUNNING


def test_nobody_promotes_an_a_a_run_by_hand() -> None:
    spec = rollout(allowSameVersion=True).spec
    status = tick(fresh(observed=ready(challenger_alias="1")), spec)
    for _ in range(3):
        status = tick(status, spec, requests=(PROMOTE,))
        assert status.progress is Progress.RUNNING
    assert not status.promoted_traffic


def test_who_moves_the_alias_back_in_the_holdback_stops_the_rollout() -> None:
    spec = rollout(afterPromotion={"holdback": 5, "hold": "1h"}).spec
    status = tick(tick(fresh(), spec), spec, requests=(PROMOTE,))
    moved = {"champion_alias": "2", "challenger_alias": None}
    for world in ({}, {}, {}, moved):
        status = tick(status, spec, **world)
    assert status.progress is Progress.HOLDBACK
    for _ in range(2):
        status = tick(status, spec, champion_alias="1")
    assert (status.progress, status.reason) == (Progress.ROLLING_BACK, Reason.ALIAS_MOVED)


def test_a_promotion_by_hand_ends_a_pause() -> None:
    status = tick(tick(fresh()), requests=(PersonRequest(id="s", verb="pause"),))
    assert status.paused
    status = tick(status, requests=(PROMOTE,))
    assert (status.progress, status.paused) == (Progress.PROMOTING, False)


def test_a_pause_keeps_the_weight_of_a_holdback_beyond_its_time() -> None:
    spec = rollout(afterPromotion={"holdback": 5, "hold": "1s"}).spec
    status = tick(tick(fresh(), spec), spec, requests=(PROMOTE,))
    moved = {"champion_alias": "2", "challenger_alias": None}
    for world in ({}, {}, {}, moved, {**moved, "requests": (PersonRequest(id="s", verb="pause"),)}, moved, moved):
        status = tick(status, spec, **world)
    assert (status.progress, status.table and status.table.weight_bp) == (Progress.HOLDBACK, 9500)
    for _ in range(3):
        status = tick(status, spec, **moved, requests=(PersonRequest(id="r", verb="resume"),))
    assert status.progress is Progress.PROMOTED


AWAY = {"challenger_upstreams": (), "challenger_ready": False}
MOVED = {"champion_alias": "2", "challenger_alias": None}


def test_no_alias_names_a_version_that_lost_its_servers_amid_its_promotion() -> None:
    status = tick(tick(fresh()), requests=(PROMOTE,))
    status = tick(status)
    assert status.promoted_traffic
    for _ in range(4):
        status = tick(status, **AWAY)
        assert (status.progress, status.alias_moves) == (Progress.PROMOTING, ())
        assert (status.decision, status.reason) == (Verb.HOLD, Reason.CHALLENGER_UNAVAILABLE)
    back = {"challenger_upstreams": ("127.0.0.1:2",), "challenger_ready": True}
    for world in (back, {}):
        status = tick(status, **world)
    assert (status.decision, status.reason) == (Verb.PROMOTE, Reason.BY_HAND)
    assert [move.version for move in due_moves(status)] == ["2", None]
    # Announced, and refused by the registry until the version is gone again.
    assert due_moves(tick(status, **AWAY)) == ()
    status = tick(status, **MOVED)
    assert (status.progress, status.table and status.table.champion.version) == (Progress.PROMOTED, "2")


def test_a_holdback_does_not_end_while_the_promoted_version_has_no_server() -> None:
    spec = rollout(afterPromotion={"holdback": 5, "hold": "1s"}).spec
    status = tick(tick(fresh(), spec), spec, requests=(PROMOTE,))
    for world in ({}, {}, {}, MOVED):
        status = tick(status, spec, **world)
    for _ in range(5):
        status = tick(status, spec, **AWAY)
        assert status.progress is Progress.HOLDBACK
        assert status.table is not None
        assert status.table.champion == status.table.champion.model_copy(
            update={"version": "1", "upstreams": ("127.0.0.1:1",)}
        )
    back = {"challenger_upstreams": ("127.0.0.1:2",), "challenger_ready": True}
    for world in (back, {}, {}):
        status = tick(status, spec, **world)
    assert status.table is not None
    assert (status.progress, status.table.champion.version, status.table.champion.upstreams) == (
        Progress.PROMOTED, "2", ("127.0.0.1:2",),
    )  # fmt: skip


def test_a_champion_that_is_gone_does_not_keep_the_traffic_from_the_promoted_version() -> None:
    status = tick(tick(fresh()), requests=(PROMOTE,), champion_upstreams=(), champion_ready=False)
    for _ in range(2):
        assert status.alias_moves == ()
        status = tick(status)
    assert (status.progress, status.table and status.table.weight_bp) == (Progress.PROMOTING, 10_000)
    status = tick(status)
    assert [m.version for m in status.alias_moves if m.alias == "champion"] == ["2"]


def test_while_no_controller_is_there_a_hold_passes_only_as_long_as_routers_serve_the_split() -> None:
    status = tick(tick(fresh()))
    assert status.table is not None
    later = status.clock + 7_200_000_000
    after = evolve(SPEC, status, EMPTY._replace(watermark=later), later).status
    served = status.table.ttl_s * 1_000_000
    assert after.clock == later
    assert (after.step_elapsed - status.step_elapsed, after.active - status.active) == (served, served)


def test_a_leader_whose_clock_ran_ahead_does_not_put_a_rollback_off() -> None:
    status = tick(tick(fresh()), requests=(PersonRequest(id="a", verb="abort"),), confirmed=0)
    assert status.progress is Progress.ROLLING_BACK
    now = status.clock - 3_600_000_000
    for _ in range(12):
        now += 1_000_000
        status = evolve(SPEC, status, EMPTY._replace(watermark=now), now).status
    assert status.alias_moves or status.progress is Progress.ROLLED_BACK

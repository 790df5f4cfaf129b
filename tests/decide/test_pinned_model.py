"""An attempt goes on and ends with the model and the aliases that it began with, whatever is declared by then."""

import pytest

from controller.core.evolve import evolve
from controller.core.fold import EMPTY
from controller.ports import Stored
from controller.spec import ModelRollout
from controller.status import ModelNames, PersonRequest, Progress, Reason, RolloutStatus
from tests.decide.rollouts import fresh, ready, rollout

SECOND = 1_000_000
BEGUN = ModelNames(name="flight-delay", champion="champion", challenger="challenger")
HELD_BACK = {"afterPromotion": {"holdback": 5, "hold": "1h"}}
SERVED = ready().model_dump(
    include={"champion_upstreams", "challenger_upstreams", "champion_ready", "challenger_ready"}
)
MOVED = {"champion_alias": "2", "challenger_alias": None}


def tick(
    status: RolloutStatus, declared: ModelRollout, seconds: float = 1, verb: str = "", **seen: object
) -> RolloutStatus:
    """A tick as the loop makes it, ``seconds`` after the one before."""
    requests = (PersonRequest(id=f"{status.clock}", verb=verb),) if verb else ()  # type: ignore[arg-type]
    observed = status.observed.model_copy(update={"requests": requests, **seen})
    status = status.model_copy(update={"observed": observed})
    return evolve(declared.spec, status, EMPTY, status.clock + int(seconds * SECOND)).status


def promoting(declared: ModelRollout) -> RolloutStatus:
    """Promoted by hand, and the moves of its aliases announced."""
    status = tick(tick(fresh(), declared), declared, verb="promote")
    status = tick(tick(status, declared), declared)
    assert [m.alias for m in status.alias_moves] == ["champion", "challenger"]
    return status


def held_back(declared: ModelRollout) -> RolloutStatus:
    status = tick(promoting(declared), declared, **MOVED)
    assert status.progress is Progress.HOLDBACK
    return status


@pytest.mark.parametrize("progress", Progress)
def test_the_model_is_pinned_from_the_first_allocation_to_the_end(progress: Progress) -> None:
    status = tick(fresh(), rollout()).model_copy(update={"progress": progress})
    assert status.attempt is not None
    assert status.attempt.model == BEGUN
    edited = rollout(model={"name": "other", "champion": "prod"}, decision={"minUnits": 7})
    found = Stored(edited, 1, status, "1", ()).pinned().rollout.spec
    under_way = progress is not Progress.PENDING and not progress.terminal
    own = ("flight-delay", "champion")
    assert (found.model.name, found.model.champion) == (own if under_way else ("other", "prod"))
    assert found.decision.min_units == 7
    # An attempt of an earlier release did not keep it.
    old = status.model_copy(update={"attempt": status.attempt.model_copy(update={"model": None})})
    assert Stored(edited, 1, old, "1", ()).pinned().rollout.spec == edited.spec


@pytest.mark.parametrize("verb", ["", "abort"])
def test_nobody_is_drawn_anew_while_an_attempt_ends(verb: str) -> None:
    edited = rollout(unit={"header": "x-session"}, segments=[{"name": "city", "header": "x-city"}], **HELD_BACK)
    before = held_back(rollout(**HELD_BACK))
    status = tick(before, edited, verb=verb)
    assert status.progress is (Progress.ROLLING_BACK if verb else Progress.HOLDBACK)
    assert before.table is not None
    assert status.table is not None
    assert (status.table.unit, status.table.attributes) == (before.table.unit, before.table.attributes)
    assert status.table.weight_bp == (0 if verb else 9_500)


def test_an_alias_that_is_renamed_in_the_holdback_goes_back_under_its_name() -> None:
    edited = rollout(model={"champion": "prod"}, **HELD_BACK)
    status = tick(held_back(rollout(**HELD_BACK)), edited, verb="abort")
    assert status.progress is Progress.ROLLING_BACK
    status = tick(tick(status, edited), edited)
    assert [(m.alias, m.version, m.was) for m in status.alias_moves] == [("champion", "1", "2")]
    status = tick(status, edited, seconds=30, champion_alias="1")
    assert status.end == "RolledBack"


@pytest.mark.parametrize(
    "model",
    [{"name": "other", "champion": "prod", "challenger": "champion"}, {"champion": "prod", "challenger": "champion"}],
    ids=["another model", "other aliases"],
)
def test_an_abort_and_an_edit_of_the_model_in_one_take_back_what_was_on_trial(model: dict[str, str]) -> None:
    status = tick(tick(fresh(), rollout()), rollout(), challenger_upstreams=())  # nobody meets it: confirmed at once
    assert (status.progress, status.table and status.table.challenger) == (Progress.RUNNING, None)
    edited = rollout(model=model)
    for verb in ("abort", "", ""):
        status = tick(status, edited, verb=verb, challenger_upstreams=(), confirmed=1_000_000)
    assert [(m.alias, m.version, m.was) for m in status.alias_moves] == [("challenger", None, "2")]


def test_another_model_under_way_starts_a_new_attempt_after_the_rollback() -> None:
    edited = rollout(model={"name": "other"})
    status = tick(tick(fresh(), rollout()), edited)
    assert (status.progress, status.reason) == (Progress.ROLLING_BACK, Reason.SUPERSEDED)
    for _ in range(3):
        status = tick(status, edited)
    assert (status.progress, status.reason) == (Progress.PENDING, Reason.SERVERS_NOT_READY)
    status = tick(status, edited, **SERVED)
    assert status.attempt is not None
    assert (status.progress, status.attempt.number) == (Progress.RUNNING, 2)
    assert (status.attempt.model and status.attempt.model.name, status.past) == ("other", ())


@pytest.mark.parametrize("end", ["Promoted", "RolledBack"])
def test_another_model_after_the_end_is_tried_also_where_its_versions_have_the_same_numbers(end: str) -> None:
    if end == "Promoted":
        status = tick(promoting(rollout()), rollout(), **MOVED)
    else:
        status = tick(tick(fresh(), rollout()), rollout(), verb="abort")
        status = tick(tick(status, rollout()), rollout(), challenger_alias=None)
    assert status.end == end
    other = rollout(model={"name": "other"})
    status = tick(status, other, champion_alias="1", challenger_alias="2")
    assert (status.progress, status.reason) == (Progress.PENDING, Reason.SERVERS_NOT_READY)  # it was not looked at yet
    status = tick(status, other, **SERVED)
    assert (status.progress, status.attempts, status.past) == (Progress.RUNNING, 2, ())


def test_the_next_challenger_may_be_named_while_this_one_is_promoted() -> None:
    declared = rollout(**HELD_BACK)
    status = promoting(declared)
    for _ in range(3):
        status = tick(status, declared, champion_alias="1", challenger_alias="3")
    assert status.progress is Progress.PROMOTING
    for _ in range(3):
        status = tick(status, declared, champion_alias="2", challenger_alias="3")
    assert status.progress is Progress.HOLDBACK
    # A rollback takes the alias from nobody but its own challenger.
    status = tick(status, declared, verb="abort")
    for _ in range(3):
        status = tick(status, declared)
    assert [(m.alias, m.version) for m in status.alias_moves] == [("champion", "1")]


def test_a_champion_that_is_moved_by_hand_still_ends_the_holdback() -> None:
    declared = rollout(**HELD_BACK)
    status = held_back(declared)
    for _ in range(2):
        status = tick(status, declared, champion_alias="7")
    assert (status.progress, status.reason) == (Progress.ROLLING_BACK, Reason.ALIAS_MOVED)


def test_the_time_of_a_holdback_is_what_routers_served_while_somebody_watched() -> None:
    declared = rollout(**HELD_BACK)
    status = tick(held_back(declared), declared, seconds=8 * 86_400)
    assert (status.progress, status.epoch) == (Progress.HOLDBACK, status.epochs[-1].number)
    for _ in range(20):
        status = tick(status, declared, seconds=600, confirmed=0)
    assert status.progress is Progress.HOLDBACK
    for _ in range(7):
        status = tick(status, declared, seconds=600, confirmed=1_000_000)
    assert status.end == "Promoted"


def test_a_rollback_out_of_a_promotion_waits_for_a_move_that_may_still_be_on_its_way() -> None:
    status = tick(promoting(rollout()), rollout(), verb="abort")
    status = tick(status, rollout(), challenger_alias=None)
    for _ in range(18):
        assert (status.progress, status.table and status.table.challenger) == (Progress.ROLLING_BACK, None)
        status = tick(status, rollout())
    status = tick(status, rollout(), champion_alias="2")
    assert [(m.alias, m.version, m.was) for m in status.alias_moves] == [("champion", "1", "2")]
    status = tick(status, rollout(), champion_alias="1")
    assert status.end == "RolledBack"

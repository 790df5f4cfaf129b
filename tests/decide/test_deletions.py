"""What is being deleted goes back, and begins, widens and promotes nothing, for however long its object is there."""

import pytest

from controller.core.evolve import evolve
from controller.core.fold import EMPTY
from controller.spec import ModelRollout
from controller.status import Progress, Reason, RolloutStatus
from tests.decide.rollouts import fresh, rollout
from tests.decide.test_pinned_model import HELD_BACK, MOVED, SECOND, held_back, promoting, tick


def leave(status: RolloutStatus, declared: ModelRollout, **seen: object) -> list[RolloutStatus]:
    """Ten ticks of a rollout that is being deleted, in a world that does at once what is asked for."""
    passed = []
    for _ in range(10):
        seen.update((f"{m.alias}_alias", m.version) for m in status.alias_moves)
        confirmed = status.table.generation if status.table is not None else -1
        observed = status.observed.model_copy(update={"leaving": True, "confirmed": confirmed, **seen})
        status = status.model_copy(update={"observed": observed})
        status = evolve(declared.spec, status, EMPTY, status.clock + 30 * SECOND).status
        passed.append(status)
    return passed


STARTED: dict[str, RolloutStatus] = {
    "without a version": tick(fresh(), rollout(), challenger_alias=None),
    "without a server": tick(fresh(), rollout(), champion_ready=False),
    "running": tick(fresh(), rollout()),
    "promoting": promoting(rollout()),
    "superseded": tick(tick(fresh(), rollout()), rollout(model={"name": "other"})),
}


@pytest.mark.parametrize("start", STARTED)
def test_what_is_under_way_goes_back_and_nothing_begins_again(start: str) -> None:
    edited = rollout(steps=[{"weight": 50, "hold": "1m"}])
    passed = leave(STARTED[start], edited, challenger_alias="2", champion_ready=True)
    assert {s.progress for s in passed} <= {Progress.ROLLING_BACK, Progress.ROLLED_BACK}
    assert passed[-1].progress is Progress.ROLLED_BACK
    if start != "superseded":
        assert (passed[-1].reason, passed[-1].message) == (
            Reason.ABORTED,
            "aborted because the rollout is being deleted",
        )
    assert passed[-1].table is None or passed[-1].table.challenger is None
    assert passed[-1].attempts <= 1


def test_a_holdback_ends_with_the_promoted_version() -> None:
    declared = rollout(**HELD_BACK)
    passed = leave(held_back(declared), declared, **MOVED)
    assert {s.progress for s in passed} == {Progress.HOLDBACK}


@pytest.mark.parametrize("model", ["flight-delay", "other"])
def test_after_the_end_no_other_challenger_plan_or_model_is_tried(model: str) -> None:
    ended = tick(promoting(rollout()), rollout(), **MOVED)
    edited = rollout(model={"name": model}, steps=[{"weight": 50, "hold": "1m"}])
    passed = leave(ended, edited, champion_alias="2", challenger_alias="3")
    assert {(s.progress, s.attempts) for s in passed} == {(Progress.PROMOTED, 1)}

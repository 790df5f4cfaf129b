"""After the end a move of the champion is told, and changes nothing else."""

import pytest

from controller.core.evolve import evolve
from controller.core.fold import EMPTY
from controller.status import PersonRequest, RolloutStatus
from tests.decide.rollouts import fresh, rollout

SECOND = 1_000_000


def look(status: RolloutStatus, verb: str = "", **seen: object) -> RolloutStatus:
    """A tick, after which what waits is delivered."""
    requests = (PersonRequest(id=f"{status.clock}", verb=verb),) if verb else ()  # type: ignore[arg-type]
    observed = status.observed.model_copy(update={"requests": requests, **seen})
    status = status.model_copy(update={"observed": observed, "notices": ()})
    return evolve(rollout().spec, status, EMPTY, status.clock + SECOND).status


@pytest.fixture
def aborted() -> RolloutStatus:
    status = look(look(fresh()), "abort")
    for _ in range(3):
        status = look(status, challenger_alias=None)
    assert status.end == "RolledBack"
    return status


def test_a_champion_that_is_moved_after_a_rollback_is_told_beside_why_it_was_rolled_back(
    aborted: RolloutStatus,
) -> None:
    status = look(look(aborted, champion_alias="3"))
    (notice,) = status.notices
    assert (notice.reason, notice.level) == ("AliasMoved", "warning")
    assert notice.text == (
        "model.champion names version 3 now, and users are served by version 1 until the next attempt begins"
    )
    said = {c.type: (c.status, c.reason) for c in status.conditions}
    assert said["Stalled"] == ("True", "AliasMoved")
    assert said["Succeeded"] == ("False", "Aborted")
    assert (status.table, status.sequence, status.reason) == (aborted.table, aborted.sequence, aborted.reason)
    assert look(look(status)).notices == ()


def test_one_strange_look_and_a_registry_that_is_away_are_no_move(aborted: RolloutStatus) -> None:
    status = look(look(aborted, champion_alias="3"), champion_alias="1")
    for _ in range(3):
        status = look(status, champion_alias=None, registry_error="away")
    assert (status.notices, status.conditions) == ((), aborted.conditions)

"""The next attempt begins with servers of its own versions, and not with those that the last look showed."""

from controller.core.evolve import evolve
from controller.core.fold import EMPTY
from controller.status import PersonRequest, Progress, RolloutStatus
from tests.decide.rollouts import fresh, rollout

SECOND = 1_000_000


def look(
    status: RolloutStatus, *, spec: dict[str, object] | None = None, verb: str = "", **seen: object
) -> RolloutStatus:
    requests = (PersonRequest(id=f"{status.clock}", verb=verb),) if verb else ()  # type: ignore[arg-type]
    observed = status.observed.model_copy(update={"requests": requests, **seen})
    declared = rollout(**(spec or {})).spec
    return evolve(declared, status.model_copy(update={"observed": observed}), EMPTY, status.clock + SECOND).status


def test_the_promoted_versions_server_is_not_the_next_challengers() -> None:
    status = look(look(look(fresh()), verb="promote"))
    while status.progress is not Progress.PROMOTED:
        status = look(status, champion_alias="2", challenger_alias=None)
    # Until everybody is sent to the champion's server, the challenger's runs the promoted version as well.
    both = {"champion_upstreams": ("127.0.0.1:2",), "challenger_upstreams": ("127.0.0.1:2",)}
    ready = {"champion_ready": True, "challenger_ready": True}
    status = look(status, champion_alias="2", challenger_alias="3", **both, **ready)
    assert status.attempt is not None
    assert status.table is not None
    assert (status.progress, status.attempt.challenger) == (Progress.PENDING, "3")
    assert status.table.challenger is None
    status = look(status, challenger_upstreams=("127.0.0.1:3",), **ready)
    assert status.progress is Progress.RUNNING
    assert status.table is not None
    assert status.table.challenger is not None
    assert status.table.challenger.upstreams == ("127.0.0.1:3",)


def test_a_challenger_that_is_exchanged_before_the_start_is_not_served_by_the_one_before() -> None:
    waits = {"steps": [{"weight": 10, "hold": "1h", "approve": True}]}
    status = look(fresh(), spec=waits)
    assert status.progress is Progress.PENDING
    status = look(status, spec={"steps": [{"weight": 10, "hold": "1h"}]}, challenger_alias="4")
    assert status.progress is Progress.PENDING
    assert status.table is None or status.table.challenger is None

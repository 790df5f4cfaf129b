"""A person's request that has no effect is told, once, with why it has none."""

import pytest

from controller.core.evolve import evolve
from controller.core.fold import EMPTY
from controller.spec import ModelRollout
from controller.status import OWN, PersonRequest, Progress, RolloutStatus
from tests.decide.rollouts import fresh, rollout

SECOND = 1_000_000


def look(status: RolloutStatus, *requests: PersonRequest, declared: ModelRollout | None = None) -> RolloutStatus:
    """A tick, after which what waits is delivered."""
    observed = status.observed.model_copy(update={"requests": requests})
    status = status.model_copy(update={"observed": observed, "notices": ()})
    return evolve((declared or rollout()).spec, status, EMPTY, status.clock + SECOND).status


def asked(verb: str, name: str = "x", **more: str) -> PersonRequest:
    return PersonRequest(id=name, verb=verb, who="ada", **more)  # type: ignore[arg-type]


@pytest.fixture
def running() -> RolloutStatus:
    status = look(look(fresh()))
    assert status.progress is Progress.RUNNING
    return status


@pytest.fixture
def aborted(running: RolloutStatus) -> RolloutStatus:
    status = look(running, asked("abort", "first"))
    while not status.progress.terminal:
        observed = status.observed.model_copy(update={"challenger_alias": None})
        status = look(status.model_copy(update={"observed": observed}))
    return status


@pytest.mark.parametrize("verb", ["abort", "pause", "resume", "approve", "promote"])
def test_after_the_end_every_request_is_told_to_have_had_no_effect(aborted: RolloutStatus, verb: str) -> None:
    request = asked(verb, why="it fails")
    status = look(aborted, request)
    (notice,) = status.notices
    assert (notice.reason, notice.level) == ("NoEffect", "warning")
    assert notice.title == f"late: {verb} had no effect"
    assert notice.text == f"{verb} by ada it fails: the rollout is over (RolledBack)"
    assert (status.progress, status.sequence, status.message) == (aborted.progress, aborted.sequence, aborted.message)
    assert look(status, request).notices == ()
    two = look(aborted, request, asked(verb, "y")).notices
    assert len({each.key for each in two}) == 2


def test_under_way_as_well(running: RolloutStatus) -> None:
    assert [n.text for n in look(running, asked("approve")).notices] == ["approve by ada: nothing waits for it"]
    leaving = look(running, asked("abort", "first"))
    assert leaving.progress is Progress.ROLLING_BACK
    assert [n.text for n in look(leaving, asked("abort")).notices] == ["abort by ada: it is RollingBack already"]
    assert [n.text for n in look(leaving, asked("promote")).notices] == [
        "promote by ada: an attempt that runs can be promoted, and it is RollingBack"
    ]
    same = rollout(allowSameVersion=True)
    status = look(look(fresh(), declared=same), declared=same)
    texts = [n.text for n in look(status, asked("promote"), declared=same).notices]
    assert texts == ["promote by ada: both arms are to be the same version"]


@pytest.mark.parametrize("verb", ["abort", "pause", "promote"])
def test_what_has_an_effect_is_not(running: RolloutStatus, verb: str) -> None:
    assert "NoEffect" not in {n.reason for n in look(running, asked(verb)).notices}


def test_what_the_controller_asks_of_itself_is_not(aborted: RolloutStatus) -> None:
    """Deleting a rollout asks for an abort, whatever it is at."""
    status = look(aborted, PersonRequest(id=f"{OWN}deletion", verb="abort"))
    assert (status.notices, status.handled[-1]) == ((), ":deletion")

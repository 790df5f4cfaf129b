"""Who serves goes on serving, and is followed, whatever the next attempt waits for."""

import pytest

from controller.status import Progress, Reason, RolloutStatus
from tests.decide.rollouts import fresh, rollout
from tests.decide.test_pinned_model import MOVED, promoting, tick

OTHER = rollout(model={"name": "other"})
NOBODY: dict[str, object] = {"champion_upstreams": (), "champion_ready": False, "challenger_ready": False}


def promoted() -> RolloutStatus:
    status = tick(promoting(rollout()), rollout(), **MOVED)
    assert status.progress is Progress.PROMOTED
    return status


def serves(status: RolloutStatus) -> tuple[str, tuple[str, ...]]:
    """Version and addresses of the champion in the table."""
    assert status.table is not None
    assert status.table.challenger is None
    return status.table.champion.version, status.table.champion.upstreams


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ({"challenger_alias": "3", "challenger_signed": False}, Reason.NO_SIGNATURE),
        ({"registry_error": "there is no such model", "model_missing": True}, Reason.MODEL_MISSING),
        ({"registry_error": "it is away"}, Reason.REGISTRY_UNAVAILABLE),
    ],
)
def test_its_servers_are_followed_while_no_attempt_can_begin(seen: dict[str, object], reason: Reason) -> None:
    declared = rollout() if reason is Reason.NO_SIGNATURE else OTHER
    status = tick(promoted(), declared, **{"champion_alias": "2", **seen})
    assert (status.reason, status.attempt) == (reason, None)
    before = serves(status)
    status = tick(status, declared, served_upstreams=("127.0.0.1:7",))
    assert serves(status) == ("2", ("127.0.0.1:7",))
    assert before[0] == "2"
    generation = status.table and status.table.generation
    status = tick(status, declared, served_upstreams=())  # it is looked for in vain
    assert (serves(status), status.table and status.table.generation) == (("2", ("127.0.0.1:7",)), generation)


def test_it_serves_until_the_champion_of_another_model_is_ready() -> None:
    status = tick(promoted(), OTHER, champion_alias="1", challenger_alias="2", **NOBODY)
    assert status.former is not None
    starting = {"champion_upstreams": ("127.0.0.1:8",)}  # there, and not ready
    status = tick(status, OTHER, served_upstreams=("127.0.0.1:7",), **starting)
    assert (status.progress, status.attempts, serves(status)) == (Progress.PENDING, 2, ("2", ("127.0.0.1:7",)))
    status = tick(status, OTHER, champion_ready=True)
    assert (status.progress, serves(status), status.former) == (Progress.PENDING, ("1", ("127.0.0.1:8",)), None)


def test_an_abort_before_the_first_allocation_sends_nobody_to_what_is_not_ready() -> None:
    status = tick(promoted(), OTHER, champion_alias="1", challenger_alias="2", **NOBODY)
    starting = {"champion_upstreams": ("127.0.0.1:8",)}
    status = tick(status, OTHER, verb="abort", served_upstreams=("127.0.0.1:7",), **starting)
    status = tick(status, OTHER, served_upstreams=("127.0.0.1:6",))
    assert (status.progress, serves(status)) == (Progress.ROLLED_BACK, ("2", ("127.0.0.1:6",)))
    status = tick(status, OTHER)
    assert status.notices[-1].text == (
        "model.champion names version 1 now, and users are served by version 2 of flight-delay until the next attempt"
        " begins"
    )
    status = tick(status, rollout(model={"name": "third"}), **NOBODY)
    assert (status.former and status.former.number, serves(status)) == (1, ("2", ("127.0.0.1:6",)))


def test_the_same_version_of_the_same_model_goes_over_into_the_next_attempt_at_once() -> None:
    declared = rollout()
    status = tick(promoted(), declared, champion_alias="2", challenger_alias="3", **NOBODY)
    status = tick(status, declared, champion_upstreams=("127.0.0.1:8",))
    assert (status.attempts, serves(status), status.former) == (2, ("2", ("127.0.0.1:8",)), None)


@pytest.mark.parametrize(("challenger", "waits"), [("1", False), ("2", True)])
def test_a_version_may_be_compared_with_itself_in_the_service_that_serves_it(challenger: str, waits: bool) -> None:
    a, b = {"service": "a"}, {"service": "b"}
    declared = rollout(servers={"champion": a, "challenger": b})
    status = tick(tick(fresh(), declared), declared)
    itself = rollout(servers={"champion": a, "challenger": a}, allowSameVersion=True)
    for _ in range(4):
        status = tick(status, itself, challenger_alias=challenger)
    assert (status.attempts, bool(status.waits)) == ((1, True) if waits else (2, False))

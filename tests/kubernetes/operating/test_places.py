"""A version that serves stays at the Service that serves it, whatever is declared for the next one."""

import time
from collections.abc import Callable, Iterator

import pytest

from controller.status import Progress, Reason
from tests.kubernetes.operating.behind import Behind, adopting, served
from tests.kubernetes.operating.templated import of_store
from tests.kubernetes.operating.theatre import STAY, Theatre, until

Serve = Callable[[str], str]
HOLDBACK = {"holdback": 5, "hold": "1h"}


@pytest.fixture
def serve(theatre: Theatre) -> Iterator[Serve]:
    """What makes a Service with one model server, which does not tell its version; its upstream."""
    made: list[Behind] = []

    def make(service: str) -> str:
        made.append(Behind(theatre.access, theatre.namespace, service, "", silent=True))
        return made[-1].more()

    theatre.workloads = of_store(time.time)
    yield make
    theatre.close()
    for each in made:
        each.close()


def looked_at(theatre: Theatre) -> None:
    """Wait until what is declared has been looked at a few times: every pass asks for the Services of both arms."""
    declared = theatre.object()["metadata"]["generation"]
    until(lambda: theatre.status().generation == declared, "it is read")
    operator = theatre.operators[-1]
    asked = ("get", "Service")
    before = operator.calls[asked]

    def again() -> bool:
        operator.queue.add(theatre.key())
        return operator.calls[asked] >= before + 8

    until(again, "it is looked at")


@pytest.mark.parametrize("progress", [Progress.HOLDBACK, Progress.PROMOTED])
def test_the_next_releases_services_get_nobody_before_its_attempt_begins(
    theatre: Theatre, serve: Serve, progress: Progress
) -> None:
    first, second, third = (serve(name) for name in ("a", "b", "c"))
    after = HOLDBACK if progress is Progress.HOLDBACK else {"holdback": 0}
    theatre.operator(idle_s=0.2)
    theatre.apply(servers=adopting("a", "b"), afterPromotion=after)
    theatre.reaches(progress)
    arm = "challenger" if progress is Progress.HOLDBACK else "champion"
    until(lambda: served(theatre, arm) == {second}, "the promoted version serves")
    theatre.apply(servers=adopting("b", "c"), afterPromotion=after)
    looked_at(theatre)
    assert served(theatre, arm) == {second}
    assert served(theatre, "champion") == ({first} if progress is Progress.HOLDBACK else {second})
    assert third not in str(theatre.status().table)


def test_the_next_attempt_begins_with_the_service_that_serves_and_a_free_one(theatre: Theatre, serve: Serve) -> None:
    first, second = serve("a"), serve("b")
    theatre.operator(idle_s=0.2)
    theatre.apply(servers=adopting("a", "b"))
    theatre.reaches(Progress.PROMOTED)
    theatre.registry.move("flights", "challenger", "3", "owner")
    until(lambda: theatre.status().waits, "it is told why the next attempt waits")
    status = theatre.status()
    assert (status.progress, served(theatre, "champion")) == (Progress.PROMOTED, {second})
    assert status.waits == (
        "servers.champion is a:8080, where another version was served; version 2, the champion, is served by b:8080:"
        " declare that for the champion, and for the challenger a Service that nobody is sent to"
    )
    stalled = next(c for c in status.conditions if c.type == "Stalled")
    assert (stalled.status, stalled.reason, stalled.message) == ("True", "ServersNotReady", status.waits)
    theatre.apply(servers=adopting("b", "a"), steps=STAY)
    theatre.reaches(Progress.RUNNING)
    until(lambda: served(theatre, "challenger") == {first}, "the next version is tried in the free one")
    assert served(theatre, "champion") == {second}
    assert not theatre.status().waits


def test_services_that_change_places_amid_an_attempt_leave_everybody_with_the_champion(
    theatre: Theatre, serve: Serve
) -> None:
    first, second = serve("a"), serve("b")
    theatre.operator(idle_s=0.2)
    theatre.apply(servers=adopting("a", "b"), steps=STAY)
    theatre.reaches(Progress.RUNNING)
    until(lambda: served(theatre, "challenger") == {second}, "both serve")
    theatre.apply(servers=adopting("b", "a"), steps=STAY)
    theatre.reaches(Progress.ROLLED_BACK)
    until(lambda: theatre.status().waits, "it is told why the next attempt waits")
    assert theatre.status().reason is Reason.SUPERSEDED
    assert (served(theatre, "champion"), served(theatre, "challenger")) == ({first}, set())
    theatre.apply(servers=adopting("a", "b"), steps=STAY)
    theatre.reaches(Progress.RUNNING)
    until(lambda: served(theatre, "challenger") == {second}, "both serve again")
    assert (served(theatre, "champion"), theatre.status().attempts) == ({first}, 2)

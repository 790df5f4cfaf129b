"""When a replica that begins to lead looks at rollouts that are over: one by one, but at once where a pod changed."""

import time

import pytest

from controller.edges.cluster.access import Node
from controller.edges.cluster.pod_watch import NEW_S, ROUTERS, PodWatch
from controller.edges.cluster.resources import PODS, ROLLOUTS, SLICES
from controller.edges.cluster.router_set import NAME_LABEL, ROLLOUT_LABEL, ROUTER
from controller.operator import first_looks
from controller.operator.first_looks import MOVED, NEWS, NEWS_S, RESTING_S, FirstLooks
from controller.operator.operator import Operator
from controller.status import RolloutStatus
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.test_slices import piece
from tests.kubernetes.operating.theatre import Theatre, running, until

SERVICES = {"champion": {"service": "a", "port": 80}, "challenger": {"service": "b", "port": 80}}


class Hand:
    """A clock that is moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def looks(clock: Hand) -> FirstLooks:
    made = FirstLooks(lambda key: key.startswith("over"), clock)
    made.begin()
    return made


def test_those_that_are_over_come_one_after_another_and_those_that_changed_before_them(
    looks: FirstLooks, clock: Hand
) -> None:
    dues = [looks.due(f"over-{n}") for n in range(1000)]
    assert looks.due("live") is None
    assert dues == pytest.approx([clock.now + RESTING_S * (n + 1) for n in range(1000)])
    sooner = [looks.changed(f"over-{n}", new=True) for n in (999, 500)]
    assert sooner == [(True, clock.now), (True, pytest.approx(clock.now + RESTING_S))]
    assert looks.changed("over-999", new=True) == (False, None)  # its look is to come
    assert looks.changed("over-998", new=False) == (False, None)
    assert looks.changed("live", new=True) == (True, None)
    looks.looked("over-999")
    assert looks.changed("over-999", new=True) == (True, None)


def test_what_changed_before_this_replica_led_counts_for_a_while(looks: FirstLooks, clock: Hand) -> None:
    looks.changed("over-1", new=True)
    clock.now += NEWS_S / 2
    looks.changed("over-2", new=True)
    looks.changed("over-3", new=False)
    clock.now += NEWS_S / 2
    looks.begin()
    first = clock.now + RESTING_S
    assert [looks.due(f"over-{n}") for n in (4, 1, 3, 2)] == pytest.approx(
        [first, first + RESTING_S, first + 2 * RESTING_S, clock.now]
    )


def test_of_how_many_that_is_known_is_bounded(looks: FirstLooks, clock: Hand) -> None:
    for n in range(NEWS + 1):
        looks.changed(f"over-{n}", new=True)
    looks.begin()
    assert [looks.due(f"over-{n}") for n in (NEWS, 0)] == pytest.approx([clock.now, clock.now + RESTING_S])


def test_new_challengers_do_not_wait_for_those_at_work_but_for_a_crowd_of_them(looks: FirstLooks) -> None:
    names = [f"over-{n}" for n in range(MOVED + 1)]
    for name in names:
        looks.moved(name)
    assert [name for name in names if not looks.urgent(name)] == [names[-1]]
    looks.looked(names[0])
    looks.gone(names[1])
    looks.moved(names[-1])
    assert [name for name in names if not looks.urgent(name)] == names[:2]
    looks.begin()
    assert not any(map(looks.urgent, names))


@pytest.fixture
def over(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of rollouts that are over; the second of them would be looked at after four minutes."""
    monkeypatch.setattr(first_looks, "RESTING_S", 120.0)
    for name in ("a", "b", "c"):
        theatre.apply(name, model={"name": name}, servers=SERVICES)
        meta = theatre.object(name)["metadata"]
        status = RolloutStatus(uid=meta["uid"], rollout=theatre.key(name), progress="Promoted", end="Promoted")
        where = {k: meta[k] for k in ("namespace", "name", "resourceVersion")}
        body = {"metadata": where, "status": status.model_dump(mode="json", by_alias=True)}
        theatre.access.replace(ROLLOUTS, body, "status")
    return ["a", "b", "c"]


def looked_at(theatre: Theatre) -> set[str]:
    return {key.partition("/")[2] for key in theatre.scenes}


def router_of(theatre: Theatre, name: str) -> Node:
    """A pod that wears the labels of one of its routers."""
    labels = {NAME_LABEL: ROUTER, ROLLOUT_LABEL: name}
    container = {"name": "router", "image": "router:none"}
    return {
        "metadata": {"namespace": theatre.namespace, "name": f"{name}-router-0", "labels": labels},
        "spec": {"containers": [container], "automountServiceAccountToken": False},
    }


def leading(theatre: Theatre) -> Operator:
    """One that leads, and knows that all are over."""
    operator = theatre.operator(idle_s=600.0)
    until(lambda: operator.leader.leads() and len(operator.queue) == 3, "it leads, and they wait for their look")
    until(lambda: operator.calls["watch", "Pod"] >= 2 and operator.calls["watch", "EndpointSlice"], "it watches")
    assert looked_at(theatre) == set()
    return operator


def test_a_pod_that_changes_before_the_first_look_brings_it_about(
    controllers: ControlPlane, theatre: Theatre, over: list[str]
) -> None:
    leading(theatre)
    theatre.access.create(PODS, router_of(theatre, over[2]))
    until(lambda: looked_at(theatre), "it is looked at", 20)
    assert looked_at(theatre) == {over[2]}


def test_an_endpoint_that_changes_before_the_first_look_brings_it_about(theatre: Theatre, over: list[str]) -> None:
    theatre.apply("b", model={"name": "b"}, servers={**SERVICES, "champion": {"service": "own", "port": 80}})
    leading(theatre)
    theatre.access.create(SLICES, piece(theatre.namespace, "own-1", "own", 1))
    until(lambda: looked_at(theatre), "it is looked at", 20)
    assert looked_at(theatre) == {"b"}


def test_a_pod_that_changed_while_nobody_led_is_not_forgotten(
    controllers: ControlPlane, theatre: Theatre, over: list[str]
) -> None:
    """The leader went with it."""
    other = theatre.operator(start=False)
    theatre.operators.remove(other)  # it never runs
    other.leader.step()
    assert other.leader.leads()
    theatre.access.create(PODS, router_of(theatre, "b"))
    operator = theatre.operator(idle_s=600.0)
    until(lambda: operator.calls["watch", "Pod"] >= 2, "pods are watched")
    assert not operator.leader.leads()
    theatre.access.delete(PODS, theatre.namespace, "b-router-0")
    until(operator.leader.leads, "it leads")
    until(lambda: looked_at(theatre), "it is looked at", 20)
    assert looked_at(theatre) == {"b"}


@pytest.mark.parametrize(("age_s", "new"), [(NEW_S - 60, True), (NEW_S + 60, False)])
def test_a_pod_that_came_before_anybody_watched_is_news_while_it_is_young(
    controllers: ControlPlane, theatre: Theatre, age_s: float, new: bool
) -> None:
    """One that took the place of a pod that went with the controller."""
    theatre.access.create(PODS, router_of(theatre, "late"))
    told: list[tuple[str, bool]] = []
    watch = PodWatch(
        theatre.access, theatre.namespace, ROUTERS, lambda *word: told.append(word), lambda: time.time() + age_s
    )
    with running(watch):
        until(lambda: told, "it is told of")
        assert told == [(theatre.key(), new)]
        theatre.access.delete(PODS, theatre.namespace, "late-router-0")
        until(lambda: len(told) > 1, "it is told that it goes")
        assert told[1] == (theatre.key(), True)

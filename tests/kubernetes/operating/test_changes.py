"""What a tick listed counts for the next while a watch tells of no change, and not for longer; on a real API server."""

from collections.abc import Callable, Iterator

import pytest

from controller.edges.cluster import deployments
from controller.edges.cluster.access import Access, Expired, Node
from controller.edges.cluster.changes import LIST_S, PLACES, SURE_S, Changes, Stamp
from controller.edges.cluster.deployment_watch import DeploymentWatch
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.pod_watch import SERVERS, PodWatch
from controller.edges.cluster.resources import DEPLOYMENTS, PODS, ROLLOUTS, STATEFULSETS
from controller.edges.cluster.routers import ClusterTraffic
from controller.edges.cluster.tokens import Tokens
from controller.errors import EdgeError
from controller.operator.operator import Operator
from controller.status import Progress
from tests.kubernetes.operating.machines import Machines
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.templated import at_work, scale
from tests.kubernetes.operating.test_routers import ROUTERS
from tests.kubernetes.operating.theatre import SPEC, Theatre, running, until
from tests.ports.contracts.traffic import table

WATCHING = ("controller.edges.cluster.pod_watch.WATCH_S", "controller.edges.cluster.deployment_watch.WATCH_S")
CONTAINER: Node = {"name": "model", "image": "none", "env": [{"name": "MODEL_URI", "value": "models:/flights/1"}]}


class Seconds:
    """A clock that is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def changes(seconds: Seconds) -> Changes:
    return Changes(seconds)


def bookmark() -> tuple[str, Node]:
    return "BOOKMARK", {"metadata": {"resourceVersion": "1"}}


def breaking(error: EdgeError, *events: tuple[str, Node]) -> Iterator[tuple[str, Node]]:
    yield from events
    raise error


def test_each_change_changes_the_stamp_of_its_rollout_alone(changes: Changes) -> None:
    other = next(f"a/{n}" for n in range(PLACES) if hash(f"a/{n}") % PLACES != hash("a/late") % PLACES)
    assert changes.stamp("a/late") is None  # nothing was heard yet
    changes.listed()
    before = changes.stamp("a/late"), changes.stamp(other)
    assert None not in before
    changes.tell("a/late")
    assert changes.stamp("a/late") not in (None, before[0])
    assert changes.stamp(other) == before[1]
    changes.listed()
    assert changes.stamp(other) not in (None, before[1])  # what changed before that list was not told


def test_a_silent_watch_is_believed_for_a_while_and_a_broken_one_not_at_all(changes: Changes, seconds: Seconds) -> None:
    changes.listed()
    first = changes.stamp("a/late")
    seconds.now += SURE_S
    assert changes.stamp("a/late") == first
    seconds.now += 0.1
    assert changes.stamp("a/late") is None
    assert list(changes.through([bookmark()])) == [bookmark()]
    assert changes.stamp("a/late") == first
    seconds.now += SURE_S + 1
    assert list(changes.through([])) == []  # it ended by the server's clock
    assert changes.stamp("a/late") == first
    with pytest.raises(EdgeError):
        list(changes.through(breaking(EdgeError("broke off"), bookmark())))
    assert changes.stamp("a/late") is None
    again = changes.through([("MODIFIED", {}), bookmark()])
    next(again)
    assert changes.stamp("a/late") is None  # more of what was missed may be on its way
    next(again)
    assert next(again, None) is None
    assert changes.stamp("a/late") == first
    with pytest.raises(Expired):
        list(changes.through(breaking(Expired("too old"))))
    assert changes.stamp("a/late") is None


def worn(namespace: str, name: str, rollout: str) -> Node:
    return {"namespace": namespace, "name": name, "labels": {deployments.ROLLOUT: rollout, deployments.VERSION: "1"}}


def told(changes: Changes, key: str, act: Callable[[], object]) -> Stamp:
    """The stamp of ``key`` after ``act`` has changed it."""
    before = until(lambda: changes.stamp(key), "the watch is on")
    act()
    after = until(lambda: (now := changes.stamp(key)) not in (None, before) and now, f"{key} changes")
    assert isinstance(after, Stamp)
    return after


def test_every_event_of_a_pod_counts_for_its_rollout_and_for_the_one_whose_it_was(
    controllers: object, theatre: Theatre
) -> None:
    watch, access, namespace = PodWatch(theatre.access, theatre.namespace, SERVERS, lambda *_: None), *place(theatre)
    late, other = theatre.key("late"), theatre.key("other")
    spec = {"containers": [CONTAINER]}
    with running(watch):
        pod = {"metadata": worn(namespace, "one", "late"), "spec": spec}
        told(watch.changes, late, lambda: access.create(PODS, pod))
        note = {"namespace": namespace, "name": "one", "annotations": {"theirs": "1"}}
        told(watch.changes, late, lambda: access.patch(PODS, {"metadata": note}))
        before = watch.changes.stamp(other)
        moved = {"metadata": worn(namespace, "one", "other")}
        told(watch.changes, late, lambda: access.patch(PODS, moved))
        assert watch.changes.stamp(other) != before
        told(watch.changes, other, lambda: access.delete(PODS, namespace, "one"))


def place(theatre: Theatre) -> tuple[Access, str]:
    return theatre.access, theatre.namespace


def test_every_event_of_a_deployment_counts_for_its_owner_too(theatre: Theatre) -> None:
    watch, access, namespace = DeploymentWatch(theatre.access, theatre.namespace), *place(theatre)
    late, other = theatre.key("late"), theatre.key("other")
    meta = worn(namespace, "late-v1", "late")
    uid = theatre.apply()["metadata"]["uid"]
    owner = {"apiVersion": ROLLOUTS.api, "kind": ROLLOUTS.kind, "name": "late", "uid": uid}
    template = {"metadata": {"labels": meta["labels"]}, "spec": {"containers": [CONTAINER]}}
    spec = {"replicas": 0, "selector": {"matchLabels": meta["labels"]}, "template": template}
    with running(watch):
        made = {"metadata": {**meta, "ownerReferences": [owner]}, "spec": spec}
        told(watch.changes, late, lambda: access.create(DEPLOYMENTS, made))
        moved = {"metadata": worn(namespace, "late-v1", "other")}
        told(watch.changes, late, lambda: access.patch(DEPLOYMENTS, moved))
        none = {"namespace": namespace, "name": "late-v1", "labels": {deployments.ROLLOUT: None}}
        told(watch.changes, other, lambda: access.patch(DEPLOYMENTS, {"metadata": none}))


def lists(operator: Operator, theatre: Theatre, ticks: int) -> tuple[int, int]:
    """Of Deployments and of pods, that so many ticks make."""
    kinds, written = (("list", "Deployment"), ("list", "Pod")), ("replace", "ModelRollout")
    before, first = [operator.calls[kind] for kind in kinds], operator.calls[written]
    until(lambda: operator.calls[written] >= first + ticks, f"{ticks} ticks")
    deployed, pods = (operator.calls[kind] - count for kind, count in zip(kinds, before, strict=True))
    return deployed, pods


def test_a_rollout_that_runs_lists_nothing_while_nothing_changes_and_everything_where_its_watches_are_deaf(
    theatre: Theatre, machines: Machines, template: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in WATCHING:
        monkeypatch.setattr(name, 1)
    operator = at_work(theatre, template, step=1)
    until(lambda: lists(operator, theatre, 10) == (0, 0), "ten ticks that list nothing")
    scale(theatre, "1", 3)
    until(lambda: len(theatre.status().observed.champion_upstreams) == 3, "its new pods are seen")
    until(lambda: lists(operator, theatre, 10) == (0, 0), "ten ticks that list nothing")
    theatre.deaf.set()
    until(lambda: min(lists(operator, theatre, 6)) >= 5, "it lists at each tick")
    scale(theatre, "1", 2)
    until(lambda: len(theatre.status().observed.champion_upstreams) == 2, "the pod that went is seen")
    theatre.deaf.clear()
    until(lambda: lists(operator, theatre, 10) == (0, 0), "ten ticks that list nothing")
    theatre.ask("promote")
    theatre.reaches(Progress.PROMOTED)


def test_an_attempt_that_begins_lists_at_each_tick(theatre: Theatre, machines: Machines, template: Node) -> None:
    machines.broken.add("2")
    operator = theatre.operator()
    theatre.apply(servers={"template": template})
    until(lambda: "ImagePull" in theatre.status().message, "it waits for its servers")
    assert min(lists(operator, theatre, 6)) >= 5  # the first of which may have listed before


class Quiet(Access):
    """Counts what one observer lists of pods."""

    @property
    def listed(self) -> int:
        return self.calls["list", "Pod"]


@pytest.fixture
def watched(kubeconfig: object, namespace: str, node: KubeNode, changes: Changes) -> Iterator[ClusterTraffic]:
    """Two routers that run, seen through ``changes``: a watch that is always sure, and tells what the test tells."""
    access = Quiet(kubeconfig)  # type: ignore[arg-type]
    body = {"metadata": {"namespace": namespace, "name": "late"}, "spec": SPEC}
    owner = Owner(namespace, "late", access.create(ROLLOUTS, body)["metadata"]["uid"])
    changes.listed()
    made = ClusterTraffic(access, owner, ROUTERS, Tokens(access, namespace, "key"), changes=changes)
    until(lambda: made.observe().complete and len(made.replicas) == 2, "two routers run", 60)
    yield made
    made.close()
    access.close()


def calls(traffic: ClusterTraffic) -> int:
    """How often it has listed pods."""
    access = traffic._access
    assert isinstance(access, Quiet)
    return access.listed


def serve(traffic: ClusterTraffic, generation: int) -> None:
    """Have all routers confirm that table."""

    def confirmed() -> bool:
        traffic.apply(table(generation))
        return traffic.observe().confirmed == generation

    until(confirmed, f"{generation} is confirmed")


def test_a_table_is_confirmed_by_a_list_and_stays_confirmed_without(
    watched: ClusterTraffic, changes: Changes, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(watched, 1)
    before = calls(watched)
    assert [watched.observe().confirmed for _ in range(5)] == [1] * 5
    assert calls(watched) == before
    serve(watched, 2)
    assert calls(watched) > before
    before = calls(watched)
    changes.tell(f"{namespace}/late")
    assert [watched.observe().confirmed for _ in range(3)] == [2] * 3
    assert calls(watched) == before + 1
    now = watched._listed_at
    monkeypatch.setattr("controller.edges.cluster.routers.time.monotonic", lambda: now + LIST_S)
    assert watched.observe().confirmed == 2
    assert calls(watched) == before + 2


def test_a_router_that_the_watch_does_not_tell_of_has_to_confirm_the_next_table(
    watched: ClusterTraffic, namespace: str
) -> None:
    serve(watched, 1)
    meta = {"namespace": namespace, "name": "late-router"}
    watched._access.patch(STATEFULSETS, {"metadata": meta, "spec": {"replicas": 3}})
    until(lambda: third(watched, namespace), "the API server says that a third one runs", 60)
    assert watched.observe().confirmed == 1  # as long as nobody tells
    watched.apply(table(2))
    assert {watched.observe().confirmed for _ in range(5)} <= {-1, 0}
    assert len(watched.replicas) == 3
    serve(watched, 2)


def third(traffic: ClusterTraffic, namespace: str) -> bool:
    """Whether a list would show that the third router runs."""
    status = traffic._access.get(PODS, namespace, "late-router-2")["status"]
    return any("running" in (each.get("state") or {}) for each in status.get("containerStatuses", []))

"""Routers of a rollout's own: made through a real API server, run as real processes, told the table and read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.resources import BUDGETS, PODS, ROLLOUTS, SERVICES, STATEFULSETS, Resource
from controller.edges.cluster.router_set import ROLLOUT_LABEL, RouterSet
from controller.edges.cluster.routers import ClusterTraffic
from controller.edges.cluster.tokens import Tokens
from controller.errors import Conflict, EdgeError
from controller.ports import TrafficObservation, TrafficProvider
from controller.status import Progress, Reason
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.real import Clients, RealTheatre, declared
from tests.kubernetes.operating.theatre import SPEC, until
from tests.ports.contracts.traffic import TrafficContract
from tests.router.models import Model


def places(node: KubeNode, pod: str) -> dict[str, dict[str, int]]:
    """What the only reader of this router's journals has acknowledged."""
    files = list((node.volume(pod) / "journal" / "readers").glob("*.json"))
    assert len(files) <= 1
    try:
        return json.loads(files[0].read_text()) if files else {}
    except FileNotFoundError:  # a reader that has just said goodbye
        return {}


QUOTAS = Resource("v1", "resourcequotas", "ResourceQuota")
ROUTERS = RouterSet("late", "router:none", 2, "1Gi")


def routers_of(access: Access, namespace: str, routers: RouterSet = ROUTERS) -> ClusterTraffic:
    """Those of the rollout ``late``, made by somebody who has just begun."""
    uid = access.get(ROLLOUTS, namespace, "late")["metadata"]["uid"]
    return ClusterTraffic(access, Owner(namespace, "late", uid), routers, Tokens(access, namespace, "key"))


@pytest.fixture
def owner(access: Access, namespace: str) -> Node:
    return access.create(ROLLOUTS, {"metadata": {"namespace": namespace, "name": "late"}, "spec": SPEC})


def test_who_scales_the_routers_is_left_alone_and_the_token_stays(access: Access, owner: Node, namespace: str) -> None:
    first = routers_of(access, namespace)
    assert not first.observe().complete  # nobody runs them here
    held = access.get(STATEFULSETS, namespace, "late-router")
    assert held["spec"]["replicas"] == 2
    assert held["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
    meta = {"namespace": namespace, "name": "late-router"}
    access.patch(STATEFULSETS, {"metadata": meta, "spec": {"replicas": 5}})
    again = routers_of(access, namespace)
    again.observe()
    assert access.get(STATEFULSETS, namespace, "late-router")["spec"]["replicas"] == 5
    assert again.token == first.token
    assert len(first.token) > 40


class Overtaken(RouterSet):
    """Of which somebody else writes the set after it was read, the first ``times``."""

    access: Access
    namespace: str
    times: int

    def __new__(cls, access: Access, namespace: str, times: int) -> "Overtaken":
        made = super().__new__(cls, *ROUTERS)
        made.access, made.namespace, made.times = access, namespace, times
        return made

    def stateful_set(self, found: Node | None) -> Node:
        body = super().stateful_set(found)
        if self.times:
            self.times -= 1
            meta = {"namespace": self.namespace, "name": self.name, "annotations": {"theirs": str(self.times)}}
            self.access.patch(STATEFULSETS, {"metadata": meta})
        return body


def test_who_writes_the_set_at_the_same_moment_does_not_cost_the_tick(
    access: Access, owner: Node, namespace: str
) -> None:
    routers_of(access, namespace).observe()
    routers_of(access, namespace, Overtaken(access, namespace, 3)).observe()
    held = access.get(STATEFULSETS, namespace, "late-router")
    assert held["metadata"]["annotations"]["theirs"] == "0"
    with pytest.raises(Conflict, match="has been modified"):
        routers_of(access, namespace, Overtaken(access, namespace, 99)).observe()


def test_what_stands_as_it_was_declared_is_not_applied_again(
    access: Access, kubeconfig: Path, owner: Node, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.edges.cluster.routers.KEEP_S", 0.0)
    mine, meta = Access(kubeconfig), {"namespace": namespace, "name": "late-router"}
    made = routers_of(mine, namespace)

    def applied() -> dict[str, int]:
        """What one look at the routers applies, by kind."""
        mine.calls.clear()
        made.observe()
        return {kind: count for (verb, kind), count in mine.calls.items() if verb == "apply"}

    assert applied() == {"Service": 2, "PodDisruptionBudget": 1, "StatefulSet": 1}
    # Its claims are declared as they were found; once more where Kubernetes writes its status at that moment.
    assert applied().keys() == {"StatefulSet"}
    assert applied() == {}
    access.patch(STATEFULSETS, {"metadata": meta, "spec": {"minReadySeconds": 1}})
    access.patch(SERVICES, {"metadata": {**meta, "labels": {"theirs": "1"}}})
    assert applied() == {}, "what is not declared is not restored"
    access.patch(SERVICES, {"metadata": meta, "spec": {"selector": {ROLLOUT_LABEL: "another"}}})
    access.delete(BUDGETS, namespace, "late-router")
    assert applied() == {"Service": 1, "PodDisruptionBudget": 1}
    assert access.get(SERVICES, namespace, "late-router")["spec"]["selector"] == ROUTERS.labels
    assert applied() == {}
    mine.close()


def test_why_there_is_no_router_is_told(access: Access, owner: Node, namespace: str, controllers: ControlPlane) -> None:
    place = {"namespace": namespace, "name": "none"}
    access.create(QUOTAS, {"metadata": place, "spec": {"hard": {"pods": "0"}}})
    until(lambda: "hard" in access.get(QUOTAS, **place)["status"], "the quota counts")
    routers = routers_of(access, namespace)
    assert routers.observe().trouble == (
        "0 of 2 pods of StatefulSet late-router are there; its Events say why"
        " (kubectl describe statefulset late-router)"
    )
    access.delete(QUOTAS, **place)
    waits = {"name": "router", "image": "router:none", "imageID": "", "ready": False, "restartCount": 0}
    why = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "router:none"'}
    status = {"phase": "Pending", "containerStatuses": [{**waits, "state": {"waiting": why}}]}

    def told() -> TrafficObservation | None:
        """What is observed once both pods are there and cannot be started."""
        pods = access.list(PODS, namespace).items
        for pod in pods:
            access.replace(PODS, {**pod, "status": status}, "status")
        return routers.observe() if len(pods) == 2 else None

    seen = until(told, "both are made", 60)
    said = 'pod late-router-0: container router: ImagePullBackOff: Back-off pulling image "router:none"'
    assert (seen.confirmed, seen.trouble) == (-1, said)


def test_a_service_of_somebody_else_is_left_alone(access: Access, owner: Node, namespace: str) -> None:
    spec = {"ports": [{"port": 8080}], "selector": {"app": "champion"}}
    theirs = access.create(SERVICES, {"metadata": {"namespace": namespace, "name": "late"}, "spec": spec})
    with pytest.raises(EdgeError, match=f"Service {namespace}/late is none of this rollout's"):
        routers_of(access, namespace).observe()
    assert access.get(SERVICES, namespace, "late")["spec"] == theirs["spec"]


class TestClusterTraffic(TrafficContract):
    @pytest.fixture
    def provider(self, access: Access, node: KubeNode, owner: Node, namespace: str) -> Iterator[TrafficProvider]:
        made = routers_of(access, namespace)
        until(lambda: made.observe().complete and len(made.replicas) == 2, "two routers run", 60)
        yield made
        made.close()

    @pytest.fixture
    def confirmed_within(self, provider: ClusterTraffic) -> Callable[[int, float], object]:
        return lambda generation, within: until(
            lambda: provider.observe().confirmed >= generation, f"{generation} is confirmed", within
        )


def test_a_rollout_is_promoted_by_what_two_routers_saw_one_of_which_was_killed(
    real: RealTheatre, node: KubeNode, models: tuple[Model, Model]
) -> None:
    real.operator()
    real.apply(**declared(approvePromotion=True))
    until(lambda: len(node.ready()) == 2, "both routers are ready", 60)
    first, second = node.ready()
    with Clients(node) as clients:
        real.until("it waits for a person", lambda s: s.reason is Reason.AWAITING_APPROVAL, 60)
        assert min(clients.answered.get(first, 0), clients.answered.get(second, 0)) > 0
        node.down.add(second)
        node.kill(second)
        until(lambda: node.ready() == [first], "one is not ready any more")
        node.down.clear()
        until(lambda: len(node.ready()) == 2, "it is back", 60)
        real.until("both have the table", lambda s: s.table is not None and s.observed.confirmed == s.table.generation)
        before = clients.answered[second]
        until(lambda: clients.answered[second] > before, "it serves again")
        for name in (first, second):
            until(lambda n=name: places(node, n).get(f"{n}-outcomes"), f"the journals of {name} are read", 60)
            assert all(place["offset"] for place in places(node, name).values())
        real.ask("approve")
        real.until("it is promoted", lambda s: s.progress is Progress.PROMOTED)
    assert real.registry.alias("flights", "champion") == "2"
    assert {failure.partition(":")[0] for failure in clients.failed} <= {second}
    for name in (first, second):
        until(lambda n=name: not places(node, n), f"nobody reads {name} any more")


def test_a_harmful_challenger_is_rolled_back_by_what_the_routers_saw(
    real: RealTheatre, node: KubeNode, models: tuple[Model, Model]
) -> None:
    real.operator()
    real.apply(**declared(), steps=[{"weight": 50, "hold": "1h"}])
    until(lambda: len(node.ready()) == 2, "both routers are ready", 60)
    models[1].mode = "500"
    with Clients(node):
        status = real.until("it is rolled back", lambda s: s.progress is Progress.ROLLED_BACK)
        assert status.reason in (Reason.SERVICE_HARM, Reason.CHALLENGER_UNAVAILABLE)
        assert status.table is not None
        assert status.table.challenger is None
        assert status.observed.confirmed == status.table.generation
        champion, challenger = (model.count for model in models)
        until(lambda: models[0].count > champion + 100, "the champion serves")
        assert models[1].count == challenger
    assert real.registry.alias("flights", "champion") == "1"

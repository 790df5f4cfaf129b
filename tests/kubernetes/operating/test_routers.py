"""Routers of a rollout's own: made through a real API server, run as real processes, told the table and read."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from controller import wiring
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.resources import ROLLOUTS, SERVICES, STATEFULSETS, Resource
from controller.edges.cluster.router_set import RouterSet
from controller.edges.cluster.routers import ClusterTraffic
from controller.errors import EdgeError
from controller.operator.operator import Making
from controller.ports import TrafficProvider
from controller.settings import OperatorSettings
from controller.spec import ModelRollout
from controller.status import Progress, Reason, RolloutStatus
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.theatre import SPEC, AwayRegistry, Theatre, until
from tests.ports.contracts.traffic import TrafficContract
from tests.router.models import Model

BODY = b'{"inputs": [[1.0]]}'


class ShownRegistry(AwayRegistry):
    """A registry to which nothing has to be shown again."""

    def catch_up(self, rollout: ModelRollout, status: RolloutStatus, records: object) -> None:
        """There is no run here."""


class RealTheatre(Theatre):
    """Loops as the operator has them: only the registry is in memory."""

    def __init__(self, access: Access, kubeconfig: Path, namespace: str, folder: Path) -> None:
        super().__init__(access, kubeconfig, namespace, folder)
        self.registry = ShownRegistry()
        self.model("flights")

    def making(self, settings: OperatorSettings) -> Making:
        settings = settings.model_copy(update={"router_image": "router:none"})
        return Making(
            lambda access, store: wiring.build_cluster(settings, access, store, self.registry, "tests"),  # type: ignore[arg-type]
            wiring.close_cluster,
            self.registry.all_aliases,
        )

    def until(self, what: str, holds: Callable[[RolloutStatus], bool], within: float = 60.0) -> RolloutStatus:
        """The status once ``holds``."""

        def look() -> RolloutStatus | None:
            status = self.status()
            return status if holds(status) else None

        try:
            found = until(look, what, within)
        except AssertionError as error:
            status = self.status()
            raise AssertionError(f"{error}: {status.progress} {status.reason} {status.message} {status}") from error
        assert isinstance(found, RolloutStatus)
        return found


class Clients:
    """Users who ask every router in turn, without a pause; ``answered`` by router, ``failed`` as they saw it."""

    def __init__(self, node: KubeNode) -> None:
        self._node = node
        self.answered: dict[str, int] = {}
        self.failed: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "Clients":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(30)

    def _ask(self) -> None:
        numbers = itertools.count()
        with httpx.Client(timeout=10.0, trust_env=False) as client:
            while not self._end.wait(0.005):
                for name, container in list(self._node.containers.items()):
                    headers = {"x-unit": f"u{next(numbers)}", "content-type": "application/json"}
                    try:
                        answer = client.post(f"{container.traffic}/invocations", content=BODY, headers=headers)
                    except httpx.TransportError as error:
                        self.failed.append(f"{name}: {error}")
                        continue
                    if answer.status_code == 200:
                        self.answered[name] = self.answered.get(name, 0) + 1
                    else:
                        self.failed.append(f"{name}: {answer.status_code}")


@pytest.fixture
def restricted(access: Access, namespace: str) -> str:
    """A namespace that takes only pods of the strictest standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    access.patch(Resource("v1", "namespaces", "Namespace", False), {"metadata": {"name": namespace, "labels": labels}})
    return namespace


@pytest.fixture
def node(controllers: ControlPlane, kubeconfig: Path, restricted: str, tmp_path: Path) -> Iterator[KubeNode]:
    made = KubeNode(kubeconfig, restricted, tmp_path / "node")
    yield made
    made.close()


@pytest.fixture
def real(access: Access, kubeconfig: Path, node: KubeNode, namespace: str, tmp_path: Path) -> Iterator[RealTheatre]:
    made = RealTheatre(access, kubeconfig, namespace, tmp_path)
    yield made
    made.close()


@pytest.fixture
def models() -> Iterator[tuple[Model, Model]]:
    with Model("champion") as champion, Model("challenger") as challenger:
        yield champion, challenger


def declared(models: tuple[Model, Model], **decision: object) -> Node:
    """A spec whose servers are ``models``."""
    champion, challenger = ({"url": f"http://{model.address}"} for model in models)
    return {
        "servers": {"champion": champion, "challenger": challenger},
        "decision": {**SPEC["decision"], "tick": "300ms", **decision},
    }


def places(node: KubeNode, pod: str) -> dict[str, dict[str, int]]:
    """What the only reader of this router's journals has acknowledged."""
    files = list((node.volume(pod) / "journal" / "readers").glob("*.json"))
    assert len(files) <= 1
    return json.loads(files[0].read_text()) if files else {}


def routers_of(access: Access, namespace: str) -> ClusterTraffic:
    """Those of the rollout ``late``, made by somebody who has just begun."""
    uid = access.get(ROLLOUTS, namespace, "late")["metadata"]["uid"]
    return ClusterTraffic(access, Owner(namespace, "late", uid), RouterSet("late", "router:none", 2, "1Gi"))


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
    real.apply(**declared(models, approvePromotion=True))
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
    real.apply(**declared(models), steps=[{"weight": 50, "hold": "1h"}])
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

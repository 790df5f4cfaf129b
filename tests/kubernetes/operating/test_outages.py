"""What a rollout on a cluster leans on goes away in the middle and comes back: it goes on, or holds and says so."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client
from mlflow.tracking import MlflowClient

from controller.edges.cluster.access import Access
from controller.edges.cluster.resources import BUDGETS, PODS
from controller.edges.registry import MlflowRegistry
from controller.operator.operator import Making
from controller.settings import OperatorSettings
from controller.status import Progress, Reason
from tests.kubernetes.control_plane import CALL_WITHIN_S
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.real import Clients, RealTheatre, declared
from tests.kubernetes.operating.theatre import SPEC, Theatre, until
from tests.ports.tracking_server import TrackingServer, Wire, register_pair
from tests.router.models import Model

STAY_AT_HALF = [{"weight": 50, "hold": "1h"}]


class TrackedTheatre(Theatre):
    """The aliases are those of a real MLflow, to which ``wire`` leads."""

    def __init__(self, access: Access, kubeconfig: Path, namespace: str, folder: Path, server: TrackingServer) -> None:
        super().__init__(access, kubeconfig, namespace, folder)
        self.wire, self.mlflow = Wire(server.port), MlflowClient(server.uri, registry_uri=server.uri)
        self.tracked = MlflowRegistry(self.wire.uri)
        self.registry = self.tracked  # type: ignore[assignment]
        self.flights = register_pair(self.mlflow, "flights")

    def making(self, settings: OperatorSettings) -> Making:
        return Making(self._making, lambda _: None, self.tracked.aliases)

    def aliases(self) -> dict[str, str]:
        """As people see them, whatever becomes of the wire."""
        return dict(self.mlflow.get_registered_model(self.flights).aliases)

    def close(self) -> None:
        super().close()
        self.tracked.close(5.0)
        self.wire.cut()


@pytest.fixture
def tracked(
    access: Access, kubeconfig: Path, namespace: str, tmp_path: Path, server: TrackingServer
) -> Iterator[TrackedTheatre]:
    made = TrackedTheatre(access, kubeconfig, namespace, tmp_path, server)
    yield made
    made.close()


GOES = [Wire.cut, Wire.mute]  # refused at once; taken in, and never answered


def under_way(tracked: TrackedTheatre, hold: str, goes: Callable[[Wire], None] = Wire.cut) -> None:
    """Half of the units meet the challenger, and then MLflow ``goes``."""
    tracked.operator()
    decision = {**SPEC["decision"], "tick": "300ms"}
    tracked.apply(model={"name": tracked.flights}, steps=[{"weight": 50, "hold": hold}], decision=decision)
    tracked.reaches(Progress.RUNNING, step=0)
    until(lambda: tracked.weight() == 5000, "the weight of the step is served")
    goes(tracked.wire)
    until(lambda: tracked.status().observed.registry_error, "it is told that MLflow does not answer", 60)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("goes", GOES)
def test_without_mlflow_a_harmful_challenger_loses_its_traffic_and_its_alias_once_mlflow_is_back(
    tracked: TrackedTheatre, goes: Callable[[Wire], None]
) -> None:
    under_way(tracked, "1h", goes)
    status = tracked.reaches(Progress.ROLLING_BACK, errors=0.6, requests=200, within=60.0)
    assert status.reason in (Reason.SERVICE_HARM, Reason.CHALLENGER_UNAVAILABLE)
    until(lambda: tracked.weight() == 0, "nobody is sent to the challenger")
    assert tracked.status().observed.registry_error
    assert tracked.aliases() == {"champion": "1", "challenger": "2"}
    tracked.wire.restore()
    assert tracked.reaches(Progress.ROLLED_BACK, requests=0, within=60.0).reason is status.reason
    assert tracked.aliases() == {"champion": "1"}


@pytest.mark.timeout(180)
def test_without_mlflow_a_promotion_that_is_proven_waits_for_it(tracked: TrackedTheatre) -> None:
    under_way(tracked, hold="5s")
    tracked.reaches(Progress.PROMOTING)
    clock = tracked.status().clock
    until(lambda: tracked.status().clock > clock + 2_000_000, "it goes on looking")
    status = tracked.status()
    assert (status.progress, status.attempts) == (Progress.PROMOTING, 1)
    assert status.observed.registry_error
    assert tracked.aliases() == {"champion": "1", "challenger": "2"}
    tracked.wire.restore()
    tracked.reaches(Progress.PROMOTED)
    assert tracked.aliases() == {"champion": "2"}


@pytest.mark.timeout(240)
def test_while_a_router_says_nothing_of_its_journals_nothing_is_decided_and_then_it_goes_on(
    real: RealTheatre, node: KubeNode, models: tuple[Model, Model]
) -> None:
    real.operator()
    real.apply(**declared(), steps=STAY_AT_HALF)
    until(lambda: len(node.ready()) == 2, "both routers are ready", 60)
    with Clients(node):
        real.until("both serve half", lambda s: s.step == 0 and s.table is not None and s.observed.confirmed > 0)
        silent = node.ready()[1]
        pid = node.containers[silent].process.pid
        before = real.status()
        os.kill(pid, signal.SIGSTOP)
        try:
            status = real.until("it is stale", lambda s: s.reason is Reason.STALE, 150)
            assert silent in status.message
            assert (status.progress, status.attempt, status.step) == (Progress.RUNNING, before.attempt, 0)
            assert {c.type: c.status for c in status.conditions}["Valid"] == "False"
            assert {c.type: c.status for c in status.conditions}["Stalled"] == "False"
        finally:
            os.kill(pid, signal.SIGCONT)
        status = real.until("it is valid again", lambda s: s.reason is not Reason.STALE)
        assert (status.progress, status.attempt, status.step) == (Progress.RUNNING, before.attempt, 0)
    assert real.registry.alias("flights", "champion") == "1"


def evicted(api: client.ApiClient, namespace: str, pod: str) -> int:
    """What the API server says to an eviction, as `kubectl drain` asks for it."""
    body = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod, namespace=namespace))
    try:
        client.CoreV1Api(api).create_namespaced_pod_eviction(pod, namespace, body, _request_timeout=CALL_WITHIN_S)
    except client.ApiException as error:
        return int(error.status or 0)
    return 201


def uid_of(real: RealTheatre, pod: str) -> str:
    return str(real.access.get(PODS, real.namespace, pod)["metadata"]["uid"])


@pytest.mark.timeout(240)
def test_a_router_is_not_evicted_while_another_is_away_and_after_that_is_replaced_like_any(
    real: RealTheatre, node: KubeNode, models: tuple[Model, Model], api: client.ApiClient
) -> None:
    """By the budget that comes with them: one at a time."""

    def allowed() -> int:
        status = real.access.get(BUDGETS, real.namespace, "late-router").get("status") or {}
        return int(status.get("disruptionsAllowed", -1))

    real.operator()
    real.apply(**declared(), steps=STAY_AT_HALF)
    until(lambda: len(node.ready()) == 2 and allowed() == 1, "both routers are ready, and one may go", 60)
    first, second = node.ready()
    with Clients(node) as clients:
        before = real.until("both serve half", lambda s: s.step == 0 and s.observed.confirmed > 0)
        uid = uid_of(real, second)
        node.down.add(first)
        node.kill(first)
        until(lambda: node.ready() == [second] and allowed() == 0, "one is away, so none may go", 60)
        assert evicted(api, real.namespace, second) == 429
        served = clients.answered.get(second, 0)
        until(lambda: clients.answered.get(second, 0) > served, "it serves on")
        assert uid_of(real, second) == uid
        node.down.clear()
        until(lambda: len(node.ready()) == 2 and allowed() == 1, "both are there again", 60)
        assert evicted(api, real.namespace, second) == 201
        until(lambda: second in node.ready() and uid_of(real, second) != uid, "another took its place", 60)
        served = clients.answered.get(second, 0)
        until(lambda: clients.answered.get(second, 0) > served, "it serves")
        status = real.until(
            "all serve the table", lambda s: bool(s.table) and s.observed.confirmed == s.table.generation
        )
    assert (status.progress, status.attempt) == (Progress.RUNNING, before.attempt)

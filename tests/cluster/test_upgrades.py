"""Pods are replaced by a real kubelet while users ask without a pause."""

import pytest
from mlflow import MlflowClient

from controller.edges.cluster.access import Access
from tests.cluster.clients import Clients, Witness, decided
from tests.cluster.images import Image
from tests.cluster.shop import HOME, SHOP, Rollout, on_trial, routers
from tests.embedded.machine import wait_for
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.helm import CHART, Helm

pytestmark = pytest.mark.timeout(900)


def test_routers_and_controllers_are_replaced_and_no_request_is_lost(
    cluster: ControlPlane, release: Helm, made: dict[str, Image], mlflow: MlflowClient, access: Access
) -> None:
    on_trial(mlflow, "new", {"shift": 0.0}, {"shift": 0.01})
    new = Rollout(cluster, "new", made["understudy-serve"], [{"weight": 50, "hold": "1h"}])
    new.served()
    with Witness(access, "new") as witness, Clients(new.url) as clients:
        wait_for("both versions answer", lambda: {answer.version for answer in clients.answers} == {"1", "2"}, 60)
        old = routers(cluster, "new")
        cluster.kubectl("-n", SHOP, "rollout", "restart", "statefulset/new-router")
        wait_for("each router is another pod", lambda: new.rolled("new-router"), 180)
        assert set(routers(cluster, "new").values()).isdisjoint(old.values())
        release(
            "upgrade", "understudy", CHART, f"--namespace={HOME}", "--reuse-values", "--set=podAnnotations.again=yes"
        )
        cluster.kubectl("-n", HOME, "rollout", "status", "statefulset/understudy-controller", "--timeout=55s")
        asked = len(clients.answers)
        wait_for("users come back", lambda: len(clients.answers) > asked + 300, 120)
    assert clients.failed == []
    assert {answer.version for answer in decided(clients, witness)} == {"1", "2"}
    new.delete()

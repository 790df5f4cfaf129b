"""From `helm install` to `helm uninstall` on a real node, while users ask without a pause."""

import itertools
import time

import pytest
from mlflow import MlflowClient

from controller.edges.cluster.access import Access
from controller.status import Progress
from tests.cluster.clients import Clients, Served, Witness, decided
from tests.cluster.images import Image
from tests.cluster.shop import HOME, SHOP, Rollout, on_trial, replicas, routers, token, until_gone
from tests.embedded.machine import wait_for
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.helm import Helm

pytestmark = pytest.mark.timeout(900)
# What docs/kubernetes.md says of `helm uninstall`.
LEFT = {
    "CustomResourceDefinition//modelrollouts.understudy.dev",
    "APIService//v1alpha1.understudy.dev",  # by which the API server itself serves the definition
    f"Lease/{HOME}/understudy-controller",
    f"Secret/{HOME}/understudy-key",
    f"PersistentVolumeClaim/{HOME}/state-understudy-controller-0",
    f"PersistentVolumeClaim/{HOME}/state-understudy-controller-1",
}
MIRROR, ONE, HALF = {"mirror": 100, "hold": "3s"}, {"weight": 1, "hold": "5s"}, {"weight": 50, "hold": "8s"}


def test_under_load_a_challenger_is_promoted_and_no_request_fails_or_meets_the_wrong_version(
    cluster: ControlPlane,
    before: set[str],
    release: Helm,
    made: dict[str, Image],
    mlflow: MlflowClient,
    access: Access,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_trial(mlflow, "good", {"shift": 0.0}, {"shift": 0.01})
    good = Rollout(cluster, "good", made["understudy-serve"], [MIRROR, ONE, HALF])
    good.served()
    with Witness(access, "good") as witness, Clients(good.url) as clients:
        good.until(Progress.PROMOTED, 400)
        cluster.kubectl("-n", SHOP, "wait", "modelrollout/good", "--for=condition=Succeeded", "--timeout=50s")
        promoted = len(clients.answers)
        wait_for("users come back", lambda: len(clients.answers) > promoted + 500, 120)
    assert clients.failed == []
    certain = decided(clients, witness)
    assert len(certain) > 0.8 * len(clients.answers)
    weights = [seen.table.weight_bp for _, seen in sorted(witness.seen.items())]
    assert [weight for weight, _ in itertools.groupby(weights)] == [0, 100, 5000, 10_000, 0]
    for unit in {answer.unit for answer in clients.answers}:
        versions = [answer.version for answer in clients.answers if answer.unit == unit]
        assert versions == sorted(versions), unit
    assert {answer.version for answer in clients.answers[promoted:]} == {"2"}
    with capsys.disabled():
        said = f"{len(certain)} of them at a time when only one version was right"
        print(f"\n{len(clients.answers)} requests, none failed and none misrouted, {said}; weights {weights}")
    assert mlflow.get_model_version_by_alias("good", "champion").version == "2"
    wait_for("the promoted version serves alone", lambda: replicas(cluster, "good-v2", 1), 60)
    wait_for("the old one sleeps", lambda: replicas(cluster, "good-v1", 0), 60)
    good.delete()
    release("uninstall", "understudy", f"--namespace={HOME}", "--wait")
    until_gone(cluster, before, LEFT, 120)


def test_a_harmful_challenger_is_off_every_router_within_a_second_of_the_decision(
    cluster: ControlPlane,
    before: set[str],
    release: Helm,
    made: dict[str, Image],
    mlflow: MlflowClient,
    access: Access,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_trial(mlflow, "bad", {}, {"crash_share": 0.7})
    bad = Rollout(cluster, "bad", made["understudy-serve"], [HALF])
    bad.served()
    with (
        Witness(access, "bad") as witness,
        Served(routers(cluster, "bad"), token(cluster, "bad")) as served,
        Clients(bad.url) as clients,
    ):
        status = bad.until(Progress.ROLLED_BACK, 300)
        rolled = len(clients.answers)
        wait_for("users come back", lambda: len(clients.answers) > rolled + 300, 120)
    assert clients.failed == []
    zero = 1 + max(generation for generation, seen in witness.seen.items() if seen.table.weight_bp)
    off = served.since(zero)
    # A decision is one from its commit on; this is the last moment at which it was not to be seen yet.
    committed = witness.seen[zero].since
    # The tick that decided began earlier, with reading the world. That is told, and not held to a second.
    began = time.monotonic() - (time.time() - status.rolled_at / 1e6)
    with capsys.disabled():
        for name, at in sorted(off.items()):
            after = f"{at - committed:.3f} s after the commit, {at - began:.3f} s after its tick began"
            print(f"\n{status.reason}: {name} had weight 0 {after}")
    assert len(off) == 2
    assert max(off.values()) - committed <= 1.0
    assert {answer.version for answer in clients.answers[rolled:]} == {"1"}
    assert mlflow.get_model_version_by_alias("bad", "champion").version == "1"
    wait_for("the champion serves alone", lambda: replicas(cluster, "bad-v1", 1), 60)
    wait_for("the challenger sleeps", lambda: replicas(cluster, "bad-v2", 0), 60)
    bad.delete()
    release("uninstall", "understudy", f"--namespace={HOME}", "--wait")
    until_gone(cluster, before, LEFT, 120)

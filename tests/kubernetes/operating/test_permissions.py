"""The manifest lets the controller do what it does: nothing is missing, and nothing is granted that it never uses."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import DEPLOYMENTS, PODS, SECRETS, SERVICES, STATEFULSETS
from controller.edges.cluster.watch import Watched
from controller.errors import EdgeError
from controller.operator.operator import Operator
from controller.status import Progress
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.conftest import ROOT
from tests.kubernetes.operating.machines import Machines
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.real import Clients, RealTheatre, declared
from tests.kubernetes.operating.split import backends, splitting
from tests.kubernetes.operating.split import declared as routed
from tests.kubernetes.operating.theatre import STAY, until
from tests.router.models import Model

HOME, ACCOUNT = "understudy", "understudy-controller"
USER = f"system:serviceaccount:{HOME}:{ACCOUNT}"
# Every client may ask who it is and what there is.
EVERYBODYS = {("authentication.k8s.io", "selfsubjectreviews", "create")}
Asked = tuple[str, str, str]


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane) -> list[Node]:
    """The objects of the manifest, applied as people apply them."""
    path = ROOT / "manifests" / "install.yaml"
    control_plane.kubectl("apply", "--server-side", "-f", str(path))
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.fixture
def controller(installed: list[Node], control_plane: ControlPlane) -> Iterator[Access]:
    """Whoever has the controller's account."""
    assert installed
    made = Access(control_plane.login(HOME, ACCOUNT))
    yield made
    made.close()


def granted(installed: list[Node]) -> set[Asked]:
    """(group, resource, verb) of all rules."""
    rules = [rule for each in installed if each["kind"] in ("ClusterRole", "Role") for rule in each["rules"]]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def audited(control_plane: ControlPlane, user: str = USER) -> list[dict[str, Any]]:
    """What the controller's account has asked for."""
    lines = control_plane.audit_log.read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["user"]["username"] == user and "objectRef" in event]


def asked(event: dict[str, Any]) -> set[Asked]:
    """The verbs that a request needs: an applied object that did not exist has to be allowed to be created as well."""
    what = event["objectRef"]
    resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
    made = event["verb"] == "patch" and event["responseStatus"]["code"] == 201
    return {(what.get("apiGroup", ""), resource, verb) for verb in (event["verb"], *(["create"] if made else []))}


def refused(event: dict[str, Any]) -> bool:
    return bool(event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid")


def serve(real: RealTheatre) -> None:
    """Let servers of ours be made, woken, scaled and deleted, and then adopt some."""
    machines = Machines(real.access, real.namespace)
    restricted = {"runAsNonRoot": True, "runAsUser": 65532, "allowPrivilegeEscalation": False,
                  "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}  # fmt: skip
    container = {"name": "model", "image": "i", "ports": [{"containerPort": machines.port}]}
    template = {"spec": {"containers": [{**container, "securityContext": restricted}]}}
    try:
        real.apply(steps=STAY, servers={"template": template})
        real.registry.move("flights", "challenger", "3", "owner")
        real.until("the third runs", lambda s: s.attempts == 2 and s.progress is Progress.RUNNING)
        real.ask("abort")
        real.until("it is rolled back", lambda s: s.progress is Progress.ROLLED_BACK)
        real.registry.move("flights", "challenger", "1", "owner")
        until(lambda: names(real) == {"late-v1", "late-v2"}, "the third is deleted", 60)
    finally:
        machines.close()
    for name in ("a", "b"):
        meta = {"namespace": real.namespace, "name": name}
        real.access.create(SERVICES, {"metadata": meta, "spec": {"ports": [{"port": 80}]}})
    adopted = {arm: {"service": name, "port": 80} for arm, name in (("champion", "a"), ("challenger", "b"))}
    real.apply(steps=STAY, servers=adopted)
    real.until("they are looked at", lambda s: "Service a has no endpoint" in s.observed.servers_message)


def route(real: RealTheatre) -> None:
    """Let an HTTPRoute be split, which no Gateway serves."""
    real.model("routed")
    with splitting(real.access, real.namespace, "http://127.0.0.1:9") as split:
        split.route({"backendRefs": backends()})
        real.apply("routed", **routed(model={"name": "routed"}, steps=STAY))
        until(lambda: split.found()["spec"]["rules"][0]["backendRefs"][1]["weight"] == 500, "the weight is written", 60)


def asks_for_everything(operator: Operator, real: RealTheatre, node: KubeNode, models: tuple[Model, Model]) -> None:
    """All that an operator ever asks the API server for, up to its end."""
    real.apply(**declared())
    until(lambda: len(node.ready()) == 2, "both routers are ready", 60)
    with Clients(node):
        real.until("it is promoted", lambda s: s.progress is Progress.PROMOTED)
    serve(real)
    route(real)
    line = Access(real.operating)
    Watched(line, real.namespace).refresh(real.key())  # as it does after a conflict
    line.close()
    assert operator.stop()  # which gives the lease back


def names(real: RealTheatre) -> set[str]:
    return {each["metadata"]["name"] for each in real.access.list(DEPLOYMENTS, real.namespace).items}


def test_every_verb_that_is_used_is_granted_and_every_one_that_is_granted_is_used(
    installed: list[Node],
    control_plane: ControlPlane,
    real: RealTheatre,
    node: KubeNode,
    models: tuple[Model, Model],
    routes: None,
) -> None:
    real.operating = control_plane.login(HOME, ACCOUNT)
    before = len(audited(control_plane))
    operator = real.operator(
        lease=ACCOUNT, lease_namespace=HOME, linger_s=0.1, idle_s=0.3, prometheus_url="http://127.0.0.1:9"
    )
    asks_for_everything(operator, real, node, models)
    found = audited(control_plane)[before:]
    assert [event for event in found if refused(event)] == []
    assert set().union(*map(asked, found)) - EVERYBODYS == granted(installed)


def test_the_controller_reads_no_secret_but_its_own_key(controller: Access, access: Access, namespace: str) -> None:
    meta = {"namespace": namespace, "name": "late-router"}
    access.create(SECRETS, {"metadata": meta, "stringData": {"token": "somebody's"}})
    for forbidden in (
        lambda: controller.get(SECRETS, namespace, "late-router"),
        lambda: controller.list(SECRETS, namespace),
        lambda: controller.apply(SECRETS, {"metadata": meta}),
        lambda: controller.delete(SECRETS, namespace, "late-router"),
        lambda: controller.get(SECRETS, HOME, "another"),
        lambda: controller.list(SECRETS, None),
    ):
        with pytest.raises(EdgeError, match=r"403: .*cannot"):
            forbidden()


def test_the_controllers_pods_meet_the_strictest_standard(
    installed: list[Node], controllers: ControlPlane, access: Access
) -> None:
    assert installed
    until(lambda: len(access.list(PODS, HOME).items) == 2, "its pods are admitted", 60)
    assert access.get(STATEFULSETS, HOME, ACCOUNT)["status"]["replicas"] == 2

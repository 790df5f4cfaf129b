"""The chart, for one namespace: nothing is missing from its Roles, and nothing is granted that is never used."""

from pathlib import Path

import yaml
from kubernetes import client

from controller.settings import PREFIX
from tests.kubernetes.control_plane import CALL_WITHIN_S, ControlPlane
from tests.kubernetes.helm import CHART, Helm
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.real import RealTheatre
from tests.kubernetes.operating.test_permissions import (
    EVERYBODYS,
    asked,
    asks_for_everything,
    audited,
    granted,
    refused,
)
from tests.router.models import Model

HOME, ACCOUNT = "chart-home", "only-understudy-controller"
USER = f"system:serviceaccount:{HOME}:{ACCOUNT}"
NAMES = ("namespace", "lease_name", "lease_namespace", "key_name")


def test_the_roles_of_one_namespace_grant_what_is_used_there_and_nothing_else(
    helm_program: Path,
    control_plane: ControlPlane,
    real: RealTheatre,
    node: KubeNode,
    models: tuple[Model, Model],
    tmp_path: Path,
    routes: None,
) -> None:
    helm = Helm(helm_program, tmp_path / "helm", control_plane.kubeconfig)
    values = ["--set=crd.enabled=false", f"--set=watchNamespace={real.namespace}"]
    helm("install", "only", CHART, f"--namespace={HOME}", "--create-namespace", *values)
    installed = [tree for tree in yaml.safe_load_all(helm("get", "manifest", "only", f"--namespace={HOME}")) if tree]
    controller = client.AppsV1Api(control_plane.api()).read_namespaced_stateful_set(
        ACCOUNT, HOME, _request_timeout=CALL_WITHIN_S
    )
    told = {each.name: each.value for each in controller.spec.template.spec.containers[0].env}
    real.operating = control_plane.login(HOME, ACCOUNT)
    own = {name: told[f"{PREFIX}{name.upper()}"] for name in NAMES}
    operator = real.operator(linger_s=0.1, idle_s=0.3, prometheus_url="http://127.0.0.1:9", **own)
    asks_for_everything(operator, real, node, models)
    found = audited(control_plane, USER)
    assert [event for event in found if refused(event)] == []
    assert set().union(*map(asked, found)) - EVERYBODYS == granted(installed)

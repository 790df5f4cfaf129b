"""The chart, for one namespace: nothing is missing from its Roles, and nothing is granted that is never used."""

from pathlib import Path

import yaml
from kubernetes import client

from controller.edges.cluster.access import Access
from controller.edges.cluster.watch import Watched
from controller.settings import PREFIX
from controller.status import Progress
from tests.kubernetes.control_plane import CALL_WITHIN_S, ControlPlane
from tests.kubernetes.helm import CHART, Helm
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.real import Clients, RealTheatre, declared
from tests.kubernetes.operating.test_permissions import EVERYBODYS, asked, audited, granted, refused, serve
from tests.kubernetes.operating.theatre import until
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
    operator = real.operator(linger_s=0.1, idle_s=0.3, **{name: told[f"{PREFIX}{name.upper()}"] for name in NAMES})
    real.apply(**declared(models))
    until(lambda: len(node.ready()) == 2, "both routers are ready", 60)
    with Clients(node):
        real.until("it is promoted", lambda s: s.progress is Progress.PROMOTED)
    serve(real)
    line = Access(real.operating)
    Watched(line, real.namespace).refresh(real.key())  # as it does after a conflict
    line.close()
    assert operator.stop()  # which gives the lease back
    found = audited(control_plane, USER)
    assert [event for event in found if refused(event)] == []
    assert set().union(*map(asked, found)) - EVERYBODYS == granted(installed)

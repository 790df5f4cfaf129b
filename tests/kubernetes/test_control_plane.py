"""The control plane of the tests is a real one, and does not outlive them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kubernetes import client

from tests.embedded.machine import alive, wait_for
from tests.kubernetes.binaries import KUBERNETES, ROOT
from tests.kubernetes.control_plane import CALL_WITHIN_S, ControlPlane, NotStarted
from tests.kubernetes.rollouts import refused

# Starts one and says its processes, then waits to be killed.
HOLDER = """
import pathlib, sys, time
from tests.kubernetes.control_plane import ControlPlane
plane = ControlPlane(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
plane.start()
print(*plane.pids().values(), flush=True)
time.sleep(600)
"""


def test_it_has_the_version_that_it_was_built_from(api: client.ApiClient) -> None:
    said = client.VersionApi(api).get_code(_request_timeout=CALL_WITHIN_S).git_version
    own = "KUBEBUILDER_ASSETS" in os.environ
    assert re.fullmatch(r"v1\.\d+\.\d+.*" if own else re.escape(KUBERNETES), said)


def test_a_user_may_do_what_was_granted_and_nothing_else(control_plane: ControlPlane, namespace: str) -> None:
    rules = client.RbacAuthorizationV1Api(control_plane.api())
    core = client.CoreV1Api(control_plane.api("ada"))
    with refused(403) as said:
        core.list_namespaced_secret(namespace, _request_timeout=CALL_WITHIN_S)
    assert 'User "ada" cannot list resource "secrets"' in said[0]
    meta = client.V1ObjectMeta(name="reader")
    rule = client.V1PolicyRule(api_groups=[""], resources=["secrets"], verbs=["list"])
    rules.create_namespaced_role(namespace, client.V1Role(metadata=meta, rules=[rule]), _request_timeout=CALL_WITHIN_S)
    role = client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name="reader")
    ada = client.RbacV1Subject(kind="User", name="ada", api_group="rbac.authorization.k8s.io")
    binding = client.V1RoleBinding(metadata=meta, role_ref=role, subjects=[ada])
    rules.create_namespaced_role_binding(namespace, binding, _request_timeout=CALL_WITHIN_S)

    def granted() -> bool:
        try:
            return core.list_namespaced_secret(namespace, _request_timeout=CALL_WITHIN_S).items == []
        except client.ApiException as error:
            if error.status != 403:
                raise
            return False

    wait_for("the grant, which the server's own watch brings", granted, 30)
    with refused(403):
        core.list_namespaced_config_map(namespace, _request_timeout=CALL_WITHIN_S)


def test_with_controllers_a_deployment_gets_its_pods_and_a_namespace_goes(
    controllers: ControlPlane, namespace: str
) -> None:
    core, apps = client.CoreV1Api(controllers.api()), client.AppsV1Api(controllers.api())
    labels = {"app": "model"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "m", "image": "model"}]}}
    body = {"metadata": {"name": "m"}, "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": pod}}
    apps.create_namespaced_deployment(namespace, body, _request_timeout=CALL_WITHIN_S)
    wait_for(
        "two pods",
        lambda: len(core.list_namespaced_pod(namespace, _request_timeout=CALL_WITHIN_S).items) == 2,
        30,
    )
    core.delete_namespace(namespace, _request_timeout=CALL_WITHIN_S)

    def gone() -> bool:
        left = core.list_namespace(field_selector=f"metadata.name={namespace}", _request_timeout=CALL_WITHIN_S)
        return not left.items

    wait_for("the namespace's end", gone, 60)


@pytest.mark.timeout(240)  # a second server is started
def test_it_ends_with_the_process_that_holds_it_however_that_ends(assets: Path, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(assets), str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        pids = [int(pid) for pid in holder.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
    finally:
        holder.kill()
        holder.communicate()
    wait_for("the servers' end", lambda: not any(map(alive, pids)), 10)


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver"])
def test_a_server_that_cannot_start_is_told_with_its_last_words(tmp_path: Path, name: str) -> None:
    """The other one is never reached, or waits for nothing."""
    for program in ("etcd", "kube-apiserver"):
        script = tmp_path / program
        script.write_text("#!/bin/sh\n" + ("echo no room left >&2; exit 3\n" if program == name else "exec sleep 60\n"))
        script.chmod(0o755)
    with pytest.raises(NotStarted, match=f"{name} ended with code 3: no room left"):
        ControlPlane(tmp_path, tmp_path).start()

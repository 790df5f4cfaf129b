"""What stands on the cluster: MLflow, the rollout of a tiny model, and what there is to see of both."""

import base64
import json
from typing import Any

from mlflow import MlflowClient

from controller.status import Progress, RolloutStatus
from tests.cluster.images import Image
from tests.embedded.machine import wait_for
from tests.embedded.registered import register, wait_for_answer
from tests.kubernetes.control_plane import ControlPlane

HOME, SHOP, TRACKING = "understudy", "shop", "mlflow"
# Pods have no DNS: an address that the Service is given does, and nothing of ours asks for another name.
MLFLOW_ADDRESS, MLFLOW_PORT = "10.0.0.50", 5000
MLFLOW = f"http://{MLFLOW_ADDRESS}:{MLFLOW_PORT}"
USER, TMP = 65532, "/tmp"
Tree = dict[str, Any]

_OF_THE_POD = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_OF_THE_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def namespace(plane: ControlPlane, name: str) -> None:
    """One that takes only pods of the strictest standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    plane.kubectl("create", "-f", "-", given=body)


def pod(container: Tree) -> Tree:
    """A pod with ``container``, which may write to /tmp and nowhere else."""
    writes = {"volumeMounts": [{"name": "tmp", "mountPath": TMP}], "securityContext": _OF_THE_CONTAINER}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _OF_THE_POD,
        "containers": [container | writes],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }


def deploy_mlflow(plane: ControlPlane, image: Image) -> None:
    """A tracking server in a pod, behind a Service; its store ends with the pod."""
    namespace(plane, TRACKING)
    command = ["mlflow", "server", "--host=0.0.0.0", f"--port={MLFLOW_PORT}", "--workers=1"]
    stores = [f"--backend-store-uri=sqlite:///{TMP}/mlflow.db", f"--artifacts-destination={TMP}/artifacts"]
    container = {
        "name": "mlflow",
        "image": image.reference,
        "command": [*command, *stores],
        "env": [{"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"}, {"name": "HOME", "value": TMP}],
        "ports": [{"containerPort": MLFLOW_PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": MLFLOW_PORT}, "periodSeconds": 1},
    }
    labels = {"app": "mlflow"}
    meta = {"namespace": TRACKING, "name": "mlflow"}
    template = {"metadata": {"labels": labels}, "spec": pod(container)}
    deployment = {"selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "clusterIP": MLFLOW_ADDRESS, "ports": [{"port": MLFLOW_PORT}]}
    for api, kind, spec in (("apps/v1", "Deployment", deployment), ("v1", "Service", service)):
        body = {"apiVersion": api, "kind": kind, "metadata": meta, "spec": spec}
        plane.kubectl("create", "-f", "-", given=body)
    wait_for_answer(f"{MLFLOW}/health", 120)


def on_trial(mlflow: MlflowClient, name: str, champion: Tree, challenger: Tree) -> None:
    """Register two versions, as ``tiny_model`` is told to be, and give them the aliases of a trial."""
    for alias, configuration in (("champion", champion), ("challenger", challenger)):
        mlflow.set_registered_model_alias(name, alias, register(MLFLOW, name, **configuration))


def rollout(name: str, serve: Image, *, steps: list[Tree]) -> Tree:
    """Of the registered model of the same name, whose servers we run."""
    container = {
        "name": "model",
        "image": serve.reference,
        "args": ["serve", "$(MODEL_URI)", "--host", "0.0.0.0"],
        "env": [{"name": "MLFLOW_TRACKING_URI", "value": MLFLOW}],
        "ports": [{"containerPort": 8080}],
    }
    spec = {
        "model": {"name": name},
        "unit": {"header": "x-unit"},
        "servers": {"template": {"spec": pod(container)}, "replicas": 1},
        # The machine has few processors and much to do: a slow answer is not what is tested.
        "traffic": {"router": {"timeout": "30s"}},
        "steps": steps,
        "metrics": [{"name": "errors", "kind": "ErrorRate", "margin": "20pp", "baseline": {"mean": 0.001}}],
        "decision": {"minUnits": 5, "tick": "1s", "block": "1s", "grace": "0s"},
    }
    meta = {"namespace": SHOP, "name": name}
    return {"apiVersion": "understudy.dev/v1alpha1", "kind": "ModelRollout", "metadata": meta, "spec": spec}


def read(plane: ControlPlane, kind: str, name: str) -> Tree:
    """An object of the shop."""
    found: Tree = json.loads(plane.kubectl("-n", SHOP, "get", kind, name, "-o", "json"))
    return found


def status(plane: ControlPlane, name: str) -> RolloutStatus | None:
    """As it is stored now; None before the first tick."""
    held = read(plane, "modelrollout", name)["status"]
    return RolloutStatus.model_validate(held) if held["uid"] else None


def routers(plane: ControlPlane, name: str) -> dict[str, str]:
    """The control APIs of the rollout's routers by the names of their pods."""
    labels = f"app.kubernetes.io/name=understudy-router,app.kubernetes.io/instance={name}"
    found = json.loads(plane.kubectl("-n", SHOP, "get", "pods", "-l", labels, "-o", "json"))["items"]
    return {each["metadata"]["name"]: f"http://{each['status']['podIP']}:8081" for each in found}


def token(plane: ControlPlane, name: str) -> str:
    """That of its routers."""
    return base64.b64decode(read(plane, "secret", f"{name}-router")["data"]["token"]).decode()


def objects(plane: ControlPlane) -> set[str]:
    """All that is on the cluster, but for Events, as Kind/namespace/name."""
    kinds = plane.kubectl("api-resources", "--verbs=list,delete", "-o", "name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith("events"))
    line = r'{range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{"\n"}{end}'
    return set(plane.kubectl("get", wanted, "--all-namespaces", "-o", f"jsonpath={line}").split())


def replicas(plane: ControlPlane, deployment: str, wanted: int) -> bool:
    """Whether that many are wanted, and as many ready."""
    found = read(plane, "deployment", deployment)
    return (found["spec"]["replicas"], found["status"].get("readyReplicas", 0)) == (wanted, wanted)


def until_gone(plane: ControlPlane, before: set[str], left: set[str], within: float) -> None:
    """Wait until nothing is there but what was ``before``, and ``left``."""
    found: set[str] = set()

    def look() -> bool:
        nonlocal found
        found = objects(plane) - before - left
        return not found

    try:
        wait_for("nothing is left", look, within)
    except AssertionError as error:
        raise AssertionError(f"{error}: {sorted(found)}") from error


class Rollout:
    """The rollout ``name`` of the model of that name; it is deleted by ``delete``."""

    def __init__(self, plane: ControlPlane, name: str, serve: Image, steps: list[Tree]) -> None:
        self.plane, self.name = plane, name
        plane.kubectl("apply", "-f", "-", given=rollout(name, serve, steps=steps))

    @property
    def url(self) -> str:
        """Of the Service that clients know, by its address."""
        return f"http://{read(self.plane, 'service', self.name)['spec']['clusterIP']}"

    def until(self, progress: Progress, within: float) -> RolloutStatus:
        def look() -> RolloutStatus | None:
            found = status(self.plane, self.name)
            return found if found is not None and found.progress is progress else None

        try:
            return wait_for(f"{self.name} is {progress}", look, within)
        except AssertionError as error:
            found = status(self.plane, self.name)
            why = found and (found.progress, found.step, found.reason, found.message, found.observed)
            raise AssertionError(f"{error}: {why}") from error

    def served(self) -> None:
        """Wait until the Service answers: a proxy may know of it a moment later than everybody else."""
        wait_for(
            "the first table",
            lambda: (s := status(self.plane, self.name)) and s.table and s.observed.confirmed >= 0,
            180,
        )
        wait_for_answer(f"{self.url}/ping", 60)

    def rolled(self, stateful_set: str) -> bool:
        """Whether all its pods are of its newest template, and ready."""
        found = read(self.plane, "statefulset", stateful_set)
        wanted, said = found["spec"]["replicas"], found["status"]
        numbers = (said.get("updatedReplicas"), said.get("readyReplicas"), said.get("observedGeneration"))
        return numbers == (wanted, wanted, found["metadata"]["generation"])

    def delete(self) -> None:
        self.plane.kubectl("-n", SHOP, "delete", "modelrollout", self.name, "--timeout=50s")

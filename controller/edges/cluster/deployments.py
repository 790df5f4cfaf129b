"""The Deployment of one version of a model, as the rollout's pod template describes it.

Everything but ``spec.replicas`` is applied and ours. The number of pods is written when the Deployment is made, woken
or sent to sleep, and once when traffic is about to move there; in between it is whoever's who scales it.
"""

import copy
import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple, TypeGuard

from controller.edges.cluster.access import Node
from controller.spec import Probe

ROLLOUT, VERSION = "understudy.dev/rollout", "understudy.dev/version"  # labels of Deployments and pods
SIZED = "understudy.dev/sized"  # annotations: for what we last wrote the number of pods; none while it sleeps
UNWANTED = "understudy.dev/unwanted-since"
MODEL = "understudy.dev/model"
TEMPLATE_HASH = "pod-template-hash"  # Kubernetes' own label, of a ReplicaSet and its pods
DEFAULT_PORT, LARGEST_PORT = 8080, 65_535


def faults(template: Any) -> list[str]:
    """What is wrong with a pod template, as far as we have to know it; the API server knows the rest."""
    where = "spec.servers.template"
    spec = _dict(_dict(template).get("spec"))
    if not _mappings(spec.get("containers")) or not spec["containers"]:
        return [f"{where}.spec.containers: a list of containers is needed, the first of which serves the model"]
    said = []
    for field in ("containers", "initContainers"):
        containers = spec.get(field) or []
        if not _mappings(containers):
            said.append(f"{where}.spec.{field}: a list of containers is needed")
            continue
        for i, container in enumerate(containers):
            env = container.get("env", [])
            if not _mappings(env):
                said.append(f"{where}.spec.{field}[{i}].env: a list of name and value is needed")
            elif any(e.get("name") == "MODEL_URI" for e in env):
                said.append(f"{where}.spec.{field}[{i}].env: MODEL_URI is given by the controller; leave it out")
    ports = spec["containers"][0].get("ports", [])
    if not _mappings(ports) or not all(_is_port(p.get("containerPort")) for p in ports):
        said.append(
            f"{where}.spec.containers[0].ports: a list with containerPort, from 1 to {LARGEST_PORT}, is needed,"
            f" or none for {DEFAULT_PORT}"
        )
    meta = _dict(template).get("metadata", {})
    if not isinstance(meta, dict) or not isinstance(meta.get("labels", {}), dict):
        said.append(f"{where}.metadata.labels: a mapping is needed")
    return said


def port_of(template: Any) -> int:
    """Where the model is served: the first port of the first container. The default where that is no port: an attempt
    may have to end by a template that is refused."""
    containers = _dict(_dict(template).get("spec")).get("containers")
    ports = containers[0].get("ports") if _mappings(containers) and containers else None
    port = ports[0].get("containerPort") if _mappings(ports) and ports else None
    return port if _is_port(port) else DEFAULT_PORT


def port_of_pod(pod: Node) -> int:
    """Where a pod of ours serves, which may be of an earlier template than the declared one. Containers that others put
    into it, before our first one or after, do not have MODEL_URI."""
    containers = pod["spec"]["containers"]
    ours = [each for each in containers if any(e["name"] == "MODEL_URI" for e in each.get("env") or ())]
    return port_of({"spec": {"containers": ours or containers}})


def labels(rollout: str, mark: str) -> dict[str, str]:
    """By which the pods of one Deployment are found."""
    return {ROLLOUT: rollout, VERSION: mark}


class Version(NamedTuple):
    """A version of a registered model: that of another one may have the same number."""

    model: str
    number: str


def mark_of(found: Node) -> str:
    """What tells a Deployment and its pods from others of the rollout."""
    return str((found["metadata"].get("labels") or {}).get(VERSION, ""))


def version_of(found: Node) -> Version:
    """What a Deployment serves. Earlier releases did not write the model down."""
    model = annotation(found, MODEL)
    if model is None:
        containers = found["spec"]["template"]["spec"]["containers"]
        uris = (e.get("value") or "" for c in containers for e in c.get("env") or () if e["name"] == "MODEL_URI")
        model = next(uris, "").removeprefix("models:/").rpartition("/")[0]
    return Version(model, mark_of(found).partition("-")[0])


def new_mark(version: Version, there: Iterable[str]) -> str:
    """For a Deployment that is to be made beside those with the marks ``there``: the number, unless that of another
    model has it, which may be serving."""
    if version.number not in there:
        return version.number
    return f"{version.number}-{hashlib.blake2b(version.model.encode(), digest_size=4).hexdigest()}"


def body(rollout: str, version: Version, mark: str, template: Node, probe: Probe) -> Node:
    """What is applied for ``version``: the template with MODEL_URI, and a readiness probe where it has none.

    No pod goes before another is ready.
    """
    own, uri = labels(rollout, mark), f"models:/{version.model}/{version.number}"
    made = copy.deepcopy(template)
    meta = made.setdefault("metadata", {})
    meta["labels"] = {**(meta.get("labels") or {}), **own}
    containers = made["spec"]["containers"]
    for container in (*containers, *(made["spec"].get("initContainers") or ())):
        container["env"] = [{"name": "MODEL_URI", "value": uri}, *(container.get("env") or ())]
    if probe.body is None:  # a kubelet cannot post; then the controller and the routers alone ask
        asked = {"path": probe.path, "port": port_of(template)}
        containers[0].setdefault("readinessProbe", {"httpGet": asked, "periodSeconds": 5, "timeoutSeconds": 5})
    spec = {
        "selector": {"matchLabels": own},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
        "template": made,
    }
    meta = {"name": f"{rollout}-v{mark}", "labels": own, "annotations": {MODEL: version.model}}
    return {"metadata": meta, "spec": spec}


def annotation(found: Node, name: str) -> str | None:
    value = (found["metadata"].get("annotations") or {}).get(name)
    return None if value is None else str(value)


def unwanted_since(found: Node) -> float | None:
    """Since when nobody wants its pods (seconds since 1970); None where it does not say so, or what is no time: others
    write there as they like."""
    said = annotation(found, UNWANTED)
    try:
        return None if said is None else datetime.fromisoformat(said).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def owns(found: Node, pod: Node) -> bool:
    """Whether ``pod`` is one of the Deployment: a ReplicaSet controls it that has the name which Kubernetes gives those
    of this Deployment. Whatever else wears our labels serves nobody: a copy for debugging, or somebody's own."""
    meta = pod["metadata"]
    name = f"{found['metadata']['name']}-{(meta.get('labels') or {}).get(TEMPLATE_HASH)}"
    return any(
        (each["kind"], each["name"], each.get("controller")) == ("ReplicaSet", name, True)
        for each in meta.get("ownerReferences") or ()
    )


def size(found: Node) -> int:
    """Pods it is to have."""
    return int(found["spec"].get("replicas", 1))


def settled(found: Node) -> bool:
    """Whether all of its pods are of the template that it has now."""
    status = found.get("status") or {}
    seen = status.get("observedGeneration") == found["metadata"].get("generation")
    return bool(seen and status.get("updatedReplicas", 0) == status.get("replicas", 0))


def refusal(found: Node) -> str:
    """Why it can make no pods: a quota, or a policy of the namespace; empty: it can."""
    conditions = (found.get("status") or {}).get("conditions") or []
    return next(
        (c.get("message", "") for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), ""
    )


def _dict(value: Any) -> Node:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> TypeGuard[list[Node]]:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _is_port(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_PORT

"""The Deployment of one version, as the rollout's pod template describes it.

Everything but ``spec.replicas`` is applied and ours. The number of pods is written when the Deployment is made, woken
or sent to sleep, and once when traffic is about to move there; in between it is whoever's who scales it.
"""

import copy
import hashlib
import json
from typing import Any

from controller.edges.cluster.access import Node
from controller.spec import Probe

ROLLOUT, VERSION = "understudy.dev/rollout", "understudy.dev/version"  # labels of Deployments and pods
DIGEST = "understudy.dev/applied"  # annotations: of what we applied
SIZED = "understudy.dev/sized"  # … for what we last wrote the number of pods; none while it sleeps
UNWANTED = "understudy.dev/unwanted-since"
DEFAULT_PORT = 8080


def faults(template: Any) -> list[str]:
    """What is wrong with a pod template, as far as we have to know it; the API server knows the rest."""
    where = "spec.servers.template"
    containers = _dict(_dict(template).get("spec")).get("containers")
    if not isinstance(containers, list) or not containers or not all(isinstance(c, dict) for c in containers):
        return [f"{where}.spec.containers: a list of containers is needed, the first of which serves the model"]
    said = []
    for field in ("containers", "initContainers"):
        for i, container in enumerate(_dict(template["spec"]).get(field) or []):
            env = _dict(container).get("env", [])
            if not isinstance(env, list) or not all(isinstance(e, dict) for e in env):
                said.append(f"{where}.spec.{field}[{i}].env: a list of name and value is needed")
            elif any(e.get("name") == "MODEL_URI" for e in env):
                said.append(f"{where}.spec.{field}[{i}].env: MODEL_URI is given by the controller; leave it out")
    ports = containers[0].get("ports", [])
    if not isinstance(ports, list) or not all(isinstance(_dict(p).get("containerPort"), int) for p in ports):
        said.append(f"{where}.spec.containers[0].ports: a list with containerPort is needed, or none for 8080")
    meta = _dict(template).get("metadata", {})
    if not isinstance(meta, dict) or not isinstance(meta.get("labels", {}), dict):
        said.append(f"{where}.metadata.labels: a mapping is needed")
    return said


def port_of(template: Node) -> int:
    """Where the model is served: the first port of the first container."""
    ports = template["spec"]["containers"][0].get("ports") or [{"containerPort": DEFAULT_PORT}]
    return int(ports[0]["containerPort"])


def labels(rollout: str, version: str) -> dict[str, str]:
    """By which the pods of one version are found."""
    return {ROLLOUT: rollout, VERSION: version}


def body(rollout: str, version: str, uri: str, template: Node, probe: Probe) -> Node:
    """What is applied for ``version``: the template with MODEL_URI, and a readiness probe where it has none.

    No pod goes before another is ready.
    """
    own = labels(rollout, version)
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
    meta = {"name": f"{rollout}-v{version}", "labels": own, "annotations": {DIGEST: _digest(spec)}}
    return {"metadata": meta, "spec": spec}


def applied(found: Node, wanted: Node) -> bool:
    """Whether ``found`` is what we last applied."""
    return annotation(found, DIGEST) == annotation(wanted, DIGEST)


def annotation(found: Node, name: str) -> str | None:
    value = (found["metadata"].get("annotations") or {}).get(name)
    return None if value is None else str(value)


def version_of(found: Node) -> str:
    return str((found["metadata"].get("labels") or {}).get(VERSION, ""))


def size(found: Node) -> int:
    """Pods it is to have."""
    return int(found["spec"].get("replicas", 1))


def refusal(found: Node) -> str:
    """Why it can make no pods: a quota, or a policy of the namespace; empty: it can."""
    conditions = (found.get("status") or {}).get("conditions") or []
    return next(
        (c.get("message", "") for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), ""
    )


def _digest(spec: Node) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def _dict(value: Any) -> Node:
    return value if isinstance(value, dict) else {}

"""The routers of a rollout as Kubernetes objects: a StatefulSet with a volume for each replica's journals, the Service
that clients know, a headless one, and a budget for disruptions. Plain bodies for server-side apply.
"""

from typing import NamedTuple

from controller.edges.cluster.access import Node
from controller.edges.cluster.resources import selector

TRAFFIC_PORT, CONTROL_PORT, SERVICE_PORT = 8080, 8081, 80
CONTAINER, CONTROL, TOKEN = "router", "control", "token"
NAME_LABEL, ROLLOUT_LABEL, ROUTER = "app.kubernetes.io/name", "app.kubernetes.io/instance", "understudy-router"
VOLUME, FOLDER = "journal", "/var/lib/understudy"
USER = 65532  # of no meaning but that it is not root
DRAIN_S = 15
LEAVE_S = 5  # how long endpoints go on naming a pod that is ending
NAME_LENGTH = 45  # StatefulSets label pods with their own name and a hash, in 63 characters


class RouterSet(NamedTuple):
    """The routers of the rollout ``rollout``. ``replicas`` is how many there are at first, ``volume`` the size of
    each one's volume; whoever scales the set later is left alone."""

    rollout: str
    image: str
    replicas: int
    volume: str

    @property
    def name(self) -> str:
        """Of all objects but the Service that clients know: that is called as the rollout."""
        return f"{self.rollout}-router"

    @property
    def labels(self) -> dict[str, str]:
        """What the pods are found by."""
        return {NAME_LABEL: ROUTER, ROLLOUT_LABEL: self.rollout}

    @property
    def selector(self) -> str:
        return selector(self.labels)

    def secret(self, token: str) -> Node:
        """The token of the control API."""
        return {"metadata": self._meta(self.name), "stringData": {TOKEN: token}}

    def service(self) -> Node:
        """Where clients send their requests, and applications their outcomes."""
        ports = [
            {"name": "http", "port": SERVICE_PORT, "targetPort": "traffic"},
            {"name": CONTROL, "port": CONTROL_PORT, "targetPort": CONTROL},
        ]
        return {"metadata": self._meta(self.rollout), "spec": {"selector": self.labels, "ports": ports}}

    def headless(self) -> Node:
        """Names of the single replicas, also of those that are not ready."""
        ports = [
            {"name": "http", "port": TRAFFIC_PORT, "targetPort": "traffic"},
            {"name": CONTROL, "port": CONTROL_PORT, "targetPort": CONTROL},
        ]
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": self.labels, "ports": ports}
        return {"metadata": self._meta(self.name), "spec": spec}

    def budget(self) -> Node:
        """One at a time may be taken away on purpose."""
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": self.labels}}
        return {"metadata": self._meta(self.name), "spec": spec}

    def stateful_set(self, found: Node | None) -> Node:
        """The routers. Of one that was ``found``, the number of replicas and the claims stay what they are; somebody
        who scales it at the same moment is the first."""
        claim = {
            "metadata": {"name": VOLUME},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": self.volume}}},
        }
        kept = {"replicas": self.replicas, "volumeClaimTemplates": [claim]}
        meta = self._meta(self.name)
        if found is not None:
            kept = {name: found["spec"][name] for name in kept}
            meta["resourceVersion"] = found["metadata"]["resourceVersion"]
        spec = {
            **kept,
            "serviceName": self.name,
            "podManagementPolicy": "Parallel",
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
            "selector": {"matchLabels": self.labels},
            "template": {"metadata": {"labels": self.labels}, "spec": self._pod()},
        }
        return {"metadata": meta, "spec": spec}

    def _meta(self, name: str) -> Node:
        return {"name": name, "labels": {**self.labels, "app.kubernetes.io/managed-by": "understudy"}}

    def _pod(self) -> Node:
        spread = {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": self.labels},
        }
        return {
            "containers": [self._container()],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": LEAVE_S + DRAIN_S + 5,
            "topologySpreadConstraints": [spread],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        }

    def _container(self) -> Node:
        flags = {
            "name": "$(POD_NAME)",  # journals are called after it
            "host": "$(POD_IP)",
            "port": TRAFFIC_PORT,
            "control-host": "$(POD_IP)",
            "control-port": CONTROL_PORT,
            "journal-dir": f"{FOLDER}/journal",
            "table-file": f"{FOLDER}/table.json",
            "drain-s": DRAIN_S,
        }
        return {
            "name": CONTAINER,
            "image": self.image,
            "command": ["python", "-m", "router"],
            "args": [f"--{name}={value}" for name, value in flags.items()],
            "env": [
                _of_pod("POD_NAME", "metadata.name"),
                _of_pod("POD_IP", "status.podIP"),
                {
                    "name": "UNDERSTUDY_ROUTER_TOKEN",
                    "valueFrom": {"secretKeyRef": {"name": self.name, "key": TOKEN}},
                },
            ],
            "ports": [
                {"name": "traffic", "containerPort": TRAFFIC_PORT},
                {"name": CONTROL, "containerPort": CONTROL_PORT},
            ],
            "startupProbe": _probe("/healthz", 1, 60),
            "readinessProbe": _probe("/readyz", 2, 2),
            "livenessProbe": _probe("/healthz", 10, 3),
            # While endpoints still name it, it goes on serving.
            "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}},
            "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}},
            "volumeMounts": [{"name": VOLUME, "mountPath": FOLDER}, {"name": "tmp", "mountPath": "/tmp"}],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }


def _of_pod(name: str, field: str) -> Node:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}


def _probe(path: str, every_s: int, failures: int) -> Node:
    asked = {"path": path, "port": CONTROL}
    return {"httpGet": asked, "periodSeconds": every_s, "failureThreshold": failures, "timeoutSeconds": 2}

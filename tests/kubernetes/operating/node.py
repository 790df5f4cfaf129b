"""A node for routers: what a kubelet does with their pods, with processes on loopback in the place of containers.

Command, arguments, variables, the secret's key, ports and the readiness probe are what the pod declares. A volume is a
folder that outlives the pod of its name; each pod has an address of its own in 127.0.0.0/8.
"""

import base64
import contextlib
import itertools
import os
import random
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import httpx

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.deployments import VERSION
from controller.edges.cluster.resources import PODS, SECRETS
from controller.edges.cluster.router_set import FOLDER
from controller.errors import EdgeError, NotFound
from tests.kubernetes.leashed import Leashed

ROOT = Path(__file__).resolve().parents[3]
EVERY_S = 0.1


class Container:
    """The process of one pod, and where it listens."""

    def __init__(self, pod: Node, address: str, process: Leashed) -> None:
        self.uid, self.address, self.process = pod["metadata"]["uid"], address, process
        declared = pod["spec"]["containers"][0]
        self.name = declared["name"]
        ports = {port["name"]: port["containerPort"] for port in declared["ports"]}
        self.traffic, self.control = (f"http://{address}:{ports[name]}" for name in ("traffic", "control"))
        probe = declared["readinessProbe"]["httpGet"]
        self._probe = f"http://{address}:{ports[probe['port']]}{probe['path']}"

    @property
    def runs(self) -> bool:
        return self.process.exit_code is None

    def ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.runs and httpx.get(self._probe, timeout=2.0, trust_env=False).status_code == 200
        return False


class KubeNode:
    """Runs the pods of ``namespace`` until it is closed; ``down``: pods whose container is not started again."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path) -> None:
        self._access = Access(kubeconfig, manager="kubelet")
        self._namespace, self._folder = namespace, folder
        self._addresses = itertools.count(random.randrange(1 << 20, 1 << 23, 256), 256)  # to meet nobody else
        self.containers: dict[str, Container] = {}
        self.down: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node", daemon=True)
        self._thread.start()

    def volume(self, pod: str) -> Path:
        return self._folder / pod

    def kill(self, pod: str) -> None:
        """As when memory runs out."""
        os.kill(self.containers[pod].process.pid, signal.SIGKILL)

    def ready(self) -> list[str]:
        """Names of the pods that the API server calls ready."""
        found = self._access.list(PODS, self._namespace).items
        return sorted(
            pod["metadata"]["name"]
            for pod in found
            for said in pod["status"].get("conditions", [])
            if (said["type"], said["status"]) == ("Ready", "True")
        )

    def close(self) -> None:
        self._end.set()
        self._thread.join(30)
        for container in self.containers.values():
            container.process.stop()
        self._access.close()

    def _run(self) -> None:
        while not self._end.wait(EVERY_S):
            with contextlib.suppress(EdgeError):
                pods = {
                    pod["metadata"]["name"]: pod
                    for pod in self._access.list(PODS, self._namespace, f"!{VERSION}").items
                }
                for name in self.containers.keys() - pods.keys():
                    self.containers.pop(name).process.stop()
                for name, pod in pods.items():
                    self._serve(name, pod)

    def _serve(self, name: str, pod: Node) -> None:
        """One round for one pod."""
        held = self.containers.get(name)
        if held is not None and held.uid != pod["metadata"]["uid"]:
            self.containers.pop(name).process.stop()
            held = None
        if held is None or (not held.runs and name not in self.down):
            address = held.address if held else ".".join(map(str, (127, *next(self._addresses).to_bytes(3))))
            held = self.containers[name] = Container(pod, address, self._started(pod, address))
        state = {"running": {}} if held.runs else {"waiting": {"reason": "CrashLoopBackOff"}}
        ready = held.ready()
        status = {
            "phase": "Running",
            "podIP": held.address,
            "podIPs": [{"ip": held.address}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [
                {"name": held.name, "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": state}
            ],
        }
        known = [pod["status"].get(key) for key in ("podIPs", "phase")]
        if known != [status["podIPs"], status["phase"]] or _said(pod) != (ready, held.runs):
            body = {"metadata": {"namespace": self._namespace, "name": name}, "status": status}
            with contextlib.suppress(NotFound):
                self._access.patch(PODS, body, "status")

    def _started(self, pod: Node, address: str) -> Leashed:
        declared, name = pod["spec"]["containers"][0], pod["metadata"]["name"]
        known = {"metadata.name": name, "status.podIP": address}
        variables = {}
        for each in declared["env"]:
            source = each["valueFrom"]
            if "fieldRef" in source:
                variables[each["name"]] = known[source["fieldRef"]["fieldPath"]]
            else:
                key = source["secretKeyRef"]
                secret = self._access.get(SECRETS, self._namespace, key["name"])
                variables[each["name"]] = base64.b64decode(secret["data"][key["key"]]).decode()
        self.volume(name).mkdir(parents=True, exist_ok=True)
        arguments = [_expanded(argument, variables, self.volume(name)) for argument in declared["args"]]
        assert declared["command"][0] == "python"
        command = [sys.executable, *declared["command"][1:], *arguments]
        return Leashed(command, self._folder / f"{name}.log", os.environ | variables, ROOT)


def _expanded(argument: str, variables: Mapping[str, str], volume: Path) -> str:
    for variable, value in variables.items():
        argument = argument.replace(f"$({variable})", value)
    return argument.replace(FOLDER, str(volume))


def _said(pod: Node) -> tuple[bool, bool]:
    """Ready and running, as the API server has it."""
    status = pod["status"]
    ready = any((c["type"], c["status"]) == ("Ready", "True") for c in status.get("conditions", []))
    return ready, any("running" in each.get("state", {}) for each in status.get("containerStatuses", []))

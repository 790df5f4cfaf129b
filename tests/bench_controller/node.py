"""What no controller manager and no kubelet does here: the pods of StatefulSets and Deployments, and their status.

A pod is a copy of its template with the address under which the benchmark's process answers for it; it is ready at
once, and nothing runs in it.
"""

import contextlib
import copy
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from controller.edges.cluster import deployments
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.deployments import TEMPLATE_HASH, VERSION
from controller.edges.cluster.resources import DEPLOYMENTS, PODS, STATEFULSETS, Resource
from controller.edges.cluster.router_set import CONTAINER, CONTROL, RouterSet
from controller.errors import Conflict, EdgeError
from tests.bench_controller.places import Rollout

log = logging.getLogger("bench.node")
AT_ONCE = 8
REPLICASETS = Resource("apps/v1", "replicasets", "ReplicaSet")
HASH = "0"  # of the template that a Deployment has, which does not change here
EVERY_S, LATER_S = 2.0, 15.0  # between two looks: while something is missing, and when all is there


class Pods:
    """Makes pods of the benchmark's routers and model servers, all of which listen on ``port``."""

    def __init__(self, access: Access, port: int) -> None:
        self._access, self._port = access, port

    def router(self, rollout: Rollout, ordinal: int) -> None:
        """The pod of one router, as its StatefulSet would have it."""
        known = RouterSet(rollout.name, "router:none", 1, "1Gi")
        template = known.stateful_set(None)["spec"]["template"]
        for container in template["spec"]["containers"]:
            for port in container["ports"]:
                if port["name"] == CONTROL:
                    port["containerPort"] = self._port
        self._made(rollout, rollout.pod(ordinal), template, rollout.router(ordinal), known.name, STATEFULSETS)

    def server(self, rollout: Rollout, found: Node) -> None:
        """The pod of a Deployment that was found."""
        version = found["metadata"]["labels"][VERSION]
        name = f"{found['metadata']['name']}-0"
        owner, template = f"{found['metadata']['name']}-{HASH}", copy.deepcopy(found["spec"]["template"])
        template["metadata"]["labels"][TEMPLATE_HASH] = HASH
        self._made(rollout, name, template, rollout.server(version), owner, REPLICASETS)
        count = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
        where = {"namespace": rollout.namespace, "name": found["metadata"]["name"]}
        status = {"observedGeneration": found["metadata"]["generation"], **count}
        self._access.patch(DEPLOYMENTS, {"metadata": where, "status": status}, "status")

    def _made(self, rollout: Rollout, name: str, template: Node, address: str, owner: str, kind: Resource) -> None:
        # The garbage collector does not run: whose the pod is, is read by the controller alone.
        reference = {"apiVersion": kind.api, "kind": kind.kind, "name": owner, "uid": "0", "controller": True}
        meta = {"namespace": rollout.namespace, "name": name, "labels": template["metadata"]["labels"]}
        spec = {k: v for k, v in template["spec"].items() if k != "topologySpreadConstraints"}
        if kind is STATEFULSETS:
            spec["volumes"] = [*spec["volumes"], {"name": "journal", "emptyDir": {}}]
        with contextlib.suppress(Conflict):
            self._access.create(PODS, {"metadata": {**meta, "ownerReferences": [reference]}, "spec": spec})
        said = CONTAINER if kind is STATEFULSETS else spec["containers"][0]["name"]
        state = {"name": said, "image": "", "imageID": "", "ready": True, "restartCount": 0, "state": {"running": {}}}
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [state],
        }
        where = {"namespace": rollout.namespace, "name": name}
        self._access.patch(PODS, {"metadata": where, "status": status}, "status")


class Machine:
    """Runs what the controller declares for ``rollouts``, ``routers`` of each, and follows what it changes."""

    def __init__(self, access: Access, pods: Pods, rollouts: list[Rollout], routers: int) -> None:
        self._access, self._pods, self._routers = access, pods, routers
        self._by_place = {(each.namespace, each.name): each for each in rollouts}
        self._waiting = {(*place, what) for place in self._by_place for what in ("routers", "1", "2")}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many StatefulSets and Deployments have not been declared yet."""
        return len(self._waiting)

    def close(self) -> None:
        self._end.set()
        self._thread.join(60)

    def _run(self) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while not self._end.wait(EVERY_S if self._waiting else LATER_S):
                try:
                    done = list(pool.map(self._serve, [*self._sets(), *self._deployments()]))
                except EdgeError as error:
                    log.warning("%s", error)
                    continue
                self._waiting -= {each for each in done if each is not None}

    def _sets(self) -> list[tuple[Rollout, str, Node]]:
        found: list[tuple[Rollout, str, Node]] = []
        if not any(what == "routers" for _, _, what in self._waiting):
            return found
        for each in self._access.list(STATEFULSETS, None).items:
            place = each["metadata"]["namespace"], each["spec"]["serviceName"].removesuffix("-router")
            if (*place, "routers") in self._waiting:
                found.append((self._by_place[place], "routers", each))
        return found

    def _deployments(self) -> list[tuple[Rollout, str, Node]]:
        found = []
        for each in self._access.list(DEPLOYMENTS, None, VERSION).items:
            name, _, version = each["metadata"]["name"].rpartition("-v")
            place = each["metadata"]["namespace"], name
            if not deployments.settled(each):
                found.append((self._by_place[place], version, each))
        return found

    def _serve(self, job: tuple[Rollout, str, Node]) -> tuple[str, str, str] | None:
        rollout, what, found = job
        try:
            if what == "routers":
                for ordinal in range(self._routers):
                    self._pods.router(rollout, ordinal)
            else:
                self._pods.server(rollout, found)
        except EdgeError as error:
            log.warning("%s", error)
            return None
        return rollout.namespace, rollout.name, what

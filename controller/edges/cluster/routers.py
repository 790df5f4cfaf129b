"""The routers of one rollout, as pods: ours to make, and to hand the table to, each at its own address.

Who has to confirm a table is every replica whose process may serve somebody now. One whose pod is gone, or whose
container does not run, serves nobody; one that runs and does not answer may, so nothing is confirmed before it does.

Pods are listed at every tick, but where all is as it was: no pod changed since the last list (``changes``), and every
router serves the table that was confirmed by that list. So a table that is newly confirmed is by a list that was made
after the routers had said so: whatever that list lacks began later, and would be as unknown had there been no watch.
What comes while a table stays confirmed is told of when it is told to those who make the endpoints of the Service, by
which clients find it; where our watch is cut off, it is seen as late as ``changes`` says.
"""

import logging
import time
from typing import NamedTuple

from controller.edges.cluster import pods
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.changes import LIST_S, UNHEARD, Changes, Stamp
from controller.edges.cluster.owned import KEEP_S, Owned, Owner
from controller.edges.cluster.resources import BUDGETS, PODS, SECRETS, SERVICES, STATEFULSETS
from controller.edges.cluster.router_set import CONTAINER, CONTROL, RouterSet
from controller.edges.cluster.tokens import Tokens
from controller.edges.routes import RouterTraffic
from controller.errors import Conflict, EdgeError
from controller.ports import TrafficObservation
from router.table import RouteTable

log = logging.getLogger("understudy.routers")
KEEPS = 5  # how often, at most, what changes beneath us is read and written in one tick


class Replica(NamedTuple):
    """A router whose process may run. ``ready``: clients are sent to it."""

    name: str
    uid: str
    url: str
    ready: bool


class ClusterTraffic:
    """``TrafficProvider`` of the routers that the rollout ``owner`` has for itself."""

    def __init__(
        self,
        access: Access,
        owner: Owner,
        routers: RouterSet,
        tokens: Tokens,
        deadline_s: float = 2.0,
        changes: Changes = UNHEARD,
    ) -> None:
        """``deadline_s``: of a call to all routers; ``changes``: of the pods of routers."""
        self._access = access
        self._owner = owner
        self._owned = Owned(access, owner)
        self._set = routers
        self._tokens = tokens
        self._deadline_s = deadline_s
        self._keep_at = 0.0
        self._wanted = routers.replicas
        self._routes: tuple[tuple[str, ...], RouterTraffic] | None = None  # by token and addresses
        self._told: frozenset[str] = frozenset()
        self._changes, self._key = changes, f"{owner.namespace}/{owner.name}"
        self._stamp: Stamp | None = None  # of the last list
        self._listed_at = 0.0
        self._confirmed = -1  # of the tables, by the last list
        self.token = ""
        self.replicas: tuple[Replica, ...] = ()

    def apply(self, table: RouteTable) -> None:
        """Give ``table`` to every replica that was seen by the last ``observe``; one that comes later gets it at the
        next tick. EdgeError as ``RouterTraffic`` raises it."""
        routes = self._routed()
        if routes is None:
            raise EdgeError(f"no router of {self._owner.namespace}/{self._owner.name} runs yet")
        routes.apply(table)

    def observe(self) -> TrafficObservation:
        """Make the routers if they are not there, and ask each what it serves. EdgeError where the API server does
        not let us, or a router does not know us."""
        self._keep()
        stamp, seen, before = self._changes.stamp(self._key), None, self.replicas
        if self._stands(stamp):
            seen = self._asked()
            if seen.confirmed == self._confirmed:
                return seen
        self._confirmed = -1
        found = self._access.list(PODS, self._owner.namespace, self._set.selector).items
        self._stamp, self._listed_at = stamp, time.monotonic()
        ours = [pod for pod in found if self._ours(pod)]
        self.replicas = tuple(sorted(filter(None, map(_replica, ours))))
        self._tell()
        if seen is None or self.replicas != before:
            seen = self._asked()
        self._confirmed = seen.confirmed
        return seen if seen.complete else seen._replace(trouble=self._why(ours))

    def close(self) -> None:
        """Let go of connections. The routers go on."""
        if self._routes is not None:
            self._routes[1].close()
            self._routes = None

    def _stands(self, stamp: Stamp | None) -> bool:
        """Whether the pods are those of the last list, which confirmed a table."""
        lately = time.monotonic() - self._listed_at < LIST_S
        return self._confirmed >= 0 and stamp is not None and stamp == self._stamp and lately

    def _asked(self) -> TrafficObservation:
        """What each of the replicas serves."""
        routes = self._routed()
        return TrafficObservation((), complete=False) if routes is None else routes.observe()

    def _routed(self) -> RouterTraffic | None:
        """The control APIs of the replicas that are known now; None without one."""
        urls = tuple(replica.url for replica in self.replicas)
        if self._routes is not None and self._routes[0] != (self.token, *urls):
            self.close()
        if self._routes is None and urls:
            self._routes = (self.token, *urls), RouterTraffic(urls, self.token, deadline_s=self._deadline_s)
        return None if self._routes is None else self._routes[1]

    def _keep(self) -> None:
        """Our objects, as they should be; after a failure again at the next tick."""
        if time.monotonic() < self._keep_at:
            return
        self.token = self._tokens.of(self._owner)
        if len(self.replicas) < self._wanted:
            # It is not ours to read; without it no router starts.
            self._owned.once(SECRETS, self._set.secret(self.token))
        self._owned.keep(SERVICES, self._set.headless())
        self._owned.keep(SERVICES, self._set.service())
        self._owned.keep(BUDGETS, self._set.budget())
        self._wanted = self._keep_set()
        self._keep_at = time.monotonic() + KEEP_S

    def _keep_set(self) -> int:
        """As it is found, but for what is ours; how many routers there are to be. Somebody else who writes in between
        (its controller does whenever a pod changes) is the first: then it is read again."""
        for left in reversed(range(KEEPS)):
            held = self._owned.found(STATEFULSETS, self._set.name)
            try:
                kept = self._owned.keep_found(STATEFULSETS, self._set.stateful_set(held), held)
                return int(kept["spec"]["replicas"])
            except Conflict:
                if not left:
                    raise
        raise AssertionError

    def _ours(self, pod: Node) -> bool:
        """Whether it is of our set: whoever else wears its labels is not told the token."""
        owners = pod["metadata"].get("ownerReferences", [])
        return any((each["kind"], each["name"]) == (STATEFULSETS.kind, self._set.name) for each in owners)

    def _why(self, found: list[Node]) -> str:
        """Why not all routers answer, as far as the pods that were ``found`` tell."""
        if len(found) < self._wanted:
            text = f"{len(found)} of {self._wanted} pods of StatefulSet {self._set.name} are there; its Events say why"
            return f"{text} (kubectl describe statefulset {self._set.name})"
        return pods.fault(found)

    def _tell(self) -> None:
        names = frozenset(f"{replica.name} at {replica.url}" for replica in self.replicas)
        if names != self._told:
            log.info("%s/%s: routers: %s", *self._owner[:2], ", ".join(sorted(names)) or "none")
            self._told = names


def _replica(pod: Node) -> Replica | None:
    """The router in ``pod``; None where its process cannot be running."""
    status = pod.get("status") or {}
    addresses = [each["ip"] for each in status.get("podIPs", [])]
    states = [each.get("state") or {} for each in status.get("containerStatuses", []) if each["name"] == CONTAINER]
    if not addresses or status.get("phase") in ("Succeeded", "Failed") or not all("running" in s for s in states):
        return None
    containers = [each for each in pod["spec"]["containers"] if each["name"] == CONTAINER]
    ports = [port["containerPort"] for each in containers for port in each.get("ports", []) if port["name"] == CONTROL]
    if not ports:
        return None
    meta = pod["metadata"]
    return Replica(meta["name"], meta["uid"], f"http://{pods.at(addresses[0], ports[0])}", pods.says_ready(pod))

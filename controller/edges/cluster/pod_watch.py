"""Word of every pod of a rollout that came, went, or became ready or not: its rollout is looked at then, not at its
next time.

A router that comes back serves the table of its disk, which may be older than what was decided since. A model server's
pod that goes leaves an address where nobody is, and another comes at another one. An ended rollout would not be looked
at for minutes.
"""

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from controller.edges.cluster import deployments
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import PODS, selector
from controller.edges.cluster.router_set import NAME_LABEL, ROLLOUT_LABEL, ROUTER
from controller.edges.cluster.watch import follow


class Kind(NamedTuple):
    """Pods that a ``selector`` finds, whose ``label`` names their rollout."""

    selector: str
    label: str


ROUTERS = Kind(selector({NAME_LABEL: ROUTER}), ROLLOUT_LABEL)
SERVERS = Kind(deployments.ROLLOUT, deployments.ROLLOUT)  # of our own Deployments; behind a Service: ``slice_watch``


class PodWatch:
    """Calls ``feed`` with the key of the rollout whose pod of ``kind`` changed, in one namespace or in all."""

    def __init__(self, access: Access, namespace: str | None, kind: Kind, feed: Callable[[str], None]) -> None:
        self._access = access
        self._namespace = namespace
        self._kind = kind
        self._feed = feed
        self._seen: dict[str, tuple[str, object]] = {}  # by uid: the rollout's key, and the state

    def run(self, end: threading.Event) -> None:
        """List, then watch, until ``end``."""
        follow(self._list, self._watched, self._changed, end)

    def _watched(self, since: str) -> Iterable[tuple[str, Node]]:
        return self._access.watch(PODS, self._namespace, since, self._kind.selector)

    def _list(self) -> str:
        living: set[str] = set()

        def take(pod: Node) -> None:
            living.add(pod["metadata"]["uid"])
            self._tell(pod)

        version = self._access.each(PODS, self._namespace, take, self._kind.selector)
        for uid in self._seen.keys() - living:
            self._went(uid)
        return version

    def _changed(self, kind: str, pod: Node) -> None:
        if kind == "DELETED":
            self._went(pod["metadata"]["uid"])
        else:
            self._tell(pod)

    def _tell(self, pod: Node) -> None:
        meta, status = pod["metadata"], pod.get("status") or {}
        ready = [c["status"] for c in status.get("conditions", []) if c["type"] == "Ready"]
        running = ["running" in (each.get("state") or {}) for each in status.get("containerStatuses", [])]
        key = f"{meta['namespace']}/{meta['labels'].get(self._kind.label, '')}"
        seen = key, (ready, running, status.get("podIPs"), "deletionTimestamp" in meta)
        if self._seen.get(meta["uid"]) != seen:
            self._seen[meta["uid"]] = seen
            self._feed(key)

    def _went(self, uid: str) -> None:
        key, _ = self._seen.pop(uid, ("", None))
        if key:
            self._feed(key)

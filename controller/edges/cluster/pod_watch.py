"""Word of every pod of a rollout that came, went, or became ready or not: its rollout is looked at then, not at its
next time.

A router that comes back serves the table of its disk, which may be older than what was decided since. A model server's
pod that goes leaves an address where nobody is, and another comes at another one. An ended rollout would not be looked
at for minutes.
"""

import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from controller.edges.cluster import deployments
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.changes import WATCH_S, Changes
from controller.edges.cluster.resources import PODS, selector
from controller.edges.cluster.router_set import NAME_LABEL, ROLLOUT_LABEL, ROUTER
from controller.edges.cluster.watch import follow

NEW_S = 600.0  # how young a pod is that may have taken the place of one that went while nobody watched


class Kind(NamedTuple):
    """Pods that a ``selector`` finds, whose ``label`` names their rollout."""

    selector: str
    label: str


ROUTERS = Kind(selector({NAME_LABEL: ROUTER}), ROLLOUT_LABEL)
SERVERS = Kind(deployments.ROLLOUT, deployments.ROLLOUT)  # of our own Deployments; behind a Service: ``slice_watch``


class PodWatch:
    """Calls ``feed`` with the key of the rollout whose pod of ``kind`` changed, in one namespace or in all, and whether
    that is new: what is there when the watch begins is only where it became what it is within ``NEW_S``. ``changes``:
    all that it hears of them."""

    def __init__(
        self,
        access: Access,
        namespace: str | None,
        kind: Kind,
        feed: Callable[[str, bool], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._access = access
        self._namespace = namespace
        self._kind = kind
        self._feed, self._clock = feed, clock
        self.changes = Changes()
        self._listed = False
        self._seen: dict[str, tuple[str, object]] = {}  # by uid: the rollout's key, and the state

    def run(self, end: threading.Event) -> None:
        """List, then watch, until ``end``."""
        follow(self._list, self._watched, self._changed, end)

    def _watched(self, since: str) -> Iterable[tuple[str, Node]]:
        return self.changes.through(self._access.watch(PODS, self._namespace, since, self._kind.selector, WATCH_S))

    def _list(self) -> str:
        living: set[str] = set()

        def take(pod: Node) -> None:
            living.add(pod["metadata"]["uid"])
            self._tell(pod)

        version = self._access.each(PODS, self._namespace, take, self._kind.selector)
        for uid in self._seen.keys() - living:
            self._went(uid)
        self._listed = True
        self.changes.listed()
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
        self.changes.tell(key)
        if self._seen.get(meta["uid"], seen)[0] != key:  # it was another rollout's by its label
            self._went(meta["uid"])
        if self._seen.get(meta["uid"]) != seen:
            self._seen[meta["uid"]] = seen
            self._feed(key, self._listed or self._clock() - _since(pod) < NEW_S)

    def _went(self, uid: str) -> None:
        key, _ = self._seen.pop(uid, ("", None))
        if key:
            self.changes.tell(key)
            self._feed(key, True)


def _since(pod: Node) -> float:
    """When it came, or became ready or not; seconds since 1970."""
    said = pod["metadata"], *(pod.get("status") or {}).get("conditions", [])
    times = [each.get("creationTimestamp") or each.get("lastTransitionTime") for each in said]
    return max(datetime.fromisoformat(each).timestamp() for each in times if each)

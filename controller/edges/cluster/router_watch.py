"""Word of every router's pod that came, went, or became ready: its rollout is looked at then, not at its next time.

A router that comes back serves the table of its disk, which may be older than what was decided since; an ended rollout
would not be looked at for minutes.
"""

import threading
from collections.abc import Callable

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import PODS, selector
from controller.edges.cluster.router_set import NAME_LABEL, ROLLOUT_LABEL, ROUTER
from controller.edges.cluster.watch import follow

SELECTOR = selector({NAME_LABEL: ROUTER})


class RouterWatch:
    """Calls ``feed`` with the key of the rollout whose router changed, in one namespace or in all."""

    def __init__(self, access: Access, namespace: str | None, feed: Callable[[str], None]) -> None:
        self._access = access
        self._namespace = namespace
        self._feed = feed
        self._seen: dict[str, object] = {}

    def run(self, end: threading.Event) -> None:
        """List, then watch, until ``end``."""
        follow(self._list, lambda since: self._access.watch(PODS, self._namespace, since, SELECTOR), self._changed, end)

    def _list(self) -> str:
        living: set[str] = set()

        def take(pod: Node) -> None:
            living.add(pod["metadata"]["uid"])
            self._tell(pod)

        version = self._access.each(PODS, self._namespace, take, SELECTOR)
        self._seen = {uid: state for uid, state in self._seen.items() if uid in living}
        return version

    def _changed(self, kind: str, pod: Node) -> None:
        if kind == "DELETED":
            self._seen.pop(pod["metadata"]["uid"], None)
        else:
            self._tell(pod)

    def _tell(self, pod: Node) -> None:
        meta, status = pod["metadata"], pod.get("status") or {}
        ready = [c["status"] for c in status.get("conditions", []) if c["type"] == "Ready"]
        running = ["running" in (each.get("state") or {}) for each in status.get("containerStatuses", [])]
        state = ready, running, status.get("podIPs")
        if self._seen.get(meta["uid"]) != state:
            self._seen[meta["uid"]] = state
            self._feed(f"{meta['namespace']}/{meta['labels'].get(ROLLOUT_LABEL, '')}")

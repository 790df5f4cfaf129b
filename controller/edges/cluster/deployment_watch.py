"""Word of every change to the Deployments that are ours. It wakes nobody: their pods do."""

import threading
from collections.abc import Iterable

from controller.edges.cluster import deployments
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.changes import WATCH_S, Changes
from controller.edges.cluster.resources import DEPLOYMENTS, ROLLOUTS
from controller.edges.cluster.watch import follow


class DeploymentWatch:
    """Those of one namespace, or all; nothing of them is kept but that they changed."""

    def __init__(self, access: Access, namespace: str | None) -> None:
        self._access, self._namespace = access, namespace
        self.changes = Changes()

    def run(self, end: threading.Event) -> None:
        """Watch until ``end``."""
        follow(self._begin, self._watched, self._changed, end)

    def _begin(self) -> str:
        version = self._access.version(DEPLOYMENTS, self._namespace, deployments.ROLLOUT)
        self.changes.listed()
        return version

    def _watched(self, since: str) -> Iterable[tuple[str, Node]]:
        events = self._access.watch(DEPLOYMENTS, self._namespace, since, deployments.ROLLOUT, WATCH_S)
        return self.changes.through(events)

    def _changed(self, _: str, found: Node) -> None:
        """Whose it is says its owner, too: a label may have been another one before."""
        meta = found["metadata"]
        owners = [each["name"] for each in meta.get("ownerReferences") or () if each["kind"] == ROLLOUTS.kind]
        for name in {(meta.get("labels") or {}).get(deployments.ROLLOUT, ""), *owners}:
            self.changes.tell(f"{meta['namespace']}/{name}")

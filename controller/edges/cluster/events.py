"""News as Events on the rollout, so that `kubectl describe` and `kubectl events` tell what happened.

One Event per transition, named after it: a repeat is the same object, so nothing is told twice.
"""

import hashlib
from datetime import UTC, datetime

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import EVENTS, ROLLOUTS
from controller.errors import Conflict
from controller.status import Notice

LONGEST = 1024  # characters of a note
CONTROLLER = "understudy.dev/controller"


class EventNotifier:
    """``Notifier`` of the rollout that ``regarding`` reads: its object."""

    def __init__(self, access: Access, namespace: str, name: str, uid: str, instance: str) -> None:
        """``instance``: the process that reports."""
        self._access = access
        self._regarding = {
            "apiVersion": ROLLOUTS.api,
            "kind": ROLLOUTS.kind,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        }
        self._instance = instance[:128]

    def send(self, notice: Notice) -> None:
        """As the port says."""
        self.tell(
            notice.key, notice.level != "info", notice.reason or "Transition", f"{notice.title}\n{notice.text}".strip()
        )

    def tell(self, key: str, warns: bool, reason: str, note: str) -> None:
        """An Event named after ``key``."""
        name = f"{self._regarding['name'][:200]}.{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        body: Node = {
            "metadata": {"namespace": self._regarding["namespace"], "name": name},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": "Tick",
            "reason": reason,
            "type": "Warning" if warns else "Normal",
            "note": note if len(note) <= LONGEST else note[: LONGEST - 1] + "…",
            "regarding": self._regarding,
        }
        try:
            self._access.create(EVENTS, body)
        except Conflict:
            return  # it is there already

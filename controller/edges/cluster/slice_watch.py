"""Word of every change behind a Service: an endpoint that came, went, or became ready or not.

Of a Service that a rollout has adopted only its EndpointSlices tell us: the pods are others', without a label of ours.
A digest is kept of every slice there is, not only of those of Services that a rollout names: one that went while the
watch was broken has to be known to have been there, also where its Service came to be named after it was seen.
"""

import threading
from collections.abc import Callable, Iterable
from functools import partial

import orjson

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import SERVICE_NAME, SLICES
from controller.edges.cluster.watch import apart, follow

Place = tuple[str, str]  # the namespace and the name of a Service


class SliceWatch:
    """Calls ``changed`` with namespace and name of each Service of which an endpoint changed. They are those of one
    namespace, or all. While not ``listed`` it tells of what is there as it begins."""

    def __init__(self, access: Access, namespace: str | None, changed: Callable[[str, str], None]) -> None:
        self._access = access
        self._namespace = namespace
        self._changed = changed
        self.listed = False
        self._seen: dict[str, tuple[Place, int]] = {}  # by uid of a slice: its Service, and what counts of it

    def run(self, end: threading.Event) -> None:
        """List, then watch, until ``end``."""
        follow(self._list, self._watched, self._heard, end)

    def _watched(self, since: str) -> Iterable[tuple[str, Node]]:
        return self._access.watch(SLICES, self._namespace, since, SERVICE_NAME)

    def _list(self) -> str:
        living: set[str] = set()

        def take(piece: Node) -> None:
            living.add(piece["metadata"]["uid"])
            apart(piece, partial(self._tell, piece))

        version = self._access.each(SLICES, self._namespace, take, SERVICE_NAME)
        for uid in self._seen.keys() - living:
            self._went(uid)
        self.listed = True
        return version

    def _heard(self, kind: str, piece: Node) -> None:
        if kind == "DELETED":  # or its label is gone
            self._went(piece["metadata"]["uid"])
        else:
            self._tell(piece)

    def _tell(self, piece: Node) -> None:
        meta = piece["metadata"]
        now = (meta["namespace"], meta["labels"][SERVICE_NAME]), _digest(piece)
        before = self._seen.get(meta["uid"])
        if before == now:
            return
        self._seen[meta["uid"]] = now
        if before is not None and before[0] != now[0]:  # it is another Service's now
            self._changed(*before[0])
        self._changed(*now[0])

    def _went(self, uid: str) -> None:
        held = self._seen.pop(uid, None)
        if held is not None:
            self._changed(*held[0])


def _digest(piece: Node) -> int:
    """Of what ``AdoptedServers`` looks at: where endpoints are, in whatever order, who they are, and whether they are
    ready or end. Zones, hints and annotations move nobody."""
    endpoints = sorted(map(_endpoint, piece.get("endpoints") or ()))
    ports = sorted(orjson.dumps([p.get("name"), p.get("port"), p.get("protocol")]) for p in piece.get("ports") or ())
    return hash((piece["addressType"], tuple(endpoints), tuple(ports)))


def _endpoint(found: Node) -> bytes:
    said, pod = found.get("conditions") or {}, found.get("targetRef") or {}
    state = said.get("ready", True), bool(said.get("terminating"))
    return orjson.dumps([found["addresses"], *state, pod.get("uid")])

"""What happened, as somebody saw it who looked all the time: statuses, moves of aliases, and tables at the routers."""

import base64
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import ROLLOUTS, SECRETS
from controller.edges.cluster.router_set import TOKEN
from controller.edges.cluster.watch import follow
from controller.errors import EdgeError
from controller.status import RolloutStatus
from tests.kubernetes.kill_leader.world import NAME, NAMESPACE, World
from tests.meanwhile import Meanwhile

LOOK_S = 0.02
ROUTERS_EVERY = 4  # looks


class Move(NamedTuple):
    """An alias that was moved. ``serving``: the versions that had a server right after it, ``tables``: the
    generations that routers had."""

    alias: str
    version: str | None
    serving: frozenset[str]
    tables: dict[str, int]


class Seen(NamedTuple):
    """All of it, in its order. ``tables``: (router, generation) at every look; ``unserved``: champions that were named
    without a server at one."""

    statuses: list[RolloutStatus]
    moves: list[Move]
    tables: list[tuple[str, int]]
    unserved: list[str]
    lists: list[int]


class History(Meanwhile):
    """Looks until the end of its block. The watch tells every status that was stored, and the database every move."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._access = Access(world.plane.kubeconfig, manager="people")
        self._changed = threading.Condition()
        self.seen = Seen([], [], [], [], [])
        super().__init__(self._watch, self._look, within_s=90.0)

    def latest(self) -> RolloutStatus | None:
        return self.seen.statuses[-1] if self.seen.statuses else None

    def until(self, holds: Callable[[RolloutStatus], Any], within: float) -> RolloutStatus | None:
        """The first status from now on, this one included, that holds; None: not within so many seconds."""
        end = time.monotonic() + within
        with self._changed:
            number = max(0, len(self.seen.statuses) - 1)
            while True:
                for status in self.seen.statuses[number:]:
                    if holds(status):
                        return status
                number = len(self.seen.statuses)
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait_for(lambda n=number: len(self.seen.statuses) > n, left):  # type: ignore[misc]
                    return None

    def tables(self) -> dict[str, int]:
        """The generation that each router serves, of those that answer."""
        found: dict[str, int] = {}
        with contextlib.suppress(EdgeError):
            held = self._access.get(SECRETS, NAMESPACE, f"{NAME}-router")["data"][TOKEN]
            headers = {"authorization": f"Bearer {base64.b64decode(held).decode()}"}
            for name, container in list(self._world.node.containers.items()):
                with contextlib.suppress(httpx.TransportError):
                    answer = self._client.get(f"{container.control}/v1/state", headers=headers)
                    if answer.status_code == 200:
                        found[name] = min(worker["generation"] for worker in answer.json()["workers"])
        return found

    def __enter__(self) -> "History":
        self._client = httpx.Client(timeout=5.0, trust_env=False)
        super().__enter__()
        return self

    def __exit__(self, *end: object) -> None:
        alive = all(thread.is_alive() for thread in self._threads)
        self._end.set()
        meta = {"namespace": NAMESPACE, "name": NAME, "annotations": {"seen": "to the end"}}
        with contextlib.suppress(EdgeError):
            self._access.patch(ROLLOUTS, {"metadata": meta})  # a watch ends at its next event
        super().__exit__(*end)
        self._client.close()
        assert alive or end[0] is not None, "nobody has looked on to the end"

    def _watch(self) -> None:
        follow(self._list, self._heard, self._told, self._end)

    def _list(self) -> str:
        listed = self._access.list(ROLLOUTS, NAMESPACE)
        self.seen.lists.append(len(self.seen.statuses))
        for item in listed.items:
            self._told("ADDED", item)
        return listed.version

    def _heard(self, since: str) -> Any:
        return self._access.watch(ROLLOUTS, NAMESPACE, since)

    def _told(self, _: str, found: Node) -> None:
        held = found.get("status") or {}
        if held.get("uid"):
            with self._changed:
                self.seen.statuses.append(RolloutStatus.stored(held))
                self._changed.notify_all()

    def _look(self) -> None:
        number, looks, champion = 0, 0, None
        while not self._end.wait(LOOK_S):
            looks += 1
            serving = self._world.versions.serving()
            fresh = self._world.registry.moves(number)
            tables = self.tables() if fresh or looks % ROUTERS_EVERY == 0 else {}
            self.seen.tables.extend(tables.items())
            for at, alias, version in fresh:
                number = at
                self.seen.moves.append(Move(alias, version, serving, tables))
                champion = version if alias == "champion" else champion
            # Before the first table nobody is sent anywhere, and the pods of the first champion are still to come.
            routed = any(generation >= 0 for _, generation in self.seen.tables)
            if routed and champion is not None and champion not in serving:
                self.seen.unserved.append(champion)

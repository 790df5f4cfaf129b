"""All rollouts as the API server last told them: a list, and the watch that keeps it true.

Kept as JSON text, for ten thousand of them stand here. What was read in an answer to our own write is as good as what
the watch brings, and the newer of the two is kept; so a reader sees what it has written.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import orjson

from controller.edges.cluster.access import Access, Expired, Node
from controller.edges.cluster.requests import PREFIX
from controller.edges.cluster.resources import ROLLOUTS
from controller.errors import EdgeError, NotFound
from controller.status import Progress

log = logging.getLogger("understudy.watch")
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
ENDS = frozenset(progress.value for progress in Progress if progress.terminal)
UNUSED = ("managedFields", "selfLink")


def follow(
    listed: Callable[[], str],
    watched: Callable[[str], Iterable[tuple[str, Node]]],
    changed: Callable[[str, Node], None],
    end: threading.Event,
) -> None:
    """List, then watch, until ``end``; what fails is tried again at growing distances.

    ``listed`` gives the resource version to go on from, ``watched`` what came after one, ``changed`` is told each of it
    but the bookmarks.
    """
    pause, since = FIRST_PAUSE_S, ""
    while not end.is_set():
        try:
            if not since:
                since = listed()
            for kind, found in watched(since):
                since = found["metadata"]["resourceVersion"]
                if kind != "BOOKMARK":
                    changed(kind, found)
                if end.is_set():
                    break
            pause = FIRST_PAUSE_S
        except Expired as error:
            log.info("listing again: %s", error)
            since = ""
        except EdgeError as error:
            log.warning("%s", error)
            end.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


class Entry(NamedTuple):
    """One rollout. ``version`` is the server's; ``state`` changes with spec and status, which decisions are made on;
    ``stamp`` with what the controller is told by others: spec, requests, finalizers, deletion.
    ``live``: an attempt is under way; ``ended``: the last one is over; ``going``: the object is being deleted."""

    version: int
    state: str
    stamp: int
    uid: str
    model: str
    created: str
    live: bool
    ended: bool
    going: bool
    body: bytes

    @property
    def object(self) -> Node:
        found: Node = orjson.loads(self.body)
        return found


class Watched:
    """The rollouts of one namespace, or of all. ``feed`` is called with the key of each that changed or went, and of
    those of the same model.

    Before ``run`` has listed them, and where it is never called, each is read from the server when it is asked for.
    """

    def __init__(self, access: Access, namespace: str | None, feed: Callable[[str], None] = lambda _: None) -> None:
        self._access = access
        self._namespace = namespace
        self._feed = feed
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._models: dict[str, set[str]] = {}
        self.synced = threading.Event()
        self.heard = time.monotonic()  # when the server last answered
        self.lists = 0

    def keys(self) -> list[str]:
        """Every rollout, as ``namespace/name``."""
        if not self.synced.is_set():
            return [key_of(item) for item in self._access.list(ROLLOUTS, self._namespace).items]
        return self.known()

    def known(self) -> list[str]:
        """Those heard of so far."""
        with self._lock:
            return list(self._entries)

    def heard_of(self, key: str) -> Entry | None:
        """The rollout ``key`` as it is known, which may be not at all."""
        with self._lock:
            return self._entries.get(key)

    def of_model(self, model: str) -> dict[str, Entry]:
        """The rollouts that release ``model``, of those that are known."""
        with self._lock:
            return {key: self._entries[key] for key in self._models.get(model, ())}

    def get(self, key: str) -> Entry:
        """The rollout ``key``. NotFound without it."""
        if not self.synced.is_set():
            return self.refresh(key)
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            raise NotFound(f"there is no rollout {key!r}")
        return entry

    def refresh(self, key: str) -> Entry:
        """Read ``key`` from the server. NotFound where it is gone."""
        namespace, _, name = key.rpartition("/")
        try:
            found = self._access.get(ROLLOUTS, namespace or "default", name)
        except NotFound:
            self._drop(key)
            raise NotFound(f"there is no rollout {key!r}") from None
        return self.put(found)

    def put(self, found: Node) -> Entry:
        """Keep ``found`` unless something newer is known; what is known then."""
        key, entry = key_of(found), _entry(found)
        with self._lock:
            held = self._entries.get(key)
            if held is not None and held.version > entry.version:
                return held
            self._entries[key] = entry
            self._filed(key, held, entry)
        if held is None or held.stamp != entry.stamp:
            self._tell(key, held, entry)
        return entry

    def run(self, end: threading.Event) -> None:
        """List, then watch, until ``end``."""
        follow(self._list, self._heard, self._changed, end)

    def _list(self) -> str:
        found: set[str] = set()

        def take(item: Node) -> None:
            found.add(key_of(item))
            self.put(item)

        version = self._access.each(ROLLOUTS, self._namespace, take)
        with self._lock:
            gone = self._entries.keys() - found
        for key in gone:
            self._drop(key)
        self.heard = time.monotonic()
        self.lists += 1
        self.synced.set()
        return version

    def _heard(self, since: str) -> Iterator[tuple[str, Node]]:
        """What one watch brings; that it ends is a sign of the server too."""
        for event in self._access.watch(ROLLOUTS, self._namespace, since):
            self.heard = time.monotonic()
            yield event
        self.heard = time.monotonic()

    def _changed(self, kind: str, found: Node) -> None:
        if kind == "DELETED":
            self._drop(key_of(found), int(found["metadata"]["resourceVersion"]))
        else:
            self.put(found)

    def _drop(self, key: str, version: int | None = None) -> None:
        with self._lock:
            held = self._entries.get(key)
            if held is None or (version is not None and held.version > version):
                return  # declared anew since
            del self._entries[key]
            self._filed(key, held, None)
        self._tell(key, held)

    def _filed(self, key: str, old: Entry | None, new: Entry | None) -> None:
        if old is not None:
            self._models[old.model].discard(key)
            if not self._models[old.model]:
                del self._models[old.model]
        if new is not None:
            self._models.setdefault(new.model, set()).add(key)

    def _tell(self, key: str, *states: Entry | None) -> None:
        """``key`` changed, and with it whether others may release its models."""
        with self._lock:
            others = {k for entry in states if entry is not None for k in self._models.get(entry.model, ())}
        for each in {key, *others}:
            self._feed(each)


def key_of(found: Node) -> str:
    meta = found["metadata"]
    return f"{meta['namespace']}/{meta['name']}"


def _entry(found: Node) -> Entry:
    meta = {k: v for k, v in found["metadata"].items() if k not in UNUSED}
    asked = {k: v for k, v in meta.get("annotations", {}).items() if k.startswith(PREFIX)}
    stamp = [meta["uid"], meta.get("generation"), meta.get("deletionTimestamp"), meta.get("finalizers"), asked]
    status = found.get("status") or {}
    state = hashlib.blake2b(orjson.dumps([meta["uid"], meta["generation"], status], option=orjson.OPT_SORT_KEYS))
    progress = status.get("progress", "Pending")
    model = (found.get("spec") or {}).get("model") or {}
    return Entry(
        version=int(meta["resourceVersion"]),
        state=state.hexdigest()[:32],
        stamp=hash(orjson.dumps(stamp, option=orjson.OPT_SORT_KEYS)),
        uid=meta["uid"],
        model=str(model.get("name", "")),
        created=meta["creationTimestamp"],
        going="deletionTimestamp" in meta,
        live=status.get("attempt") is not None and progress not in ENDS,
        ended=progress in ENDS,
        body=orjson.dumps({**found, "metadata": meta}),
    )

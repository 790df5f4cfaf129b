"""All rollouts as the API server last told them: a list, and the watch that keeps it true.

Kept as JSON text, for ten thousand of them stand here. What was read in an answer to our own write is as good as what
the watch brings, and the newer of the two is kept; so a reader sees what it has written.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import orjson

from controller.edges.cluster.access import Access, Expired, Node
from controller.edges.cluster.requests import PREFIX
from controller.edges.cluster.resources import ROLLOUTS
from controller.errors import EdgeError, NotFound
from controller.status import SPLIT, Progress

log = logging.getLogger("understudy.watch")
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
DEEPEST = 100  # levels of one field of a spec; a pod template has a dozen, and what we write JSON with stops at 254
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
    but the bookmarks. What goes wrong with one object is logged, and costs no other one.
    """
    pause, since = FIRST_PAUSE_S, ""
    while not end.is_set():
        try:
            if not since:
                since = listed()
            for kind, found in watched(since):
                since = found["metadata"]["resourceVersion"]
                if kind != "BOOKMARK":
                    apart(found, partial(changed, kind, found))
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


def apart(found: Node, take: Callable[[], object]) -> None:
    """``take`` the object ``found``; where that fails it is passed over."""
    try:
        take()
    except Exception:
        meta = found.get("metadata") or {}
        log.exception("%s/%s cannot be read and is passed over", meta.get("namespace"), meta.get("name"))


class Entry(NamedTuple):
    """One rollout. ``version`` is the server's; ``state`` changes with spec and status, which decisions are made on;
    ``stamp`` with what the controller is told by others: spec, requests, finalizers, deletion.
    ``live``: an attempt is under way; ``ended``: the last one is over; ``going``: the object is being deleted.
    ``services``: those that it has adopted as model servers, by name; ``route``: the HTTPRoute that splits between
    them, empty: none.
    ``fault``: why its spec is not kept, but for the model's name; empty: it is."""

    version: int
    state: str
    stamp: int
    uid: str
    model: str
    created: str
    live: bool
    ended: bool
    going: bool
    services: tuple[str, ...]
    route: str
    fault: str
    body: bytes

    @property
    def object(self) -> Node:
        found: Node = orjson.loads(self.body)
        return found


class Watched:
    """The rollouts of one namespace, or of all. ``feed`` is called with the key of each that changed or went, and of
    those of the same model, or of the same HTTPRoute, where another one may have it by this.

    Before ``run`` has listed them, and where it is never called, each is read from the server when it is asked for.
    """

    def __init__(self, access: Access, namespace: str | None, feed: Callable[[str], None] = lambda _: None) -> None:
        self._access = access
        self._namespace = namespace
        self._feed = feed
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._models: dict[str, set[str]] = {}
        self._naming: dict[tuple[str, str], set[str]] = {}  # by namespace and name of a Service
        self._splitting: dict[tuple[str, str], set[str]] = {}  # by namespace and name of an HTTPRoute
        self._holders: dict[str, str] = {}  # by model: the key of the rollout that may release it
        self._ended = 0  # version of the newest end that was heard of: what is older and not known is gone
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

    def naming(self, namespace: str, service: str) -> list[str]:
        """Keys of the rollouts whose model servers are behind that Service, of those that are known."""
        with self._lock:
            return sorted(self._naming.get((namespace, service), ()))

    def sharing(self, key: str) -> dict[str, Entry]:
        """``key`` and the rollouts that split its HTTPRoute between Services of which one at least is its own too, of
        those that are known."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or not entry.route:
                return {}
            named = {k: self._entries[k] for k in self._splitting[_place(key, entry.route)]}
            return {k: each for k, each in named.items() if not set(entry.services).isdisjoint(each.services)}

    def wake(self, key: str) -> None:
        """Have ``key`` looked at as if it had changed."""
        self._feed(key)

    def waits(self, key: str) -> bool:
        """Whether ``key`` is over, or can only wait: for its model, or to be written so that it can be read."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.fault:
                return entry is not None
            return not (entry.live or entry.going) and (entry.ended or self._holders.get(entry.model) != key)

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
        """Keep ``found`` unless something newer is known or it is gone; what is known then."""
        key, entry = key_of(found), _entry(found)
        if entry.going and not found["metadata"].get("finalizers"):  # nothing keeps it any more
            self._drop(key, entry.version)
            return entry
        with self._lock:
            held = self._entries.get(key)
            if held is not None and held.version > entry.version:
                return held
            if held is None and entry.version <= self._ended:
                return entry
            self._entries[key] = entry
            self._names(key, held, entry)
            fed = self._filed(key, held, entry)
        if held is None or held.stamp != entry.stamp:
            fed.add(key)
        for each in sorted(fed):
            self._feed(each)
        return entry

    def run(self, end: threading.Event) -> None:
        """List, then watch, until ``end``."""
        follow(self._list, self._heard, self._changed, end)

    def _list(self) -> str:
        found: set[str] = set()
        self._ended = 0  # the list tells it anew

        def take(item: Node) -> None:
            found.add(key_of(item))
            apart(item, partial(self.put, item))

        version = self._access.each(ROLLOUTS, self._namespace, take)
        with self._lock:
            gone = self._entries.keys() - found
            self._ended = int(version)
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
            self._ended = int(found["metadata"]["resourceVersion"])
            self._drop(key_of(found), self._ended)
        else:
            self.put(found)

    def _drop(self, key: str, version: int | None = None) -> None:
        with self._lock:
            held = self._entries.get(key)
            if held is None or (version is not None and held.version > version):
                return  # declared anew since
            del self._entries[key]
            self._names(key, held, None)
            fed = self._filed(key, held, None)
        for each in sorted({key, *fed}):
            self._feed(each)

    def _names(self, key: str, old: Entry | None, new: Entry | None) -> None:
        """File ``key`` by the Services and the HTTPRoute that it names."""
        services = [each.services if each is not None else () for each in (old, new)]
        routes = [(each.route,) if each is not None and each.route else () for each in (old, new)]
        _file(self._naming, key, *services)
        _file(self._splitting, key, *routes)

    def _filed(self, key: str, old: Entry | None, new: Entry | None) -> set[str]:
        """File ``key`` by its model; those who are concerned by that, for the model is another one's now."""
        if old is not None and new is not None and _claims(old) == _claims(new):
            return set()
        if old is not None:
            self._models[old.model].discard(key)
            if not self._models[old.model]:
                del self._models[old.model]
        if new is not None:
            self._models.setdefault(new.model, set()).add(key)
        entries = [entry for entry in (old, new) if entry is not None]
        models = {entry.model for entry in entries}
        fed = {each for model in models if self._passed_on(model, key) for each in self._models.get(model, ())}
        # Of one route there are few, and each may have other Services.
        return fed.union(
            *(self._splitting.get(_place(key, e.route), ()) for e in entries if e.route and old is not None)
        )

    def _passed_on(self, model: str, key: str) -> bool:
        """See who may release ``model`` after ``key`` has changed; whether that is another one. All of its rollouts
        are looked at only where the one that might is no longer sure to: there may be thousands."""
        before, of = self._holders.get(model), self._models.get(model, set())
        if before is None or before == key:
            first = min(of, key=lambda k: claim(self._entries[k]), default=None)
        else:
            first = min({before, key} & of, key=lambda k: claim(self._entries[k]))
        if first is None or not claim(self._entries[first]).stays:
            self._holders.pop(model, None)
        else:
            self._holders[model] = first
        return self._holders.get(model) != before


class Claim(NamedTuple):
    """What decides who may release a model: the least of these, if it ``stays``."""

    leaves: bool
    rests: bool
    created: str
    uid: str

    @property
    def stays(self) -> bool:
        return not self.leaves


def claim(entry: Entry) -> Claim:
    """A live attempt comes before all others, then the oldest object; one that goes, and is at nothing, has none."""
    return Claim(entry.going and not entry.live, not entry.live, entry.created, entry.uid)


def _claims(entry: Entry) -> tuple[object, ...]:
    """What an entry claims, and by what right."""
    return entry.model, entry.route, entry.services if entry.route else (), claim(entry)


def _place(key: str, name: str) -> tuple[str, str]:
    """Of an object in the namespace of ``key``."""
    return key.partition("/")[0], name


def _file(by: dict[tuple[str, str], set[str]], key: str, old: Iterable[str], new: Iterable[str]) -> None:
    """File ``key`` under the names ``new`` of its namespace, and no more under others of ``old``."""
    before, now = ({_place(key, name) for name in names} for names in (old, new))
    for place in before - now:
        by[place].discard(key)
        if not by[place]:
            del by[place]
    for place in now - before:
        by.setdefault(place, set()).add(key)


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
    spec = found.get("spec") or {}
    name = declared = str((spec.get("model") or {}).get("name", ""))
    if progress in SPLIT:  # whatever is declared by now, this is what it is at
        name = ((status.get("attempt") or {}).get("model") or {}).get("name", declared)
    deep = [field for field, value in spec.items() if _beyond(value)]
    if deep:
        found = {**found, "spec": {"model": {"name": declared}}}
    return Entry(
        version=int(meta["resourceVersion"]),
        state=state.hexdigest()[:32],
        stamp=hash(orjson.dumps(stamp, option=orjson.OPT_SORT_KEYS)),
        uid=meta["uid"],
        model=name,
        created=meta["creationTimestamp"],
        going="deletionTimestamp" in meta,
        live=status.get("attempt") is not None and progress not in ENDS,
        ended=progress in ENDS,
        services=_adopted(spec, status),
        route=str(((spec.get("traffic") or {}).get("gatewayAPI") or {}).get("httpRoute", "")),
        fault="\n".join(f"spec.{field}: is nested more than {DEEPEST} levels deep; write it flatter" for field in deep),
        body=orjson.dumps({**found, "metadata": meta}),
    )


def _adopted(spec: Node, status: Node) -> tuple[str, ...]:
    """Names of the Services behind which the model servers are: those of the attempt, of the one before while that
    one's version serves, and those that are declared."""
    pinned = ((status.get(name) or {}).get("places") or {} for name in ("attempt", "former"))
    named = (
        (each.get(arm) or {}).get("service")
        for each in (*pinned, spec.get("servers") or {})
        for arm in ("champion", "challenger")
    )
    return tuple(dict.fromkeys(name for name in named if name))


def _beyond(value: object) -> bool:
    """Whether ``value`` is nested more deeply than ``DEEPEST``. Looked at a level at a time, for there is no bound."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True

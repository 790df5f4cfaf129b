"""Rollouts as ModelRollout objects: the spec is the people's, the status subresource is the controller's memory.

A commit replaces the status of the object whose spec and status are those that were read, at its resource version; the
server refuses it where anything was written since. So of two controllers that both believe to lead, one decides, and
labels and annotations of others delay nobody. A rollout's key is ``namespace/name``.
"""

import contextlib
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from controller import specfile
from controller.core.conditions import failing, refused
from controller.core.record import Record
from controller.edges.cluster import requests
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.records import RecordLog
from controller.edges.cluster.resources import ROLLOUTS
from controller.edges.cluster.watch import Entry, Watched, key_of
from controller.edges.unreadable import unreadable
from controller.errors import Conflict, EdgeError, NotFound, SpecError
from controller.ports import Stored
from controller.status import PersonRequest, Reason, RolloutStatus

T = TypeVar("T")
FINALIZER = "understudy.dev/traffic"
# Objects that are understood for as long as they are what they are, as a tick reads its own ten times. Of the largest
# each would take 15 MB.
READ_AT_ONCE, LARGE = 64, 64 << 10
COMMIT_TRIES = 5  # while others write what does not concern us


class ClusterStore:
    """``RolloutStore`` on an API server, read through ``watched``; the record log is in ``folder``."""

    def __init__(self, access: Access, watched: Watched, folder: Path) -> None:
        self._access = access
        self._watched = watched
        self._log = RecordLog(folder)

    def wake(self, key: str) -> None:
        """Have the rollout looked at soon: something that it waits for has come."""
        self._watched.wake(key)

    def keys(self) -> list[str]:
        """Names of all rollouts, sorted."""
        return sorted(self._watched.keys())

    def load(self, key: str) -> Stored:
        """As the port says. SpecError where the spec cannot be understood, EdgeError where the status cannot."""
        entry = self._watched.get(key)
        if entry.fault:
            raise SpecError(*entry.fault.split("\n"))
        return _stored(entry)

    def commit(self, key: str, status: RolloutStatus, version: str, record: Record | None) -> str:
        """As the port says. Conflict, too, where the record's key is committed with another content.

        What an ended rollout would only tell of the time is not written.
        """
        entry = self._unchanged(key, status.uid, version)
        held = status_of(entry)
        if record is None and status.progress.terminal and timeless(status) == timeless(held):
            return version
        if record is not None and record.sequence <= held.sequence:
            known = [r for r in self._log.read(entry.uid, held) if r.key == record.key]
            if known not in ([], [record]):
                raise Conflict(f"record {record.key} is committed already, with another content")
            record = None if known else record
        size = None if record is None else self._log.append(record, held)
        try:
            written = self._written(key, status, version)
        except (Conflict, NotFound):
            if record is not None and size is not None:
                self._log.take_back(record, size)
            raise
        if record is not None:
            self._log.settle(record)
        return self._without_handled(written, status).state

    def submit(self, key: str, request: PersonRequest) -> None:
        """As the port says; an id that the status calls handled changes nothing either. EdgeError where a hundred
        requests wait already."""
        entry = self._watched.refresh(key)
        meta = entry.object["metadata"]
        name, text = requests.written(request, 0)
        annotations = meta.get("annotations", {})
        waiting = [a for a in annotations if a.startswith(requests.PREFIX)]
        if name in waiting or request.id in status_of(entry).handled:
            return
        count = len(requests.read(annotations)[0])  # what is no request keeps nobody from asking
        if count >= requests.OPEN:
            raise EdgeError(f"rollout {key!r}: {count} requests wait already; is the controller running?")
        _, text = requests.written(request, len(waiting))
        self._patch(entry, {"annotations": {name: text}}, guarded=False)

    def records(self, key: str) -> list[Record]:
        """The rollout's records that this process has written, oldest first. NotFound without the rollout."""
        entry = self._watched.get(key)
        return self._log.read(entry.uid, status_of(entry))

    def refuse(self, key: str, reason: Reason, message: str, now: int) -> bool:
        """Say in the status of a rollout that is not ticked why it is not; whether that is new."""
        entry = self._watched.get(key)
        held = status_of(entry)
        seen = {"rollout": key, "generation": entry.object["metadata"]["generation"], "clock": max(now, held.clock)}
        status = refused(held.model_copy(update=seen), reason, message)
        if timeless(status) == timeless(held):
            return False
        self._watched.put(self._replace(key, status, entry))
        return True

    def fails(self, key: str, reason: str, message: str, now: int) -> bool:
        """Say in the conditions that passes over ``key`` fail; whether that is new. The next one that does not says
        how it stands again."""
        entry = self._watched.get(key)
        held = status_of(entry)
        status = failing(held.model_copy(update={"rollout": key}), reason, message, now)
        if status.conditions == held.conditions:
            return False
        self._watched.put(self._replace(key, status, entry))
        return True

    def hold(self, key: str) -> bool:
        """See to it that deletion waits for ``release``; False where the object is being deleted without."""
        entry = self._watched.get(key)
        meta = entry.object["metadata"]
        held = meta.get("finalizers", [])
        if FINALIZER in held:
            return True
        if entry.going:
            return False
        self._patch(entry, {"finalizers": [*held, FINALIZER]})
        return True

    def release(self, key: str) -> None:
        """Let the deletion go on."""
        entry = self._watched.get(key)
        left = [f for f in entry.object["metadata"].get("finalizers", []) if f != FINALIZER]
        with contextlib.suppress(NotFound):
            self._patch(entry, {"finalizers": left})

    def _unchanged(self, key: str, uid: str, version: str) -> Entry:
        entry = self._watched.get(key)
        if entry.state != version or entry.uid != uid:
            raise Conflict(f"rollout {key!r}: its spec or status has changed since it was read, or it is another")
        return entry

    def _written(self, key: str, status: RolloutStatus, version: str) -> Entry:
        """Put ``status`` where ``version`` was read. Others may have written beside it, and may go on."""
        for left in reversed(range(COMMIT_TRIES)):
            entry = self._unchanged(key, status.uid, version)
            try:
                return self._watched.put(self._replace(key, status, entry))
            except Conflict:
                if not left:
                    raise
        raise AssertionError

    def _replace(self, key: str, status: RolloutStatus, entry: Entry) -> Node:
        namespace, _, name = key.rpartition("/")
        meta = {"namespace": namespace, "name": name, "uid": entry.uid, "resourceVersion": str(entry.version)}
        body = {"metadata": meta, "status": status.model_dump(mode="json", by_alias=True)}
        try:
            return self._access.replace(ROLLOUTS, body, "status")
        except Conflict:
            self._watched.refresh(key)
            raise

    def _without_handled(self, entry: Entry, status: RolloutStatus) -> Entry:
        """The annotations of handled requests go. Where that fails, the next commit does it."""
        names = {requests.PREFIX + identity for identity in status.handled}
        done = names & entry.object["metadata"].get("annotations", {}).keys()
        if done:
            with contextlib.suppress(EdgeError):
                return self._patch(entry, {"annotations": dict.fromkeys(done)})
        return entry

    def _patch(self, entry: Entry, meta: Node, guarded: bool = True) -> Entry:
        """Change metadata; ``guarded``: of exactly this version."""
        own = entry.object["metadata"]
        place = {"namespace": own["namespace"], "name": own["name"], "uid": entry.uid}
        if guarded:
            place["resourceVersion"] = str(entry.version)
        try:
            return self._watched.put(self._access.patch(ROLLOUTS, {"metadata": {**place, **meta}}))
        except Conflict:
            self._watched.refresh(f"{own['namespace']}/{own['name']}")
            raise


def _lately(understand: Callable[[Entry], T]) -> Callable[[Entry], T]:
    """``understand``, once of each of the last objects that are not large."""
    once = lru_cache(READ_AT_ONCE)(understand)

    @wraps(understand)
    def understood(entry: Entry) -> T:
        return once(entry) if len(entry.body) <= LARGE else understand(entry)

    return understood


@_lately
def _stored(entry: Entry) -> Stored:
    return read(entry, entry.object)


def read(entry: Entry, found: Node) -> Stored:
    """The rollout of ``entry`` by its object ``found``, or by another one in its place. SpecError, EdgeError."""
    meta = found["metadata"]
    annotations = meta.get("annotations", {})
    own = {k: v for k, v in annotations.items() if not k.startswith(requests.PREFIX)}
    declared = {k: v for k, v in found.items() if k != "status"}
    declared["metadata"] = {**meta, "annotations": own}
    status = status_of(entry)
    asked, _ = requests.read(annotations)
    rollout = specfile.declared(declared)
    missing = specfile.unsupported(rollout.spec)
    if missing:
        raise SpecError(*missing)
    return Stored(rollout, meta["generation"], status, entry.state, tuple(asked), entry.going)


@_lately
def status_of(entry: Entry) -> RolloutStatus:
    """The status, empty where there is none yet or where it came with a copy of another object. EdgeError where it
    cannot be read."""
    found = entry.object.get("status")
    if not found or found.get("uid") != entry.uid:
        return RolloutStatus(uid=entry.uid)
    try:
        return RolloutStatus.stored(found)
    except ValidationError as error:
        raise unreadable(f"the status of {key_of(entry.object)}", error) from error


def wrong_requests(entry: Entry) -> dict[str, str]:
    """Annotations that should be requests and are none: what is wrong, by name."""
    return requests.read(entry.object["metadata"].get("annotations", {}))[1]


def timeless(status: RolloutStatus) -> dict[str, Any]:
    """All of ``status`` that does not change with time alone."""
    return status.model_dump(exclude={"clock"})

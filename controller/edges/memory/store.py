"""Rollouts in memory. A commit is one step: nothing of it is seen before all of it is."""

from typing import NamedTuple

from controller.core.record import Record, canonical
from controller.errors import Conflict, EdgeError, NotFound
from controller.ports import Stored
from controller.spec import ModelRollout
from controller.status import PersonRequest, RolloutStatus

OPEN_REQUESTS = 1000


class _Row(NamedTuple):
    rollout: ModelRollout
    generation: int
    status: RolloutStatus
    version: int
    requests: tuple[PersonRequest, ...] = ()


class MemoryStore:
    """``RolloutStore`` for tests, simulation and backtests. A rollout's key is its name."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._records: dict[str, Record] = {}
        self._declared = 0

    def keys(self) -> list[str]:
        """Names of all rollouts, sorted."""
        return sorted(self._rows)

    def load(self, key: str) -> Stored:
        """The rollout ``key``. NotFound without one."""
        row = self._row(key)
        return Stored(row.rollout, row.generation, row.status, str(row.version), row.requests)

    def commit(self, key: str, status: RolloutStatus, version: str, record: Record | None) -> str:
        """As the port says. Conflict, too, where the record's key exists with another content."""
        row = self._row(key)
        if str(row.version) != version or row.status.uid != status.uid:
            raise Conflict(f"rollout {key!r}: version {version} is old, {row.version} is stored")
        if record is not None and self._records.setdefault(record.key, record) != record:
            raise Conflict(f"record {record.key} is written already, with another content")
        left = tuple(r for r in row.requests if r.id not in status.handled)
        self._rows[key] = row._replace(status=status, version=row.version + 1, requests=left)
        return str(row.version + 1)

    def submit(self, key: str, request: PersonRequest) -> None:
        """Add ``request``; an id that waits or was handled changes nothing. EdgeError where a thousand wait already."""
        row = self._row(key)
        if request.id in row.status.handled or any(r.id == request.id for r in row.requests):
            return
        if len(row.requests) >= OPEN_REQUESTS:
            raise EdgeError(f"rollout {key!r}: {len(row.requests)} requests wait already; is the controller running?")
        self._rows[key] = row._replace(requests=(*row.requests, request))

    def put(self, rollout: ModelRollout, uid: str | None = None) -> int:
        """Declare ``rollout`` and return its generation, which grows with every change of the spec and with nothing
        else. ``uid`` names a new one for good (none given: a number of this store); one that exists keeps its own."""
        key = rollout.metadata.name
        row = self._rows.get(key)
        if row is None:
            self._declared += 1
            self._rows[key] = _Row(rollout, 1, RolloutStatus(uid=uid or f"{key}-{self._declared}"), 1)
        elif row.rollout != rollout:
            changed = canonical(row.rollout.spec) != canonical(rollout.spec)
            self._rows[key] = row._replace(
                rollout=rollout, generation=row.generation + changed, version=row.version + 1
            )
        return self._rows[key].generation

    def records(self, key: str) -> list[Record]:
        """Every record of the rollout, oldest first. NotFound without the rollout."""
        uid = self._row(key).status.uid
        return sorted((r for r in self._records.values() if r.uid == uid), key=lambda r: (r.generation, r.sequence))

    def delete(self, key: str) -> None:
        """Forget the rollout with its status, requests and records. NotFound without it."""
        uid = self._row(key).status.uid
        del self._rows[key]
        self._records = {name: r for name, r in self._records.items() if r.uid != uid}

    def _row(self, key: str) -> _Row:
        try:
            return self._rows[key]
        except KeyError:
            raise NotFound(f"there is no rollout {key!r}") from None

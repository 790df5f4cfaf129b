"""Settled rows as they are read back."""

import json
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from controller.edges.memory.losses import Answered


class Request(NamedTuple):
    """A settled request, in the order of the table's columns."""

    n: int
    epoch: int
    t: int
    h: int
    name: int
    unit: int
    challenger: int
    hashed: int
    evidence: int
    mirror: int
    usable: int
    bucket: int
    combo: int
    scores: str | None

    @property
    def answered(self) -> Answered:
        return Answered(bool(self.usable), json.loads(self.scores) if self.usable and self.scores else None)


class Entry(NamedTuple):
    """A unit's first request in an epoch."""

    epoch: int
    unit: int
    n: int
    t: int
    challenger: int
    evidence: int
    combo: int


class Label(NamedTuple):
    """An outcome of a request; the earliest is the label of its row."""

    t: int
    outcome_id: str
    value: float
    ingest_t: int
    row: int


class Rows:
    """Reads settled rows in ``con``. Requests of one stretch of time are kept until ``let_go``, as several metrics have
    the same blocks."""

    def __init__(self, con: sqlite3.Connection) -> None:
        self._con = con
        self._requests: dict[tuple[int, int], list[Request]] = {}

    def let_go(self) -> None:
        """What was read may be otherwise from now on."""
        self._requests = {}

    def requests(self, since: int, until: int) -> list[Request]:
        """Those at ``since`` ≤ t < ``until`` (µs), in their order."""
        found = self._requests.get((since, until))
        if found is None:
            rows = self._con.execute("SELECT * FROM requests WHERE t >= ? AND t < ? ORDER BY n", (since, until))
            found = self._requests[since, until] = list(map(Request._make, rows))
        return found

    def entries(self, since: int, until: int) -> list[Entry]:
        rows = self._con.execute(
            "SELECT epoch, unit, n, t, challenger, evidence, combo FROM entries WHERE t >= ? AND t < ? AND NOT mirror",
            (since, until),
        )
        return list(map(Entry._make, rows))

    def left(self, entry: Entry) -> int | None:
        """When the unit entered its next epoch (µs)."""
        after = "SELECT t FROM entries WHERE unit = ? AND NOT mirror AND n > ? ORDER BY n LIMIT 1"
        found = self._con.execute(after, (entry.unit, entry.n)).fetchone()
        return None if found is None else int(found[0])

    def number(self, unit: int, place: int) -> int | None:
        """The covariate at ``place`` that came with the unit's first request of the attempt."""
        first = "SELECT numbers FROM entries WHERE unit = ? AND NOT mirror ORDER BY n LIMIT 1"
        found = self._con.execute(first, (unit,)).fetchone()
        numbers = json.loads(found[0]) if found is not None and found[0] is not None else []
        return numbers[place] if place < len(numbers) else None

    def shadows(self, row: Request, horizon: int) -> list[Request]:
        """The other answers to a mirrored request that came before ``row``, at most ``horizon`` (µs) earlier."""
        rows = self._con.execute(
            "SELECT * FROM requests WHERE h = ? AND mirror <> ? AND epoch = ? AND t >= ?",
            (row.h, row.mirror, row.epoch, row.t - horizon),
        )
        return [other for other in map(Request._make, rows) if (other.t, other.mirror) < (row.t, row.mirror)]

    def times(self, unit: int, since: int, until: int) -> Iterable[int]:
        """When the unit made requests at ``since`` ≤ t ≤ ``until`` (µs)."""
        rows = self._con.execute(
            "SELECT t FROM requests WHERE unit = ? AND t >= ? AND t <= ? AND hashed AND NOT mirror",
            (unit, since, until),
        )
        return [t for (t,) in rows]

    def outcomes(self, unit: int, name: str, since: int, until: int) -> list[tuple[int, int, float]]:
        """(when it is credited, when it came in, value) of the unit's outcomes in ``since`` ≤ t ≤ ``until`` (µs)."""
        rows = self._con.execute(
            "SELECT credit_t, ingest_t, value FROM outcomes WHERE unit = ? AND name = ? AND credit_t >= ? "
            "AND credit_t <= ?",
            (unit, name, since, until),
        )
        return rows.fetchall()

    def labels(self, n: int, name: str) -> Iterable[Label]:
        """The outcomes of request ``n``."""
        rows = self._con.execute(
            "SELECT t, outcome_id, value, ingest_t, row FROM outcomes WHERE request_n = ? AND name = ?", (n, name)
        )
        return map(Label._make, rows)

    def samples(self, attempt: int, metric: str, since: int, until: int) -> list[tuple[int, int, int, int]]:
        """(challenger, t, epoch, value) of the samples of a gauge."""
        return self._con.execute(
            "SELECT challenger, t, epoch, value FROM samples WHERE attempt = ? AND metric = ? AND t >= ? AND t < ?",
            (attempt, metric, since, until),
        ).fetchall()

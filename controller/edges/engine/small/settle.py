"""Staged exposures before the watermark become requests, in their order, and their units enter epochs.

What is settled how is said in ``engine.settle`` and ``engine.entering``; here it is done row by row.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from controller.edges.engine.settling import HORIZON, Counts, Settling, Tally
from controller.edges.engine.small.rows import Request

_UNSIGNED = (1 << 64) - 1


class Staged(NamedTuple):
    """A staged exposure: what is looked at once, and the request it becomes."""

    attempt: int
    request_id: str
    fell_back: int
    numbers: str | None
    request: Request

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Staged":
        """The row of the table, in the order of its columns."""
        attempt, request_id, fell_back, numbers, *exposure = row
        return cls(attempt, request_id, fell_back, numbers, Request(0, *exposure))

    @property
    def id(self) -> tuple[int, int]:
        return self.request.h, self.request.mirror


def settle_exposures(con: sqlite3.Connection, step: Settling) -> Tally:
    """Move staged exposures before the watermark to ``requests`` and enter their units into epochs."""
    due = "staged_exposures WHERE attempt = ? AND t < ?"
    at = (step.attempt, step.until)
    rows = list(map(Staged.of, con.execute(f"SELECT * FROM {due}", at)))
    if not rows:
        return Tally(0, 0, 0, 0, [], 0)
    first: dict[tuple[int, int], Staged] = {}
    for row in sorted(rows, key=_earliest):
        first.setdefault(row.id, row)
    known = _known(con, [row.request for row in first.values()])
    fresh = [row for row in first.values() if row.id not in known]
    timely = (row for row in fresh if row.request.t >= step.since)
    ordered = enumerate(sorted(timely, key=lambda r: (r.request.t, r.request_id, r.request.mirror)), step.last_n + 1)
    kept = [row._replace(request=row.request._replace(n=n)) for n, row in ordered]
    con.executemany(f"INSERT INTO requests VALUES ({','.join('?' * 14)})", [row.request for row in kept])
    con.execute(f"DELETE FROM {due}", at)
    late = len(fresh) - len(kept)
    clashes = sum(row.request.unit != known.get(row.id, first[row.id].request.unit) for row in rows)
    epochs = _entered(con, kept, frozenset(step.mirrors))
    return Tally(len(rows), len(kept), len(rows) - len(fresh), late, epochs, clashes)


def _earliest(row: Staged) -> tuple[int, ...]:
    r = row.request
    return r.t, r.epoch, r.challenger, r.usable, r.bucket


def _known(con: sqlite3.Connection, rows: Collection[Request]) -> dict[tuple[int, int], int]:
    """The unit of each request that was settled before and has the id of one of ``rows``."""
    since = min(row.t for row in rows) - HORIZON
    same = con.execute(
        "SELECT r.h, r.mirror, r.unit FROM json_each(?) j CROSS JOIN requests r ON r.h = j.value WHERE r.t >= ?",
        (json.dumps([row.h for row in rows]), since),
    )
    found: dict[tuple[int, int], int] = {}
    for h, mirror, unit in same:
        found[h, mirror] = min(unit, found.get((h, mirror), unit), key=unsigned)
    return found


def unsigned(number: int) -> int:
    """The hash as it was; the order of hashes is that of numbers without a sign."""
    return number & _UNSIGNED


class _Entry(NamedTuple):
    challenger: int
    evidence: int


def _entered(con: sqlite3.Connection, kept: Sequence[Staged], mirrors: frozenset[int]) -> Counts:
    """Enter units into ``entries``, and units that changed their arm into ``crossed``; what all that adds to the counts
    of epochs."""
    counts: Counter[tuple[int, str]] = Counter()
    entries = _entries(con, {row.request.unit for row in kept if row.request.hashed})
    new: list[tuple[object, ...]] = []
    for _, _, fell_back, numbers, row in kept:
        if not row.hashed:
            continue
        shown = row.epoch in mirrors
        counts[row.epoch, "champion_requests"] += not row.challenger and not row.mirror
        counts[row.epoch, "challenger_requests"] += row.mirror if shown else row.challenger and not row.mirror
        counts[row.epoch, "fallbacks"] += fell_back
        of_unit = entries.setdefault(row.unit, {})
        entry = of_unit.get((row.epoch, row.mirror))
        if entry is not None:
            weighted = not shown and not row.mirror and row.evidence and entry.evidence
            if weighted and row.challenger != entry.challenger:
                counts[row.epoch, "overlap"] += _crosses(con, row)
            continue
        if not row.mirror and not shown:
            first = not any(not mirror and epoch not in mirrors for epoch, mirror in of_unit)
            counts[row.epoch, "first_challenger" if row.challenger else "first_champion"] += first and row.evidence
        if shown or row.evidence:
            counts[row.epoch, "challenger_units" if row.challenger or row.mirror else "champion_units"] += 1
        of_unit[row.epoch, row.mirror] = _Entry(row.challenger, row.evidence)
        new.append(
            (row.epoch, row.unit, row.mirror, row.n, row.t, row.challenger, row.evidence, row.combo, numbers)
        )  # fmt: skip
    con.executemany(f"INSERT INTO entries VALUES ({','.join('?' * 9)})", new)
    return [(epoch, name, more) for (epoch, name), more in counts.items()]


def _entries(con: sqlite3.Connection, units: Collection[int]) -> dict[int, dict[tuple[int, int], _Entry]]:
    """The entries of ``units`` that are known, by unit, then epoch and mirror."""
    known = con.execute(
        "SELECT e.unit, e.epoch, e.mirror, e.challenger, e.evidence FROM json_each(?) j "
        "CROSS JOIN entries e ON e.unit = j.value",
        (json.dumps(list(units)),),
    )
    found: dict[int, dict[tuple[int, int], _Entry]] = {}
    for unit, epoch, mirror, *rest in known:
        found.setdefault(unit, {})[epoch, mirror] = _Entry(*rest)
    return found


def _crosses(con: sqlite3.Connection, row: Request) -> bool:
    """Whether the unit had not been seen on both sides of the epoch."""
    return con.execute("INSERT OR IGNORE INTO crossed VALUES (?, ?)", (row.epoch, row.unit)).rowcount > 0

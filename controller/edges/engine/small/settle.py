"""Staged exposures before the watermark become requests, in their order, and their units enter epochs.

What is settled how is said in ``engine.settle`` and ``engine.entering``; here it is done row by row.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from controller.edges.engine.settling import HORIZON, Counts, Settling, Tally

_UNSIGNED = (1 << 64) - 1


class Staged(NamedTuple):
    """A staged exposure, in the order of the table's columns."""

    attempt: int
    request_id: str
    fell_back: int
    numbers: str | None
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
    def id(self) -> tuple[int, int]:
        return self.h, self.mirror


def settle_exposures(con: sqlite3.Connection, step: Settling) -> Tally:
    """Move staged exposures before the watermark to ``requests`` and enter their units into epochs."""
    due = "staged_exposures WHERE attempt = ? AND t < ?"
    at = (step.attempt, step.until)
    rows = list(map(Staged._make, con.execute(f"SELECT * FROM {due}", at)))
    if not rows:
        return Tally(0, 0, 0, 0, [], 0)
    first: dict[tuple[int, int], Staged] = {}
    for row in sorted(rows, key=lambda r: (r.t, r.epoch, r.challenger, r.usable, r.bucket)):
        first.setdefault(row.id, row)
    known = _known(con, first.values())
    fresh = [row for row in first.values() if row.id not in known]
    kept = sorted((r for r in fresh if r.t >= step.since), key=lambda r: (r.t, r.request_id, r.mirror))
    numbered = list(enumerate(kept, step.last_n + 1))
    con.executemany(f"INSERT INTO requests VALUES ({','.join('?' * 14)})", [(n, *row[4:]) for n, row in numbered])
    con.execute(f"DELETE FROM {due}", at)
    late = len(fresh) - len(kept)
    clashes = sum(row.unit != known.get(row.id, first[row.id].unit) for row in rows)
    return Tally(
        len(rows), len(kept), len(rows) - len(fresh), late, _entered(con, numbered, frozenset(step.mirrors)), clashes
    )


def _known(con: sqlite3.Connection, rows: Collection[Staged]) -> dict[tuple[int, int], int]:
    """Of the requests that were settled before: the unit of each that has the id of one of ``rows``."""
    since = min(row.t for row in rows) - HORIZON
    same = con.execute(
        "SELECT r.h, r.mirror, r.unit FROM json_each(?) j CROSS JOIN requests r ON r.h = j.value WHERE r.t >= ?",
        (json.dumps([row.h for row in rows]), since),
    )
    found: dict[tuple[int, int], int] = {}
    for h, mirror, unit in same:
        found[h, mirror] = min(unit, found.get((h, mirror), unit), key=unsigned)
    asked = {row.id for row in rows}
    return {key: unit for key, unit in found.items() if key in asked}


def unsigned(number: int) -> int:
    """The hash as it was; the order of hashes is that of numbers without a sign."""
    return number & _UNSIGNED


class _Entry(NamedTuple):
    challenger: int
    evidence: int


def _entered(con: sqlite3.Connection, numbered: Sequence[tuple[int, Staged]], mirrors: frozenset[int]) -> Counts:
    """Enter units into ``entries``, and units that changed their arm into ``crossed``; what all that adds to the counts
    of epochs."""
    counts: Counter[tuple[int, str]] = Counter()
    entries = _entries(con, {row.unit for _, row in numbered if row.hashed})
    new: list[tuple[object, ...]] = []
    for n, row in numbered:
        if not row.hashed:
            continue
        shown = row.epoch in mirrors
        counts[row.epoch, "champion_requests"] += not row.challenger and not row.mirror
        counts[row.epoch, "challenger_requests"] += row.mirror if shown else row.challenger and not row.mirror
        counts[row.epoch, "fallbacks"] += row.fell_back
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
            (row.epoch, row.unit, row.mirror, n, row.t, row.challenger, row.evidence, row.combo, row.numbers)
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


def _crosses(con: sqlite3.Connection, row: Staged) -> bool:
    """Whether the unit had not been seen on both sides of the epoch."""
    return con.execute("INSERT OR IGNORE INTO crossed VALUES (?, ?)", (row.epoch, row.unit)).rowcount > 0

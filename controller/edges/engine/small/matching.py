"""Outcomes before the watermark find their request or unit, once each.

What is matched how is said in ``engine.settle``; here it is done outcome by outcome, by the indexes.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from controller.core.cells import MetricPlan
from controller.edges.engine.settling import OutcomeTally, Settling, outcome_names
from controller.edges.engine.small.settle import unsigned
from controller.kinds import AWAITING, LABELLED


class Outcome(NamedTuple):
    """An outcome, in the order of the tables' columns."""

    h: int
    outcome_id: str
    t: int
    ingest_t: int
    name: str
    unit: int
    request: int
    row: int
    value: float


class Matched(NamedTuple):
    """An outcome whose request is known, or that needs none; ``unit`` is that of the request."""

    outcome: Outcome
    unit: int
    request_n: int | None
    request_t: int | None
    credit_t: int


def settle_outcomes(
    con: sqlite3.Connection, step: Settling, metrics: Iterable[MetricPlan], arrived: int
) -> OutcomeTally:
    """Move staged outcomes before the watermark on, once each, and match what waits with its request.

    Only fresh outcomes look among the requests of earlier steps; ``arrived``: how many this step has."""
    metrics = [m for m in metrics if m.family in AWAITING]
    staged, kept = _say(con, step)
    # Of another attempt's requests; those that wait in vain are unknown.
    con.execute("DELETE FROM pending WHERE fresh AND request <> 0 AND request IN (SELECT h FROM foreign_ids)")
    labels = {m.outcome for m in metrics if m.family in LABELLED and m.outcome}
    matched = [*_of_requests(con, step, arrived), *_of_units(con, step, labels)]
    unknown = _strangers(con, matched, outcome_names(metrics))
    late = _late(con, step, metrics, matched) if kept else 0
    con.executemany(
        f"INSERT INTO outcomes VALUES ({','.join('?' * 12)})",
        [(*m.outcome[:5], m.unit, *m.outcome[6:], m.request_n, m.request_t, m.credit_t) for m in matched],
    )
    con.executemany("DELETE FROM pending WHERE h = ?", [(m.outcome.h,) for m in matched])
    con.execute("UPDATE pending SET fresh = 0 WHERE fresh AND request <> 0")
    (waiting,) = con.execute("SELECT count(*) FROM pending").fetchone()
    return OutcomeTally(staged, kept, staged - kept, late, unknown, waiting)


def _say(con: sqlite3.Connection, step: Settling) -> tuple[int, int]:
    """Make staged outcomes before the watermark pending, once each: how many there were, and how many are new."""
    rows = list(map(Outcome._make, con.execute("SELECT * FROM staged_outcomes WHERE ingest_t < ?", (step.until,))))
    if not rows:
        return 0, 0
    first: dict[int, Outcome] = {}
    for row in sorted(rows, key=lambda r: (r.ingest_t, r.t, r.name, r.value, r.row)):
        first.setdefault(row.h, row)
    known = con.execute(
        "SELECT s.h FROM json_each(?) j CROSS JOIN seen_outcomes s ON s.h = j.value", (json.dumps(list(first)),)
    )
    for (h,) in known.fetchall():
        del first[h]
    new = list(first.values())
    con.executemany("INSERT INTO seen_outcomes VALUES (?, ?)", [(row.h, row.ingest_t) for row in new])
    con.executemany(f"INSERT INTO pending VALUES ({','.join('?' * 9)}, 1)", new)
    con.execute("DELETE FROM staged_outcomes WHERE ingest_t < ?", (step.until,))
    return len(rows), len(new)


_OF_PENDING = ", ".join(f"p.{name}" for name in Outcome._fields)


def _of_requests(con: sqlite3.Connection, step: Settling, arrived: int) -> list[Matched]:
    """By request: the one of that id. Where requests of several journals have it, one of those that were answered
    before the outcome came in, drawn by their hashes: it must not depend on which was answered first."""
    columns = f"{_OF_PENDING}, r.n, r.t, r.h, r.unit"
    # Each in this order, from the few that came.
    rows = con.execute(
        f"SELECT {columns} FROM pending p CROSS JOIN requests r ON r.name = p.request "
        "WHERE p.fresh AND p.request <> 0 AND NOT r.mirror"
    ).fetchall()
    if arrived:
        rows += con.execute(
            f"SELECT {columns} FROM requests r CROSS JOIN pending p ON p.request = r.name "
            "WHERE r.n > ? AND NOT r.mirror AND NOT p.fresh",
            (step.last_n,),
        ).fetchall()
    found: dict[Outcome, list[_Request]] = {}
    for row in rows:
        found.setdefault(Outcome._make(row[:9]), []).append(_Request._make(row[9:]))
    return [_matched(outcome, requests) for outcome, requests in found.items()]


class _Request(NamedTuple):
    n: int
    t: int
    h: int
    unit: int


def _matched(outcome: Outcome, requests: Collection[_Request]) -> Matched:
    one = min(requests, key=lambda r: (max(r.t - outcome.ingest_t, 0), unsigned(r.h), r.n))
    return Matched(outcome, one.unit, one.n, one.t, max(outcome.t, one.t))


def _of_units(con: sqlite3.Connection, step: Settling, labels: Collection[str]) -> list[Matched]:
    """By unit: what names a label belongs to the unit's latest request at or before it, which is known once the
    watermark has passed it."""
    latest = "SELECT n, t FROM requests WHERE unit = ? AND t <= ? AND NOT mirror ORDER BY t DESC, n DESC LIMIT 1"
    due = con.execute(f"SELECT {_OF_PENDING} FROM pending p WHERE request = 0 AND t < ?", (step.until,)).fetchall()
    found = []
    for outcome in map(Outcome._make, due):
        about = con.execute(latest, (outcome.unit, outcome.t)).fetchone() if outcome.name in labels else None
        n, t = about or (None, None)
        found.append(Matched(outcome, outcome.unit, n, t, outcome.t))
    return found


def _strangers(con: sqlite3.Connection, matched: Iterable[Matched], wanted: Collection[str]) -> int:
    """How many outcomes that somebody looks at are of units that nobody knows. Units that were only ever served by hand
    or by a stale table are no strangers."""
    asked = [m for m in matched if m.outcome.request == 0 and m.request_n is None and m.outcome.name in wanted]
    known = (
        "SELECT EXISTS (SELECT 1 FROM entries WHERE unit = ?1) OR EXISTS (SELECT 1 FROM requests WHERE unit = ?1) "
        "OR EXISTS (SELECT 1 FROM foreign_ids WHERE h = ?1)"
    )
    return sum(not con.execute(known, (m.unit,)).fetchone()[0] for m in asked)


def _late(con: sqlite3.Connection, step: Settling, metrics: Sequence[MetricPlan], matched: Iterable[Matched]) -> int:
    """Outcomes that came after the block was final to which they would have counted."""
    overdue = [m for m in matched if m.outcome.ingest_t > m.credit_t + step.grace]
    return sum(
        any(_comes_late(con, step, plan, m) for plan in metrics if m.outcome.name in plan.outcomes) for m in overdue
    )


def _comes_late(con: sqlite3.Connection, step: Settling, plan: MetricPlan, m: Matched) -> bool:
    if plan.family in LABELLED:
        times = [] if m.request_t is None or m.outcome.t > m.request_t + plan.window else [m.request_t]
    else:
        entered = con.execute("SELECT t FROM entries WHERE unit = ? AND NOT mirror", (m.unit,))
        times = [t for (t,) in entered if t <= m.credit_t <= t + plan.window]
    return any(m.outcome.ingest_t >= final(plan, t, step.grace) for t in times)


def final(plan: MetricPlan, t: int, grace: int) -> int:
    """When the block of ``t`` is; an outcome that came in later does not count there."""
    return (t // plan.block + 1) * plan.block + plan.window + grace

"""What lies before the watermark is in order for good: staged rows become requests, entries and matched outcomes.

Rows are settled in the order (t, request id), whatever order they came in, so everything after this step is a
function of the set of rows alone. A row that comes when the watermark has passed it is late and takes no part.
"""

from collections.abc import Iterable
from typing import NamedTuple

import duckdb
import numpy as np

from controller.core.cells import MetricPlan
from controller.edges.engine.entering import enter
from controller.edges.engine.settling import HORIZON, OutcomeTally, Settling, Tally, outcome_names
from controller.kinds import AWAITING, LABELLED


def within(epochs: Iterable[int]) -> str:
    """SQL list of epoch numbers; one that no epoch has where there are none."""
    return "(" + ",".join(map(str, epochs)) + ")" if epochs else "(-1)"


def one(con: duckdb.DuckDBPyConnection, query: str, values: list[object] | None = None) -> int:
    """The single integer that ``query`` answers; 0 for NULL or no row."""
    row = con.execute(query, values or []).fetchone()
    return int(row[0] or 0) if row else 0


def many(con: duckdb.DuckDBPyConnection, change: str, values: list[object] | None = None) -> int:
    """How many rows ``change`` inserted, deleted or put into a new table."""
    return one(con, change, values)


def settle_exposures(con: duckdb.DuckDBPyConnection, step: Settling) -> Tally:
    """Move staged exposures before the watermark to ``requests`` and enter their units into epochs."""
    due = f"attempt = {step.attempt} AND t < {step.until}"
    ids = con.execute(f"SELECT h, mirror, t FROM staged_exposures WHERE {due}").fetchnumpy()
    staged = len(ids["h"])
    if staged == 0:
        return Tally(0, 0, 0, 0, [], 0)
    oldest, mirrored = int(ids["t"].min()), ids["mirror"].astype(bool)
    different = len(np.unique(ids["h"][mirrored])) + len(np.unique(ids["h"][~mirrored]))
    # Written as an inner join so that the few rows that arrived are hashed, and not the many that are known.
    known = f"JOIN requests r ON r.h = a.h AND r.mirror = a.mirror WHERE r.t >= {oldest - HORIZON}"
    rows = f"(SELECT * FROM staged_exposures WHERE {due}) a"
    late = clashes = 0
    once = staged == different and one(con, f"SELECT count(*) FROM {rows} {known}") == 0
    if not once:
        con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE arrived AS
            SELECT * FROM {rows}
            QUALIFY row_number() OVER (PARTITION BY h, mirror ORDER BY t, epoch, challenger, usable, bucket) = 1
            """
        )
        con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE again AS
            SELECT a.h, a.mirror, min(r.unit) AS unit FROM arrived a {known} GROUP BY a.h, a.mirror
            """
        )
        rows = "arrived a ANTI JOIN again k ON k.h = a.h AND k.mirror = a.mirror"
    if oldest < step.since:
        late = one(con, f"SELECT count(*) FROM {rows} WHERE a.t < {step.since}")
    kept = many(
        con,
        f"""
        CREATE OR REPLACE TEMP TABLE settled AS
        SELECT {step.last_n} + row_number() OVER (ORDER BY t, request_id, mirror) AS n, a.* EXCLUDE (attempt)
        FROM {rows} WHERE a.t >= {step.since}
        """,
    )
    con.execute("INSERT INTO requests SELECT * EXCLUDE (request_id, fell_back, numbers) FROM settled ORDER BY n")
    duplicates = staged - kept - late
    if duplicates:
        clashes = _clashes(con, due)
    con.execute(f"DELETE FROM staged_exposures WHERE {due}")
    epochs = enter(con, step.mirrors) if kept else []
    return Tally(staged, kept, duplicates, late, epochs, clashes)


def _clashes(con: duckdb.DuckDBPyConnection, due: str) -> int:
    """How many of the staged exposures that are ``due`` have the id of another unit's request."""
    return one(
        con,
        f"""
        SELECT count(*) FROM (SELECT h, mirror, unit FROM staged_exposures WHERE {due}) s
        JOIN arrived a ON a.h = s.h AND a.mirror = s.mirror
        LEFT JOIN again k ON k.h = s.h AND k.mirror = s.mirror
        WHERE s.unit <> COALESCE(k.unit, a.unit)
        """,
    )


class Waiting(NamedTuple):
    """Outcomes that are pending: all, those that name a request, fresh ones of these, and those of units that can be
    matched now."""

    all: int
    requests: int
    fresh: int
    units: int


def settle_outcomes(
    con: duckdb.DuckDBPyConnection, step: Settling, metrics: Iterable[MetricPlan], arrived: int
) -> OutcomeTally:
    """Move staged outcomes before the watermark on, once each, and match what waits with its request.

    Only fresh outcomes look among the requests of earlier steps; ``arrived``: how many this step has.
    """
    metrics = [m for m in metrics if m.family in AWAITING]
    staged, kept = _say(con, step)
    found = con.execute(
        f"""
        SELECT count(*), count_if(request <> 0), count_if(request <> 0 AND fresh),
            count_if(request = 0 AND t < {step.until})
        FROM pending
        """
    ).fetchone()
    assert found is not None
    waiting = Waiting(*found)
    labels = sorted({m.outcome for m in metrics if m.family in LABELLED and m.outcome})
    unknown = late = matched = 0
    gone = _away(con) if waiting.fresh else 0
    if _match(con, step, labels, waiting, arrived):
        unknown, overdue = _strangers(con, step, outcome_names(metrics))
        late = _late(con, step, metrics) if kept and overdue else 0
        con.execute("INSERT INTO outcomes SELECT * FROM matched")
        matched = many(con, "DELETE FROM pending WHERE h IN (SELECT h FROM matched)")
    if waiting.fresh:
        con.execute("UPDATE pending SET fresh = FALSE WHERE fresh AND request <> 0")
    return OutcomeTally(staged, kept, staged - kept, late, unknown, waiting.all - gone - matched)


def _say(con: duckdb.DuckDBPyConnection, step: Settling) -> tuple[int, int]:
    """Make staged outcomes before the watermark pending, once each: how many there were, and how many are new."""
    due = f"ingest_t < {step.until}"
    ids = con.execute(f"SELECT h FROM staged_outcomes WHERE {due}").fetchnumpy()["h"]
    staged = len(ids)
    if staged == 0:
        return 0, 0
    rows, kept = f"(SELECT * FROM staged_outcomes WHERE {due})", staged
    different = len(np.unique(ids))
    if staged != different or one(con, f"SELECT count(*) FROM seen_outcomes s SEMI JOIN {rows} due ON due.h = s.h"):
        rows = "said"
        kept = many(
            con,
            f"""
            CREATE OR REPLACE TEMP TABLE said AS
            WITH due AS (SELECT * FROM staged_outcomes WHERE {due})
            SELECT due.* FROM due ANTI JOIN seen_outcomes s ON s.h = due.h
            QUALIFY row_number() OVER (PARTITION BY due.h ORDER BY ingest_t, t, name, value, row) = 1
            """,
        )
    con.execute(f"INSERT INTO seen_outcomes SELECT h, ingest_t FROM {rows}")
    con.execute(f"INSERT INTO pending SELECT *, TRUE FROM {rows}")
    con.execute(f"DELETE FROM staged_outcomes WHERE {due}")
    return staged, kept


def _away(con: duckdb.DuckDBPyConnection) -> int:
    """Forget fresh outcomes that name a request of another attempt: how many."""
    return many(con, "DELETE FROM pending WHERE fresh AND request <> 0 AND request IN (SELECT h FROM foreign_ids)")


def _match(con: duckdb.DuckDBPyConnection, step: Settling, labels: list[str], waiting: Waiting, arrived: int) -> int:
    """Make ``matched``: the pending outcomes whose request is known, or that need none; how many. The table is there
    only where it is not empty.

    By request: the one of that id. Where requests of several journals have it, one of those that were answered before
    the outcome came in, drawn by their hashes: it must not depend on which was answered first. By unit: what names a
    label belongs to the unit's latest request at or before it, which is known once the watermark has passed it.
    """
    parts = []
    if waiting.fresh or (waiting.requests and arrived):
        parts.append(_by_request(step, waiting, arrived))
    if waiting.units:
        parts.append(_by_unit(step, labels))
    if not parts:
        return 0
    values: list[object] = [labels] if waiting.units and labels else []
    return many(con, f"CREATE OR REPLACE TEMP TABLE matched AS {' UNION ALL '.join(parts)}", values)


def _by_request(step: Settling, waiting: Waiting, arrived: int) -> str:
    asked = [*(["p.fresh"] if waiting.fresh else []), *([f"r.n > {step.last_n}"] if arrived else [])]
    return f"""
        SELECT p.* EXCLUDE (fresh) REPLACE (r.unit AS unit), r.n AS request_n, r.t AS request_t,
            greatest(p.t, r.t) AS credit_t
        FROM (
            SELECT p.h, arg_min(r.n, {{'t': greatest(r.t - p.ingest_t, 0), 'h': r.h, 'n': r.n}}) AS n
            FROM pending p JOIN requests r ON r.name = p.request
            WHERE p.request <> 0 AND NOT r.mirror AND ({" OR ".join(asked)}) GROUP BY p.h
        ) f JOIN pending p ON p.h = f.h JOIN requests r ON r.n = f.n
    """


def _by_unit(step: Settling, labels: list[str]) -> str:
    waiting = f"(SELECT * FROM pending WHERE request = 0 AND t < {step.until})"
    nothing = "CAST(NULL AS BIGINT)"
    if not labels:
        return f"SELECT * EXCLUDE (fresh), {nothing} AS request_n, {nothing} AS request_t, t AS credit_t FROM {waiting}"
    return f"""
        SELECT w.* EXCLUDE (fresh), r.n AS request_n, r.t AS request_t, w.t AS credit_t
        FROM {waiting} w LEFT JOIN (
            SELECT l.h, max(r.n) AS n FROM {waiting} l JOIN requests r ON r.unit = l.unit AND r.t <= l.t
            WHERE NOT r.mirror AND list_contains(?, l.name) GROUP BY l.h
        ) l ON l.h = w.h LEFT JOIN requests r ON r.n = l.n
    """


def _strangers(con: duckdb.DuckDBPyConnection, step: Settling, wanted: list[str]) -> tuple[int, int]:
    """Of ``matched``: how many outcomes that somebody looks at are of units that nobody knows, and how many came so
    late that their block may have been final."""
    asked = "request = 0 AND request_n IS NULL AND list_contains(?, name)"
    found = con.execute(
        f"SELECT count_if({asked}), count_if(ingest_t > credit_t + {step.grace}) FROM matched", [wanted]
    ).fetchone()
    assert found is not None
    units, overdue = found
    if units == 0:
        return 0, overdue
    # Here too what came is hashed, and not what is known.
    strange = con.execute(
        f"""
        SELECT m.h, m.unit FROM (SELECT h, unit FROM matched WHERE {asked}) m ANTI JOIN (
            SELECT e.unit FROM entries e SEMI JOIN matched x ON x.unit = e.unit
            UNION ALL
            SELECT f.h FROM foreign_ids f SEMI JOIN matched x ON x.unit = f.h
        ) k ON k.unit = m.unit
        """,
        [wanted],
    ).fetchnumpy()
    if not len(strange["h"]):
        return 0, overdue
    # Units that were only ever served by hand or by a stale table are no strangers either.
    # DuckDB finds ``strange`` by its name.
    known = con.execute("SELECT count(DISTINCT s.h) FROM strange s JOIN requests r ON r.unit = s.unit").fetchone()
    assert known is not None
    return len(strange["h"]) - known[0], overdue


def _late(con: duckdb.DuckDBPyConnection, step: Settling, metrics: list[MetricPlan]) -> int:
    """Outcomes in ``matched`` that came after the block was final to which they would have counted."""
    parts, names = [], []
    for m, name in [(plan, name) for plan in metrics for name in plan.outcomes]:
        names.append(name)
        if m.family in LABELLED:
            parts.append(
                f"""
                SELECT h FROM matched WHERE name = ? AND t <= request_t + {m.window}
                AND ingest_t >= {deadline(m, "request_t", step.grace)}
                """
            )
        else:
            parts.append(
                f"""
                SELECT m.h FROM matched m JOIN entries e ON e.unit = m.unit AND NOT e.mirror WHERE m.name = ?
                AND m.credit_t BETWEEN e.t AND e.t + {m.window}
                AND m.ingest_t >= {deadline(m, "e.t", step.grace)}
                """
            )
    return one(con, f"SELECT count(DISTINCT h) FROM ({' UNION ALL '.join(parts)})", list(names)) if parts else 0


def deadline(plan: MetricPlan, t: str, grace: int) -> str:
    """SQL: when the block of ``t`` is final; an outcome that came in later does not count there."""
    return f"(({t} // {plan.block} + 1) * {plan.block} + {plan.window + grace})"

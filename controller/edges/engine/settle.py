"""What lies before the watermark is in order for good: staged rows become requests, entries and matched outcomes.

Rows are settled in the order (t, request id), whatever order they came in, so everything after this step is a
function of the set of rows alone. A row that comes when the watermark has passed it is late and takes no part.
"""

from collections.abc import Iterable
from typing import NamedTuple

import duckdb

from controller.core.cells import MetricPlan
from controller.kinds import AWAITING, LABELLED

HORIZON = 600_000_000  # µs within which a repeated request id is a duplicate, and within which pairs are sought


class Settling(NamedTuple):
    """One step of the watermark: rows of ``attempt`` before ``until``, where those before ``since`` were settled.

    ``last_n`` is the number of the last request of the step before.
    """

    attempt: int
    since: int
    until: int
    last_n: int
    mirrors: tuple[int, ...]
    grace: int


class Tally(NamedTuple):
    """What became of the exposures of a step; ``epochs``: (epoch, count name, increment)."""

    kept: int
    duplicates: int
    late: int
    epochs: list[tuple[int, str, int]]
    clashes: int


def within(epochs: Iterable[int]) -> str:
    """SQL list of epoch numbers; one that no epoch has where there are none."""
    return "(" + ",".join(map(str, epochs)) + ")" if epochs else "(-1)"


def one(con: duckdb.DuckDBPyConnection, query: str, values: list[object] | None = None) -> int:
    """The single integer that ``query`` answers; 0 for NULL or no row."""
    row = con.execute(query, values or []).fetchone()
    return int(row[0] or 0) if row else 0


def settle_exposures(con: duckdb.DuckDBPyConnection, step: Settling) -> Tally:
    """Move staged exposures before the watermark to ``requests`` and enter their units into epochs."""
    due = f"attempt = {step.attempt} AND t < {step.until}"
    staged = one(con, f"SELECT count(*) FROM staged_exposures WHERE {due}")
    if staged == 0:
        return Tally(0, 0, 0, [], 0)
    oldest = one(con, f"SELECT min(t) FROM staged_exposures WHERE {due}") - HORIZON
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE arrived AS
        SELECT * FROM staged_exposures WHERE {due}
        QUALIFY row_number() OVER (PARTITION BY h, mirror ORDER BY t, epoch, challenger, usable, bucket) = 1
        """
    )
    # Written as an inner join so that the few rows that arrived are hashed, and not the many that are known.
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE again AS
        SELECT a.h, a.mirror, min(r.unit) AS unit FROM arrived a
        JOIN requests r ON r.h = a.h AND r.mirror = a.mirror WHERE r.t >= {oldest} GROUP BY a.h, a.mirror
        """
    )
    new = "arrived a ANTI JOIN again k ON k.h = a.h AND k.mirror = a.mirror"
    late = one(con, f"SELECT count(*) FROM {new} WHERE a.t < {step.since}")
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE settled AS
        SELECT {step.last_n} + row_number() OVER (ORDER BY t, request_id, mirror) AS n, a.* EXCLUDE (attempt)
        FROM {new} WHERE a.t >= {step.since}
        """
    )
    kept = one(con, "SELECT count(*) FROM settled")
    con.execute("INSERT INTO requests SELECT * EXCLUDE (request_id, fell_back, numbers) FROM settled ORDER BY n")
    duplicates = staged - kept - late
    clashes = _clashes(con, due) if duplicates else 0
    con.execute(f"DELETE FROM staged_exposures WHERE {due}")
    epochs = _requests_by_epoch(con, step) + _enter(con, step)
    return Tally(kept, duplicates, late, epochs, clashes)


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


def _requests_by_epoch(con: duckdb.DuckDBPyConnection, step: Settling) -> list[tuple[int, str, int]]:
    counted = con.execute(
        f"""
        SELECT epoch,
            count_if(NOT challenger AND NOT mirror),
            count_if(CASE WHEN epoch IN {within(step.mirrors)} THEN mirror ELSE challenger AND NOT mirror END),
            count_if(fell_back)
        FROM settled WHERE hashed GROUP BY epoch
        """
    ).fetchall()
    names = ("champion_requests", "challenger_requests", "fallbacks")
    return [(row[0], name, count) for row in counted for name, count in zip(names, row[1:], strict=True)]


def _enter(con: duckdb.DuckDBPyConnection, step: Settling) -> list[tuple[int, str, int]]:
    """First hash-assigned exposures of units in epochs, and the sample ratio's first ones of the attempt."""
    mirrors = within(step.mirrors)
    con.execute(
        """
        CREATE OR REPLACE TEMP TABLE entered AS
        WITH firsts AS (
            SELECT epoch, unit, mirror, min(n) AS n FROM settled WHERE hashed GROUP BY epoch, unit, mirror
        )
        SELECT f.epoch, f.unit, f.mirror, f.n, s.t, s.challenger, s.evidence, s.combo, s.numbers
        FROM firsts f JOIN settled s ON s.n = f.n
        ANTI JOIN entries e ON e.epoch = f.epoch AND e.unit = f.unit AND e.mirror = f.mirror
        """
    )
    counted = con.execute(
        f"""
        WITH weighted AS (
            SELECT epoch, unit, n, challenger, evidence,
                row_number() OVER (PARTITION BY unit ORDER BY n) = 1 AS earliest
            FROM entered WHERE NOT mirror AND epoch NOT IN {mirrors}
        ),
        firsts AS (
            SELECT w.* FROM weighted w
            ANTI JOIN (SELECT unit FROM entries WHERE NOT mirror AND epoch NOT IN {mirrors}) e ON e.unit = w.unit
            WHERE w.earliest AND w.evidence
        )
        SELECT epoch, CASE WHEN challenger THEN 'first_challenger' ELSE 'first_champion' END, count(*)
        FROM firsts GROUP BY ALL
        UNION ALL
        SELECT epoch, CASE WHEN challenger OR mirror THEN 'challenger_units' ELSE 'champion_units' END, count(*)
        FROM entered WHERE evidence OR epoch IN {mirrors} GROUP BY ALL
        """
    ).fetchall()
    con.execute("INSERT INTO entries SELECT * FROM entered")
    return counted + _cross(con, step)


def _cross(con: duckdb.DuckDBPyConnection, step: Settling) -> list[tuple[int, str, int]]:
    """Units that are evidence for an arm which is not the one they entered the epoch with."""
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE crossing AS
        SELECT DISTINCT s.epoch, s.unit FROM settled s
        JOIN entries e ON e.epoch = s.epoch AND e.unit = s.unit AND NOT e.mirror
        ANTI JOIN crossed c ON c.epoch = s.epoch AND c.unit = s.unit
        WHERE s.evidence AND e.evidence AND s.challenger <> e.challenger AND NOT s.mirror
            AND s.epoch NOT IN {within(step.mirrors)}
        """
    )
    counted = con.execute("SELECT epoch, 'overlap', count(*) FROM crossing GROUP BY epoch").fetchall()
    if counted:
        con.execute("INSERT INTO crossed SELECT * FROM crossing")
    return counted


class OutcomeTally(NamedTuple):
    """What became of the outcomes of a step."""

    kept: int
    duplicates: int
    late: int
    unknown: int


def settle_outcomes(con: duckdb.DuckDBPyConnection, step: Settling, metrics: Iterable[MetricPlan]) -> OutcomeTally:
    """Move staged outcomes before the watermark on, once each, and match what waits with its request.

    Only fresh outcomes look among the requests of earlier steps.
    """
    metrics = [m for m in metrics if m.family in AWAITING]
    due = f"ingest_t < {step.until}"
    staged = one(con, f"SELECT count(*) FROM staged_outcomes WHERE {due}")
    kept = 0
    if staged:
        con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE said AS
            WITH due AS (SELECT * FROM staged_outcomes WHERE {due})
            SELECT due.* FROM due ANTI JOIN seen_outcomes s ON s.h = due.h
            QUALIFY row_number() OVER (PARTITION BY due.h ORDER BY ingest_t, t, name, value, row) = 1
            """
        )
        kept = one(con, "SELECT count(*) FROM said")
        con.execute("INSERT INTO seen_outcomes SELECT h, ingest_t FROM said")
        con.execute("INSERT INTO pending SELECT *, TRUE FROM said")
        con.execute(f"DELETE FROM staged_outcomes WHERE {due}")
    if one(con, "SELECT count(*) FROM pending") == 0:
        return OutcomeTally(kept, staged - kept, 0, 0)
    labels = sorted({m.outcome for m in metrics if m.family in LABELLED and m.outcome})
    unknown = _match(con, step, labels, outcome_names(metrics))
    late = _late(con, step, metrics) if kept else 0
    con.execute("INSERT INTO outcomes SELECT * FROM matched")
    con.execute("DELETE FROM pending WHERE h IN (SELECT h FROM matched)")
    con.execute("UPDATE pending SET fresh = FALSE WHERE fresh AND request <> 0")
    return OutcomeTally(kept, staged - kept, late, unknown)


def outcome_names(metrics: Iterable[MetricPlan]) -> list[str]:
    """The outcomes that some metric looks at; of others nobody needs to know whether they are unknown."""
    return sorted({name for m in metrics for name in m.outcomes})


def _match(con: duckdb.DuckDBPyConnection, step: Settling, labels: list[str], wanted: list[str]) -> int:
    """Make ``matched``: the pending outcomes whose request is known, or that need none; how many units are unknown.

    By request: its first exposure of that id. By unit: what names a label belongs to the unit's latest request at or
    before it, which is known once the watermark has passed the outcome.
    """
    con.execute("DELETE FROM pending WHERE fresh AND request <> 0 AND request IN (SELECT h FROM foreign_ids)")
    newest = one(con, "SELECT max(n) FROM requests")
    asked = "p.fresh" if newest <= step.last_n else f"(p.fresh OR r.n > {step.last_n})"
    if one(con, "SELECT count(*) FROM pending WHERE fresh AND request <> 0") == 0:
        asked = f"r.n > {step.last_n}"
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE matched AS
        WITH found AS (
            SELECT p.h, min(r.n) AS n FROM pending p JOIN requests r ON r.h = p.request
            WHERE p.request <> 0 AND NOT r.mirror AND {asked} GROUP BY p.h
        )
        SELECT p.* EXCLUDE (fresh) REPLACE (r.unit AS unit), r.n AS request_n, r.t AS request_t,
            greatest(p.t, r.t) AS credit_t
        FROM found f JOIN pending p ON p.h = f.h JOIN requests r ON r.n = f.n
        """
    )
    by_unit = f"request = 0 AND t < {step.until}"
    if one(con, f"SELECT count(*) FROM pending WHERE {by_unit}") == 0:
        return 0
    con.execute(
        f"""
        INSERT INTO matched
        WITH waiting AS (SELECT * FROM pending WHERE {by_unit}),
        labels AS (SELECT h, unit, t FROM waiting WHERE list_contains(?, name)),
        latest AS (
            SELECT l.h, max(r.n) AS n FROM labels l JOIN requests r ON r.unit = l.unit AND r.t <= l.t
            WHERE NOT r.mirror GROUP BY l.h
        )
        SELECT w.* EXCLUDE (fresh), r.n, r.t, w.t
        FROM waiting w LEFT JOIN latest l ON l.h = w.h LEFT JOIN requests r ON r.n = l.n
        """,
        [labels],
    )
    con.execute(
        """
        CREATE OR REPLACE TEMP TABLE strangers AS
        SELECT m.h, m.unit FROM matched m
        WHERE m.request = 0 AND m.request_n IS NULL AND list_contains(?, m.name)
            AND m.unit NOT IN (SELECT unit FROM entries) AND m.unit NOT IN (SELECT h FROM foreign_ids)
        """,
        [wanted],
    )
    # Units that were only ever served by hand or by a stale table are no strangers either.
    known = one(con, "SELECT count(DISTINCT s.h) FROM strangers s JOIN requests r ON r.unit = s.unit")
    return one(con, "SELECT count(*) FROM strangers") - known


def _late(con: duckdb.DuckDBPyConnection, step: Settling, metrics: list[MetricPlan]) -> int:
    """Outcomes in ``matched`` that came after the block was final to which they would have counted."""
    if one(con, f"SELECT count(*) FROM matched WHERE ingest_t > credit_t + {step.grace}") == 0:
        return 0
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

"""The raw log as the oracle sees it: two tables, and the relations that its queries begin with."""

from collections.abc import Sequence

import duckdb

from controller.edges.engine.rows import ExposureRow, OutcomeRow
from controller.edges.engine.terms import bucket_edges

EXPOSURES = """
    attempt INTEGER, epoch INTEGER, t BIGINT, request_id VARCHAR, unit VARCHAR, challenger BOOLEAN, hashed BOOLEAN,
    evidence BOOLEAN, mirror BOOLEAN, usable BOOLEAN, fell_back BOOLEAN, latency_us BIGINT, segments VARCHAR[],
    scores DOUBLE[]"""
OUTCOMES = """
    outcome_id VARCHAR, t BIGINT, ingest_t BIGINT, name VARCHAR, value DOUBLE, unit VARCHAR, request_id VARCHAR,
    row INTEGER"""
# The log up to the watermark, each event once; every outcome with the unit, request and time that it counts for; the
# first exposure of each unit in each epoch, with the time when the unit entered its next one.
LOG = """
    epochs(epoch, in_mirror, pi, mean) AS (VALUES {epochs}),
    seen AS (
        SELECT * FROM exposures WHERE attempt = {attempt} AND t < {watermark}
        QUALIFY row_number() OVER (
            PARTITION BY request_id, mirror ORDER BY t, epoch, challenger, usable, latency_us
        ) = 1
    ),
    requests AS (SELECT s.*, e.in_mirror, e.pi, e.mean FROM seen s JOIN epochs e USING (epoch) WHERE NOT mirror),
    shadows AS (SELECT * FROM seen WHERE mirror),
    said AS (
        SELECT * FROM outcomes WHERE ingest_t < {watermark}
        QUALIFY row_number() OVER (PARTITION BY outcome_id ORDER BY ingest_t, t, name, value, row) = 1
    ),
    latest AS (
        SELECT o.outcome_id, arg_max(r.request_id, {{'t': r.t, 'id': r.request_id}}) AS request_id
        FROM said o JOIN requests r ON r.unit = o.unit AND r.t <= o.t
        WHERE o.request_id IS NULL AND o.t < {watermark} GROUP BY o.outcome_id
    ),
    credited AS (
        SELECT o.* EXCLUDE (unit, request_id), r.unit, r.request_id, r.t AS request_t, greatest(o.t, r.t) AS credit_t
        FROM said o JOIN requests r ON r.request_id = o.request_id
        UNION ALL
        SELECT o.* EXCLUDE (unit, request_id), o.unit, l.request_id, r.t, o.t
        FROM said o LEFT JOIN latest l USING (outcome_id) LEFT JOIN requests r ON r.request_id = l.request_id
        WHERE o.request_id IS NULL
    ),
    firsts AS (
        SELECT * FROM requests WHERE hashed
        QUALIFY row_number() OVER (PARTITION BY epoch, unit ORDER BY t, request_id) = 1
    ),
    stays AS (SELECT *, lead(t) OVER (PARTITION BY unit ORDER BY t, request_id) AS left_t FROM firsts)
"""
SEGMENTS = "unnest(list_prepend('', list_distinct(segments))) AS segment"
# The log bucket of a value y; zeros alone are in 0.
PLACE = f"""CASE WHEN y = 0 THEN 0 ELSE greatest(1, (
    SELECT count(*) FROM (SELECT unnest({list(bucket_edges())}) AS edge) WHERE edge < abs(y))) END"""
# Running scores of units: what a unit had before each of its cells, over all blocks and epochs.
RUNNING = """
    running AS (
        SELECT *, COALESCE(sum(s) OVER (
            PARTITION BY segment, unit ORDER BY block, epoch, challenger
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), CAST(0 AS HUGEINT)) AS old
        FROM scored
    )
"""
# The largest level that a unit had reached in all earlier blocks; NULL where there is none.
BEFORE = """
    max(reached) OVER (
        PARTITION BY segment, unit ORDER BY block, epoch GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS before
"""


def load(con: duckdb.DuckDBPyConnection, exposures: Sequence[ExposureRow], outcomes: Sequence[OutcomeRow]) -> None:
    """Make the two tables of the raw log from rows (slowly; DuckDB can as well read them from files)."""
    con.execute(f"CREATE OR REPLACE TABLE exposures ({EXPOSURES})")
    con.execute(f"CREATE OR REPLACE TABLE outcomes ({OUTCOMES})")
    for table, rows in (("exposures", exposures), ("outcomes", outcomes)):
        for start in range(0, len(rows), 500):
            part = [[list(v) if isinstance(v, tuple) else v for v in row] for row in rows[start : start + 500]]
            marks = ",".join("(" + ",".join("?" * len(row)) + ")" for row in part)
            con.execute(f"INSERT INTO {table} VALUES {marks}", [value for row in part for value in row])

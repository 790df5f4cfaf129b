"""The raw log as the oracle sees it: two tables, and the relations that its queries begin with."""

from collections.abc import Sequence

import duckdb

from controller.core.areas import FURTHEST_SCORE, LAST, SCORE_EDGES
from controller.core.cells import PPM, MetricPlan, StatisticsQuery
from controller.edges.engine.rows import ExposureRow, OutcomeRow, SampleRow
from controller.edges.engine.segments import identity
from controller.edges.engine.terms import MOMENTS, bucket_edges, quantities, taken

EXPOSURES = """
    attempt INTEGER, epoch INTEGER, t BIGINT, request_id VARCHAR, unit VARCHAR, challenger BOOLEAN, hashed BOOLEAN,
    evidence BOOLEAN, mirror BOOLEAN, usable BOOLEAN, fell_back BOOLEAN, latency_us BIGINT, segments VARCHAR[],
    scores DOUBLE[], numbers BIGINT[], journal VARCHAR, key VARCHAR, h UBIGINT"""
OUTCOMES = """
    outcome_id VARCHAR, t BIGINT, ingest_t BIGINT, name VARCHAR, value DOUBLE, unit VARCHAR, request_id VARCHAR,
    row INTEGER"""
SAMPLES = "attempt INTEGER, epoch INTEGER, metric VARCHAR, challenger BOOLEAN, t BIGINT, value BIGINT"
# The log up to the watermark, each event once; every outcome with the unit, request and time that it counts for; the
# first exposure of each unit in each epoch, with the time when the unit entered its next one.
LOG = """
    epochs(epoch, in_mirror, pi, mean) AS (VALUES {epochs}),
    seen AS (
        SELECT * EXCLUDE (key) REPLACE (key AS request_id), request_id AS name
        FROM exposures WHERE attempt = {attempt} AND t < {watermark}
        QUALIFY row_number() OVER (
            PARTITION BY key, mirror ORDER BY t, epoch, challenger, usable, latency_us
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
    named AS (
        SELECT o.outcome_id,
            arg_min(r.request_id, {{'t': greatest(r.t - o.ingest_t, 0), 'h': r.h, 'n': r.t}}) AS request_id
        FROM said o JOIN seen r ON r.name = o.request_id WHERE NOT r.mirror GROUP BY o.outcome_id
    ),
    credited AS (
        SELECT o.* EXCLUDE (unit, request_id), r.unit, r.request_id, r.t AS request_t, greatest(o.t, r.t) AS credit_t
        FROM said o JOIN named n USING (outcome_id) JOIN requests r ON r.request_id = n.request_id
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
# After ``faced``: of units that fail in a block also what they scored before, each time with A − π.
FAILED = f"""
    scored AS (
        SELECT segment, epoch, block, challenger, unit,
            CAST(CASE WHEN challenger THEN {PPM} - pi ELSE -pi END AS HUGEINT) AS s
        FROM faced JOIN epochs USING (epoch) WHERE level = 1
    ),
    {RUNNING}
"""
# The largest level that a unit had reached in all earlier blocks; NULL where there is none.
BEFORE = """
    max(reached) OVER (
        PARTITION BY segment, unit ORDER BY block, epoch GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS before
"""


def log(query: StatisticsQuery, plan: MetricPlan, watermark: int) -> str:
    """SQL, to follow a WITH: the log up to ``watermark`` (µs), with each epoch's share and mean of ``plan``."""
    epochs = ",".join(
        f"({e.number}, {e.kind == 'mirror'}, {e.pi_ppm}, {e.means.get(plan.name, 0)})" for e in query.epochs
    )
    return LOG.format(epochs=epochs or "(-1, FALSE, 0, 0)", attempt=query.attempt, watermark=watermark)


def load(
    con: duckdb.DuckDBPyConnection,
    exposures: Sequence[ExposureRow],
    outcomes: Sequence[OutcomeRow],
    samples: Sequence[SampleRow] = (),
) -> None:
    """Make the tables of the raw log from rows (slowly; DuckDB can as well read them from files)."""
    con.execute(f"CREATE OR REPLACE TABLE samples ({SAMPLES})")
    con.execute(f"CREATE OR REPLACE TABLE exposures ({EXPOSURES})")
    con.execute(f"CREATE OR REPLACE TABLE outcomes ({OUTCOMES})")
    keyed = [(*row, row.key, identity(row.key)) for row in exposures]
    for table, rows in (("exposures", keyed), ("outcomes", outcomes), ("samples", samples)):
        for start in range(0, len(rows), 500):
            part = [[list(v) if isinstance(v, tuple) else v for v in row] for row in rows[start : start + 500]]
            marks = ",".join("(" + ",".join("?" * len(row)) + ")" for row in part)
            con.execute(f"INSERT INTO {table} VALUES {marks}", [value for row in part for value in row])


def known(query: StatisticsQuery, plan: MetricPlan) -> str:
    """SQL, after ``LOG``: the covariate of each unit, which is that of its first request."""
    place = 0 if plan.covariate is None else query.covariates.index(plan.covariate) + 1
    return f"""
        known AS (
            SELECT unit, CAST(numbers[{place}] AS HUGEINT) AS c FROM firsts
            QUALIFY row_number() OVER (PARTITION BY unit ORDER BY t, request_id) = 1
        )
    """


def scored(query: StatisticsQuery, plan: MetricPlan, judged: str) -> str:
    """SQL, after ``units``: the sums of a ``unit`` or ``label`` kind, those of its covariate last."""
    by = ",".join(str((e.number, *quantities(e.adjustments.get(plan.name)))) for e in query.epochs)
    return f"""
        adjustments(epoch, centre, per, slope, most) AS (VALUES {by}),
        adjusted AS (SELECT u.*, y - {taken("c")} AS z FROM units u JOIN adjustments USING (epoch) WHERE {judged}),
        scored AS (
            SELECT *, CASE WHEN challenger THEN CAST({PPM} - pi AS HUGEINT) ELSE CAST(-pi AS HUGEINT) END
                * (z - CAST(mean AS HUGEINT) * x) AS s
            FROM adjusted
        ),
        {RUNNING}
        SELECT segment, epoch, block, challenger, count(*), sum(x), sum(y), sum(z * z), sum(x * z), sum(x * x),
            sum(CASE WHEN y <> 0 THEN 1 ELSE 0 END), sum((old + s) * (old + s) - old * old), {MOMENTS}, sum(y - z)
        FROM running GROUP BY ALL
    """


def ranked(positive: float, judged: str) -> str:
    """SQL, after ``asked`` and ``labels``: an Auc's cells, with lists of the bins of its positives and negatives."""
    place = f"(SELECT count(*) FROM (SELECT unnest({list(SCORE_EDGES)}) AS edge) WHERE edge <= held)"
    return f"""
        ranked AS (
            SELECT {SEGMENTS}, epoch, block, challenger, unit, l.value = {positive!r} AS positive,
                usable AND scores[l.row + 1] IS NOT NULL AS answered,
                greatest(least(scores[l.row + 1], {FURTHEST_SCORE}), -{FURTHEST_SCORE}) AS held
            FROM asked r JOIN labels l USING (request_id) WHERE NOT usable OR len(scores) > l.row
        ),
        placed AS (
            SELECT * EXCLUDE (held), CASE WHEN answered THEN {place} WHEN positive THEN 0 ELSE {LAST} END AS bin
            FROM ranked WHERE {judged}
        ),
        scored AS (
            SELECT segment, epoch, block, challenger, unit, CAST(count(*) AS HUGEINT) AS s,
                list(bin) FILTER (positive) AS yes, list(bin) FILTER (NOT positive) AS no
            FROM placed GROUP BY ALL
        ),
        {RUNNING}
        SELECT segment, epoch, block, challenger, count(*), sum((old + s) * (old + s) - old * old),
            flatten(list(yes) FILTER (yes IS NOT NULL)), flatten(list(no) FILTER (no IS NOT NULL))
        FROM running GROUP BY ALL
    """


def differing(threshold: float, scale: int, judged: str) -> str:
    """SQL, after ``pairs``: a Disagreement's cells."""
    side = "list_transform({}, lambda s: s >= " + repr(threshold) + ")"
    return f"""
        known AS (
            SELECT *, usable <> shadow_usable OR (
                usable AND {side.format("scores")} IS DISTINCT FROM {side.format("shadow_scores")}) AS differ
            FROM pairs WHERE (usable OR shadow_usable)
                AND NOT (usable AND shadow_usable AND (scores IS NULL OR shadow_scores IS NULL))
        ),
        exploded AS (SELECT *, {SEGMENTS} FROM known WHERE {judged}),
        scored AS (
            SELECT segment, epoch, block, FALSE AS challenger, unit, CAST(count(*) AS HUGEINT) AS x,
                CAST({scale} * count_if(differ) AS HUGEINT) AS s
            FROM exploded GROUP BY ALL
        ),
        {RUNNING}
        SELECT segment, epoch, block, count(*), sum(x), sum(s), sum(s * s), sum((old + s) * (old + s) - old * old), 0, 0
        FROM running GROUP BY ALL
    """


def scored_pairs(champion: tuple[str, str], challenger: tuple[str, str], decided: bool) -> str:
    """SQL, after ``paired``: a mirror's cells of a label kind from both arms' terms; ``decided`` as in ``kinds``."""
    products = """, sum((b - a) * (v - x)), sum((b - a) * a), sum((b - a) * x),
        sum((v - x) * (v - x)), sum((v - x) * a), sum((v - x) * x), sum(a * a), sum(a * x), sum(x * x)"""
    return f"""
        terms AS (
            SELECT segment, epoch, block, unit, mean, CAST({champion[0]} AS HUGEINT) AS x,
                CAST({challenger[0]} AS HUGEINT) AS v, CAST({champion[1]} AS HUGEINT) AS a,
                CAST({challenger[1]} AS HUGEINT) AS b
            FROM paired l
        ),
        units AS (
            SELECT segment, epoch, block, FALSE AS challenger, unit, mean, sum(x) AS x, sum(v) AS v, sum(a) AS a,
                sum(b) AS b
            FROM terms WHERE {"x + v > 0" if decided else "x * v > 0"} GROUP BY ALL
        ),
        scored AS (SELECT *, (b - mean * v) - (a - mean * x) AS s FROM units),
        {RUNNING}
        SELECT segment, epoch, block, count(*), sum(x), sum(b - a), sum((b - a) * (b - a)),
            sum((old + s) * (old + s) - old * old), sum(a), sum(v - x){products if decided else ""}
        FROM running GROUP BY ALL
    """


def ranked_pairs(positive: float) -> str:
    """SQL, after ``paired``: a mirror's cells of an Auc, with lists of the bins of positives and of negatives,
    that of the champion's score times the number of bins plus that of the challenger's."""
    bins = []
    for arm in ("", "shadow_"):
        held = f"greatest(least({arm}scores[row + 1], {FURTHEST_SCORE}), -{FURTHEST_SCORE})"
        place = f"len(list_filter({list(SCORE_EDGES)}, lambda e: e <= {held}))"
        answered = f"{arm}usable AND {arm}scores[row + 1] IS NOT NULL"
        bins.append(f"CASE WHEN {answered} THEN {place} WHEN value = {positive!r} THEN 0 ELSE {LAST} END")
    return f"""
        placed AS (
            SELECT segment, epoch, block, unit, value = {positive!r} AS positive,
                ({bins[0]}) * {LAST + 1} + ({bins[1]}) AS bins
            FROM paired
        ),
        scored AS (
            SELECT segment, epoch, block, FALSE AS challenger, unit, CAST(count(*) AS HUGEINT) AS s,
                list(bins) FILTER (positive) AS yes, list(bins) FILTER (NOT positive) AS no
            FROM placed GROUP BY ALL
        ),
        {RUNNING}
        SELECT segment, epoch, block, count(*), sum((old + s) * (old + s) - old * old),
            flatten(list(yes) FILTER (yes IS NOT NULL)), flatten(list(no) FILTER (no IS NOT NULL))
        FROM running GROUP BY ALL
    """


def active(plan: MetricPlan, rows: str) -> str:
    """SQL, after the log: a Throughput's units by block."""
    return f"""
        exploded AS (SELECT *, t // {plan.block} AS block, {SEGMENTS} FROM requests WHERE {rows}),
        units AS (
            SELECT segment, epoch, block, challenger, in_mirror, any_value(pi) AS pi, any_value(mean) AS mean, unit,
                CAST(1 AS HUGEINT) AS x, CAST({plan.scale} AS HUGEINT) AS y, CAST(NULL AS HUGEINT) AS c
            FROM exploded GROUP BY segment, epoch, block, challenger, in_mirror, unit
        )
    """

"""What every unit brings to a cell of a ``unit`` or ``label`` kind, and its two answers in a mirror, as SQL."""

from controller.edges.engine.span import Span, pairs
from controller.edges.engine.terms import label_term, outcome_sum


def _unit_rows(span: Span, rows: str, capped: bool) -> tuple[str, list[object]]:
    plan = span.plan
    # Entries are hash-assigned by definition, so a condition on exposures can be put to them.
    sql = f"""
        WITH ent AS (
            SELECT * FROM (SELECT *, TRUE AS hashed FROM entries)
            WHERE NOT mirror AND t >= {span.since} AND t < {span.until} AND {rows}
        ),
        stays AS (
            SELECT n, lead(t) OVER (PARTITION BY unit ORDER BY n) AS left_t FROM entries
            WHERE NOT mirror AND unit IN (SELECT unit FROM ent)
        ),
        hits AS (
            SELECT ent.n, {outcome_sum(plan, "o.value", capped)} AS y
            FROM ent JOIN stays USING (n) JOIN outcomes o ON o.unit = ent.unit
            WHERE o.name = ? AND o.credit_t BETWEEN ent.t AND ent.t + {plan.window}
                AND (left_t IS NULL OR o.credit_t < left_t) AND o.ingest_t < {span.final("ent.t")}
            GROUP BY ent.n
        )
        SELECT segment, epoch, t // {plan.block} AS block, challenger, unit,
            CAST(1 AS HUGEINT) AS x, CAST(COALESCE(y, 0) AS HUGEINT) AS y
        FROM ent LEFT JOIN hits USING (n) JOIN combos USING (combo)
    """
    return sql, [plan.outcome]


def label_terms(span: Span, rows: str, capped: bool) -> tuple[str, list[object]]:
    """SQL and its values: labelled rows that count, in every segment that has them."""
    plan, query = span.plan if capped else span.plan._replace(cap=None), span.query
    term = label_term(plan, query.positive, query.threshold, "r.usable", "r.scores[l.row + 1]", "l.value")
    sql = f"""
        WITH labels AS (
            SELECT request_n, row, arg_min(value, {{'t': t, 'id': outcome_id}}) AS value
            FROM outcomes WHERE name = ? AND request_t >= {span.since} AND request_t < {span.until}
                AND t <= request_t + {plan.window} AND ingest_t < {span.final("request_t")}
            GROUP BY request_n, row
        ),
        terms AS (
            SELECT r.epoch, r.t // {plan.block} AS block, r.challenger, r.unit, r.combo,
                {term.x} AS x, {term.y} AS y
            FROM labels l JOIN (
                SELECT * FROM requests WHERE NOT mirror AND t >= {span.since} AND t < {span.until} AND {rows}
            ) r ON r.n = l.request_n
            WHERE NOT r.usable OR len(r.scores) > l.row
        )
        SELECT * FROM terms JOIN combos USING (combo) WHERE x > 0
    """
    return sql, [plan.outcome]


def _label_rows(span: Span, rows: str, capped: bool) -> tuple[str, list[object]]:
    sql, values = label_terms(span, rows, capped)
    sums = "SELECT segment, epoch, block, challenger, unit, sum(x) AS x, sum(y) AS y"
    return f"{sums} FROM ({sql}) GROUP BY ALL", values


def score_rows(span: Span, rows: str, capped: bool) -> tuple[str, list[object]]:
    """SQL and its values: one row per unit and cell, with its x and y, of a ``unit`` or ``label`` kind."""
    return _unit_rows(span, rows, capped) if span.plan.family == "unit" else _label_rows(span, rows, capped)


def pair_score_rows(span: Span) -> tuple[str, list[object]]:
    """SQL and its values: one row per unit and block of a mirror, label kinds: rows x, difference d, champion's y."""
    plan, query = span.plan, span.query
    sides = [
        label_term(plan, query.positive, query.threshold, f"p.{a}_usable", f"p.{a}_scores[l.row + 1]", "l.value")
        for a in ("champion", "challenger")
    ]
    sql = f"""
        WITH pairs AS ({pairs(span)}),
        timely AS (
            SELECT o.*, p.t AS pair_t FROM outcomes o JOIN pairs p ON p.n = o.request_n
            WHERE o.name = ? AND o.t <= o.request_t + {plan.window} AND o.ingest_t < {span.final("p.t")}
        ),
        labels AS (
            SELECT request_n, row, arg_min(value, {{'t': t, 'id': outcome_id}}) AS value
            FROM timely GROUP BY request_n, row
        ),
        terms AS (
            SELECT p.epoch, p.t // {plan.block} AS block, p.unit, p.combo, {sides[0].x} AS x,
                {sides[0].y} AS champion_y, {sides[1].x} AS challenger_x, {sides[1].y} AS challenger_y
            FROM labels l JOIN pairs p ON p.n = l.request_n
            WHERE (NOT p.champion_usable OR len(p.champion_scores) > l.row)
                AND (NOT p.challenger_usable OR len(p.challenger_scores) > l.row)
        )
        SELECT segment, epoch, block, unit, sum(x) AS x, sum(challenger_y - champion_y) AS d,
            sum(champion_y) AS champion_y
        FROM terms JOIN combos USING (combo) WHERE x > 0 AND challenger_x > 0 GROUP BY ALL
    """
    return sql, [plan.outcome]

"""What every unit brings to a cell of a ``unit`` or ``label`` kind, and its two answers in a mirror, as SQL."""

from controller.core.areas import LAST, SCORE_EDGES
from controller.core.cells import MetricPlan
from controller.edges.engine.span import Span, pairs
from controller.edges.engine.terms import denominator_sum, differs, held_score, label_term, outcome_sum
from controller.kinds import DECIDED, REQUESTS, Kind


def _unit_rows(span: Span, rows: str, capped: bool) -> tuple[str, list[object]]:
    plan = span.plan
    values: list[object] = []
    above, below = "SELECT n, 0 AS y FROM held WHERE FALSE", "SELECT n, 1 AS x FROM held"
    if plan.kind is Kind.ACTIVE_UNITS:
        above = _came_back(plan)
    else:
        above = _of_outcomes(span, f"{outcome_sum(plan, 'o.value', capped)} AS y")
        values.append(plan.outcome)
    if plan.denominator == REQUESTS:
        below = _of_requests(plan)
    elif plan.denominator is not None:
        below = _of_outcomes(span, f"{denominator_sum('o.value')} AS x")
        values.append(plan.denominator)
    first, number = "", ""
    if plan.covariate is not None:
        place = span.query.covariates.index(plan.covariate) + 1
        first = f", CAST(first_value(numbers[{place}]) OVER (PARTITION BY unit ORDER BY n) AS HUGEINT) AS c"
        number = ", c"
    # Entries are hash-assigned by definition, so a condition on exposures can be put to them.
    sql = f"""
        WITH ent AS (
            SELECT * FROM (SELECT *, TRUE AS hashed FROM entries)
            WHERE NOT mirror AND t >= {span.since} AND t < {span.until} AND {rows}
        ),
        stays AS (
            SELECT n, lead(t) OVER (PARTITION BY unit ORDER BY n) AS left_t{first} FROM entries
            WHERE NOT mirror AND unit IN (SELECT unit FROM ent)
        ),
        held AS (SELECT ent.*, left_t{number} FROM ent JOIN stays USING (n)),
        above AS ({above}),
        below AS ({below})
        SELECT segment, epoch, t // {plan.block} AS block, challenger, unit,
            CAST(COALESCE(x, 0) AS HUGEINT) AS x, CAST(COALESCE(y, 0) AS HUGEINT) AS y{number}
        FROM held LEFT JOIN above USING (n) LEFT JOIN below USING (n) JOIN combos USING (combo)
    """
    return sql, values


def _of_outcomes(span: Span, value: str) -> str:
    """SQL: what a unit's outcomes of one name are worth, while it stayed in the epoch and its window was open."""
    return f"""
        SELECT held.n, {value} FROM held JOIN outcomes o ON o.unit = held.unit
        WHERE o.name = ? AND o.credit_t BETWEEN held.t AND held.t + {span.plan.window}
            AND (left_t IS NULL OR o.credit_t < left_t) AND o.ingest_t < {span.final("held.t")}
        GROUP BY held.n
    """


def _of_requests(plan: MetricPlan) -> str:
    """SQL: how many requests a unit made, itself the first, while it stayed and its window was open."""
    return f"""
        SELECT held.n, count(*) AS x FROM held JOIN requests r ON r.unit = held.unit
        WHERE r.hashed AND NOT r.mirror AND r.t BETWEEN held.t AND held.t + {plan.window}
            AND (left_t IS NULL OR r.t < left_t)
        GROUP BY held.n
    """


def _came_back(plan: MetricPlan) -> str:
    """SQL: the units that made a request in a later block, within the window."""
    return f"""
        SELECT DISTINCT held.n, {plan.scale} AS y FROM held JOIN requests r ON r.unit = held.unit
        WHERE r.hashed AND NOT r.mirror AND r.t <= held.t + {plan.window}
            AND r.t // {plan.block} > held.t // {plan.block} AND (left_t IS NULL OR r.t <= left_t)
    """


def _labelled(span: Span, rows: str) -> str:
    """SQL, to follow a WITH: labels, and answers, the requests that count with the label of each row."""
    plan = span.plan
    return f"""
        labels AS (
            SELECT request_n, row, arg_min(value, {{'t': t, 'id': outcome_id}}) AS value
            FROM outcomes WHERE name = ? AND request_t >= {span.since} AND request_t < {span.until}
                AND t <= request_t + {plan.window} AND ingest_t < {span.final("request_t")}
            GROUP BY request_n, row
        ),
        answers AS (
            SELECT r.epoch, r.t // {plan.block} AS block, r.challenger, r.unit, r.combo, r.usable,
                r.scores[l.row + 1] AS score, l.value
            FROM labels l JOIN (
                SELECT * FROM requests WHERE NOT mirror AND t >= {span.since} AND t < {span.until} AND {rows}
            ) r ON r.n = l.request_n
            WHERE NOT r.usable OR len(r.scores) > l.row
        )
    """


def label_terms(span: Span, rows: str, capped: bool) -> tuple[str, list[object]]:
    """SQL and its values: labelled rows that count, in every segment that has them."""
    plan, query = span.plan if capped else span.plan._replace(cap=None), span.query
    term = label_term(plan, query.positive, query.threshold, "usable", "score", "value")
    sql = f"""
        WITH {_labelled(span, rows)},
        terms AS (SELECT epoch, block, challenger, unit, combo, {term.x} AS x, {term.y} AS y FROM answers)
        SELECT * FROM terms JOIN combos USING (combo) WHERE x > 0
    """
    return sql, [plan.outcome]


_EDGES = f"edges AS (SELECT unnest({list(SCORE_EDGES)}) AS edge, unnest(range(1, {LAST})) AS bin)"


def _bin(arm: str, found: str) -> str:
    return f"CASE WHEN {arm}usable AND {arm}score IS NOT NULL THEN {found} WHEN positive THEN 0 ELSE {LAST} END"


def ranked_rows(span: Span, rows: str) -> tuple[str, list[object]]:
    """SQL and its values: labelled rows with the bin of their score, in every segment that has them."""
    positive = f"(value = {span.query.positive!r})"
    sql = f"""
        WITH {_labelled(span, rows)},
        {_EDGES},
        placed AS (
            SELECT *, {positive} AS positive, {held_score("usable", "score")} AS held FROM answers
        )
        SELECT segment, epoch, block, challenger, unit, positive, {_bin("", "bin")} AS bin
        FROM placed ASOF JOIN edges ON held >= edge JOIN combos USING (combo)
    """
    return sql, [span.plan.outcome]


def _label_rows(span: Span, rows: str, capped: bool) -> tuple[str, list[object]]:
    sql, values = label_terms(span, rows, capped)
    sums = "SELECT segment, epoch, block, challenger, unit, sum(x) AS x, sum(y) AS y"
    return f"{sums} FROM ({sql}) GROUP BY ALL", values


def score_rows(span: Span, rows: str, capped: bool) -> tuple[str, list[object]]:
    """SQL and its values: one row per unit and cell, with its x and y, of all that is scored; with its covariate c (or
    NULL) where the metric has one."""
    if span.plan.family == "throughput":
        return _active_rows(span, rows), []
    return _unit_rows(span, rows, capped) if span.plan.family == "unit" else _label_rows(span, rows, capped)


def _active_rows(span: Span, rows: str) -> str:
    """SQL: the units that made a request in a block, each once."""
    return f"""
        SELECT DISTINCT segment, epoch, t // {span.plan.block} AS block, challenger, unit,
            CAST(1 AS HUGEINT) AS x, CAST({span.plan.scale} AS HUGEINT) AS y
        FROM requests JOIN combos USING (combo)
        WHERE NOT mirror AND t >= {span.since} AND t < {span.until} AND {rows}
    """


def difference_rows(span: Span) -> str:
    """SQL: one row per unit and block of a mirror: requests x, and those whose answers differ, d."""
    plan = span.plan
    return f"""
        SELECT segment, epoch, t // {plan.block} AS block, unit, CAST(count(*) AS HUGEINT) AS x,
            CAST(sum(differs) AS HUGEINT) AS d, CAST(0 AS HUGEINT) AS champion_y, CAST(0 AS HUGEINT) AS more
        FROM (SELECT *, {differs(plan, span.query.threshold)} AS differs FROM ({pairs(span)})) JOIN combos USING (combo)
        WHERE differs IS NOT NULL GROUP BY ALL
    """


def _labelled_pairs(span: Span) -> str:
    """SQL, to follow a WITH: answers, the labelled rows of a mirror that count for both arms."""
    plan = span.plan
    return f"""
        pairs AS ({pairs(span)}),
        timely AS (
            SELECT o.*, p.t AS pair_t FROM outcomes o JOIN pairs p ON p.n = o.request_n
            WHERE o.name = ? AND o.t <= o.request_t + {plan.window} AND o.ingest_t < {span.final("p.t")}
        ),
        labels AS (
            SELECT request_n, row, arg_min(value, {{'t': t, 'id': outcome_id}}) AS value
            FROM timely GROUP BY request_n, row
        ),
        answers AS (
            SELECT p.epoch, p.t // {plan.block} AS block, p.unit, p.combo, l.value, p.champion_usable,
                p.challenger_usable, p.champion_scores[l.row + 1] AS champion_score,
                p.challenger_scores[l.row + 1] AS challenger_score
            FROM labels l JOIN pairs p ON p.n = l.request_n
            WHERE (NOT p.champion_usable OR len(p.champion_scores) > l.row)
                AND (NOT p.challenger_usable OR len(p.challenger_scores) > l.row)
        )
    """


def pair_score_rows(span: Span) -> tuple[str, list[object]]:
    """SQL and its values: one row per unit and block of a mirror, label kinds: rows x, difference d, champion's y, and
    by how many rows the challenger has more."""
    plan, query = span.plan, span.query
    sides = [
        label_term(plan, query.positive, query.threshold, f"{arm}_usable", f"{arm}_score", "value")
        for arm in ("champion", "challenger")
    ]
    counts = "x > 0 OR challenger_x > 0" if plan.kind in DECIDED else "x > 0 AND challenger_x > 0"
    sql = f"""
        WITH {_labelled_pairs(span)},
        terms AS (
            SELECT epoch, block, unit, combo, {sides[0].x} AS x, {sides[0].y} AS champion_y,
                {sides[1].x} AS challenger_x, {sides[1].y} AS challenger_y
            FROM answers
        )
        SELECT segment, epoch, block, unit, sum(x) AS x, sum(challenger_y - champion_y) AS d,
            sum(champion_y) AS champion_y, sum(challenger_x - x) AS more
        FROM terms JOIN combos USING (combo) WHERE {counts} GROUP BY ALL
    """
    return sql, [plan.outcome]


def pair_ranked_rows(span: Span) -> tuple[str, list[object]]:
    """SQL and its values: labelled rows of a mirror with the bins of both scores, in every segment that has them."""
    positive = f"(value = {span.query.positive!r})"
    sql = f"""
        WITH {_labelled_pairs(span)},
        {_EDGES},
        placed AS (
            SELECT *, {positive} AS positive, {held_score("champion_usable", "champion_score")} AS champion_held,
                {held_score("challenger_usable", "challenger_score")} AS challenger_held
            FROM answers
        )
        SELECT segment, epoch, block, unit, positive, {_bin("champion_", "a.bin")} AS champion_bin,
            {_bin("challenger_", "b.bin")} AS challenger_bin
        FROM placed ASOF JOIN edges a ON champion_held >= a.edge ASOF JOIN edges b ON challenger_held >= b.edge
            JOIN combos USING (combo)
    """
    return sql, [span.plan.outcome]

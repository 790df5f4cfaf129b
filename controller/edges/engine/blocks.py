"""Cells of final blocks, from the settled rows: one query per metric and range of blocks.

Every family first becomes a relation of units, ``(segment, epoch, block, challenger, unit, …)``, one row for each
unit of a cell, and then sums. What a labelled row is worth is said in ``terms`` alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import duckdb

from controller.core.cells import (
    PPM,
    ArmCell,
    Block,
    CountCell,
    EpochPlan,
    LatencyCell,
    MetricPlan,
    PairCell,
    PairCountCell,
    PairScoreCell,
    ScoreCell,
    StatisticsQuery,
)
from controller.edges.engine.settle import HORIZON, deadline, within
from controller.edges.engine.terms import PAIRED, bucket, label_term, outcome_sum
from controller.errors import EdgeError


class Span(NamedTuple):
    """Blocks ``first`` … ``last`` of one metric, in the attempt's epochs."""

    plan: MetricPlan
    query: StatisticsQuery
    first: int
    last: int

    @property
    def since(self) -> int:
        """Where the first block begins (µs)."""
        return self.first * self.plan.block

    @property
    def until(self) -> int:
        """Where the last block ends (µs)."""
        return (self.last + 1) * self.plan.block

    def epochs(self, mirror: bool) -> dict[int, EpochPlan]:
        """The mirror epochs, or the others, by number."""
        return {e.number: e for e in self.query.epochs if (e.kind == "mirror") == mirror}

    def final(self, t: str) -> str:
        """SQL: when the block of ``t`` becomes final."""
        return deadline(self.plan, t, self.query.grace)


def evidence(span: Span) -> str:
    """SQL condition on exposures: what counts in weighted epochs."""
    return f"evidence AND epoch IN {within(span.epochs(False))} AND {_after_baseline(span.plan, 't')}"


def _after_baseline(plan: MetricPlan, t: str) -> str:
    block = f"({t} // {plan.block})"
    return f"({block} > {plan.from_block} OR ({block} = {plan.from_block} AND epoch > {plan.from_epoch}))"


def champions(span: Span) -> str:
    """SQL condition on exposures: the champion's traffic that a baseline may look at."""
    mirrors = within(span.epochs(True))
    wanted = f"CASE WHEN epoch IN {mirrors} THEN hashed ELSE evidence AND epoch IN {within(span.epochs(False))} END"
    return f"NOT challenger AND {wanted}"


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


def _label_rows(span: Span, rows: str) -> tuple[str, list[object]]:
    plan, query = span.plan, span.query
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
        SELECT segment, epoch, block, challenger, unit, sum(x) AS x, sum(y) AS y
        FROM terms JOIN combos USING (combo) WHERE x > 0 GROUP BY ALL
    """
    return sql, [plan.outcome]


def score_rows(span: Span, rows: str, capped: bool) -> tuple[str, list[object]]:
    """SQL and its values: one row per unit and cell, with its x and y, of a ``unit`` or ``label`` kind."""
    return _unit_rows(span, rows, capped) if span.plan.family == "unit" else _label_rows(span, rows)


def service_rows(span: Span, rows: str) -> str:
    """SQL: one row per unit and service block: any failure, the bucket of the slowest request."""
    return f"""
        SELECT segment, epoch, t // {span.plan.block} AS block, challenger, unit,
            bool_or(NOT usable) AS failed, max(bucket) AS slowest
        FROM requests JOIN combos USING (combo)
        WHERE NOT mirror AND t >= {span.since} AND t < {span.until} AND {rows} GROUP BY ALL
    """


def _pairs(span: Span) -> str:
    """SQL: requests of mirror epochs that both arms answered; a pair lies where its later answer does."""
    lately = f"t >= {span.since - HORIZON} AND t < {span.until} AND epoch IN {within(span.epochs(True))}"
    return f"""
        SELECT c.n, c.epoch, c.unit, c.combo, greatest(c.t, m.t) AS t, c.usable AS champion_usable,
            m.usable AS challenger_usable, c.scores AS champion_scores, m.scores AS challenger_scores
        FROM (SELECT * FROM requests WHERE NOT mirror AND hashed AND NOT challenger AND {lately}) c
        JOIN (SELECT * FROM requests WHERE mirror AND {lately}) m ON m.h = c.h AND m.epoch = c.epoch
        WHERE greatest(c.t, m.t) >= {span.since}
            AND {_after_baseline(span.plan, "greatest(c.t, m.t)").replace("epoch", "c.epoch")}
    """


def pair_score_rows(span: Span) -> tuple[str, list[object]]:
    """SQL and its values: one row per unit and block of a mirror, label kinds: rows x, difference d, champion's y."""
    plan, query = span.plan, span.query
    sides = [
        label_term(plan, query.positive, query.threshold, f"p.{a}_usable", f"p.{a}_scores[l.row + 1]", "l.value")
        for a in ("champion", "challenger")
    ]
    sql = f"""
        WITH pairs AS ({_pairs(span)}),
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


def pair_count_rows(span: Span) -> str:
    """SQL: one row per unit and service block of a mirror: did any answer of either arm fail."""
    return f"""
        SELECT segment, epoch, t // {span.plan.block} AS block, unit,
            bool_or(NOT champion_usable) AS champion_failed, bool_or(NOT challenger_usable) AS challenger_failed
        FROM ({_pairs(span)}) JOIN combos USING (combo) GROUP BY ALL
    """


class Cells:
    """Cells of one span, found in ``con``; running scores of units are read and added to on the way."""

    def __init__(self, con: duckdb.DuckDBPyConnection, names: Mapping[int, str]) -> None:
        self._con = con
        self._names = names

    def weighted(self, span: Span) -> list[Block]:
        """All blocks of weighted epochs that have a row, in the order (segment, block, epoch)."""
        if not span.epochs(False):
            return []
        if span.plan.family in ("unit", "label"):
            found = self._scores(span)
        elif span.plan.family == "failures":
            found = self._query(
                span,
                f"SELECT segment, epoch, block, challenger, count(*), count_if(failed) "
                f"FROM ({service_rows(span, evidence(span))}) GROUP BY ALL",
            )
        else:
            found = self._query(
                span,
                f"SELECT segment, epoch, block, challenger, CAST(sum(units) AS BIGINT), "
                f"list((slowest, units) ORDER BY slowest) "
                f"FROM (SELECT segment, epoch, block, challenger, slowest, count(*) AS units "
                f"FROM ({service_rows(span, evidence(span))}) GROUP BY ALL) GROUP BY ALL",
            )
        arms: dict[tuple[int, int, int], dict[bool, ArmCell]] = {}
        for segment, block, epoch, challenger, cell in (_arm_cell(span.plan, row) for row in found):
            arms.setdefault((segment, block, epoch), {})[challenger] = cell
        return [
            Block(span.plan.name, self._names[segment], epoch, block, cells.get(False), cells.get(True))
            for (segment, block, epoch), cells in sorted(arms.items())
        ]

    def paired(self, span: Span) -> list[Block]:
        """All blocks of mirror epochs that have a pair, in the order (segment, block, epoch)."""
        if not span.epochs(True):
            return []
        cells: Iterable[tuple[int, int, int, PairCell]]
        if span.plan.family == "failures":
            found = self._query(
                span,
                "SELECT segment, block, epoch, count(*), count_if(challenger_failed AND NOT champion_failed), "
                f"count_if(champion_failed AND NOT challenger_failed) FROM ({pair_count_rows(span)}) GROUP BY ALL",
            )
            cells = [(*row[:3], PairCountCell(*map(int, row[3:]))) for row in found]
        elif span.plan.family == "label" and span.plan.kind in PAIRED:
            cells = [(*row[:3], PairScoreCell(*map(int, row[3:]))) for row in self._pair_scores(span)]
        else:
            return []
        return [
            Block(span.plan.name, self._names[segment], epoch, block, pair=cell)
            for segment, block, epoch, cell in sorted(cells)
        ]

    def _query(self, span: Span, sql: str, values: list[object] | None = None) -> list[tuple[Any, ...]]:
        try:
            return self._con.execute(sql, values or []).fetchall()
        except duckdb.OutOfRangeException as error:
            blocks = f"blocks {span.first} to {span.last}"
            raise EdgeError(
                f"{span.plan.name}: sums of {blocks} exceed 128 bits; a smaller cap prevents this ({error})"
            ) from error

    def _scores(self, span: Span) -> list[tuple[Any, ...]]:
        rows, values = score_rows(span, evidence(span), capped=True)
        shares = ",".join(
            f"({e.number}, {e.pi_ppm}, {e.means.get(span.plan.name, 0)})" for e in span.epochs(False).values()
        )
        sql = f"""
            CREATE OR REPLACE TEMP TABLE scored AS
            SELECT u.*, CASE WHEN challenger THEN CAST({PPM} - pi AS HUGEINT) ELSE CAST(-pi AS HUGEINT) END
                * (y - CAST(mean AS HUGEINT) * x) AS s
            FROM ({rows}) u JOIN (VALUES {shares}) e(epoch, pi, mean) USING (epoch)
        """
        self._query(span, sql, values)
        found = self._query(
            span,
            self._running(span, "block, epoch, challenger", False)
            + """
            SELECT segment, epoch, block, challenger, count(*), sum(x), sum(y), sum(y * y), sum(x * y), sum(x * x),
                count_if(y <> 0), sum(2 * old * s + s * s) FROM running GROUP BY ALL
            """,
        )
        self._add(span, False)
        return found

    def _pair_scores(self, span: Span) -> list[tuple[Any, ...]]:
        rows, values = pair_score_rows(span)
        self._query(
            span, f"CREATE OR REPLACE TEMP TABLE scored AS SELECT *, CAST(d AS HUGEINT) AS s FROM ({rows})", values
        )
        found = self._query(
            span,
            self._running(span, "block, epoch", True)
            + """
            SELECT segment, block, epoch, count(*), sum(x), sum(d), sum(s * s), sum(2 * old * s + s * s),
                sum(champion_y) FROM running GROUP BY ALL
            """,
        )
        self._add(span, True)
        return found

    def _running(self, span: Span, order: str, pair: bool) -> str:
        return f"""
            WITH base AS (
                SELECT segment, unit, sum(s) AS s FROM scores
                WHERE metric = '{_quoted(span.plan.name)}' AND pair = {pair} AND unit IN (SELECT unit FROM scored)
                GROUP BY ALL
            ),
            running AS (
                SELECT c.*, COALESCE(b.s, CAST(0 AS HUGEINT)) + COALESCE(
                    sum(c.s) OVER (PARTITION BY c.segment, c.unit ORDER BY {order}
                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), CAST(0 AS HUGEINT)) AS old
                FROM scored c LEFT JOIN base b ON b.segment = c.segment AND b.unit = c.unit
            )
        """

    def _add(self, span: Span, pair: bool) -> None:
        self._query(
            span,
            f"INSERT INTO scores SELECT '{_quoted(span.plan.name)}', {pair}, segment, unit, sum(s) FROM scored "
            "GROUP BY segment, unit HAVING sum(s) <> 0",
        )

    def baseline(self, span: Span) -> list[tuple[int, int, "BaselineCell"]]:
        """(block, epoch, sums) of the champion in everything, ascending; see ``BaselineSums``."""
        rows = champions(span)
        if span.plan.family in ("unit", "label"):
            sql, values = score_rows(span, rows, capped=False)
            found = self._query(
                span,
                f"SELECT block, epoch, abs(y), count(*), sum(x), sum(y), count_if(y <> 0) "
                f"FROM ({sql}) WHERE segment = 0 GROUP BY ALL",
                values,
            )
        else:
            failed = "count_if(failed)" if span.plan.family == "failures" else "0"
            found = self._query(
                span,
                f"SELECT block, epoch, slowest, count(*), count(*), {failed}, {failed} "
                f"FROM ({service_rows(span, rows)}) WHERE segment = 0 GROUP BY ALL",
            )
        cells: dict[tuple[int, int], BaselineCell] = {}
        for block, epoch, value, *sums in found:
            cell = cells.get((block, epoch), BaselineCell())
            cells[block, epoch] = cell.plus(_baseline_bucket(span.plan, int(value)), *map(int, sums))
        return [(block, epoch, cell) for (block, epoch), cell in sorted(cells.items())]


class BaselineCell(NamedTuple):
    """The champion's sums of one block and epoch."""

    units: int = 0
    x: int = 0
    y: int = 0
    nonzero: int = 0
    buckets: tuple[tuple[int, int], ...] = ()

    def plus(self, place: int | None, units: int, x: int, y: int, nonzero: int) -> "BaselineCell":
        """With ``units`` more, all in log bucket ``place`` (None: the kind has no histogram)."""
        histogram = dict(self.buckets)
        if place is not None:
            histogram[place] = histogram.get(place, 0) + units
        return BaselineCell(
            self.units + units, self.x + x, self.y + y, self.nonzero + nonzero, tuple(sorted(histogram.items()))
        )


def _baseline_bucket(plan: MetricPlan, value: int) -> int | None:
    if plan.family == "latency":
        return value
    if plan.kind.value == "Mean":
        return max(bucket(value), 1) if value else 0
    return None


def _arm_cell(plan: MetricPlan, row: tuple[Any, ...]) -> tuple[int, int, int, bool, ArmCell]:
    segment, epoch, block, challenger, *sums = row
    cell: ArmCell
    if plan.family == "latency":
        cell = LatencyCell(int(sums[0]), tuple((int(b), int(n)) for b, n in sums[1]))
    elif plan.family == "failures":
        cell = CountCell(*map(int, sums))
    else:
        cell = ScoreCell(*map(int, sums))
    return segment, block, epoch, challenger, cell


def _quoted(text: str) -> str:
    return text.replace("'", "''")

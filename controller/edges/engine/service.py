"""Cells of the service kinds: units in the blocks in which they are at risk, as ``cells`` defines it.

A request has a *level*: its log bucket, or for failures 1 where it failed, else 0. ``worst`` keeps the largest level
that each unit has reached in the blocks that are folded, by metric and segment, and rises in their transaction;
``scores`` how often those that fail have done so.
"""

from collections import Counter

import duckdb

from controller.core.cells import PPM, ArmCell, CountCell, LatencyCell, MetricPlan, PairCell, PairCountCell
from controller.edges.engine.running import added, quoted, running
from controller.edges.engine.settle import within
from controller.edges.engine.span import Span, after_baseline, pairs

Found = tuple[int, int, int, bool, ArmCell]  # segment, block, epoch, challenger


def service_rows(span: Span, rows: str) -> str:
    """SQL: one row per unit and service block: any failure, the bucket of the slowest request."""
    return f"""
        SELECT segment, epoch, t // {span.plan.block} AS block, challenger, unit,
            bool_or(NOT usable) AS failed, max(bucket) AS slowest
        FROM requests JOIN combos USING (combo)
        WHERE NOT mirror AND t >= {span.since} AND t < {span.until} AND {rows} GROUP BY ALL
    """


def _risk_rows(span: Span) -> str:
    """SQL: one row per unit and service block: its ``level`` as evidence (NULL: not in it), and what it ``reached``
    by all its hash-assigned requests."""
    level = _level(span.plan, "bucket")
    some = "" if span.plan.family == "latency" else "AND (evidence OR NOT usable)"
    return f"""
        SELECT segment, epoch, t // {span.plan.block} AS block, challenger, unit,
            max({level}) FILTER (evidence) AS level, max({level}) AS reached
        FROM requests JOIN combos USING (combo)
        WHERE NOT mirror AND t >= {span.since} AND t < {span.until} AND hashed {some}
            AND epoch IN {within(span.epochs(False))} AND {after_baseline(span.plan, "t")} GROUP BY ALL
    """


def _level(plan: MetricPlan, slowest: str) -> str:
    return slowest if plan.family == "latency" else "CAST(NOT usable AS SMALLINT)"


def _pair_rows(span: Span) -> str:
    """SQL: one row per unit and service block of a mirror: what failed, and as ``reached`` whether one arm alone."""
    return f"""
        SELECT *, CAST(champion_failed <> challenger_failed AS SMALLINT) AS reached FROM (
            SELECT segment, epoch, t // {span.plan.block} AS block, unit,
                bool_or(NOT champion_usable) AS champion_failed, bool_or(NOT challenger_usable) AS challenger_failed
            FROM ({pairs(span)}) JOIN combos USING (combo) GROUP BY ALL
        )
    """


# Whether what units had reached before is a matter of earlier spans alone, as in most ticks.
_ONE_BLOCK = "SELECT COALESCE(min(block) = max(block) AND min(epoch) = max(epoch), TRUE) FROM served"
_EARLIER = """max(s.reached) OVER (
    PARTITION BY s.segment, s.unit ORDER BY s.block, s.epoch GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
)"""
_AT_RISK = "level IS NOT NULL AND NOT before"


class Service:
    """Cells of one span found in ``con``; what units have reached is read and raised on the way."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con

    def weighted(self, span: Span) -> list[Found]:
        """The arms' cells of all blocks of weighted epochs in which they have evidence."""
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE served AS {_risk_rows(span)}")
        if span.plan.family == "latency":
            self._face_slowest(span)
            return self._histograms()
        faced = self._face_failures(span, False)
        found = self._con.execute(
            f"SELECT segment, block, epoch, challenger, count_if({_AT_RISK}), count_if({_AT_RISK} AND level > 0), "
            f"count(level), count_if(level > 0) FROM ({faced}) GROUP BY ALL HAVING count(level) > 0"
        ).fetchall()
        clustered = self._clustered(span) if any(failing for *_, failing in found) else {}
        return [(*row[:4], CountCell._make((*row[4:], clustered.get(row[:4], 0)))) for row in found]

    def _clustered(self, span: Span) -> dict[tuple[int, int, int, bool], int]:
        """``CountCell.clustered`` by cell: of the few units that fail, each with what it has failed before."""
        shares = ",".join(f"({e.number}, {e.pi_ppm})" for e in span.epochs(False).values())
        self._con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE scored AS
            SELECT segment, block, epoch, challenger, unit,
                CAST(CASE WHEN challenger THEN {PPM} - pi ELSE -pi END AS HUGEINT) AS s
            FROM served JOIN (VALUES {shares}) e(epoch, pi) USING (epoch) WHERE level > 0
            """
        )
        found = self._con.execute(
            running(span.plan.name, "block, epoch, challenger", False)
            + "SELECT segment, block, epoch, challenger, sum(2 * old * s + s * s) FROM running GROUP BY ALL"
        ).fetchall()
        self._con.execute(added(span.plan.name, False))
        return {row[:4]: int(row[4]) for row in found}

    def paired(self, span: Span) -> list[tuple[int, int, int, PairCell]]:
        """The cells of all blocks of mirror epochs that have a pair: segment, block, epoch, cell."""
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE served AS {_pair_rows(span)}")
        faced = self._face_failures(span, True)
        found = self._con.execute(
            f"""
            SELECT segment, block, epoch, count_if(NOT before),
                count_if(NOT before AND challenger_failed AND NOT champion_failed),
                count_if(NOT before AND champion_failed AND NOT challenger_failed)
            FROM ({faced}) GROUP BY ALL
            """
        ).fetchall()
        return [(*row[:3], PairCountCell(*map(int, row[3:]))) for row in found]

    def _face_failures(self, span: Span, pair: bool) -> str:
        """SQL: the rows, each with whether its unit had reached 1 ``before``; those that now first do are kept."""
        # Units that fail are few: looking for them costs little beside putting every row in its order.
        self._con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE firsts AS
            SELECT segment, unit, min(place) AS place FROM (
                SELECT segment, unit, {{'block': CAST(-1 AS BIGINT), 'epoch': -1}} AS place FROM worst
                WHERE metric = '{quoted(span.plan.name)}' AND pair = {pair}
                UNION ALL
                SELECT segment, unit, {{'block': block, 'epoch': epoch}} FROM served WHERE reached > 0
            ) GROUP BY ALL
            """
        )
        self._con.execute(
            f"INSERT INTO worst SELECT '{quoted(span.plan.name)}', {pair}, segment, unit, 1 FROM firsts "
            "WHERE place.block >= 0"
        )
        return """
            SELECT s.*, COALESCE(f.place < {'block': s.block, 'epoch': s.epoch}, FALSE) AS before
            FROM served s LEFT JOIN firsts f ON f.segment = s.segment AND f.unit = s.unit
        """

    def _face_slowest(self, span: Span) -> None:
        """Make ``faced``: the rows, each with the largest level its unit had reached ``before`` (NULL: not seen)."""
        alone = span.first == span.last and len(span.epochs(False)) == 1
        if not alone:
            [(alone,)] = self._con.execute(_ONE_BLOCK).fetchall()
        self._con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE faced AS
            WITH base AS (
                SELECT segment, unit, max(level) AS worst FROM worst
                WHERE metric = '{quoted(span.plan.name)}' AND NOT pair AND unit IN (SELECT unit FROM served)
                GROUP BY ALL
            )
            SELECT s.*, {"b.worst" if alone else f"greatest(b.worst, {_EARLIER})"} AS before
            FROM served s LEFT JOIN base b ON b.segment = s.segment AND b.unit = s.unit
            """
        )
        self._con.execute(
            f"INSERT INTO worst SELECT '{quoted(span.plan.name)}', FALSE, segment, unit, reached FROM faced "
            "WHERE reached > COALESCE(before, -1)"
        )

    def _histograms(self) -> list[Found]:
        found = self._con.execute(
            "SELECT segment, block, epoch, challenger, level, before, count(*) FROM faced WHERE level IS NOT NULL "
            "GROUP BY ALL"
        ).fetchall()
        cells: dict[tuple[int, int, int, bool], tuple[Counter[int], Counter[int], Counter[int]]] = {}
        for *place, level, before, units in found:
            all_of_them, earlier, least = cells.setdefault(tuple(place), (Counter(), Counter(), Counter()))
            all_of_them[level] += units
            if before is not None:
                earlier[before] += units
                least[min(level, before)] += units
        return [
            (*place, LatencyCell(histograms[0].total(), *(tuple(sorted(each.items())) for each in histograms)))
            for place, histograms in cells.items()
        ]

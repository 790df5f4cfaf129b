"""The same cells as one plain batch query over the raw log: what the incremental engine is measured against.

Two tables, ``exposures`` and ``outcomes``, with the columns of ``ExposureRow`` and ``OutcomeRow`` (segments and scores
as lists), in any order, with repetitions. Nothing is kept, settled or merged: duplicates are removed, outcomes are
matched, units are summed and squared by SQL over the whole log at once. Only what a single labelled row or outcome is
worth (``terms``) is shared with the engine.
"""

from collections import Counter
from typing import Any

import duckdb

from controller.core.areas import LAST
from controller.core.cells import (
    AreaCell,
    ArmCell,
    BaselineSums,
    Block,
    CountCell,
    EpochCounts,
    JointHistogram,
    LatencyCell,
    MetricPlan,
    PairAreaCell,
    PairCell,
    PairCountCell,
    PairScoreCell,
    StatisticsQuery,
)
from controller.core.covariates import Moments
from controller.edges.engine import raw_log
from controller.edges.engine.raw_log import BEFORE, SEGMENTS, load
from controller.edges.engine.raw_servers import server_blocks
from controller.edges.engine.terms import MOMENTS, bucket_edges, denominator_sum, label_term, outcome_sum, score_cell
from controller.kinds import AWAITING, DECIDED, ERRORS, OF_SERVERS, REQUESTS, UNMEASURED, Kind

__all__ = ["baselines", "blocks", "counts", "load"]


class _Metric:
    """The queries of one metric."""

    def __init__(self, con: duckdb.DuckDBPyConnection, query: StatisticsQuery, plan: MetricPlan, watermark: int):
        self.con, self.query, self.plan, self.watermark = con, query, plan, watermark
        self.log = raw_log.log(query, plan, watermark)
        wait = plan.window + query.grace if plan.family in AWAITING else 0
        self.end = f"((block + 1) * {plan.block} + {wait})"
        self.final = f"{self.end} <= {watermark}"
        self.judged = (
            f"{self.final} AND (block > {plan.from_block} OR (block = {plan.from_block} AND epoch > {plan.from_epoch}))"
        )
        # What a baseline looks at: the champion's evidence, and all of its traffic in a mirror.
        self.champions = "NOT challenger AND hashed AND (in_mirror OR evidence)"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        names = {"name": self.plan.outcome, "below": self.plan.denominator}
        return self.con.execute(sql, {k: v for k, v in names.items() if f"${k}" in sql}).fetchall()

    def units(self, rows: str, capped: bool) -> str:
        """One row per unit and cell: x and y."""
        plan = self.plan
        if plan.family == "throughput":
            return f"{self.log}, {raw_log.active(plan, rows)}"
        if plan.family == "unit":
            return f"""
                {self.log},
                ent AS (SELECT *, t // {plan.block} AS block FROM stays WHERE {rows}),
                hits AS ({self._above(capped)}),
                below AS ({self._below()}),
                {raw_log.known(self.query, plan)},
                units AS (
                    SELECT {SEGMENTS}, epoch, block, challenger, in_mirror, pi, mean, unit,
                        CAST(COALESCE(x, 0) AS HUGEINT) AS x, CAST(COALESCE(y, 0) AS HUGEINT) AS y, c
                    FROM ent LEFT JOIN hits USING (epoch, unit) LEFT JOIN below USING (epoch, unit)
                        LEFT JOIN known USING (unit)
                )
            """
        term = self.term("r.usable", "r.scores[l.row + 1]", capped)
        return f"""
            {self.asked(rows)},
            terms AS (
                SELECT {SEGMENTS}, epoch, block, challenger, in_mirror, pi, mean, unit, {term[0]} AS x, {term[1]} AS y
                FROM asked r JOIN labels l USING (request_id) WHERE NOT r.usable OR len(r.scores) > l.row
            ),
            units AS (
                SELECT segment, epoch, block, challenger, in_mirror, pi, mean, unit, sum(x) AS x, sum(y) AS y,
                    CAST(NULL AS HUGEINT) AS c
                FROM terms WHERE x > 0 GROUP BY ALL
            )
        """

    def asked(self, rows: str) -> str:
        """Requests, and the labels of their rows."""
        return f"""
            {self.log},
            asked AS (SELECT *, t // {self.plan.block} AS block FROM requests WHERE {rows}),
            labels AS (
                SELECT c.request_id, c.row, arg_min(c.value, {{'t': c.t, 'id': c.outcome_id}}) AS value
                FROM credited c JOIN asked r USING (request_id)
                WHERE c.name = $name AND c.t <= r.t + {self.plan.window} AND c.ingest_t < {self.end}
                GROUP BY c.request_id, c.row
            )
        """

    def areas(self) -> list[tuple[Any, ...]]:
        """(segment, epoch, block, challenger, units, clustered, bins of positives, bins of negatives) of an Auc."""
        asked = self.asked("evidence AND NOT in_mirror")
        return self.rows(f"WITH {asked}, {raw_log.ranked(self.query.positive, self.judged)}")

    def _above(self, capped: bool) -> str:
        """(epoch, unit, y) of a ``unit`` kind."""
        plan = self.plan
        if plan.kind is Kind.ACTIVE_UNITS:
            return f"""
                SELECT e.epoch, e.unit, max({plan.scale}) AS y FROM ent e JOIN requests r ON r.unit = e.unit
                WHERE r.hashed AND r.t // {plan.block} > e.block AND r.t - e.t <= {plan.window}
                    AND r.t <= COALESCE(e.left_t, r.t)
                GROUP BY ALL
            """
        return self._credited("$name", f"{outcome_sum(plan, 'c.value', capped)} AS y")

    def _below(self) -> str:
        """(epoch, unit, x) of a ``unit`` kind."""
        plan = self.plan
        if plan.denominator is None:
            return "SELECT epoch, unit, 1 AS x FROM ent"
        if plan.denominator != REQUESTS:
            return self._credited("$below", f"{denominator_sum('c.value')} AS x")
        return f"""
            SELECT e.epoch, e.unit, count(r.t) AS x FROM ent e JOIN requests r ON r.unit = e.unit AND r.hashed
            WHERE r.t >= e.t AND r.t - e.t <= {plan.window} AND (e.left_t IS NULL OR r.t < e.left_t) GROUP BY ALL
        """

    def _credited(self, name: str, value: str) -> str:
        return f"""
            SELECT e.epoch, e.unit, {value} FROM ent e JOIN credited c ON c.unit = e.unit AND c.name = {name}
            WHERE c.credit_t >= e.t AND c.credit_t <= e.t + {self.plan.window}
                AND (e.left_t IS NULL OR c.credit_t < e.left_t) AND c.ingest_t < {self.end}
            GROUP BY e.epoch, e.unit
        """

    def term(self, usable: str, score: str, capped: bool = True) -> tuple[str, str]:
        plan = self.plan if capped else self.plan._replace(cap=None)
        return label_term(plan, self.query.positive, self.query.threshold, usable, score, "l.value")

    def scores(self) -> list[tuple[Any, ...]]:
        """(segment, epoch, block, challenger, sums …) of a ``unit`` or ``label`` kind."""
        units = self.units("evidence AND NOT in_mirror", True)
        return self.rows(f"WITH {units}, {raw_log.scored(self.query, self.plan, self.judged)}")

    def service(self, rows: str) -> str:
        """One row per unit and service block."""
        return f"""
            {self.log},
            asked AS (SELECT *, t // {self.plan.block} AS block, {SEGMENTS} FROM requests WHERE {rows}),
            units AS (
                SELECT segment, epoch, block, challenger, in_mirror, unit,
                    max(CASE WHEN usable THEN 0 ELSE 1 END) AS failed, max(latency_us) AS slowest
                FROM asked GROUP BY ALL
            ),
            edges AS (SELECT unnest({list(bucket_edges())}) AS edge, unnest(range({len(bucket_edges())})) AS bucket),
            placed AS (SELECT u.*, e.bucket FROM units u ASOF JOIN (
                SELECT edge, min(bucket) AS bucket FROM edges GROUP BY edge
            ) e ON e.edge >= greatest(u.slowest, 1))
        """

    def faced(self, level: str) -> str:
        """One row per unit and service block with its level as evidence, that of all its requests, and before."""
        return f"""
            {self.log},
            edges AS (SELECT unnest({list(bucket_edges())}) AS edge, unnest(range({len(bucket_edges())})) AS bucket),
            served AS (
                SELECT r.*, t // {self.plan.block} AS block, e.bucket FROM requests r ASOF JOIN (
                    SELECT edge, min(bucket) AS bucket FROM edges GROUP BY edge
                ) e ON e.edge >= greatest(r.latency_us, 1)
                WHERE hashed AND NOT in_mirror
            ),
            exploded AS (SELECT *, {SEGMENTS} FROM served WHERE {self.judged}),
            levels AS (
                SELECT segment, epoch, block, challenger, unit, max(CASE WHEN evidence THEN {level} END) AS level,
                    max({level}) AS reached
                FROM exploded GROUP BY ALL
            ),
            faced AS (SELECT * FROM (SELECT *, {BEFORE} FROM levels) WHERE level IS NOT NULL)
        """

    def failures(self) -> list[tuple[Any, ...]]:
        return self.rows(
            f"""
            WITH {self.faced("CASE WHEN usable THEN 0 ELSE 1 END")},
            {raw_log.FAILED}
            SELECT segment, epoch, block, challenger, count_if(before IS NULL OR before = 0),
                count_if((before IS NULL OR before = 0) AND level = 1), count(*), count(s),
                COALESCE(sum((old + s) * (old + s) - old * old), 0)
            FROM faced LEFT JOIN running USING (segment, epoch, block, challenger, unit) GROUP BY ALL
            """
        )

    def latencies(self) -> list[tuple[Any, ...]]:
        """The three histograms of each cell as lists of all buckets; ``blocks`` counts them."""
        return self.rows(
            f"""
            WITH {self.faced("bucket")}
            SELECT segment, epoch, block, challenger, count(*), list(level),
                list(before) FILTER (before IS NOT NULL), list(least(level, before)) FILTER (before IS NOT NULL)
            FROM faced GROUP BY ALL
            """
        )

    def pairs(self) -> str:
        """Requests of mirror epochs that both arms answered."""
        return f"""
            {self.log},
            pairs AS (
                SELECT c.*, m.usable AS shadow_usable, m.scores AS shadow_scores,
                    greatest(c.t, m.t) // {self.plan.block} AS block
                FROM requests c JOIN shadows m ON m.request_id = c.request_id AND m.epoch = c.epoch
                WHERE c.in_mirror AND c.hashed AND NOT c.challenger
            )
        """

    def pair_failures(self) -> list[tuple[Any, ...]]:
        return self.rows(
            f"""
            WITH {self.pairs()},
            exploded AS (SELECT *, {SEGMENTS} FROM pairs WHERE {self.judged}),
            units AS (
                SELECT segment, epoch, block, unit, bool_or(NOT usable) AS a, bool_or(NOT shadow_usable) AS b,
                    a <> b AS reached
                FROM exploded GROUP BY segment, epoch, block, unit
            ),
            faced AS (SELECT *, {BEFORE} FROM units)
            SELECT segment, epoch, block, count_if(before IS NOT TRUE), count_if(before IS NOT TRUE AND b AND NOT a),
                count_if(before IS NOT TRUE AND a AND NOT b)
            FROM faced GROUP BY ALL
            """
        )

    def labelled_pairs(self) -> str:
        """Requests of mirror epochs, and the labelled rows that both arms answered."""
        return f"""
            {self.pairs()},
            labels AS (
                SELECT c.request_id, c.row, arg_min(c.value, {{'t': c.t, 'id': c.outcome_id}}) AS value
                FROM credited c JOIN pairs p USING (request_id)
                WHERE c.name = $name AND c.t <= p.t + {self.plan.window} AND c.ingest_t < {self.end}
                GROUP BY c.request_id, c.row
            ),
            paired AS (
                SELECT *, {SEGMENTS} FROM pairs p JOIN labels l USING (request_id)
                WHERE (NOT p.usable OR len(p.scores) > l.row) AND (NOT p.shadow_usable OR len(p.shadow_scores) > l.row)
                    AND {self.judged}
            )
        """

    def pair_scores(self) -> list[tuple[Any, ...]]:
        """(segment, epoch, block, sums …) of a ``label`` kind; of Precision and F1 with nine products more."""
        a = self.term("usable", "scores[l.row + 1]")
        b = self.term("shadow_usable", "shadow_scores[l.row + 1]")
        return self.rows(f"WITH {self.labelled_pairs()}, {raw_log.scored_pairs(a, b, self.plan.kind in DECIDED)}")

    def pair_areas(self) -> list[tuple[Any, ...]]:
        """(segment, epoch, block, units, clustered, pairs of bins of positives, and of negatives) of an Auc."""
        return self.rows(f"WITH {self.labelled_pairs()}, {raw_log.ranked_pairs(self.query.positive)}")

    def differences(self) -> list[tuple[Any, ...]]:
        """Pairs whose answers differ, counted by request and summed by unit."""
        return self.rows(
            f"WITH {self.pairs()}, {raw_log.differing(self.query.threshold, self.plan.scale, self.judged)}"
        )

    def baseline(self) -> BaselineSums:
        """The champion before evidence; while the plan is frozen, its mirrors only."""
        if self.plan.family in UNMEASURED:
            return BaselineSums()
        wanted = self.champions + (" AND in_mirror" if self.plan.frozen else "")
        if self.plan.family in ("unit", "label"):
            source, place = self.units(wanted, False), "0"
            if self.plan.kind in (Kind.MEAN, Kind.RATIO):
                place = raw_log.PLACE
            sums, table = f"sum(x), sum(y), count_if(y <> 0), {MOMENTS}", "units"
        else:
            source, place, table = self.service(wanted), "bucket", "placed"
            failed = "sum(failed)" if self.plan.family == "failures" else "0"
            sums = f"count(*), {failed}, {failed}"
        found = self.rows(
            f"WITH {source} SELECT block, epoch, {place} AS place, count(*), {sums} FROM {table} "
            f"WHERE segment = '' AND {self.final} GROUP BY block, epoch, place"
        )
        histogram: dict[int, int] = {}
        counted = [(row[2], row[3]) for row in found]
        if self.plan.kind in ERRORS:
            counted = self.rows(
                f"WITH {source} SELECT {raw_log.PLACE}, count(*) FROM terms "
                f"WHERE segment = '' AND x > 0 AND {self.final} GROUP BY ALL"
            )
        for bucket, count in counted:
            histogram[bucket] = histogram.get(bucket, 0) + count
        last_block, last_epoch = max(((row[0], row[1]) for row in found), default=(-1, -1))
        units, x, y, nonzero = (sum(int(row[i]) for row in found) for i in (3, 4, 5, 6))
        kept = self.plan.family == "latency" or self.plan.kind in ERRORS | {Kind.MEAN, Kind.RATIO}
        return BaselineSums(
            len({(row[0], row[1]) for row in found}),
            last_block,
            last_epoch,
            units,
            x,
            y,
            nonzero,
            tuple(sorted(histogram.items())) if kept else (),
            Moments(*(sum(map(int, column)) for column in zip(*(row[7:] for row in found), strict=True))),
        )

    def blocks(self) -> list[Block]:
        """All final blocks of evidence, by (segment, block, epoch), pairs last."""
        family, name = self.plan.family, self.plan.name
        arms: dict[tuple[str, int, int], dict[bool, ArmCell]] = {}
        if family in OF_SERVERS:
            return server_blocks(self.con, self.query, self.plan, self.watermark, self.log)
        of_family = {"failures": self.failures, "latency": self.latencies, "auc": self.areas, "pair": list}
        found = of_family.get(family, self.scores)()
        for segment, epoch, block, challenger, *sums in found:
            cell: ArmCell
            if family == "auc":
                cell = AreaCell(
                    sums[0], int(sums[1]), *(tuple(sorted(Counter(bins or ()).items())) for bins in sums[2:])
                )
            elif family == "latency":
                cell = LatencyCell(sums[0], *(tuple(sorted(Counter(buckets or ()).items())) for buckets in sums[1:]))
            else:
                cell = CountCell(*map(int, sums)) if family == "failures" else score_cell(sums)
            arms.setdefault((segment, block, epoch), {})[challenger] = cell
        said = [
            Block(name, segment, epoch, block, cells.get(False), cells.get(True))
            for (segment, block, epoch), cells in sorted(arms.items())
        ]
        pairs: list[tuple[str, int, int, PairCell]] = []
        if family == "failures":
            pairs = [(r[0], r[2], r[1], PairCountCell(*map(int, r[3:]))) for r in self.pair_failures()]
        elif family == "pair":
            pairs = [(r[0], r[2], r[1], PairScoreCell.of(r[3:])) for r in self.differences()]
        elif family == "auc":
            pairs = [(r[0], r[2], r[1], PairAreaCell(r[3], int(r[4]), *map(_joint, r[5:]))) for r in self.pair_areas()]
        elif family == "label":
            pairs = [(r[0], r[2], r[1], PairScoreCell.of(r[3:])) for r in self.pair_scores()]
        return said + [Block(name, s, epoch, block, pair=cell) for s, block, epoch, cell in sorted(pairs)]


def _joint(places: list[int] | None) -> JointHistogram:
    return tuple((*divmod(place, LAST + 1), n) for place, n in sorted(Counter(places or ()).items()))


def blocks(con: duckdb.DuckDBPyConnection, query: StatisticsQuery, watermark: int) -> list[Block]:
    """Every final block of evidence of every frozen metric, by (metric, segment, block, epoch), pairs last."""
    plans = sorted((m for m in query.metrics if m.frozen), key=lambda m: m.name)
    return [block for plan in plans for block in _Metric(con, query, plan, watermark).blocks()]


def baselines(con: duckdb.DuckDBPyConnection, query: StatisticsQuery, watermark: int) -> dict[str, BaselineSums]:
    """The champion's sums of every metric."""
    return {m.name: _Metric(con, query, m, watermark).baseline() for m in query.metrics}


def counts(con: duckdb.DuckDBPyConnection, query: StatisticsQuery, watermark: int) -> dict[int, EpochCounts]:
    """The counts of each epoch that had a request, from everything before the watermark."""
    log = _Metric(con, query, query.metrics[0], watermark).log
    found = con.execute(
        f"""
        WITH {log},
        ever AS (
            SELECT * FROM requests WHERE hashed AND NOT in_mirror
            QUALIFY row_number() OVER (PARTITION BY unit ORDER BY t, request_id) = 1
        ),
        arms AS (
            SELECT epoch, unit, count(DISTINCT challenger) AS arms FROM requests
            WHERE evidence AND NOT in_mirror GROUP BY epoch, unit
        )
        SELECT e.epoch,
            (SELECT count(*) FROM firsts f WHERE f.epoch = e.epoch AND NOT challenger AND (evidence OR in_mirror)),
            (SELECT count(*) FROM firsts f WHERE f.epoch = e.epoch AND challenger AND evidence AND NOT in_mirror)
                + (SELECT count(DISTINCT unit) FROM shadows s WHERE s.epoch = e.epoch AND hashed AND e.in_mirror),
            (SELECT count(*) FROM requests r WHERE r.epoch = e.epoch AND hashed AND NOT challenger),
            (SELECT count(*) FROM requests r WHERE r.epoch = e.epoch AND hashed AND challenger AND NOT in_mirror)
                + (SELECT count(*) FROM shadows s WHERE s.epoch = e.epoch AND hashed AND e.in_mirror),
            (SELECT count(*) FROM requests r WHERE r.epoch = e.epoch AND hashed AND fell_back),
            (SELECT count(*) FROM ever f WHERE f.epoch = e.epoch AND evidence AND NOT challenger),
            (SELECT count(*) FROM ever f WHERE f.epoch = e.epoch AND evidence AND challenger),
            (SELECT count(*) FROM arms a WHERE a.epoch = e.epoch AND arms > 1)
        FROM epochs e WHERE e.epoch IN (SELECT epoch FROM seen WHERE hashed) ORDER BY e.epoch
        """
    ).fetchall()
    return {row[0]: EpochCounts(*row) for row in found}

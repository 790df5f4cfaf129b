"""The tables of an engine in DuckDB, for any number of rows."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import duckdb

from controller.core.cells import BaselineSums, Block, MetricPlan
from controller.edges.engine import gauges, ingest, schema
from controller.edges.engine.blocks import Cells
from controller.edges.engine.kept import Kept, insert
from controller.edges.engine.rows import ExposureRow, OutcomeRow, SampleRow
from controller.edges.engine.segments import Segments
from controller.edges.engine.settle import one, settle_exposures, settle_outcomes
from controller.edges.engine.settling import OutcomeTally, Settling, Tally
from controller.edges.engine.span import Span
from controller.edges.engine.tables import Limits

MOST_REQUESTS = 40_000_000  # beyond so many, requests are kept for an hour after their time instead of a day
_SUM_UP_FROM = 200_000


class LargeTables:
    """``Tables`` in the file at ``path`` (None: in memory). ``shared``: the DuckDB of many states. EdgeError where
    another process has the file or it cannot be read."""

    size_mb, settle_after = 6.0, 100_000
    errors: tuple[type[Exception], ...] = (duckdb.Error,)

    def __init__(self, path: Path | None, shared: schema.SharedStates | None = None) -> None:
        self.con, self.close = schema.connect(path, shared)

    def load(self) -> tuple[int, int]:
        con = self.con
        self.kept = Kept(con)
        self._segments = Segments(con)
        self._cells = Cells(con, self._segments.names)
        counts = con.execute(
            "SELECT (SELECT count(*) FROM staged_exposures) + (SELECT count(*) FROM staged_outcomes), "
            "(SELECT count(*) FROM pending)"
        ).fetchone()
        assert counts is not None
        staged, pending = counts
        return staged, pending

    def begin(self) -> None:
        self.con.execute("BEGIN")

    def commit(self) -> None:
        self.con.execute("COMMIT")

    def roll_back(self) -> None:
        with suppress(duckdb.TransactionException):  # a commit that failed has ended its transaction
            self.con.execute("ROLLBACK")

    def begin_attempt(self, attempt: int) -> int:
        con = self.con
        con.execute("INSERT INTO foreign_ids SELECT name, t FROM requests UNION SELECT unit, t FROM requests")
        for table in schema.OF_THE_ATTEMPT:
            con.execute(f"DELETE FROM {table}")
        # Outcomes of units may belong to the new attempt's first exposures; they are matched anew.
        con.execute(
            "INSERT INTO pending SELECT * EXCLUDE (request_n, request_t, credit_t), TRUE FROM outcomes "
            "WHERE request = 0 AND t >= (SELECT min(t) FROM staged_exposures WHERE attempt = ?)",
            [attempt],
        )
        con.execute("DELETE FROM outcomes")
        con.execute("UPDATE pending SET fresh = TRUE")
        for table in ("staged_exposures", "samples"):
            con.execute(f"DELETE FROM {table} WHERE attempt < ?", [attempt])
        return one(con, "SELECT count(*) FROM pending")

    def admit(self, exposures: Sequence[ExposureRow], outcomes: Sequence[OutcomeRow]) -> None:
        ingest.admit_exposures(self.con, self._segments, exposures)
        ingest.admit_outcomes(self.con, outcomes)

    def admit_foreign(self, exposures: Sequence[ExposureRow]) -> None:
        ingest.admit_foreign(self.con, exposures)

    def admit_samples(self, rows: Sequence[SampleRow], attempt: int, settled: int) -> None:
        gauges.admit(self.con, rows, attempt, settled)

    def settle_exposures(self, step: Settling) -> Tally:
        return settle_exposures(self.con, step)

    def settle_outcomes(self, step: Settling, metrics: Iterable[MetricPlan], arrived: int) -> OutcomeTally:
        return settle_outcomes(self.con, step, metrics, arrived)

    def baseline(self, span: Span, sums: BaselineSums) -> BaselineSums:
        mirrors = span.epochs(True)
        for block, epoch, cell in self._cells.baseline(span):
            if span.plan.frozen and epoch not in mirrors:
                continue
            buckets = dict(sums.buckets)
            for place, units in cell.buckets:
                buckets[place] = buckets.get(place, 0) + units
            sums = BaselineSums(
                sums.blocks + 1,
                block,
                epoch,
                sums.units + cell.units,
                sums.x + cell.x,
                sums.y + cell.y,
                sums.nonzero + cell.nonzero,
                tuple(sorted(buckets.items())),
                sums.covaried.plus(cell.covaried),
            )
        return sums

    def weighted(self, span: Span) -> list[Block]:
        return self._cells.weighted(span)

    def paired(self, span: Span) -> list[Block]:
        return self._cells.paired(span)

    def judge(self, blocks: Sequence[tuple[object, ...]]) -> None:
        insert(self.con, "cells", blocks)

    def bodies(self) -> list[str]:
        found = self.con.execute("SELECT body FROM cells ORDER BY metric, segment, pair, block, epoch").fetchall()
        return [body for (body,) in found]

    def unknown(self, before: int, names: Sequence[str]) -> int:
        waiting = "SELECT count(*) FROM pending WHERE request <> 0 AND ingest_t < ? AND list_contains(?, name)"
        return one(self.con, waiting, [before, names])

    def prune(self, limits: Limits) -> int:
        con, before = self.con, limits.before
        many = one(con, "SELECT count(*) FROM requests") > MOST_REQUESTS
        con.execute(f"DELETE FROM requests WHERE t < {limits.hourly if many else before}")
        for table, t in (
            ("foreign_ids", "t"), ("cells", "until"), ("seen_outcomes", "ingest_t"), ("samples", "t")
        ):  # fmt: skip
            con.execute(f"DELETE FROM {table} WHERE {t} < {before}")
        con.execute(f"DELETE FROM outcomes WHERE credit_t < {before} AND ingest_t < {before}")
        expired = f"SELECT count(*) FROM pending WHERE ingest_t < {before} AND list_contains(?, name)"
        found = one(con, expired, [limits.names])
        con.execute(f"DELETE FROM pending WHERE ingest_t < {before}")
        return found

    def sum_up(self, summed: int) -> int:
        count = "SELECT (SELECT count(*) FROM scores) + (SELECT count(*) FROM worst)"
        if one(self.con, count) <= 2 * summed + _SUM_UP_FROM:
            return summed
        for table, total, kept in (("scores", "sum(s) AS s", "sum(s) <> 0"), ("worst", "max(level) AS level", "TRUE")):
            self.con.execute(
                f"CREATE OR REPLACE TEMP TABLE summed AS SELECT metric, pair, segment, unit, {total} FROM {table} "
                f"GROUP BY ALL HAVING {kept}"
            )
            self.con.execute(f"DELETE FROM {table}")
            self.con.execute(f"INSERT INTO {table} SELECT * FROM summed")
        return one(self.con, count)

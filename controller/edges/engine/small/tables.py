"""The tables of an engine in SQLite: what comes in, what is forgotten, and the transactions around it."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from controller.core.cells import BaselineSums, Block, MetricPlan
from controller.edges.engine import schema as large
from controller.edges.engine.rows import ExposureRow, OutcomeRow, SampleRow
from controller.edges.engine.segments import Segments, identity
from controller.edges.engine.settling import OutcomeTally, Settling, Tally
from controller.edges.engine.small import schema
from controller.edges.engine.small.blocks import Cells
from controller.edges.engine.small.kept import Kept
from controller.edges.engine.small.matching import settle_outcomes
from controller.edges.engine.small.settle import settle_exposures
from controller.edges.engine.span import Span
from controller.edges.engine.tables import Limits
from controller.edges.engine.terms import bucket

_SIGN = 1 << 63
# Each step of a statement lets other threads have Python's lock and waits for it to come back: sixteen at once took
# three times the processor time of sixteen in turn. Nothing but time depends on it, so nobody waits for long.
_TURN = threading.Lock()
_PATIENCE_S = 1.0


def signed(text: str | None) -> int:
    """The hash that stands for an id, as SQLite has it."""
    number = identity(text)
    return number - 2 * _SIGN if number >= _SIGN else number


class SmallTables:
    """``Tables`` in the SQLite file at ``path`` (None: in memory). EdgeError where another process has it or it cannot
    be read."""

    size_mb, settle_after = 0.4, 10_000
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path | None = None) -> None:
        self.con = schema.connect(path)
        self._has_turn = False

    def close(self) -> None:
        self.con.close()

    def load(self) -> tuple[int, int]:
        con = self.con
        self.kept = Kept(con)
        self._segments = Segments(con)
        self._cells = Cells(con, self._segments)
        staged, pending = con.execute(
            "SELECT (SELECT count(*) FROM staged_exposures) + (SELECT count(*) FROM staged_outcomes), "
            "(SELECT count(*) FROM pending)"
        ).fetchone()
        return staged, pending

    def begin(self) -> None:
        self._has_turn = _TURN.acquire(timeout=_PATIENCE_S)
        try:
            self.con.execute("BEGIN")
        except BaseException:
            self._end_turn()
            raise

    def commit(self) -> None:
        self._end_turn()  # the rest is one step, which waits for the disk
        self.con.execute("COMMIT")
        self._cells.let_go()

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            _TURN.release()

    def roll_back(self) -> None:
        self._end_turn()
        if self.con.in_transaction:
            self.con.execute("ROLLBACK")

    def begin_attempt(self, attempt: int) -> int:
        con = self.con
        for column in ("name", "unit"):
            con.execute(
                f"INSERT INTO foreign_ids SELECT {column}, max(t) FROM requests WHERE {column} <> 0 GROUP BY {column} "
                "ON CONFLICT (h) DO UPDATE SET t = max(t, excluded.t)"
            )
        for table in large.OF_THE_ATTEMPT:
            con.execute(f"DELETE FROM {table}")
        # Outcomes of units may belong to the new attempt's first exposures; they are matched anew.
        con.execute(
            "INSERT INTO pending SELECT h, outcome_id, t, ingest_t, name, unit, request, row, value, 1 FROM outcomes "
            "WHERE request = 0 AND t >= (SELECT min(t) FROM staged_exposures WHERE attempt = ?)",
            [attempt],
        )
        con.execute("DELETE FROM outcomes")
        con.execute("UPDATE pending SET fresh = 1")
        for table in ("staged_exposures", "samples"):
            con.execute(f"DELETE FROM {table} WHERE attempt < ?", [attempt])
        self._cells.let_go()
        return int(con.execute("SELECT count(*) FROM pending").fetchone()[0])

    def admit(self, exposures: Sequence[ExposureRow], outcomes: Sequence[OutcomeRow]) -> None:
        self.con.executemany(f"INSERT INTO staged_exposures VALUES ({_marks(17)})", map(self._exposure, exposures))
        self.con.executemany(f"INSERT INTO staged_outcomes VALUES ({_marks(9)})", map(_outcome, outcomes))

    def _exposure(self, row: ExposureRow) -> tuple[object, ...]:
        scores = None if row.scores is None else json.dumps(row.scores)
        numbers = json.dumps(row.numbers) if any(number is not None for number in row.numbers) else None
        return (
            row.attempt, row.key, row.fell_back, numbers, row.epoch, row.t, signed(row.key), signed(row.request_id),
            signed(row.unit), row.challenger, row.hashed, row.evidence, row.mirror, row.usable,
            bucket(row.latency_us), self._segments.combo(row.segments), scores,
        )  # fmt: skip

    def admit_foreign(self, exposures: Sequence[ExposureRow]) -> None:
        found = [(signed(text), row.t) for row in exposures for text in (row.request_id, row.unit) if text is not None]
        more = "INSERT INTO foreign_ids VALUES (?, ?) ON CONFLICT (h) DO UPDATE SET t = max(t, excluded.t)"
        self.con.executemany(more, found)

    def admit_samples(self, rows: Sequence[SampleRow], attempt: int, settled: int) -> None:
        timely = [row for row in rows if (row.attempt == attempt and row.t >= settled) or row.attempt > attempt]
        columns = [(r.attempt, r.metric, r.challenger, r.t, r.epoch, r.value) for r in timely]
        self.con.executemany(f"INSERT INTO samples VALUES ({_marks(6)})", columns)

    def settle_exposures(self, step: Settling) -> Tally:
        return settle_exposures(self.con, step)

    def settle_outcomes(self, step: Settling, metrics: Iterable[MetricPlan], arrived: int) -> OutcomeTally:
        return settle_outcomes(self.con, step, metrics, arrived)

    def baseline(self, span: Span, sums: BaselineSums) -> BaselineSums:
        return self._cells.baseline(span, sums)

    def weighted(self, span: Span) -> list[Block]:
        return self._cells.weighted(span)

    def paired(self, span: Span) -> list[Block]:
        return self._cells.paired(span)

    def judge(self, blocks: Sequence[tuple[object, ...]]) -> None:
        self.con.executemany(f"INSERT INTO cells VALUES ({_marks(7)})", blocks)

    def bodies(self) -> list[str]:
        found = self.con.execute("SELECT body FROM cells ORDER BY metric, segment, pair, block, epoch")
        return [body for (body,) in found]

    def unknown(self, before: int, names: Sequence[str]) -> int:
        asked = f"SELECT count(*) FROM pending WHERE request <> 0 AND ingest_t < ? AND name IN ({_marks(len(names))})"
        return int(self.con.execute(asked, [before, *names]).fetchone()[0])

    def prune(self, limits: Limits) -> int:
        con, before, names = self.con, limits.before, limits.names
        for table, t in (
            ("requests", "t"), ("foreign_ids", "t"), ("cells", "until"), ("seen_outcomes", "ingest_t"), ("samples", "t")
        ):  # fmt: skip
            con.execute(f"DELETE FROM {table} WHERE {t} < {before}")
        con.execute(f"DELETE FROM outcomes WHERE credit_t < {before} AND ingest_t < {before}")
        expired = f"SELECT count(*) FROM pending WHERE ingest_t < {before} AND name IN ({_marks(len(names))})"
        (found,) = con.execute(expired, list(names)).fetchone()
        con.execute(f"DELETE FROM pending WHERE ingest_t < {before}")
        return int(found)

    def sum_up(self, summed: int) -> int:
        return summed  # sums are kept as such


def _marks(count: int) -> str:
    return ",".join("?" * count)


def _outcome(row: OutcomeRow) -> tuple[object, ...]:
    """One that names a request belongs to it alone: its unit is not looked at."""
    request = signed(row.request_id)
    unit = 0 if request else signed(row.unit)
    return (
        signed(row.outcome_id), row.outcome_id, row.t, row.ingest_t, row.name, unit, request, row.row, row.value,
    )  # fmt: skip

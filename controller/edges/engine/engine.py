"""The metric engine: rows in, final cells folded, statistics out; everything it knows lies in one DuckDB file."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from controller.core.cells import BaselineSums, Block, EpochCounts, MetricPlan, StatisticsQuery
from controller.core.fold import Fold, Statistics, fold
from controller.core.pairs import PairFold
from controller.edges.engine import gauges, ingest, schema
from controller.edges.engine.blocks import Cells
from controller.edges.engine.kept import Kept, insert
from controller.edges.engine.rows import ExposureRow, OutcomeRow, SampleRow
from controller.edges.engine.settle import Settling, one, outcome_names, settle_exposures, settle_outcomes
from controller.edges.engine.span import Span
from controller.edges.engine.state import Progress, State, dumped, loaded, plain, restored, restored_block
from controller.errors import EdgeError
from controller.kinds import AWAITING, OF_SERVERS, SERVED

FAMILIES = (*AWAITING, *SERVED, *OF_SERVERS, "pair")
DAY = 86_400_000_000
HOUR = 3_600_000_000
MOST_REQUESTS = 40_000_000  # beyond so many, requests are kept for an hour after their time instead of a day
_PRUNE_EVERY = 600_000_000
_SUM_UP_FROM = 200_000

STATE, FOLD, PROGRESS = "state", "fold", "progress"  # kinds of what is kept

Key = tuple[str, str, bool]  # metric, segment, whether of a mirror


def _key(text: str) -> Key:
    metric, segment, pair = json.loads(text)
    return metric, segment, pair


class Engine:
    """Incremental statistics of one rollout.

    ``ingest`` takes rows in any order; ``advance`` says up to where all of them are there, and folds what became
    final. A row earlier than the last watermark is counted late and takes no part, hence the result depends on the
    rows and not on how they were cut or shuffled. Use ``batch`` to put several calls (and the reader's positions)
    into one transaction. Not for use by several threads.

    ``passing``: for one pass over known rows, in memory. Folds, progress and blocks are not written down then, as
    nothing will read them; after an error the engine answers no more. ``shared``: the DuckDB of many states.

    Raises EdgeError where ``path`` (None: in memory) is held by another process or cannot be read.
    """

    def __init__(
        self, path: Path | None = None, passing: bool = False, shared: schema.SharedStates | None = None
    ) -> None:
        self._path = path
        self._passing = passing
        self._shared = shared
        self.con, self.close = schema.connect(path, shared)
        self._depth = 0
        self._broken = False
        self._load()

    def _load(self) -> None:
        """Take what is committed; also after a failed transaction, so that memory never runs ahead of the file."""
        con = self.con
        self.kept = Kept(con)
        found = self.kept.taken(STATE).get("")
        self._state: State = restored(State, json.loads(found)) if found else State()
        self._saved = self._state
        self._segments = ingest.Segments(con)
        self._cells = Cells(con, self._segments.names)
        self._judged: list[tuple[object, ...]] = []  # blocks to be written
        self._folds: dict[Key, Fold] = {_key(text): loaded(body) for text, body in self.kept.taken(FOLD).items()}
        self._progress: dict[str, Progress] = {
            metric: restored(Progress, json.loads(body)) for metric, body in self.kept.taken(PROGRESS).items()
        }
        counts = con.execute(
            "SELECT (SELECT count(*) FROM staged_exposures) + (SELECT count(*) FROM staged_outcomes), "
            "(SELECT count(*) FROM pending)"
        ).fetchone()
        assert counts is not None
        self._staged, self._pending = counts

    @property
    def settled(self) -> int:
        """The watermark of the last ``advance`` (µs)."""
        return self._state.settled

    @contextmanager
    def batch(self) -> Iterator[None]:
        """All or nothing: what is done inside is committed together, or not at all if it raises."""
        if self._depth:
            yield
            return
        self._mend()
        self.con.execute("BEGIN")
        self._depth = 1
        try:
            yield
            if self._state != self._saved:
                self.kept.put(STATE, "", json.dumps(plain(self._state)))
            self.kept.write()
            insert(self.con, "cells", self._judged)
            self._judged = []
            self.con.execute("COMMIT")
            self._saved = self._state
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._depth = 0

    def _mend(self) -> None:
        """Open the state again where it has refused a write."""
        if self._broken and self._passing:
            raise EdgeError("the statistics of this pass were lost in an earlier error")
        if self._broken and self._path is not None:
            self.close()
            self.con, self.close = schema.connect(self._path, self._shared)
            self._load()
            self._broken = False

    def _roll_back(self) -> None:
        try:
            with suppress(duckdb.TransactionException):  # a commit that failed has ended its transaction
                self.con.execute("ROLLBACK")
            self._broken = self._passing
            if not self._passing:
                self._load()
        except duckdb.Error:
            # After a failed write (a full disk) DuckDB refuses all until the file is opened again.
            self._broken = True

    def adopt(self, query: StatisticsQuery) -> None:
        """Be about the attempt of ``query``: what an earlier one left is forgotten.

        Raises ValueError for another rollout than before, or an attempt that is over.
        """
        self._mend()
        state = self._state
        if state.rollout not in ("", query.rollout):
            raise ValueError(f"these are the statistics of rollout {state.rollout}, not of {query.rollout}")
        if query.attempt < state.attempt:
            raise ValueError(f"attempt {query.attempt} is over, the statistics are of attempt {state.attempt}")
        if query.attempt == state.attempt:
            return
        with self.batch():
            con = self.con
            con.execute("INSERT INTO foreign_ids SELECT name, t FROM requests UNION SELECT unit, t FROM requests")
            for table in schema.OF_THE_ATTEMPT:
                con.execute(f"DELETE FROM {table}")
            self.kept.forget(FOLD, PROGRESS)
            # Outcomes of units may belong to the new attempt's first exposures; they are matched anew.
            con.execute(
                "INSERT INTO pending SELECT * EXCLUDE (request_n, request_t, credit_t), TRUE FROM outcomes "
                "WHERE request = 0 AND t >= (SELECT min(t) FROM staged_exposures WHERE attempt = ?)",
                [query.attempt],
            )
            con.execute("DELETE FROM outcomes")
            con.execute("UPDATE pending SET fresh = TRUE")
            for table in ("staged_exposures", "samples"):
                con.execute(f"DELETE FROM {table} WHERE attempt < ?", [query.attempt])
            self._folds, self._progress = {}, {}
            self._pending = one(con, "SELECT count(*) FROM pending")
            # What was staged for the new attempt while the old one was asked for is not late: nothing is settled yet.
            self._state = State(query.rollout, query.attempt)

    def ingest(
        self,
        exposures: Sequence[ExposureRow] = (),
        outcomes: Sequence[OutcomeRow] = (),
        samples: Sequence[SampleRow] = (),
    ) -> None:
        """Take rows, in any order and any number of times. Exposures of earlier attempts are not counted, samples of
        earlier ones, or from before the watermark, are passed over."""
        attempt = self._state.attempt
        current = [row for row in exposures if row.attempt >= attempt]
        with self.batch():
            ingest.admit_exposures(self.con, self._segments, current)
            ingest.admit_outcomes(self.con, outcomes)
            if len(current) < len(exposures):
                ingest.admit_foreign(self.con, [row for row in exposures if row.attempt < attempt])
            self._staged += len(current) + len(outcomes)
            gauges.admit(self.con, samples, attempt, self._state.settled)

    def count(self, lost: int = 0, no_unit: int = 0, malformed: int = 0, misread: int = 0) -> None:
        """Add to the losses what a reader noticed."""
        with self.batch():
            self._state = self._state.counted(lost=lost, no_unit=no_unit, malformed=malformed, misread=misread)

    def advance(self, query: StatisticsQuery, watermark: int) -> Statistics:
        """Settle every row before ``watermark`` (µs; never goes back), fold what became final, answer it all.

        Raises ValueError where the query contradicts what was judged already, EdgeError where sums overflow.
        """
        with self.batch():
            self.adopt(query)
            self._prune(query)
            until = max(watermark, self._state.settled)
            self._settle(query, until)
            for plan in query.metrics:
                if plan.family in FAMILIES:
                    self._judge(query, plan)
        return self._statistics(query)

    def _settle(self, query: StatisticsQuery, until: int) -> None:
        state = self._state
        mirrors = tuple(e.number for e in query.epochs if e.kind == "mirror")
        step = Settling(state.attempt, state.settled, until, state.last_n, mirrors, query.grace)
        arrived = 0
        if self._staged:
            tally = settle_exposures(self.con, step)
            arrived = tally.kept
            self._staged -= tally.staged
            self._state = (
                self._state.counted(
                    received=tally.kept, late=tally.late, duplicates=tally.duplicates, clashes=tally.clashes
                )
                .with_epochs(tally.epochs)
                ._replace(last_n=state.last_n + tally.kept)
            )
        if self._staged or self._pending:
            said = settle_outcomes(self.con, step, query.metrics, arrived)
            self._state = self._state.counted(
                received=said.kept, late=said.late, duplicates=said.duplicates, unknown=said.unknown
            )
            self._staged -= said.staged
            self._pending = said.waiting
        self._state = self._state._replace(settled=until)

    def _judge(self, query: StatisticsQuery, plan: MetricPlan) -> None:
        """Fold the blocks of one metric that are final and were not yet."""
        wait = plan.window + query.grace if plan.family in AWAITING else 0
        last = (self._state.settled - wait) // plan.block - 1
        was = now = self._progress.get(plan.name, Progress())
        if now.plan is not None and not plan.frozen:
            raise ValueError(f"{plan.name}: its baseline was frozen and cannot be open again within the attempt")
        mirror = any(e.kind == "mirror" for e in query.epochs)
        if last > now.baseline_to:
            if mirror or not plan.frozen:
                now = self._baseline(Span(plan, query, now.baseline_to + 1, last), now)
            now = now._replace(baseline_to=last)
        if plan.frozen:
            now = now.with_plan(plan)
            first = max(now.evidence_to + 1, plan.from_block, 0)
            if last >= first:
                now = self._evidence(Span(plan, query, first, last), now)
        if now != was:
            self._progress[plan.name] = now
            if self._passing:
                return
            self.kept.put(PROGRESS, plan.name, json.dumps(plain(now)))

    def _baseline(self, span: Span, progress: Progress) -> Progress:
        sums = progress.baseline
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
        return progress._replace(baseline=sums)

    def _evidence(self, span: Span, progress: Progress) -> Progress:
        weighted, paired = self._cells.weighted(span), self._cells.paired(span)
        epochs = {e.number: e for e in span.query.epochs}
        for number in sorted({block.epoch for block in weighted}):
            progress = progress.with_share(span.plan, epochs[number])
        changed: set[Key] = set()
        for block in sorted([*weighted, *paired], key=lambda b: (b.segment, b.block, b.epoch)):
            key = (block.metric, block.segment, block.pair is not None)
            self._folds[key] = fold(span.plan, epochs[block.epoch], self._folds.get(key), block)
            changed.add(key)
        if not self._passing:
            for key in changed:
                self.kept.put(FOLD, json.dumps(key), dumped(self._folds[key]))
            for b in (*weighted, *paired):
                until = (b.block + 1) * span.plan.block
                body = json.dumps(plain(b))
                self._judged.append((b.metric, b.segment, b.epoch, b.block, b.pair is not None, until, body))
        return progress._replace(evidence_to=span.last, weighted=progress.weighted or bool(weighted))

    def _prune(self, query: StatisticsQuery) -> None:
        """Forget what no cell can ask for any more: rows older than the longest window, the grace and a day.

        Entries of units, their running scores and what they reached stay for the attempt. Where there are too many
        requests, an hour takes the place of the day: outcomes that come later are unknown then, rather than late.
        """
        state = self._state
        if state.settled - state.pruned < _PRUNE_EVERY:
            return
        longest = max((m.window + m.block for m in query.metrics if m.family in FAMILIES), default=0)
        needed = state.settled - longest - query.grace
        before, con = needed - DAY, self.con
        many = one(con, "SELECT count(*) FROM requests") > MOST_REQUESTS
        con.execute(f"DELETE FROM requests WHERE t < {needed - HOUR if many else before}")
        for table, t in (
            ("foreign_ids", "t"), ("cells", "until"), ("seen_outcomes", "ingest_t"), ("samples", "t")
        ):  # fmt: skip
            con.execute(f"DELETE FROM {table} WHERE {t} < {before}")
        con.execute(f"DELETE FROM outcomes WHERE credit_t < {before} AND ingest_t < {before}")
        names = outcome_names(query.metrics)
        expired = one(
            con, f"SELECT count(*) FROM pending WHERE ingest_t < {before} AND list_contains(?, name)", [names]
        )
        con.execute(f"DELETE FROM pending WHERE ingest_t < {before}")
        self._state = state.counted(unknown=expired)._replace(pruned=state.settled)
        self._sum_up()

    def _sum_up(self) -> None:
        """One row per unit again where additions have piled up."""
        count = "SELECT (SELECT count(*) FROM scores) + (SELECT count(*) FROM worst)"
        if one(self.con, count) <= 2 * self._state.summed + _SUM_UP_FROM:
            return
        for table, total, kept in (("scores", "sum(s) AS s", "sum(s) <> 0"), ("worst", "max(level) AS level", "TRUE")):
            self.con.execute(
                f"CREATE OR REPLACE TEMP TABLE summed AS SELECT metric, pair, segment, unit, {total} FROM {table} "
                f"GROUP BY ALL HAVING {kept}"
            )
            self.con.execute(f"DELETE FROM {table}")
            self.con.execute(f"INSERT INTO {table} SELECT * FROM summed")
        self._state = self._state._replace(summed=one(self.con, count))

    def blocks(self) -> list[Block]:
        """Every final block of evidence that is still kept (the longest window and a day), by (metric, segment, …)."""
        found = self.con.execute(
            "SELECT body FROM cells ORDER BY metric, segment, pair, block, epoch",
        ).fetchall()
        return [restored_block(json.loads(body)) for (body,) in found]

    def _statistics(self, query: StatisticsQuery) -> Statistics:
        state = self._state
        names = {m.name for m in query.metrics if m.family in FAMILIES}
        folds = {k: f for k, f in self._folds.items() if k[0] in names}
        waiting = 0
        if self._pending:
            waiting = one(
                self.con,
                "SELECT count(*) FROM pending WHERE request <> 0 AND ingest_t < ? AND list_contains(?, name)",
                [state.settled - query.grace, outcome_names(query.metrics)],
            )
        return Statistics(
            folds={k[:2]: f for k, f in folds.items() if not k[2]},
            pairs={k[:2]: f for k, f in folds.items() if k[2] and isinstance(f, PairFold)},
            baselines={name: self._progress.get(name, Progress()).baseline for name in sorted(names)},
            counts={epoch: EpochCounts(epoch, **dict(counts)) for epoch, counts in state.epochs},
            losses=state.losses._replace(unknown=state.losses.unknown + waiting),
            watermark=state.settled,
        )

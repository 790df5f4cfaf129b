"""The metric engine: rows in, final cells folded, statistics out; everything it knows lies in one file."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from controller.core.cells import Block, EpochCounts, MetricPlan, StatisticsQuery
from controller.core.fold import Fold, Statistics, fold
from controller.core.pairs import PairFold
from controller.edges.engine.large import LargeTables
from controller.edges.engine.rows import ExposureRow, OutcomeRow, SampleRow
from controller.edges.engine.schema import SharedStates
from controller.edges.engine.settling import Settling, outcome_names
from controller.edges.engine.span import Span
from controller.edges.engine.state import Progress, State, dumped, loaded, plain, restored, restored_block
from controller.edges.engine.tables import Limits, Tables, Texts
from controller.errors import EdgeError
from controller.kinds import AWAITING, OF_SERVERS, SERVED

FAMILIES = (*AWAITING, *SERVED, *OF_SERVERS, "pair")
DAY = 86_400_000_000
HOUR = 3_600_000_000
_PRUNE_EVERY = 600_000_000

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
    ``tables``: how the file is opened where it is no DuckDB at ``path``.

    Raises EdgeError where ``path`` (None: in memory) is held by another process or cannot be read.
    """

    def __init__(
        self,
        path: Path | None = None,
        passing: bool = False,
        shared: SharedStates | None = None,
        tables: Callable[[], Tables] | None = None,
    ) -> None:
        self._passing = passing
        self._opened = tables or (lambda: LargeTables(path, shared))
        self._lasting = path is not None or tables is not None
        self._tables = self._opened()
        self._depth = 0
        self._broken = False
        self._load()

    def _load(self) -> None:
        """Take what is committed; also after a failed transaction, so that memory never runs ahead of the file."""
        self._staged, self._pending = self._tables.load()
        found = self.kept.taken(STATE).get("")
        self._state: State = restored(State, json.loads(found)) if found else State()
        self._saved = self._state
        self._judged: list[tuple[object, ...]] = []  # blocks to be written
        self._folds: dict[Key, Fold] = {_key(text): loaded(body) for text, body in self.kept.taken(FOLD).items()}
        self._progress: dict[str, Progress] = {
            metric: restored(Progress, json.loads(body)) for metric, body in self.kept.taken(PROGRESS).items()
        }

    @property
    def tables(self) -> Tables:
        """Where the rows lie; for reading."""
        return self._tables

    @property
    def waiting(self) -> int:
        """How many rows are not settled, or not matched with what they are about."""
        return self._staged + self._pending

    @property
    def kept(self) -> Texts:
        """Texts that are written in the transaction that is under way."""
        return self._tables.kept

    def close(self) -> None:
        """Let go of the file."""
        self._tables.close()

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
        self._tables.begin()
        self._depth = 1
        try:
            yield
            if self._state != self._saved:
                self.kept.put(STATE, "", json.dumps(plain(self._state)))
            self.kept.write()
            self._tables.judge(self._judged)
            self._judged = []
            self._tables.commit()
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
        if self._broken and self._lasting:
            self._tables.close()
            self._tables = self._opened()
            self._load()
            self._broken = False

    def _roll_back(self) -> None:
        try:
            self._tables.roll_back()
            self._broken = self._passing
            if not self._passing:
                self._load()
        except self._tables.errors:
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
            self._pending = self._tables.begin_attempt(query.attempt)
            self.kept.forget(FOLD, PROGRESS)
            self._folds, self._progress = {}, {}
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
            self._tables.admit(current, outcomes)
            if len(current) < len(exposures):
                self._tables.admit_foreign([row for row in exposures if row.attempt < attempt])
            self._staged += len(current) + len(outcomes)
            self._tables.admit_samples(samples, attempt, self._state.settled)

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
            tally = self._tables.settle_exposures(step)
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
            said = self._tables.settle_outcomes(step, query.metrics, arrived)
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
                span = Span(plan, query, now.baseline_to + 1, last)
                now = now._replace(baseline=self._tables.baseline(span, now.baseline))
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

    def _evidence(self, span: Span, progress: Progress) -> Progress:
        weighted, paired = self._tables.weighted(span), self._tables.paired(span)
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
        limits = Limits(needed - DAY, needed - HOUR, outcome_names(query.metrics))
        self._state = state.counted(unknown=self._tables.prune(limits))._replace(
            pruned=state.settled, summed=self._tables.sum_up(state.summed)
        )

    def blocks(self) -> list[Block]:
        """Every final block of evidence that is still kept (the longest window and a day), by (metric, segment, …)."""
        return [restored_block(json.loads(body)) for body in self._tables.bodies()]

    def _statistics(self, query: StatisticsQuery) -> Statistics:
        state = self._state
        names = {m.name for m in query.metrics if m.family in FAMILIES}
        folds = {k: f for k, f in self._folds.items() if k[0] in names}
        waiting = 0
        if self._pending:
            waiting = self._tables.unknown(state.settled - query.grace, outcome_names(query.metrics))
        return Statistics(
            folds={k[:2]: f for k, f in folds.items() if not k[2]},
            pairs={k[:2]: f for k, f in folds.items() if k[2] and isinstance(f, PairFold)},
            baselines={name: self._progress.get(name, Progress()).baseline for name in sorted(names)},
            counts={epoch: EpochCounts(epoch, **dict(counts)) for epoch, counts in state.epochs},
            losses=state.losses._replace(unknown=state.losses.unknown + waiting),
            watermark=state.settled,
        )

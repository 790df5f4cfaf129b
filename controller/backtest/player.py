"""Time passes, rows arrive, the rule decides; the allocations go on as they were logged.

Every tick asks the engine up to where all rows have been read and calls ``evolve`` on a status that the log puts into
its step and epoch. What ``evolve`` learns (baselines, centring means, segments seen, a mismatch) is kept, what it
would do to the traffic is written down and taken back.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from controller.backtest.allocations import NO_EPOCH, Allocations, Change
from controller.backtest.result import Decided, End, Result
from controller.core import plans
from controller.core.adjustments import opening_adjustments
from controller.core.allocation import with_table
from controller.core.cells import BaselineSums, MetricPlan, StatisticsQuery
from controller.core.evidence import Evidence
from controller.core.evolve import Transition, evolve, plan_digest
from controller.core.fold import Statistics
from controller.edges.engine import Engine, ExposureRow, OutcomeRow, SampleRow
from controller.kinds import AWAITING, KINDS
from controller.spec import RolloutSpec
from controller.status import Attempt, Epoch, Frozen, Observed, Progress, Reason, RolloutStatus, Verb

HARM = (Reason.LIMIT_BREACHED, Reason.SERVICE_HARM, Reason.OUTCOME_HARM, Reason.SEGMENT_HARM)
CONFIRMED = 1 << 53
# Ticks as short as a block until baselines are frozen, at most so many: a metric may never get one.
FINE_TICKS = 5_000
TAIL_TICKS = 20

Row = TypeVar("Row", ExposureRow, OutcomeRow, SampleRow)
Progressed = Callable[[int, RolloutStatus], None]


class Feed(Generic[Row]):
    """Rows in the order of their line times, handed out up to a moment."""

    def __init__(self, rows: Iterable[Row], time: Callable[[Row], int]) -> None:
        self._rows: Iterator[Row] = iter(rows)
        self._time: Callable[[Row], int] = time
        self._next: Row | None = next(self._rows, None)
        self._held: list[Row] = []  # taken from the rows, and not handed out
        self._recent: list[Row] = []  # handed out at the last two times
        self._before = 0  # how many of them the first time

    def until(self, t: int) -> list[Row]:
        """Every row before ``t`` that was not handed out yet."""
        found = self._held[: self.ahead(t)]
        del self._held[: len(found)]
        self._recent = self._recent[self._before :] + found
        self._before = len(self._recent) - len(found)
        return found

    def ahead(self, t: int) -> int:
        """How many rows before ``t`` are still to be handed out."""
        while self._next is not None and self._time(self._next) < t:
            self._held.append(self._next)
            self._next = next(self._rows, None)
        return bisect_left(self._held, t, key=self._time)

    def between(self, since: int, t: int) -> int:
        """How many rows there are from ``since``, no earlier than the last time but one, to ``t``."""
        return sum(self._time(row) >= since for row in self._recent) + self.ahead(t)


class Past(NamedTuple):
    """All that is known of what happened. ``baselines``: those a run had frozen; empty: they are found again.

    ``lost``: events that are known to be missing.
    """

    name: str
    attempt: int
    allocations: Allocations
    exposures: Feed[ExposureRow]
    outcomes: Feed[OutcomeRow]
    samples: Feed[SampleRow]
    baselines: dict[str, Frozen] = {}
    lost: int = 0
    no_unit: int = 0


class Player:
    """One pass over the past, in ticks of ``tick`` µs."""

    def __init__(self, spec: RolloutSpec, past: Past, tick: int, progressed: Progressed | None = None) -> None:
        self._spec, self._past, self._tick = spec, past, tick
        self._progressed = progressed
        self._engine = Engine(passing=True)
        self._fine_left = FINE_TICKS
        self._baselines = {m.name: BaselineSums() for m in spec.metrics}
        self._decisions: list[Decided] = []
        self._latest = Decided(past.allocations.begin, 0, 0.0, "Hold", "NoData", None, None, "nothing was seen")
        self._ended: tuple[End, Decided] | None = None
        self._evidence: tuple[Evidence, ...] = ()
        begin, last = past.allocations.begin, past.allocations.last
        self._step_since = begin
        self._end = begin + ((last - begin) // tick + 1) * tick
        self._status = self._beginning()
        self._engine.adopt(self._query())
        self._engine.count(lost=past.lost, no_unit=past.no_unit)

    def play(self, stop_at_decision: bool = False) -> Result:
        """To the end of the log and until every window is closed, or until something is decided."""
        try:
            for t in self._times():
                statistics = self._read(t)
                if self._status.epochs:
                    self._decide(t, statistics)
                if self._progressed is not None:
                    self._progressed(t, self._status)
                if self._ended is not None and stop_at_decision:
                    break
                self._change(t, statistics)
        finally:
            self._engine.close()
        return self._result()

    def _beginning(self) -> RolloutStatus:
        past = self._past
        attempt = Attempt(
            number=past.attempt,
            champion="champion",
            challenger="challenger",
            salt=past.name,
            started_at=past.allocations.begin,
        )
        # Servers answer, routers confirm, people approve: in the past all that has happened.
        world = Observed(
            champion_alias=attempt.champion,
            challenger_alias=attempt.challenger,
            champion_upstreams=("log:1",),
            challenger_upstreams=("log:2",),
            champion_ready=True,
            challenger_ready=True,
            confirmed=CONFIRMED,
        )
        status = RolloutStatus(
            uid=past.name,
            rollout=past.name,
            generation=1,
            attempts=past.attempt,
            progress=Progress.RUNNING,
            attempt=attempt,
            plan=plan_digest(self._spec),
            step=past.allocations.changes[0].step,
            approved=tuple(range(len(self._spec.steps))),
            promotion_approved=True,
            baselines=past.baselines,
            observed=world,
        )
        return with_table(self._spec, status)

    def _query(self) -> StatisticsQuery:
        return plans.query(self._past.name, self._spec, self._status)

    def _times(self) -> Iterator[int]:
        """When to look: at every change of allocation, every tick, and until the last window is closed."""
        left = [c.t for c in self._past.allocations.changes]
        horizon = self._horizon()
        now = begin = left[0]
        # A whole number of ticks, so that all looks lie on one grid from the beginning.
        tail = max(1, (horizon - self._end) // TAIL_TICKS // self._tick) * self._tick
        yield now
        while now < horizon:
            left = [t for t in left if t > now] if left and left[0] <= now else left
            fine = self._fine(now)
            step = min(fine or self._tick, self._tick) if now < self._end else (fine or tail)
            now = min([begin + ((now - begin) // step + 1) * step, horizon, *left[:1]])
            yield now

    def _fine(self, now: int) -> int:
        """The shortest block of a metric whose baseline may be complete within a tick; 0 without one."""
        open_ones = [m for m in self._query().metrics if not m.frozen and not self._far_from(m, now)]
        if not open_ones or self._fine_left == 0:
            return 0
        self._fine_left -= 1
        return min(m.block for m in open_ones)

    def _far_from(self, plan: MetricPlan, now: int) -> bool:
        """Whether the requests of the next tick cannot complete the baseline of a service kind."""
        if plan.family not in ("failures", "latency") or now >= self._end:
            return False
        metric = next(m for m in self._spec.metrics if m.name == plan.name)
        [units] = [r for r in plans.requirements(metric, self._baselines[plan.name]) if r.what == plans.UNITS]
        return units.need - units.have > self._past.exposures.between(now // plan.block * plan.block, now + self._tick)

    def _horizon(self) -> int:
        last = self._past.allocations.last
        ends = [last + 1]
        for plan in self._query().metrics:
            outcome = KINDS[plan.kind].family in AWAITING
            ends.append((last // plan.block + 1) * plan.block + (plan.window + self._spec.decision.grace) * outcome)
        return max(ends)

    def _read(self, t: int) -> Statistics:
        with self._engine.batch():
            past = self._past
            self._engine.ingest(past.exposures.until(t), past.outcomes.until(t), past.samples.until(t))
            statistics = self._engine.advance(self._query(), t)
        self._baselines.update(statistics.baselines)
        return statistics

    def _change(self, t: int, statistics: Statistics) -> None:
        """Put the allocation that begins at ``t`` into force, if one does."""
        for change in self._past.allocations.changes:
            if change.t == t:
                self._allocate(change, statistics)

    def _allocate(self, change: Change, statistics: Statistics) -> None:
        status = self._status
        if change.step != status.step:
            self._step_since = change.t
        known = {e.number for e in status.epochs}
        epochs = status.epochs
        if change.epoch != NO_EPOCH and change.epoch not in known:
            epoch = next(e for e in self._past.allocations.epochs if e.number == change.epoch)
            old = status.current_epoch
            if old is not None and old.kind == "mirror" and epoch.kind != "mirror" and not self._past.baselines:
                status = status.model_copy(update={"baselines": plans.refrozen(self._spec, status, statistics)})
            if not epoch.means:
                means = plans.opening_means(self._spec, status.baselines, statistics)
                adjustments = opening_adjustments(self._spec, status.baselines, statistics)
                epoch = epoch.model_copy(update={"means": means, "adjustments": adjustments})
            epochs = (*epochs, epoch)
        number = change.epoch if change.epoch != NO_EPOCH else -1
        self._status = status.model_copy(update={"epochs": epochs, "epoch": number, "step": change.step})

    def _decide(self, t: int, statistics: Statistics) -> None:
        """One tick of the rule. Time counts until the tick after the last exposure; then only outcomes are awaited."""
        counted = min(t, self._end)
        before = self._status.model_copy(
            update={
                "clock": t,
                "active": counted - self._past.allocations.begin,
                "step_elapsed": counted - self._step_since,
            }
        )
        moved = evolve(self._spec, before, statistics, t)
        self._evidence = moved.evidence
        self._note(t, moved)
        self._status = self._taken_back(before, moved.status)

    def _taken_back(self, before: RolloutStatus, after: RolloutStatus) -> RolloutStatus:
        """``after`` as far as it is knowledge, ``before`` as far as it is traffic."""
        known = {e.number: e for e in before.epochs}
        epochs = tuple(_completed(e, after.baselines) for e in after.epochs if e.number in known)
        kept = ("segment_values", "mismatch_since", "sequence", "decision", "reason", "message", "metric", "segment")
        # A step that would have been taken out of a mirror freezes baselines that are not needed yet.
        fresh = {n: f for n, f in after.baselines.items() if n not in before.baselines}
        update = {name: getattr(after, name) for name in kept}
        return before.model_copy(update={**update, "baselines": {**before.baselines, **fresh}, "epochs": epochs})

    def _note(self, t: int, moved: Transition) -> None:
        """Write down what was decided where it is new; nothing after the end but harm after a promotion."""
        after = moved.status
        if self._ended is not None and not (
            self._ended[0] == "Promoted" and after.decision is Verb.ROLL_BACK and after.reason in HARM
        ):
            return
        epoch = self._status.current_epoch
        said = Decided(
            t,
            self._status.step,
            epoch.weight_bp / 100 if epoch else 0.0,
            after.decision.value,
            after.reason.value,
            after.metric,
            after.segment,
            after.message,
        )
        last = self._decisions[-1] if self._decisions else None
        if last is None or last[1:7] != said[1:7]:
            self._decisions.append(said)
        end: End | None = None
        if after.progress is Progress.HELD:
            end = "Held"
        elif after.decision in (Verb.PROMOTE, Verb.ROLL_BACK):
            end = "Promoted" if after.decision is Verb.PROMOTE else "RolledBack"
        self._latest = said
        if end is not None:
            self._ended = (end, said)

    def _result(self) -> Result:
        end, d = self._ended or ("Held", self._latest)
        decisions = tuple(self._decisions)
        return Result(end, d.reason, d.metric, d.segment, d.message, d.t, self._evidence, decisions)


def _completed(epoch: Epoch, baselines: dict[str, Frozen]) -> Epoch:
    """``epoch`` with a mean for every baseline; one that is not in force was opened before it was frozen."""
    missing = {name: round(f.mean) for name, f in baselines.items() if name not in epoch.means}
    return epoch.model_copy(update={"means": {**epoch.means, **missing}}) if missing else epoch

"""The statistics engine in plain Python: journals in, folds out.

For tests, the simulator and backtests: it keeps every event and every unit's values, so its memory grows with the
traffic of the rollout it serves. What is counted how is said in ``core.cells``.
"""

from collections.abc import Mapping
from typing import Any

from controller.core.cells import OVERALL, BaselineSums, Block, EpochPlan, Losses, MetricPlan, StatisticsQuery
from controller.core.covariates import misread
from controller.core.fold import Fold, Statistics
from controller.core.pairs import PairFold
from controller.edges.memory.events import Exposed, observation
from controller.edges.memory.folding import Folding
from controller.edges.memory.gauges import Gauging, Sample, sample
from controller.edges.memory.journals import JournalReading
from controller.edges.memory.seen import Seen
from controller.edges.memory.tally import Tally
from controller.kinds import ERRORS, OF_SERVERS


class MemorySource:
    """``StatisticsSource`` of one rollout. ``keep_blocks``: remember every folded cell (``blocks``)."""

    def __init__(self, keep_blocks: bool = False) -> None:
        self._keep = keep_blocks
        self._seen = Seen()
        self._journals: dict[str, JournalReading] = {}
        self._tallies: dict[tuple[int, str], tuple[object, Tally]] = {}
        self._foldings: dict[tuple[int, str], Folding] = {}
        self._samples: dict[int, list[Sample]] = {}
        self._gauging: dict[tuple[int, str], Gauging] = {}
        self._duplicates = self._malformed = self._misread = 0
        self._begun: dict[int, Losses] = {}

    def ingest(self, journal: str, event: Mapping[str, Any]) -> None:
        """One line of ``journal``, as a dict of the wire type. Lines may come twice and in any order.

        A line that is no event is counted as malformed. An outcome's ``t`` moves no watermark, its ``ingest_t`` does.
        """
        reading = self._journals.setdefault(journal, JournalReading())
        try:
            self._take(journal, reading, event)
        except (KeyError, TypeError, ValueError):
            self._malformed += 1

    def gone(self, journal: str) -> None:
        """The writer of ``journal`` is gone for good: what it has not written by now will never come."""
        self._journals.setdefault(journal, JournalReading()).closed = True

    def read(self, query: StatisticsQuery, now: int) -> Statistics:
        """As the port says. A block that was closed by an earlier read stays as it is."""
        begun = self._begun.setdefault(query.attempt, self._losses())
        watermark = self._watermark()
        epochs = {e.number: e for e in query.epochs}
        mirrors = {e.number for e in query.epochs if e.kind == "mirror"}
        until = min(watermark, now)
        self._seen.settle(query.attempt, until, mirrors)
        folds: dict[tuple[str, str], Fold] = {}
        pairs: dict[tuple[str, str], PairFold] = {}
        baselines = {}
        late: set[str] = set()
        for plan in query.metrics:
            if plan.family in OF_SERVERS:
                fold = self._gauge(query, plan, epochs, until)
                if fold is not None:
                    folds[plan.name, OVERALL] = fold
                baselines[plan.name] = BaselineSums()
                continue
            tally, folding = self._of(query, plan)
            tally.advance(until, epochs)
            folding.advance(plan, epochs, tally.groups)
            folds.update({(plan.name, s): f for s, f in folding.folds.items()})
            pairs.update({(plan.name, s): p for s, p in folding.pairs.items()})
            baselines[plan.name] = folding.baseline
            late |= tally.late
        total = self._losses()
        since = Losses(*(a - b for a, b in zip(total, begun, strict=True)))
        seen = self._seen.attempt(query.attempt)
        names = {name for m in query.metrics for name in m.outcomes}
        losses = since._replace(
            received=since.received + seen.received,
            late=len(late) + seen.late,
            unknown=self._seen.unknown(names, until - query.grace),
        )
        return Statistics(folds, pairs, baselines, seen.counts(list(epochs)), losses, watermark)

    def _gauge(self, query: StatisticsQuery, plan: MetricPlan, epochs: dict[int, EpochPlan], until: int) -> Fold | None:
        gauging = self._gauging.setdefault((query.attempt, plan.name), Gauging())
        samples = self._samples.get(query.attempt, ())
        gauging.advance(plan, epochs, until, samples, self._seen.attempt(query.attempt).exposures)
        return gauging.fold

    def blocks(self, attempt: int, metric: str) -> list[Block]:
        """Every cell of ``metric`` that was folded so far; only with ``keep_blocks``."""
        gauging = self._gauging.get((attempt, metric))
        if gauging is not None:
            return list(gauging.blocks)
        folding = self._foldings.get((attempt, metric))
        return list(folding.blocks) if folding is not None else []

    def _take(self, journal: str, reading: JournalReading, event: Mapping[str, Any]) -> None:
        kind, seq = event["type"], int(event.get("seq", 0))
        if kind == "journal":
            reading.begin(seq)
            return
        if not reading.new(seq):
            self._duplicates += 1
            return
        if kind == "mark":
            reading.mark(event)
        elif kind == "exposure":
            exposed = Exposed(journal, event)
            self._misread += misread(exposed.attributes)
            self._seen.hold_back(exposed)
        elif kind == "outcome":
            self._seen.hold_back(observation(event))
        elif kind == "sample":
            self._hold_sample(sample(event))
        else:
            raise ValueError(f"no event: {kind}")
        reading.watermark = max(reading.watermark, event.get("ingest_t") or 0 if kind == "outcome" else event["t"])

    def _hold_sample(self, found: Sample) -> None:
        if found.t >= self._seen.attempt(found.attempt).settled_to:
            self._samples.setdefault(found.attempt, []).append(found)

    def _of(self, query: StatisticsQuery, plan: MetricPlan) -> tuple[Tally, Folding]:
        """The state of one metric; a new one where it is counted otherwise than before."""
        counted: object = (
            plan.kind, plan.outcome, plan.denominator, plan.window, plan.block, plan.scale, plan.covariate,
            query.segments, query.grace, query.prediction, query.positive, query.threshold,
            plan.cap if plan.kind in ERRORS else None,
        )  # fmt: skip
        key = (query.attempt, plan.name)
        held = self._tallies.get(key)
        if held is None or held[0] != counted:
            attempt = self._seen.attempt(query.attempt)
            self._tallies[key] = (counted, Tally(query, plan, self._seen, attempt))
            self._foldings[key] = Folding(self._keep)
        return self._tallies[key][1], self._foldings[key]

    def _watermark(self) -> int:
        """Known up to here: the slowest of the journals that still live; of closed ones only the last matters."""
        live = [j.watermark for j in self._journals.values() if not j.closed]
        return min(live) if live else max((j.watermark for j in self._journals.values()), default=0)

    def _losses(self) -> Losses:
        readings = self._journals.values()
        return Losses(
            received=self._seen.received,
            lost=sum(r.lost for r in readings),
            duplicates=self._duplicates + self._seen.duplicates,
            no_unit=sum(r.no_unit for r in readings),
            malformed=self._malformed,
            misread=self._misread,
            clashes=self._seen.clashes,
        )

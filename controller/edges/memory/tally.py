"""One metric, from settled events to closed groups: what every unit contributed to every final block.

A group keeps the units' own values, uncut and not centred. Cells depend on the baseline and the means as well, so
they are made from groups later (``folding``) and can be made again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from controller.core.cells import EpochPlan, MetricPlan, StatisticsQuery
from controller.core.covariates import units_of
from controller.core.plans import bucket_of
from controller.edges.memory.events import ArmKey, Exposed, Label, Observation
from controller.edges.memory.losses import (
    LARGEST,
    Answered,
    Values,
    costs,
    difference,
    in_units,
    of_labels,
    of_pair,
    scores_in,
)
from controller.edges.memory.seen import AttemptSeen, Seen
from controller.kinds import AWAITING, ERRORS, LABELLED, MIRRORED, REQUESTS, SERVED, Kind

Sums = dict[str, dict[ArmKey, Values]]


class Group(NamedTuple):
    """One final block of one epoch: by segment, and by arm and unit, what the unit contributed.

    ``unit``, ``label`` and ``throughput``: (x, y). ``auc``: by row twice the bin, plus 1 for a positive. ``failures``:
    (1 if any). ``latency``: (largest bucket,); of these two also what units met without being evidence. A pair of
    ``label``: (x, y of the champion, x, y of the challenger); of ``auc``: by row twice the place of both bins, plus 1
    for a positive; of ``failures``: (champion failed, challenger failed). Errors have (x, y) twice, uncut and cut at
    the cap, and ``errors``: the champion's rows by log bucket, uncut. ``numbers``: the covariates of those units that
    have one.
    """

    block: int
    epoch: int
    sums: Mapping[str, Mapping[ArmKey, Values]]
    errors: Mapping[int, int] = {}
    numbers: Mapping[str, int] = {}


class Tally:
    """The open blocks of one metric in one attempt, and the groups that are closed. ``late``: ids of outcomes that
    came in after the block was final to which they would have counted."""

    def __init__(self, query: StatisticsQuery, plan: MetricPlan, seen: Seen, attempt: AttemptSeen) -> None:
        self._query, self._plan, self._seen, self._attempt = query, plan, seen, attempt
        self._service = plan.family in ("failures", "latency")
        self._wait = plan.window + query.grace if plan.family in AWAITING else 0
        self._open: dict[tuple[int, int], list[Exposed]] = {}
        self._pairs: dict[tuple[int, int], list[Exposed]] = {}
        self._exposures = self._outcomes = 0
        self.groups: list[Group] = []
        self.late: set[str] = set()

    def advance(self, watermark: int, epochs: Mapping[int, EpochPlan]) -> None:
        """Take in what is settled and close every block that is final at ``watermark``.

        A block of an epoch that the caller does not know yet keeps it and all later ones open.
        """
        for e in self._attempt.exposures[self._exposures :]:
            if e.hashed and e.epoch > 0:
                self._expose(e)
        for o, about in self._seen.outcomes[self._outcomes :]:
            if o.name in self._plan.outcomes and self._comes_late(o, about):
                self.late.add(o.label.outcome_id)
        self._exposures, self._outcomes = len(self._attempt.exposures), len(self._seen.outcomes)
        limit = (watermark - self._wait) // self._plan.block
        for block, number in sorted({*self._open, *self._pairs}):
            if block >= limit or number not in epochs:
                break
            self._close(block, epochs[number])

    def _expose(self, e: Exposed) -> None:
        if e.partner is not None and self._plan.family in MIRRORED:
            # The pair is complete when the later of both is.
            champion, t = e.partner if e.mirror else e, max(e.t, e.partner.t)
            if champion.hashed and e.place > e.partner.place:
                self._pairs.setdefault((t // self._plan.block, e.epoch), []).append(champion)
        if not e.mirror:
            self._open.setdefault((e.t // self._plan.block, e.epoch), []).append(e)

    def _in_time(self, label: Label, t: int) -> bool:
        """Whether an outcome for something that was served at ``t`` came in before its block was final."""
        return label.ingest_t < (t // self._plan.block + 1) * self._plan.block + self._wait

    def _comes_late(self, o: Observation, e: Exposed | None) -> bool:
        window = self._plan.window
        if self._plan.family in LABELLED:
            about = e or self._seen.latest(o.unit or "", o.label.t)
            if about is None or about.attempt != self._query.attempt or o.label.t > about.t + window:
                return False
            return not self._in_time(o.label, about.t)
        unit = (e.unit if e is not None else o.unit) or ""
        t = max(o.label.t, e.t) if e is not None else o.label.t
        entries = (x for x in self._attempt.entries.get(unit, ()) if x.t <= t <= x.t + window)
        return any(not self._in_time(o.label, x.t) for x in entries)

    def _close(self, block: int, epoch: EpochPlan) -> None:
        sums: Sums = {}
        errors: Counter[int] = Counter()
        mirror, uncut = epoch.kind == "mirror", self._plan._replace(cap=None)
        for e in self._open.pop((block, epoch.number), ()):
            key = self._key(e, mirror)
            if key is None:
                continue
            values = self._values(e, key[1])
            if self._plan.kind in ERRORS and e.arm == "champion":
                labels = self._labelled(e, e.t)
                found = costs(self._query, uncut, self._answered(e), labels) if labels else {}
                errors.update(value_bucket(y) for x, y in found.values() if x)
            if values is not None:
                for segment in ("",) if mirror else e.segments(self._query.segments):
                    merge(self._plan, sums.setdefault(segment, {}), key, values)
        for e in self._pairs.pop((block, epoch.number), ()):
            if mirror and e.partner is not None and e.unit is not None:
                values = self._both(e, e.partner)
                if values is not None:
                    for segment in e.segments(self._query.segments):
                        merge(self._plan, sums.setdefault(segment, {}), ("pair", e.unit), values)
        if sums:
            self.groups.append(Group(block, epoch.number, sums, errors, self._numbers(unit for _, unit in sums[""])))

    def _numbers(self, units: Iterable[str]) -> dict[str, int]:
        """What came with each unit's first request of the attempt."""
        name = self._plan.covariate
        if name is None:
            return {}
        found = {unit: units_of(self._attempt.requests[unit][0].attributes.get(name)) for unit in units}
        return {unit: number for unit, number in found.items() if number is not None}

    def _key(self, e: Exposed, mirror: bool) -> ArmKey | None:
        """As whose the exposure counts; None where it counts nowhere."""
        if e.unit is None or (mirror and e.arm != "champion"):
            return None
        if mirror or e.evidence:
            return (e.arm, e.unit)
        return ("unseen", e.unit) if self._service else None

    def _values(self, e: Exposed, unit: str) -> Values | None:
        """What ``e`` alone contributes; None where it contributes nothing."""
        match self._plan.family:
            case "failures":
                return (int(not e.usable),)
            case "latency":
                return (bucket_of(e.latency),)
            case "label" | "auc":
                labels = self._labelled(e, e.t)  # without one the answer is not looked at
                return of_labels(self._query, self._plan, self._answered(e), labels) if labels else None
            case "throughput":
                return (1, self._plan.scale)
            case "pair":
                return None
        entries = self._attempt.entries[unit]
        place = next((i for i, entry in enumerate(entries) if entry is e), None)
        if place is None:
            return None
        left = entries[place + 1].t if place + 1 < len(entries) else None
        return self._denominator(e, unit, left), self._unit_value(e, unit, left)

    def _unit_value(self, e: Exposed, unit: str, left: int | None) -> int:
        plan = self._plan
        if plan.kind is Kind.ACTIVE_UNITS:
            later = (r.t for r in self._attempt.requests[unit] if r.t // plan.block > e.t // plan.block)
            return plan.scale if any(t <= e.t + plan.window and (left is None or t <= left) for t in later) else 0
        found = self._values_of(plan.outcome or "", e, unit, left)
        if plan.kind is Kind.PROPORTION:
            return plan.scale if any(found) else 0
        return max(-LARGEST, min(LARGEST, sum(in_units(value, plan.scale) for value in found)))

    def _denominator(self, e: Exposed, unit: str, left: int | None) -> int:
        name = self._plan.denominator
        if name is None:
            return 1
        if name == REQUESTS:
            times = (r.t for r in self._attempt.requests[unit])
            return sum(e.t <= t <= e.t + self._plan.window and (left is None or t < left) for t in times)
        return min(LARGEST, sum(in_units(max(v, 0.0), 1) for v in self._values_of(name, e, unit, left)))

    def _values_of(self, name: str, e: Exposed, unit: str, left: int | None) -> list[float]:
        return [
            label.value
            for t, label in self._seen.of_unit(name, unit)
            if e.t <= t <= e.t + self._plan.window and (left is None or t < left) and self._in_time(label, e.t)
        ]

    def _labelled(self, e: Exposed, final_t: int) -> dict[int, float]:
        """The label of each row: the earliest within the window, in time for the block of ``final_t``."""
        best: dict[int, Label] = {}
        for row, label in self._seen.labels(self._plan.outcome or "", e):
            due = label.t - e.t <= self._plan.window and self._in_time(label, final_t)
            if due and (row not in best or label < best[row]):
                best[row] = label
        return {row: label.value for row, label in best.items()}

    def _both(self, a: Exposed, b: Exposed) -> Values | None:
        if self._service:
            return (int(not a.usable), int(not b.usable))
        if self._plan.family == "pair":
            return difference(self._query, self._plan, (self._answered(a), self._answered(b)))
        labels = self._labelled(a, max(a.t, b.t))
        return of_pair(self._query, self._plan, (self._answered(a), self._answered(b)), labels) if labels else None

    def _answered(self, e: Exposed) -> Answered:
        scores = scores_in(e.answer, self._query.prediction, e.answer_cut) if e.usable else None
        return Answered(e.usable, scores)


def merge(plan: MetricPlan, into: dict[ArmKey, Values], key: ArmKey, values: Values) -> None:
    """Add to what the key contributes to a block."""
    old = into.get(key)
    if old is None:
        into[key] = values
    elif plan.family == "auc":
        into[key] = old + values
    elif plan.family in SERVED:
        into[key] = tuple(max(a, b) for a, b in zip(old, values, strict=True))
    else:
        into[key] = tuple(a + b for a, b in zip(old, values, strict=True))


def value_bucket(value: int) -> int:
    """The log bucket of the size of a value; the zeros alone are in 0."""
    return max(bucket_of(abs(value)), 1) if value else 0

"""What a request, a unit or a pair of answers contributes to its block: what ``engine.values`` says as SQL."""

from controller.core.cells import MetricPlan
from controller.edges.engine.small.matching import final
from controller.edges.engine.small.rows import Entry, Request, Rows
from controller.edges.engine.span import Span
from controller.edges.memory.losses import LARGEST, Values, costs, difference, in_units, of_labels, of_pair
from controller.edges.memory.tally import value_bucket
from controller.kinds import REQUESTS, Kind


class Worth:
    """Of one metric, from the settled ``rows``. Values are those of ``memory.tally.Group``."""

    def __init__(self, span: Span, rows: Rows) -> None:
        self._plan, self._query, self._grace = span.plan, span.query, span.query.grace
        self._rows = rows

    def alone(self, row: Request) -> Values | None:
        """What a request contributes; None where that is nothing."""
        match self._plan.family:
            case "failures":
                return (int(not row.usable),)
            case "latency":
                return (row.bucket,)
            case "throughput":
                return (1, self._plan.scale)
            case "label" | "auc":
                labels = self._labels(row, row.t)  # without one the answer is not looked at
                return of_labels(self._query, self._plan, row.answered, labels) if labels else None
        return None

    def errors(self, row: Request) -> list[int]:
        """The log buckets of the errors of its labelled rows, uncut."""
        uncut = self._plan._replace(cap=None)
        labels = self._labels(row, row.t)
        found = costs(self._query, uncut, row.answered, labels) if labels else {}
        return [value_bucket(y) for x, y in found.values() if x]

    def entered(self, entry: Entry) -> Values:
        """What a unit contributes to the block in which it entered an epoch."""
        left = self._rows.left(entry)
        return self._below(entry, left), self._above(entry, left)

    def both(self, champion: Request, challenger: Request) -> Values | None:
        """What the two answers to a mirrored request contribute."""
        if self._plan.family == "failures":
            return (int(not champion.usable), int(not challenger.usable))
        if self._plan.family == "pair":
            return difference(self._query, self._plan, (champion.answered, challenger.answered))
        labels = self._labels(champion, max(champion.t, challenger.t))
        return of_pair(self._query, self._plan, (champion.answered, challenger.answered), labels) if labels else None

    def number(self, unit: int) -> int | None:
        """The unit's covariate."""
        if self._plan.covariate is None:
            return None
        return self._rows.number(unit, self._query.covariates.index(self._plan.covariate))

    def _labels(self, row: Request, t: int) -> dict[int, float]:
        """The label of each row: the earliest within the window that came in before the block of ``t`` was final."""
        plan, due = self._plan, final(self._plan, t, self._grace)
        timely = (
            label
            for label in self._rows.labels(row.n, plan.outcome or "")
            if label.t <= row.t + plan.window and label.ingest_t < due
        )
        return {label.row: label.value for label in sorted(timely, reverse=True)}  # the earliest comes last, and stays

    def _above(self, entry: Entry, left: int | None) -> int:
        plan = self._plan
        if plan.kind is Kind.ACTIVE_UNITS:
            later = (entry.t // plan.block + 1) * plan.block
            times = self._rows.times(entry.unit, later, entry.t + plan.window)
            return plan.scale if any(left is None or t <= left for t in times) else 0
        found = self._outcomes(entry, plan.outcome or "", left)
        if plan.kind is Kind.PROPORTION:
            return plan.scale if any(found) else 0
        return _within(sum(in_units(value, plan.scale) for value in found))

    def _below(self, entry: Entry, left: int | None) -> int:
        name = self._plan.denominator
        if name is None:
            return 1
        if name == REQUESTS:
            times = self._rows.times(entry.unit, entry.t, entry.t + self._plan.window)
            return sum(left is None or t < left for t in times)
        return _within(sum(in_units(max(value, 0.0), 1) for value in self._outcomes(entry, name, left)))

    def _outcomes(self, entry: Entry, name: str, left: int | None) -> list[float]:
        """What a unit's outcomes of one name say, while it stayed in the epoch and its window was open."""
        due = final(self._plan, entry.t, self._grace)
        found = self._rows.outcomes(entry.unit, name, entry.t, entry.t + self._plan.window)
        return [value for t, ingest_t, value in found if (left is None or t < left) and ingest_t < due]


def _within(total: int) -> int:
    return max(-LARGEST, min(LARGEST, total))


def is_evidence(plan: MetricPlan, block: int, epoch: int) -> bool:
    """Whether a block of an epoch lies after the baseline."""
    return (block, epoch) > (plan.from_block, plan.from_epoch)

"""The champion's sums of one block before there is evidence."""

from typing import NamedTuple

from controller.core.cells import MetricPlan
from controller.core.covariates import Moments
from controller.edges.engine.terms import bucket
from controller.kinds import Kind


class BaselineCell(NamedTuple):
    """The champion's sums of one block and epoch."""

    units: int = 0
    x: int = 0
    y: int = 0
    nonzero: int = 0
    buckets: tuple[tuple[int, int], ...] = ()
    covaried: Moments = Moments()

    def plus(self, place: int | None, units: int, x: int, y: int, nonzero: int, *moments: int) -> "BaselineCell":
        """With ``units`` more, all in log bucket ``place`` (None: the kind has no histogram)."""
        new = BaselineCell(
            self.units + units,
            self.x + x,
            self.y + y,
            self.nonzero + nonzero,
            self.buckets,
            self.covaried.plus(Moments(*moments)),
        )
        return new if place is None else new.placed(place, units)

    def placed(self, place: int, count: int) -> "BaselineCell":
        """With ``count`` more in log bucket ``place``."""
        histogram = dict(self.buckets)
        histogram[place] = histogram.get(place, 0) + count
        return self._replace(buckets=tuple(sorted(histogram.items())))


def baseline_bucket(plan: MetricPlan, value: int) -> int | None:
    """Where a unit's value lies in the histogram of its kind; None where the kind has none of units."""
    if plan.family == "latency":
        return value
    return value_bucket(value) if plan.kind in (Kind.MEAN, Kind.RATIO) else None


def value_bucket(value: int) -> int:
    """The log bucket of a value; the zeros alone are in 0."""
    return max(bucket(value), 1) if value else 0

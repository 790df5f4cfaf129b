"""One step of the watermark, and what became of the rows that it passed."""

from collections.abc import Iterable
from typing import NamedTuple

from controller.core.cells import MetricPlan

Counts = list[tuple[int, str, int]]  # (epoch, count name, increment)

HORIZON = 600_000_000  # µs within which a repeated request id is a duplicate, and within which pairs are sought


class Settling(NamedTuple):
    """One step of the watermark: rows of ``attempt`` before ``until``, where those before ``since`` were settled.

    ``last_n`` is the number of the last request of the step before.
    """

    attempt: int
    since: int
    until: int
    last_n: int
    mirrors: tuple[int, ...]
    grace: int


class Tally(NamedTuple):
    """What became of the ``staged`` exposures of a step; ``epochs``: (epoch, count name, increment)."""

    staged: int
    kept: int
    duplicates: int
    late: int
    epochs: Counts
    clashes: int


class OutcomeTally(NamedTuple):
    """What became of the ``staged`` outcomes of a step; ``waiting``: how many have no request yet."""

    staged: int
    kept: int
    duplicates: int
    late: int
    unknown: int
    waiting: int


def outcome_names(metrics: Iterable[MetricPlan]) -> list[str]:
    """The outcomes that some metric looks at; of others nobody needs to know whether they are unknown."""
    return sorted({name for m in metrics for name in m.outcomes})

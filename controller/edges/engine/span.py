"""Which rows belong to some blocks of one metric: conditions that every query of cells puts to the settled rows."""

from typing import NamedTuple

from controller.core.cells import EpochPlan, MetricPlan, StatisticsQuery
from controller.edges.engine.settle import deadline, within
from controller.edges.engine.settling import HORIZON


class Span(NamedTuple):
    """Blocks ``first`` … ``last`` of one metric, in the attempt's epochs."""

    plan: MetricPlan
    query: StatisticsQuery
    first: int
    last: int

    @property
    def since(self) -> int:
        """Where the first block begins (µs)."""
        return self.first * self.plan.block

    @property
    def until(self) -> int:
        """Where the last block ends (µs)."""
        return (self.last + 1) * self.plan.block

    def epochs(self, mirror: bool) -> dict[int, EpochPlan]:
        """The mirror epochs, or the others, by number."""
        return {e.number: e for e in self.query.epochs if (e.kind == "mirror") == mirror}

    def final(self, t: str) -> str:
        """SQL: when the block of ``t`` becomes final."""
        return deadline(self.plan, t, self.query.grace)


def evidence(span: Span) -> str:
    """SQL condition on exposures: what counts in weighted epochs."""
    return f"evidence AND epoch IN {within(span.epochs(False))} AND {after_baseline(span.plan, 't')}"


def after_baseline(plan: MetricPlan, t: str) -> str:
    block = f"({t} // {plan.block})"
    return f"({block} > {plan.from_block} OR ({block} = {plan.from_block} AND epoch > {plan.from_epoch}))"


def champions(span: Span) -> str:
    """SQL condition on exposures: the champion's traffic that a baseline may look at."""
    mirrors = within(span.epochs(True))
    wanted = f"CASE WHEN epoch IN {mirrors} THEN hashed ELSE evidence AND epoch IN {within(span.epochs(False))} END"
    return f"NOT challenger AND {wanted}"


def pairs(span: Span) -> str:
    """SQL: requests of mirror epochs that both arms answered; a pair lies where its later answer does."""
    lately = f"t >= {span.since - HORIZON} AND t < {span.until} AND epoch IN {within(span.epochs(True))}"
    return f"""
        SELECT c.n, c.epoch, c.unit, c.combo, greatest(c.t, m.t) AS t, c.usable AS champion_usable,
            m.usable AS challenger_usable, c.scores AS champion_scores, m.scores AS challenger_scores
        FROM (SELECT * FROM requests WHERE NOT mirror AND hashed AND NOT challenger AND {lately}) c
        JOIN (SELECT * FROM requests WHERE mirror AND {lately}) m ON m.h = c.h AND m.epoch = c.epoch
        WHERE greatest(c.t, m.t) >= {span.since}
            AND {after_baseline(span.plan, "greatest(c.t, m.t)").replace("epoch", "c.epoch")}
    """
